//! Reaching a healthy instance of a service of this cluster.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use schema::kind::service::Service;
use schema::name::ServiceName;
use tokio::net::{TcpStream, lookup_host};

use super::admission::Admitted;
use crate::health::{Health, Status};
use crate::wire::traffic::Cause;

/// Where an instance is that gives no address.
const LOCAL: &str = "127.0.0.1";

/// Time that one address has to take the connection.
const CONNECT: Duration = Duration::from_secs(3);

/// Instances that are tried for one connection: whoever waits for it does not wait for ever.
const TRIES: usize = 3;

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

impl Unreachable {
    pub(super) fn cause(&self) -> Cause {
        match self {
            Unreachable::Unhealthy => Cause::NoInstance,
            Unreachable::Resolve(..) | Unreachable::Connect { .. } | Unreachable::NoAddress(_) => {
                Cause::Connect
            }
        }
    }
}

/// Connects to an instance that passes its checks, each in turn having the first call; where none does, to one that
/// warns; never to one that is critical or out of service. An instance that does not take the connection is passed over.
pub(super) async fn reach(
    health: &Health,
    name: &ServiceName,
    admitted: &Admitted,
) -> Result<TcpStream, Unreachable> {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    let mut well = Vec::new();
    let mut warning = Vec::new();
    for instance in &*admitted.instances {
        let Some(port) = instance.service.port else { continue };
        match health.instance(name, &instance.id).status {
            Status::Passing => well.push((&*instance.service, port)),
            Status::Warning => warning.push((&*instance.service, port)),
            Status::Critical | Status::Maintenance => {}
        }
    }
    let turn = TURN.fetch_add(1, Ordering::Relaxed);
    for group in [&mut well, &mut warning] {
        if !group.is_empty() {
            let first = turn % group.len();
            group.rotate_left(first);
        }
    }
    let mut failed = Unreachable::Unhealthy;
    for (service, port) in well.into_iter().chain(warning).take(TRIES) {
        match connect(service, port).await {
            Ok(socket) => return Ok(socket),
            Err(why) => failed = why,
        }
    }
    Err(failed)
}

/// Connects to the first address that takes the connection.
async fn connect(service: &Service, port: u16) -> Result<TcpStream, Unreachable> {
    let host = if service.address.is_empty() { LOCAL } else { service.address.as_str() };
    let resolved = tokio::time::timeout(CONNECT, lookup_host((host, port))).await;
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
