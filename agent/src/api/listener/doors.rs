//! Where the network comes in: a listener that can be moved while connections go on.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Mutex, MutexGuard, oneshot};
use tokio_util::sync::CancellationToken;

use super::network::{self, Bound, ListenError};
use super::{ListenerError, Network};
use crate::settings::{Addresses, Listen};
use crate::sockets::Sockets;

/// How long the service manager may take to let go of a socket that is given back to it.
const LET_GO: Duration = Duration::from_secs(1);
/// How often that is looked for.
const LOOK: Duration = Duration::from_millis(10);

/// The listener of this moment, if there is one.
pub struct Doors {
    /// Said when the agent was started: the setting has no say then.
    fixed: bool,
    /// Where others are told to come, whatever is bound; empty: where it is bound.
    advertise: Vec<String>,
    addresses: Arc<Addresses>,
    sockets: Arc<Sockets>,
    network: OnceLock<Arc<Network>>,
    open: Mutex<Option<Open>>,
    /// Handshakes that came to nothing.
    refused: AtomicU64,
}

struct Open {
    at: SocketAddr,
    close: CancellationToken,
    closed: oneshot::Receiver<()>,
}

/// Why the listener stays where it is.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    #[error(
        "core.https_address: this agent was started with --listen, which goes before the setting; start it without to \
         have the setting count"
    )]
    Fixed,
    #[error("core.https_address: {0}")]
    Listen(#[from] ListenError),
}

/// A listener that is bound and takes no connections yet.
pub struct Opening<'a> {
    doors: &'a Doors,
    open: MutexGuard<'a, Option<Open>>,
    listener: Option<Bound>,
    /// Where the old one was, if it had to make room.
    made_room: Option<SocketAddr>,
}

impl Doors {
    pub fn new(
        fixed: bool,
        advertise: Vec<String>,
        addresses: Arc<Addresses>,
        sockets: Arc<Sockets>,
    ) -> Arc<Self> {
        let (network, open, refused) = (OnceLock::new(), Mutex::default(), AtomicU64::new(0));
        Arc::new(Self { fixed, advertise, addresses, sockets, network, open, refused })
    }

    /// How many TLS handshakes have come to nothing since the agent started.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Counts one more.
    pub(super) fn refuse(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// Binds `listen`, beside the old listener wherever the two can stand beside each other. Nothing comes in by it
    /// before `open`; if that is not to be, `abandon` must be called.
    pub async fn prepare(&self, listen: Listen) -> Result<Opening<'_>, DoorError> {
        if self.fixed {
            return Err(DoorError::Fixed);
        }
        let mut open = self.open.lock().await;
        let port = listen.addresses().first().map(SocketAddr::port);
        let bound = match network::bind(&self.sockets, listen) {
            Err(ListenError::InUse { .. }) if open.as_ref().map(|open| open.at.port()) == port => None,
            bound => Some(bound?),
        };
        if let Some(listener) = bound {
            return Ok(Opening { doors: self, open, listener, made_room: None });
        }
        // The old one is in the way: one address on the same port includes the other.
        let made_room = close(open.take()).await;
        match self.bind_after(listen).await {
            Ok(listener) => Ok(Opening { doors: self, open, listener, made_room }),
            Err(error) => {
                Opening { doors: self, open, listener: None, made_room }.abandon().await;
                Err(error.into())
            }
        }
    }

    /// Binds what was just closed here: where the service manager had a copy, a moment later.
    async fn bind_after(&self, listen: Listen) -> Result<Option<Bound>, ListenError> {
        let began = tokio::time::Instant::now();
        loop {
            match network::bind(&self.sockets, listen) {
                Err(ListenError::InUse { .. })
                    if self.sockets.manager().is_there() && began.elapsed() < LET_GO =>
                {
                    tokio::time::sleep(LOOK).await;
                }
                bound => return bound,
            }
        }
    }

    /// Lets connections in by the agent's first listener, and by every later one in the same way.
    pub(super) async fn begin(
        &self,
        network: Arc<Network>,
        listener: Option<Bound>,
    ) -> Result<(), ListenerError> {
        let _ = self.network.set(network);
        let mut open = self.open.lock().await;
        if let Some(listener) = listener {
            *open = self.admit(listener)?;
        }
        Ok(())
    }

    fn admit(&self, bound: Bound) -> Result<Option<Open>, ListenerError> {
        let Some(network) = self.network.get() else { return Ok(None) };
        let Bound { lease, listener } = bound;
        let at = listener.local_addr()?;
        let listener = TcpListener::from_std(listener)?;
        let (close, (done, closed)) = (CancellationToken::new(), oneshot::channel());
        let (serving, closing) = (Arc::clone(network), close.clone());
        network.api.tasks().spawn("listener", async move {
            serving.accept(&listener, closing).await;
            drop(lease);
            drop(listener);
            // Nobody may wait for it.
            let _ = done.send(());
        });
        Ok(Some(Open { at, close, closed }))
    }
}

impl Opening<'_> {
    /// Lets connections in here and no longer at the old place. Those that are open live on.
    pub fn open(mut self) -> Result<(), ListenerError> {
        let opened = match self.listener.take() {
            Some(listener) => self.doors.admit(listener)?,
            None => None,
        };
        let addresses = match &opened {
            Some(open) if self.doors.advertise.is_empty() => network::reachable(open.at),
            Some(_) => self.doors.advertise.clone(),
            None => Vec::new(),
        };
        let listening = opened.as_ref().map(|open| open.at);
        self.doors.addresses.replace(addresses);
        if let Some(old) = std::mem::replace(&mut *self.open, opened) {
            old.close.cancel();
        }
        tracing::info!(listening = listening.map(tracing::field::display), "the listener has moved");
        Ok(())
    }

    /// Leaves everything as it was.
    pub async fn abandon(mut self) {
        let Some(at) = self.made_room else { return };
        self.listener = None;
        let reopened =
            self.doors.bind_after(Listen::At(at)).await.map_err(|error| error.to_string()).and_then(
                |listener| match listener {
                    Some(listener) => self.doors.admit(listener).map_err(|error| error.to_string()),
                    None => Ok(None),
                },
            );
        match reopened {
            Ok(open) => *self.open = open,
            Err(error) => tracing::error!(%error, "the old listener could not be opened again"),
        }
    }
}

/// Where the listener was that is closed by now.
async fn close(open: Option<Open>) -> Option<SocketAddr> {
    let Open { at, close, closed } = open?;
    close.cancel();
    // An error means that the listener's task is gone, and the listener with it.
    let _ = closed.await;
    Some(at)
}
