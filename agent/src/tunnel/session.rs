//! One connection to a peer, as those who open streams on it see it.
//!
//! Before the first frame, the accepting side sends one answer: a TLS 1.3 client learns only from the first read that it
//! was refused, and this makes it hear why.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::Connection;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use super::driver::Driver;
use super::machine::{Machine, Unopened};
use super::stream::{Opening, TunnelStream};
use super::{OpenError, Router, credit};
use crate::task::Tasks;
use crate::trust::Fingerprint;
use crate::wire::link::StreamHeader;

/// Most streams that either side may have open on one connection.
pub const MAX_STREAMS: usize = 32_768;
/// Most streams that somebody who is not linked may have open: it has a farewell to say or to hear, no more.
const STRANGER_STREAMS: usize = 8;
/// Most bytes of an app that leave with a stream's header, before the peer's answer.
pub const EARLY: usize = credit::EARLY as usize;

/// One connection to a peer. Clones are the same connection; it lives until it is closed, from either end.
#[derive(Clone)]
pub struct Session {
    inner: Arc<Inner>,
}

struct Inner {
    id: u64,
    peer: Fingerprint,
    end: End,
    room: Room,
    machine: Mutex<Machine>,
    closed: watch::Sender<Option<Closed>>,
    leaving: watch::Sender<bool>,
}

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    #[error("closed here: {0}")]
    Here(String),
    #[error("closed by the peer")]
    ByPeer,
    #[error("lost: {0}")]
    Lost(String),
}

/// How much a connection may make us hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// A linked cluster's.
    Full,
    /// A stranger's: a window for each of thousands of streams would be gigabytes for anybody who connects.
    Little,
}

/// Which end of the connection this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Dialled,
    Accepted,
}

impl Session {
    pub(super) fn start<S>(
        socket: S,
        tls: Connection,
        end: End,
        peer: Fingerprint,
        room: Room,
        router: Arc<dyn Router>,
        tasks: &Tasks,
    ) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let (limit, purse) = match room {
            Room::Full => (MAX_STREAMS, credit::PURSE),
            Room::Little => (STRANGER_STREAMS, 0),
        };
        let session = Self {
            inner: Arc::new(Inner {
                id: NEXT.fetch_add(1, Ordering::Relaxed),
                peer,
                end,
                room,
                machine: Mutex::new(Machine::new(end, limit, purse)),
                closed: watch::Sender::new(None),
                leaving: watch::Sender::new(false),
            }),
        };
        tasks.spawn("tunnel", Driver::new(socket, tls, session.clone(), router, tasks.clone()).run());
        session
    }

    /// The peer's certificate.
    pub fn peer(&self) -> Fingerprint {
        self.inner.peer
    }

    /// Whether this side opened the connection.
    pub fn was_dialled(&self) -> bool {
        self.inner.end == End::Dialled
    }

    /// What it was given when it began.
    pub fn room(&self) -> Room {
        self.inner.room
    }

    /// How many streams are open: those that this side opened, and the peer's.
    pub fn streams(&self) -> (usize, usize) {
        let machine = self.machine();
        (machine.ours, machine.theirs)
    }

    /// Begins a stream: `header`, and what its app has sent by now (at most [`EARLY`] bytes of it), leave at once.
    pub fn begin(&self, header: &StreamHeader, early: &[u8]) -> Result<Opening, OpenError> {
        let header = serde_json::to_vec(header).map_err(std::io::Error::from)?;
        let early = early.get(..EARLY).unwrap_or(early);
        let opened = self.machine().open(&header, early);
        match opened {
            Ok(id) => Ok(Opening::new(TunnelStream::new(self.clone(), id))),
            Err(Unopened::Ended) => Err(OpenError::Closed),
            Err(Unopened::Leaving) => Err(OpenError::Leaving),
            Err(Unopened::TooMany) => Err(OpenError::TooMany),
        }
    }

    /// Opens a stream and waits for the peer's answer to `header`.
    pub async fn open(&self, header: &StreamHeader) -> Result<TunnelStream, OpenError> {
        self.begin(header, &[])?.answered().await
    }

    /// Tells the peer that this side is going away: neither opens streams any more, those open go on. The session ends
    /// with the last of them.
    pub fn leave(&self) {
        self.machine().leave();
        self.note_leaving();
    }

    /// Whether either side is going away.
    pub fn is_leaving(&self) -> bool {
        *self.inner.leaving.borrow()
    }

    /// Waits until either side is going away.
    pub async fn leaving(&self) {
        // The sender lives as long as this handle.
        let _ = self.inner.leaving.subscribe().wait_for(|leaving| *leaving).await;
    }

    /// Ends the session and every stream on it.
    pub fn close(&self, reason: &str) {
        self.machine().close(reason);
    }

    /// Waits until the session has ended.
    pub async fn closed(&self) -> Closed {
        let mut closed = self.inner.closed.subscribe();
        let ended = closed.wait_for(Option::is_some).await;
        // The sender lives as long as this handle, so the wait ends only with a reason.
        ended.ok().and_then(|reason| reason.clone()).unwrap_or(Closed::ByPeer)
    }

    /// Whether it has ended, or is about to.
    pub fn is_closed(&self) -> bool {
        self.machine().is_ended()
    }

    /// Tells this connection from every other of this process.
    pub fn id(&self) -> u64 {
        self.inner.id
    }

    /// Whether both are the same connection.
    pub fn same(&self, other: &Session) -> bool {
        self.inner.id == other.inner.id
    }

    pub(super) fn machine(&self) -> MutexGuard<'_, Machine> {
        // A panic of one stream's task must not take the others along; each step leaves the machine whole.
        self.inner.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note_leaving(&self) {
        self.inner.leaving.send_if_modified(|leaving| !std::mem::replace(leaving, true));
    }

    pub(super) fn has_closed(&self, closed: Closed) {
        self.inner.closed.send_replace(Some(closed));
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({} to {})", self.inner.id, self.inner.peer)
    }
}
