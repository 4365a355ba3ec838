//! Connections for calls, and why they fail, in words for the one who asked.

use std::error::Error;
use std::io;

use http::{HeaderValue, Request, Response, header};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;

use super::{Body, Client, ClientError, Target};
use crate::trust::Fingerprint;
use crate::trust::certificate::{KeyPair, fingerprint};
use crate::tunnel::tls::Door;
use crate::tunnel::{DialError, connect, tls};

type Driver = JoinHandle<hyper::Result<()>>;

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// What a server showed to somebody who does not know it yet.
#[derive(Debug, Clone)]
pub struct FirstContact {
    pub fingerprint: Fingerprint,
    pub certificate: CertificateDer<'static>,
    /// What was shown along with it, to lead to whoever signed it.
    pub intermediates: Vec<CertificateDer<'static>>,
}

/// Asks `address` for the certificate that it shows at `door` and hangs up: nothing is told to whoever answers.
pub async fn first_contact(address: &str, door: Door) -> Result<FirstContact, ClientError> {
    let agent = address.to_owned();
    let config = tls::client_config_unpinned(door.alpn())
        .map_err(|error| ClientError::Unreachable { agent: agent.clone(), reason: error.to_string() })?;
    let stream = connect::race(&[address.to_owned()], |address| {
        let config = config.clone();
        async move { connect::connect(&address, config).await }
    })
    .await
    .map_err(|error| dial_error(agent.clone(), &error))?;
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::split_first);
    let (certificate, intermediates) =
        shown.ok_or_else(|| ClientError::Broken { agent, reason: "it showed no certificate".to_owned() })?;
    Ok(FirstContact {
        fingerprint: fingerprint(certificate),
        certificate: certificate.clone(),
        intermediates: intermediates.to_vec(),
    })
}

impl Client {
    /// A connection of its own for one call, and the task that drives it.
    pub(super) async fn connect(&self) -> Result<(SendRequest<Body>, Driver), ClientError> {
        let stream: Box<dyn Duplex> = match &self.target {
            Target::Unix(path) => Box::new(UnixStream::connect(path).await.map_err(|error| {
                ClientError::Unreachable { agent: self.agent(), reason: socket_reason(&error) }
            })?),
            Target::Pinned { name, addresses, pin, door, identity, following } => {
                let pin = self.pin().unwrap_or(*pin);
                let connected =
                    match (dial(name, addresses, pin, *door, identity.as_deref()).await?, following) {
                        (Err(error), Some(following)) if error.mismatch().is_some() => {
                            // Boxed: the proof is asked for by a client, which connects.
                            if Box::pin(following.follow(pin, &error)).await {
                                let pin = self.pin().unwrap_or(pin);
                                dial(name, addresses, pin, *door, identity.as_deref()).await?
                            } else {
                                Err(error)
                            }
                        }
                        (connected, _) => connected,
                    };
                Box::new(connected.map_err(|error| dial_error(name.clone(), &error))?)
            }
        };
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(&error))?;
        // It ends with its one call, for the sender is dropped then; or the connection is taken over by another protocol.
        Ok((sender, tokio::spawn(connection.with_upgrades())))
    }

    pub(super) async fn send(
        &self,
        mut sender: SendRequest<Body>,
        driver: Driver,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, ClientError> {
        request.headers_mut().insert(header::HOST, HeaderValue::from_static("comity"));
        match sender.send_request(request).await {
            Ok(response) => Ok(response),
            Err(error) => {
                drop(sender);
                // A server that refuses a TLS client is heard only at the first read, and by the connection: the
                // request was merely cancelled.
                Err(match driver.await {
                    Ok(Err(cause)) => self.broken(&cause),
                    _ => self.broken(&error),
                })
            }
        }
    }
}

async fn dial(
    name: &str,
    addresses: &[String],
    pin: Fingerprint,
    door: Door,
    identity: Option<&KeyPair>,
) -> Result<Result<TlsStream<TcpStream>, DialError>, ClientError> {
    let config = tls::client_config_pinned(pin, identity, door.alpn())
        .map_err(|error| ClientError::Unreachable { agent: name.to_owned(), reason: error.to_string() })?;
    Ok(connect::race(addresses, |address| {
        let config = config.clone();
        async move { connect::connect(&address, config).await }
    })
    .await)
}

fn dial_error(agent: String, error: &DialError) -> ClientError {
    match error.mismatch() {
        Some((expected, got)) => ClientError::Mismatch { agent, expected, got },
        None if error.is_old_tls() => ClientError::OldTls { agent },
        None => ClientError::Unreachable { agent, reason: error.to_string() },
    }
}

fn socket_reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such socket".to_owned(),
        io::ErrorKind::ConnectionRefused => "nobody listens on the socket".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "the socket is for root and for the user that the agent runs as".to_owned()
        }
        _ => error.to_string(),
    }
}

/// The innermost error: what happened, without the layers that passed it on.
pub(super) fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    match cause.downcast_ref::<io::Error>() {
        Some(error) if error.kind() == io::ErrorKind::UnexpectedEof => "it hung up".to_owned(),
        // An `io::Error` that wraps another hides it from `source`.
        Some(error) => error.get_ref().map_or_else(|| error.to_string(), ToString::to_string),
        None => cause.to_string(),
    }
}
