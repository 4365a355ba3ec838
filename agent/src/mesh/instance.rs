//! Reaching a healthy instance of a service of this cluster.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use schema::name::ServiceName;
use tokio::net::{TcpStream, lookup_host};

use super::admission::Admitted;
use crate::health::{Health, Status};

/// Where an instance is that gives no address.
const LOCAL: &str = "127.0.0.1";

/// Time that one address has to take the connection.
const CONNECT: Duration = Duration::from_secs(3);

/// Why no instance was reached.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreachable {
    #[error("its checks do not pass")]
    Unhealthy,
    #[error("its address {0} cannot be resolved: {1}")]
    Resolve(String, io::Error),
    #[error("{address} does not take the connection: {source}")]
    Connect { address: SocketAddr, source: io::Error },
    #[error("its address {0} resolves to nothing")]
    NoAddress(String),
}

/// Connects to the first address that takes the connection.
pub(super) async fn reach(
    health: &Health,
    name: &ServiceName,
    admitted: &Admitted,
) -> Result<TcpStream, Unreachable> {
    if health.status(name) != Status::Passing {
        return Err(Unreachable::Unhealthy);
    }
    let host = if admitted.service.address.is_empty() { LOCAL } else { admitted.service.address.as_str() };
    let resolved = tokio::time::timeout(CONNECT, lookup_host((host, admitted.port))).await;
    let addresses = resolved
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|error| Unreachable::Resolve(host.to_owned(), error))?;
    let mut failed = Unreachable::NoAddress(host.to_owned());
    for address in addresses {
        let connected = tokio::time::timeout(CONNECT, TcpStream::connect(address)).await;
        match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(socket) => {
                // Small writes of the far end must not wait for the instance's acknowledgement.
                let _ = socket.set_nodelay(true);
                return Ok(socket);
            }
            Err(source) => failed = Unreachable::Connect { address, source },
        }
    }
    Err(failed)
}
