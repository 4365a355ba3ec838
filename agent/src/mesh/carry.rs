//! One connection of an app, from its first byte to its end: the upstream's targets in turn, until one takes it.
//!
//! A target is passed over where there is no way to it: no connection to its peer, no instance that is well, none that
//! takes the connection. A denial is an answer and not a fault, so it is never passed over: the app sees a reset.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use schema::name::LinkName;
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;

use super::Mesh;
use super::admission::Refused;
use super::instance::reach;
use super::relay::{self, join};
use super::socket::Socket;
use super::targets::{Outlook, Route, Target};
use crate::tunnel::{EARLY, OpenError, Session, TunnelStream};
use crate::wire::link::{Refusal, StreamHeader};
use crate::wire::traffic::{Cause, Denial};

/// Sessions of one link that one connection tries. Each but the last closed, or its peer went away, at that very moment.
const SESSIONS: usize = 3;

/// Why a connection did not end by itself.
enum Failed {
    /// Never made, or its permit fell: counted and told already.
    Counted,
    /// The upstream leads elsewhere now, or is gone.
    Rerouted,
    Broke(io::Error),
    Draining,
}

/// Carries one connection to its end, or until the route is another.
pub(super) async fn carry(mesh: &Mesh, mut app: Socket, route: &Route, from: Option<SocketAddr>) {
    let arrived = Instant::now();
    // The target that was tried last: what is told of the connection's end is of that one.
    let mut at = 0;
    let ended = tokio::select! {
        // First, so that not a byte passes once the way is closed.
        biased;
        () = route.cut.cancelled() => Err(closed(mesh)),
        ended = attempts(mesh, &mut app, route, from, arrived, &mut at) => ended,
    };
    let Err(failed) = ended else { return };
    app.reset();
    let source = &route.course.owner;
    let destination = route.targets.get(at).map(|target| tracing::field::display(target.service()));
    match &failed {
        Failed::Rerouted => {
            if let Some(target) = route.targets.get(at) {
                target.counters(mesh).cut(&"its upstream was changed");
            }
        }
        Failed::Broke(error) => tracing::debug!(%source, destination, %error, "connection broke"),
        Failed::Counted | Failed::Draining => {}
    }
}

fn closed(mesh: &Mesh) -> Failed {
    if mesh.parts.tasks.cutting().is_cancelled() { Failed::Draining } else { Failed::Rerouted }
}

/// What came of one target.
enum Attempt {
    /// It was the way: the connection has ended, one way or the other.
    Made(Result<(), Failed>),
    /// There is no way to it now: counted and told already.
    PassedOver,
}

/// A connection that looks for its way.
struct Call<'a> {
    mesh: &'a Mesh,
    app: &'a mut Socket,
    from: Option<SocketAddr>,
    arrived: Instant,
    /// What the app had sent when it arrived. Kept until a target has taken it.
    early: Vec<u8>,
}

async fn attempts(
    mesh: &Mesh,
    app: &mut Socket,
    route: &Route,
    from: Option<SocketAddr>,
    arrived: Instant,
    tried: &mut usize,
) -> Result<(), Failed> {
    let early = early(app).map_err(Failed::Broke)?;
    let mut call = Call { mesh, app, from, arrived, early };
    let mut left = route.order(mesh);
    left.reverse();
    while let Some(&(next, outlook)) = left.last() {
        // Nothing better is left than links that are down: the first of them to come up is it.
        let at = match outlook {
            Outlook::Down => tokio::select! {
                up = Box::pin(first_up(mesh, route, &left)) => up,
                () = call.app.broken() => next,
            },
            _ => next,
        };
        left.retain(|(other, _)| *other != at);
        *tried = at;
        let target = &route.targets[at];
        // Where there are others to try, nobody waits for a link.
        let patience = if left.is_empty() { Patience::UntilItIsBack } else { Patience::None };
        let attempt = match &target.peer {
            Some(link) => abroad(&mut call, target, link, patience).await,
            None => at_home(&mut call, target).await,
        };
        match attempt {
            Attempt::Made(ended) => return ended,
            Attempt::PassedOver => route.shun(at),
        }
    }
    Err(Failed::Counted)
}

/// What the app has sent by now. It goes out with the opening of the stream, and is kept until that is answered.
fn early(app: &Socket) -> io::Result<Vec<u8>> {
    thread_local! {
        static ROOM: RefCell<Box<[u8]>> = RefCell::new(vec![0; EARLY].into());
    }
    ROOM.with_borrow_mut(|room| match app.read_now(room) {
        Ok(read) => Ok(room[..read].to_vec()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Vec::new()),
        Err(error) => Err(error),
    })
}

/// Of the targets in `left` whose links are down, the first whose link comes back; else the first.
async fn first_up(mesh: &Mesh, route: &Route, left: &[(usize, Outlook)]) -> usize {
    let down = left.iter().rev().filter(|(_, outlook)| *outlook == Outlook::Down).map(|(at, _)| *at);
    let back = |at: usize| async move {
        let link = route.targets[at].peer.as_ref()?;
        mesh.parts.sessions.wait(link, None).await.map(|_| at)
    };
    let first = down.clone().next().unwrap_or_default();
    let mut coming: FuturesUnordered<_> = down.map(back).collect();
    while let Some(ended) = coming.next().await {
        if let Some(up) = ended {
            return up;
        }
    }
    first
}

/// Whether a connection waits for a link that is expected back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    None,
    UntilItIsBack,
}

