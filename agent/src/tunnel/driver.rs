//! The task behind a session: it alone reads and writes the connection.
//!
//! What streams have to send gathers in the session's queue, and the driver, once woken, lets every other task that is
//! ready go before it: so the small writes of many connections leave in one record and one call to the system.

use std::future::poll_fn;
use std::io;
use std::sync::{Arc, MutexGuard};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures::future::FutureExt as _;
use rustls::Connection;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Interval, MissedTickBehavior};

use super::Router;
use super::machine::{Event, Machine};
use super::queue::Queue;
use super::records::{Records, Took};
use super::session::{Closed, Room, Session};
use super::stream::{Incoming, TunnelStream};
use super::wire::{Decoder, Frame, StreamId, Violation};
use crate::task::Tasks;
use crate::wire::link::{Refusal, StreamHeader};
use crate::wire::printable;

/// How often it is looked whether the peer is still there.
const LOOK: Duration = Duration::from_secs(1);
/// Silence after which the peer is asked whether it is there, and how long it may take to say so.
const SILENCE: Duration = Duration::from_secs(15);
const ANSWER: Duration = Duration::from_secs(10);
/// How long an orderly end may take before the connection is dropped.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Reads from the socket before other tasks have their turn.
const READS: usize = 4;

/// Why reading ended.
enum Fault {
    Io(io::Error),
    Broken(Violation),
    Closed,
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

pub struct Driver<S> {
    records: Records<S>,
    decoder: Decoder,
    /// What has been taken out of the session's queue and is not sent yet.
    sending: Queue,
    /// Others have been let go first.
    deferred: bool,
    session: Session,
    router: Arc<dyn Router>,
    tasks: Tasks,
    look: Interval,
    heard: Instant,
    asked: Option<Instant>,
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Driver<S> {
    pub fn new(socket: S, tls: Connection, session: Session, router: Arc<dyn Router>, tasks: Tasks) -> Self {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            records: Records::new(socket, tls),
            decoder: Decoder::default(),
            sending: Queue::default(),
            deferred: false,
            session,
            router,
            tasks,
            look,
            heard: Instant::now(),
            asked: None,
        }
    }

    /// Drives the session to its end.
    pub async fn run(mut self) {
        let (parting, cutting) = (self.tasks.parting(), self.tasks.cutting());
        let mut told = false;
        let closed = loop {
            tokio::select! {
                biased;
                closed = poll_fn(|cx| self.poll(cx)) => break closed,
                () = parting.cancelled(), if !told => {
                    told = true;
                    self.session.leave();
                }
                () = cutting.cancelled() => break Closed::Here("the agent is shutting down".to_owned()),
            }
        };
        self.machine().end();
        if !matches!(closed, Closed::ByPeer) {
            let reason = closed.to_string();
            self.machine().queue.tell(&Frame::Close { reason: reason.as_bytes() });
            // Best effort: the peer is told, if it listens.
            let farewell = async {
                poll_fn(|cx| self.poll_close(cx)).await?;
                poll_fn(|cx| self.records.poll_drain(cx)).await
            };
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, farewell).await;
        }
        let Self { session, records, .. } = self;
        drop(records);
        tracing::debug!(peer = %session.peer(), reason = %closed, "tunnel closed");
        session.has_closed(closed);
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.session.machine()
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Closed> {
        let mut calm = false;
        for _ in 0..READS {
            match self.poll_take(cx) {
                Poll::Pending => {
                    calm = true;
                    break;
                }
                Poll::Ready(Ok(Took::Bytes)) => {}
                Poll::Ready(Ok(Took::End) | Err(Fault::Closed)) => return Poll::Ready(Closed::ByPeer),
                Poll::Ready(Err(Fault::Io(error))) => return Poll::Ready(Closed::Lost(error.to_string())),
                Poll::Ready(Err(Fault::Broken(rule))) => {
                    let peer = self.session.peer();
                    // Anybody can be a stranger, and as often as they like.
                    match self.session.room() {
                        Room::Full => {
                            tracing::warn!(%peer, %rule, "the peer breaks the rules; its connection is closed");
                        }
                        Room::Little => {
                            tracing::debug!(%peer, %rule, "a stranger breaks the rules; its connection is closed");
                        }
                    }
                    return Poll::Ready(Closed::Lost(format!("the peer broke the rules: {rule}")));
                }
            }
        }
        if !calm {
            cx.waker().wake_by_ref();
        }
        if let Poll::Ready(closed) = self.poll_present(cx) {
            return Poll::Ready(closed);
        }
        match self.poll_send(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Closed::Lost(error.to_string())),
            Poll::Ready(Ok(())) => match self.over() {
                Some(reason) => Poll::Ready(Closed::Here(reason)),
                None => Poll::Pending,
            },
            Poll::Pending => match self.machine().closing.clone() {
                // What cannot be sent now is not waited for.
                Some(reason) => Poll::Ready(Closed::Here(reason)),
                None => Poll::Pending,
            },
        }
    }

