//! Addresses of instances that are declared by a host name. What the resolver says is kept for a moment, so that a
//! burst of connections is one question.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::Instant;

/// How long an answer is good for.
const KEPT: Duration = Duration::from_secs(5);
/// Time that the resolver has.
const LIMIT: Duration = Duration::from_secs(3);
/// Names that are kept; beyond them every connection asks.
const MOST: usize = 1024;
/// Addresses of one name that are tried.
const ADDRESSES: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Resolver {
    known: Mutex<HashMap<Box<str>, Known>>,
}

#[derive(Debug, Clone)]
struct Known {
    addresses: Arc<[SocketAddr]>,
    until: Instant,
}

impl Resolver {
    /// The addresses of `host`, with `port`; at least one.
    pub(super) async fn resolve(&self, host: &str, port: u16) -> io::Result<Arc<[SocketAddr]>> {
        let now = Instant::now();
        // The port is a part of what is kept: two instances on one host are two names.
        let name = format!("{host}:{port}");
        if let Some(known) = self.lock().get(name.as_str()).filter(|known| known.until > now) {
            return Ok(known.addresses.clone());
        }
        let found = tokio::time::timeout(LIMIT, lookup_host((host, port))).await;
        let found = found.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        let addresses: Arc<[SocketAddr]> = found.take(ADDRESSES).collect();
        if addresses.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        }
        let mut known = self.lock();
        if known.len() >= MOST {
            known.retain(|_, known| known.until > now);
        }
        if known.len() < MOST {
            known.insert(name.into(), Known { addresses: addresses.clone(), until: now + KEPT });
        }
        Ok(addresses)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Box<str>, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
