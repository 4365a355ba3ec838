//! Reaching a peer that may have several addresses: they are raced, not queued.
//!
//! The next address is begun a quarter of a second after the one before it, or at once when that one fails, and the
//! first to answer with the right certificate wins. So a dead address costs a moment and a hanging one costs nothing.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use rustls::ClientConfig;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::tls;
use crate::trust::Fingerprint;
use crate::wire::link::Refusal;

/// How long one address may take, all included.
pub const ADDRESS_TIMEOUT: Duration = Duration::from_secs(3);
/// When the next address is begun.
const STAGGER: Duration = Duration::from_millis(250);
/// Most addresses that are tried.
const MAX_ADDRESSES: usize = 16;

/// Why no connection could be made: each address tried, and what happened there.
#[derive(Debug, thiserror::Error)]
#[error("{}", describe(.attempts))]
pub struct DialError {
    pub attempts: Vec<(String, AttemptError)>,
}

/// Why one address failed.
#[derive(Debug, thiserror::Error)]
pub enum AttemptError {
    #[error("the name could not be resolved ({0})")]
    Resolve(String),
    #[error("{}", plain(.0))]
    Connect(io::Error),
    #[error("no answer within {} s", ADDRESS_TIMEOUT.as_secs())]
    Timeout,
    #[error("certificate does not match: expected {expected}, got {got}")]
    Mismatch { expected: Fingerprint, got: Fingerprint },
    #[error("it does not speak TLS 1.3")]
    OldTls,
    #[error("TLS failed: {0}")]
    Tls(String),
    #[error("the peer refused: {message}")]
    Refused { code: Refusal, message: String },
    /// The right server, and not the answer that was expected of it.
    #[error("{0}")]
    Answer(String),
}

impl DialError {
    pub fn one(address: &str, error: AttemptError) -> Self {
        Self { attempts: vec![(address.to_owned(), error)] }
    }

    /// The mismatch, where every address that answered showed another certificate.
    pub fn mismatch(&self) -> Option<(Fingerprint, Fingerprint)> {
        self.attempts.iter().find_map(|(_, error)| match error {
            AttemptError::Mismatch { expected, got } => Some((*expected, *got)),
            _ => None,
        })
    }
}

impl DialError {
    /// Whether an address was refused for the TLS that it speaks, and none for anything else that is worth more.
    pub fn is_old_tls(&self) -> bool {
        self.attempts.iter().any(|(_, error)| matches!(error, AttemptError::OldTls))
    }
}

fn describe(attempts: &[(String, AttemptError)]) -> String {
    if attempts.is_empty() {
        return "no address is known".to_owned();
    }
    attempts.iter().map(|(address, why)| format!("{address}: {why}")).collect::<Vec<_>>().join("; ")
}

/// The operating system's words without its error number.
fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "unreachable".to_owned(),
        _ => error.to_string(),
    }
}

/// Runs `attempt` for each address until one succeeds. All failures are told, in the order of the addresses.
pub async fn race<T, F, A>(addresses: &[String], attempt: A) -> Result<T, DialError>
where
    A: Fn(String) -> F,
    F: Future<Output = Result<T, AttemptError>>,
{
    let candidates = addresses.iter().take(MAX_ADDRESSES).cloned().collect();
    let attempt = &attempt;
    staggered(candidates, |address: String| async move {
        tokio::time::timeout(ADDRESS_TIMEOUT, attempt(address)).await.unwrap_or(Err(AttemptError::Timeout))
    })
    .await
    .map_err(|attempts| DialError { attempts })
}

/// A TLS connection to `address` (`host:port`), its certificate taken by `config`.
pub async fn connect(address: &str, config: Arc<ClientConfig>) -> Result<TlsStream<TcpStream>, AttemptError> {
    let found: Vec<SocketAddr> = tokio::net::lookup_host(address)
        .await
        .map_err(|error| AttemptError::Resolve(error.to_string()))?
        .take(MAX_ADDRESSES)
        .collect();
    let none = || AttemptError::Resolve("it has no address".to_owned());
    let tcp = staggered(found, |address: SocketAddr| async move { TcpStream::connect(address).await })
        .await
        .map_err(|failures| {
            failures.into_iter().next().map_or_else(none, |(_, error)| AttemptError::Connect(error))
        })?;
    tune(&tcp).map_err(AttemptError::Connect)?;
    TlsConnector::from(config).connect(tls::name_at(address), tcp).await.map_err(|error| {
        match tls::pin_mismatch(&error) {
            Some(mismatch) => AttemptError::Mismatch { expected: mismatch.expected, got: mismatch.got },
            None if tls::is_old(&error) => AttemptError::OldTls,
            None => AttemptError::Tls(plain(&error)),
        }
    })
}

/// What every TCP connection of ours has: no delay, and probes that find a peer which vanished.
pub fn tune(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let socket = SockRef::from(tcp);
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(Duration::from_secs(30))
            .with_interval(Duration::from_secs(10))
            .with_retries(3),
    )?;
    socket.set_tcp_user_timeout(Some(Duration::from_secs(60)))
}

async fn staggered<C, T, E, F>(candidates: Vec<C>, attempt: impl Fn(C) -> F) -> Result<T, Vec<(C, E)>>
where
    C: Clone,
    F: Future<Output = Result<T, E>>,
{
    let attempt = &attempt;
    let total = candidates.len();
    let mut waiting = candidates.into_iter().enumerate();
    let mut running = FuturesUnordered::new();
    let mut failures: Vec<(usize, C, E)> = Vec::new();
    while failures.len() < total {
        if let Some((position, candidate)) = waiting.next() {
            let begun = candidate.clone();
            running.push(async move { (position, candidate, attempt(begun).await) });
        }
        let ended = if waiting.len() == 0 {
            running.next().await
        } else {
            tokio::time::timeout(STAGGER, running.next()).await.unwrap_or(None)
        };
        match ended {
            Some((_, _, Ok(won))) => return Ok(won),
            Some((position, candidate, Err(error))) => failures.push((position, candidate, error)),
            None => {}
        }
    }
    failures.sort_by_key(|(position, ..)| *position);
    Err(failures.into_iter().map(|(_, candidate, error)| (candidate, error)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hanging_address_does_not_hold_up_the_next_and_every_failure_is_told() {
        let addresses = ["hangs", "refuses", "answers"].map(str::to_owned);
        let attempt = |address: String| async move {
            match address.as_str() {
                "hangs" => std::future::pending().await,
                "refuses" => Err(AttemptError::Connect(io::ErrorKind::ConnectionRefused.into())),
                _ => Ok(address),
            }
        };
        let begun = tokio::time::Instant::now();
        assert_eq!(race(&addresses, attempt).await.unwrap(), "answers");
        assert!(begun.elapsed() < Duration::from_secs(1));

        let error = race(&["refuses".to_owned(), "refuses".to_owned()], attempt).await.unwrap_err();
        assert_eq!(error.to_string(), "refuses: connection refused; refuses: connection refused");
        assert_eq!(race(&[], attempt).await.unwrap_err().to_string(), "no address is known");
    }
}