    /// Why the session is to end from this side, if it is.
    fn over(&self) -> Option<String> {
        let machine = self.machine();
        let left = || machine.has_left().then(|| "this side has left".to_owned());
        machine.closing.clone().or_else(left)
    }

    /// Reads once, and sees to what has arrived.
    fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<Result<Took, Fault>> {
        let Self { records, decoder, session, heard, asked, .. } = self;
        let mut opened: Vec<(StreamId, Vec<u8>)> = Vec::new();
        let mut machine: Option<MutexGuard<'_, Machine>> = None;
        let took = records.poll_take(cx, |mut bytes| {
            let machine = machine.get_or_insert_with(|| {
                (*heard, *asked) = (Instant::now(), None);
                session.machine()
            });
            while let Some(frame) = decoder.next(&mut bytes).map_err(Fault::Broken)? {
                match machine.receive(&frame).map_err(Fault::Broken)? {
                    // A pong has been heard, as anything else.
                    Event::Nothing | Event::Pong => {}
                    Event::Opened { id, header } => opened.push((id, header.to_vec())),
                    Event::Leaving => session.note_leaving(),
                    Event::Closed { reason } => {
                        machine.hand_back();
                        let reason = printable(&String::from_utf8_lossy(reason));
                        tracing::debug!(peer = %session.peer(), reason, "the peer closes the connection");
                        return Err(Fault::Closed);
                    }
                }
            }
            Ok(())
        });
        drop(machine);
        for (id, header) in opened {
            self.receive(id, &header);
        }
        took
    }

    /// Looks now and then whether the peer is there.
    fn poll_present(&mut self, cx: &mut Context<'_>) -> Poll<Closed> {
        ready!(self.look.poll_tick(cx));
        // The tick that was taken does not call again for the next.
        cx.waker().wake_by_ref();
        let (turned_away, shed) = {
            let mut machine = self.machine();
            (std::mem::take(&mut machine.turned_away), std::mem::take(&mut machine.shed))
        };
        if shed > 0 {
            tracing::warn!(peer = %self.session.peer(), shed, "too much was held of streams that nobody reads; those that held most were reset");
        }
        if turned_away > 0 {
            tracing::warn!(peer = %self.session.peer(), turned_away, "the peer has as many streams open as it may; others were turned away");
        }
        let silent = self.heard.elapsed();
        if self.asked.is_some_and(|asked| asked.elapsed() >= ANSWER) {
            return Poll::Ready(Closed::Lost(format!("nothing has arrived for {} s", silent.as_secs())));
        }
        if silent >= SILENCE && self.asked.is_none() {
            self.asked = Some(Instant::now());
            self.machine().queue.tell(&Frame::Ping(0));
        }
        Poll::Pending
    }

    /// Sends what there is; ready when there is nothing more.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.records.poll_send(cx, &mut self.sending))?;
            let mut machine = self.session.machine();
            if machine.queue.is_empty() {
                machine.register(cx);
                self.deferred = false;
                return Poll::Ready(Ok(()));
            }
            if !self.deferred && machine.queue.room() > 0 {
                self.deferred = true;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            machine.queue.move_to(&mut self.sending);
            machine.call_next();
        }
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.records.poll_send(cx, &mut self.sending))?;
        self.session.machine().queue.move_to(&mut self.sending);
        self.records.poll_close(cx, &mut self.sending)
    }

    /// Serves one stream that the peer opened, in a task of its own.
    fn receive(&self, id: StreamId, header: &[u8]) {
        let stream = TunnelStream::new(self.session.clone(), id);
        let header = match serde_json::from_slice::<StreamHeader>(header) {
            Ok(header) => header,
            Err(error) => {
                tracing::debug!(peer = %self.session.peer(), %error, "a stream without a header that makes sense");
                return stream.refuse(Refusal::Malformed, "the stream's header made no sense");
            }
        };
        let (session, router) = (self.session.clone(), self.router.clone());
        self.tasks.spawn("stream", async move {
            let serve = router.route(&session, Incoming::new(header, stream));
            // A handler's fault ends its stream, and no other.
            if std::panic::AssertUnwindSafe(serve).catch_unwind().await.is_err() {
                tracing::error!(peer = %session.peer(), "a stream's handler panicked");
            }
        });
    }
}