/// A destination behind a link.
async fn abroad(call: &mut Call<'_>, target: &Target, link: &LinkName, patience: Patience) -> Attempt {
    let Call { mesh, app, from, arrived, early } = call;
    let header = StreamHeader::Service {
        destination: target.service().clone(),
        source: target.wish.request.source.service.clone(),
        from: *from,
    };
    let counters = target.counters(mesh);
    let opened = tokio::select! {
        biased;
        opened = open(mesh, link, &header, early, patience) => opened,
        () = app.broken() => {
            counters.failed(Cause::Gone, &"the app went away before its connection was made");
            return Attempt::Made(Err(Failed::Counted));
        }
    };
    let stream = match opened {
        Ok(stream) => stream,
        Err(Miss::Denied(reason)) => {
            counters.denied(Denial::Peer, &reason);
            return Attempt::Made(Err(Failed::Counted));
        }
        Err(Miss::Lost(reason)) => {
            counters.failed(Cause::LinkDown, &reason);
            return Attempt::Made(Err(Failed::Counted));
        }
        Err(Miss::Unavailable(cause, reason)) => {
            counters.failed(cause, &reason);
            return Attempt::PassedOver;
        }
    };
    let _open = counters.carried(arrived.elapsed());
    counters.sent().fetch_add(early.len() as u64, Relaxed);
    // It may be long until the end, and they are there.
    *early = Vec::new();
    let ended = relay::carry(app, stream, counters.of_app()).await;
    Attempt::Made(ended.map_err(Failed::Broke))
}

/// Why a stream was not opened.
pub(super) enum Miss {
    Denied(String),
    /// It is not known how far the opening came.
    Lost(String),
    Unavailable(Cause, String),
}

/// Opens a stream over the link's session; a session that turns out to be ending is replaced by the next.
pub(super) async fn open(
    mesh: &Mesh,
    link: &LinkName,
    header: &StreamHeader,
    early: &[u8],
    patience: Patience,
) -> Result<TunnelStream, Miss> {
    let mut stale: Option<Session> = None;
    for _ in 0..SESSIONS {
        let Some(session) = session(mesh, link, stale.as_ref(), patience).await else { break };
        let opened = match session.begin(header, early) {
            Ok(opening) => opening.answered().await,
            Err(error) => Err(error),
        };
        match opened {
            Ok(stream) => return Ok(stream),
            Err(OpenError::Closed | OpenError::Leaving) => stale = Some(session),
            Err(OpenError::Lost) if early.is_empty() => stale = Some(session),
            // What the app has sent may be with an instance by now, which must not get it twice.
            Err(error @ (OpenError::Lost | OpenError::Timeout | OpenError::Io(_))) if !early.is_empty() => {
                return Err(Miss::Lost(error.to_string()));
            }
            Err(OpenError::Refused { code: Refusal::Denied, message }) => {
                return Err(Miss::Denied(format!("{link} says: {message}")));
            }
            Err(error) => {
                let cause = match &error {
                    OpenError::TooMany => Cause::TooMany,
                    OpenError::Refused { .. } => Cause::Peer,
                    _ => Cause::LinkDown,
                };
                return Err(Miss::Unavailable(cause, error.to_string()));
            }
        }
    }
    Err(Miss::Unavailable(Cause::LinkDown, format!("there is no connection to {link}")))
}

/// The link's session, other than `stale`.
async fn session(
    mesh: &Mesh,
    link: &LinkName,
    stale: Option<&Session>,
    patience: Patience,
) -> Option<Session> {
    let sessions = &mesh.parts.sessions;
    // Almost always it is there.
    let there = sessions.get(link).filter(|session| !stale.is_some_and(|stale| stale.same(session)));
    if there.is_some() || patience == Patience::None {
        return there;
    }
    Box::pin(sessions.wait(link, stale)).await
}

/// A destination of this cluster: the same question as a peer's connection meets, and the same watch on the answer.
async fn at_home(call: &mut Call<'_>, target: &Target) -> Attempt {
    let Call { mesh, app, from, arrived, early } = call;
    let grant = match mesh.grants.ask(&target.wish) {
        Ok(grant) => grant,
        Err(refused) => {
            mesh.traffic.refused(target.wish.pair(), &refused);
            return match refused {
                // Nobody has said no: there is nothing here to go to.
                Refused::NotDeclared | Refused::NoPort => Attempt::PassedOver,
                _ => Attempt::Made(Err(Failed::Counted)),
            };
        }
    };
    let counters = grant.counters();
    let reached = tokio::select! {
        biased;
        reached = reach(mesh, &target.wish.request, &grant, *from) => reached,
        () = app.broken() => {
            counters.failed(Cause::Gone, &"the app went away before its connection was made");
            return Attempt::Made(Err(Failed::Counted));
        }
    };
    let mut instance = match reached {
        Ok(socket) => socket,
        Err(unreachable) => {
            counters.failed(unreachable.cause(), &unreachable);
            return Attempt::PassedOver;
        }
    };
    let _open = counters.carried(arrived.elapsed());
    let ended = tokio::select! {
        biased;
        () = grant.cut().cancelled() => Err(match grant.why() {
            Some(refused) => {
                counters.cut(refused);
                Failed::Counted
            }
            None => Failed::Draining,
        }),
        ended = async {
            instance.write_all(early).await?;
            counters.sent().fetch_add(early.len() as u64, Relaxed);
            *early = Vec::new();
            join(app, &mut instance, counters.of_app()).await
        } => ended.map_err(Failed::Broke),
    };
    match &ended {
        Ok(()) => instance.release(),
        Err(_) => instance.reset(),
    }
    Attempt::Made(ended)
}
