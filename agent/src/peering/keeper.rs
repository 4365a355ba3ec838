//! One task for each established link: it has one session with the peer and gets another when that ends.
//!
//! The side that redeemed the token dials; the other takes what arrives, so only the issuer need be reachable. After
//! odd crashes both may dial: then the connection that the lower certificate dialled is the one that stands, on both
//! sides, because both compare the same two fingerprints.

use std::sync::Arc;
use std::time::Duration;

use schema::kind::cluster_link::LinkType;
use schema::name::LinkName;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::half::Peer;
use super::import::Received;
use super::rotation::Introduced;
use super::status::Connection;
use super::{Peering, farewell};
use crate::trust::Fingerprint;
use crate::trust::cluster_identity::Changed;
use crate::tunnel::{Closed, Router, Session};
use crate::wire::cluster_link::Dials;

/// How long a peer whose stream has ended may take to say that it goes away.
const LAST_WORD: Duration = Duration::from_millis(500);

/// What a keeper is to keep.
pub(super) struct Kept {
    pub link: LinkName,
    pub kind: LinkType,
    /// Its certificates move while it is kept.
    pub peer: watch::Receiver<Peer>,
    pub dials: Dials,
    pub router: Arc<dyn Router>,
    /// Sessions that the peer has made.
    pub incoming: mpsc::Receiver<Session>,
    pub stop: CancellationToken,
    /// The keeper of the same link before this one: its cleaning up must not undo our work.
    pub previous: Option<CancellationToken>,
    /// Cancelled when this keeper has cleaned up.
    pub done: CancellationToken,
}

impl Kept {
    /// The peer's certificate that is pinned now.
    fn peer_now(&self) -> Fingerprint {
        self.peer.borrow().fingerprint
    }
}

/// How the hold on a session ended.
enum Held {
    Stopped,
    Replaced(Session),
    /// The peer goes away. What is open on the session goes on until it has ended.
    Left,
    Ended {
        reason: String,
        heard: bool,
    },
}

/// Sessions of one link that may finish what is open over them, after their peer has left.
const MAX_DEPARTING: usize = 3;

/// Which side made a session.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Made {
    Here,
    ByPeer,
}

impl Peering {
    pub(super) async fn keep(self: Arc<Self>, mut kept: Kept) {
        if let Some(previous) = kept.previous.take() {
            previous.cancelled().await;
        }
        self.statuses.forget(&kept.link);
        let mut backoff = Backoff::default();
        let mut received = Received::default();
        let mut next: Option<(Session, Made)> = None;
        let mut departing: Vec<Session> = Vec::new();
        self.parts.sessions.expect(&kept.link);
        let last = loop {
            let mut renewed = self.parts.identity.changed();
            let (session, made) = if let Some(next) = next.take() {
                next
            } else {
                tokio::select! {
                    biased;
                    () = kept.stop.cancelled() => break None,
                    Some(session) = kept.incoming.recv() => (session, Made::ByPeer),
                    session = self.reach(&kept.link, &kept.peer, &kept.router, &mut backoff),
                        if kept.dials == Dials::Here => (session, Made::Here),
                }
            };
            if session.peer() != kept.peer_now() {
                self.note_shown(&kept.link, &session.peer()).await;
            }
            match self.hold(&mut kept, &session, made, &mut renewed, &mut received).await {
                Held::Stopped => break Some(session),
                Held::Replaced(newer) => {
                    session.close("a newer connection has replaced this one");
                    next = Some((newer, Made::ByPeer));
                }
                Held::Left => {
                    self.note_down(&kept.link, &session, "the peer is ending".to_owned());
                    departing.retain(|session| !session.is_closed());
                    departing.push(session);
                    if departing.len() > MAX_DEPARTING {
                        departing.remove(0).close("it has left, and so have others since");
                    }
                    // A peer that restarts is back in a moment.
                    backoff = Backoff::returning();
                }
                Held::Ended { reason, heard } => {
                    session.close(&reason);
                    self.note_down(&kept.link, &session, reason);
                    if heard {
                        backoff = Backoff::default();
                    }
                }
            }
        };
        if self.parts.tasks.ending().is_cancelled() {
            // The link goes on. What is open over it may finish: the tunnel ends the session then.
            kept.done.cancel();
            return;
        }
        if let Some(session) = &last {
            self.parts.sessions.remove(&kept.link, session);
        }
        self.parts.sessions.give_up(&kept.link);
        for session in departing {
            session.close("the link ended");
        }
        self.parts.imports.withdraw(&kept.link);
        self.parts.bundles.forget(&kept.link);
        self.statuses.forget(&kept.link);
        kept.done.cancel();
        farewell::part(&self, &kept.link, &kept.peer_now(), last, &kept.router).await;
    }

    fn note_down(&self, link: &LinkName, session: &Session, reason: String) {
        self.parts.sessions.lose(link, session);
        self.parts.imports.mark_stale(link);
        tracing::info!(%link, %reason, "the connection to the peer ended");
        self.statuses.update(link, |status| status.connection = Connection::Down { reason });
    }

    /// Dials until a session stands. Dropped when one arrives by itself.
    async fn reach(
        &self,
        link: &LinkName,
        peer: &watch::Receiver<Peer>,
        router: &Arc<dyn Router>,
        backoff: &mut Backoff,
    ) -> Session {
        loop {
            tokio::time::sleep(backoff.pause()).await;
            let now = peer.borrow().clone();
            match self.dial_peer(link, &now, router).await {
                Ok(session) => return session,
                Err(reason) => {
                    self.statuses.update(link, |status| status.connection = Connection::Down { reason });
                }
            }
        }
    }

    async fn hold(
        self: &Arc<Self>,
        kept: &mut Kept,
        session: &Session,
        made: Made,
        renewed: &mut Changed,
        received: &mut Received,
    ) -> Held {
        if kept.kind == LinkType::Unidirectional && kept.dials == Dials::Peer {
            return self.host(kept, session, renewed).await;
        }
        let parts = &self.parts;
        if let Some(older) = parts.sessions.put(kept.link.clone(), session.clone())
            && !older.same(session)
        {
            older.close("a newer connection has replaced this one");
        }
        let link = kept.link.clone();
        if parts.imports.view().get(&link).is_some() {
            // The line that says that it ended has its counterpart.
            tracing::info!(%link, "the connection to the peer is up again");
        }
        let mut heard = false;
        let (ended, taken) = {
            let receive = self.receive(&link, session, received, &mut heard);
            tokio::pin!(receive);
            loop {
                tokio::select! {
                    biased;
                    () = kept.stop.cancelled() => return Held::Stopped,
                    Some(newer) = kept.incoming.recv() => {
                        if made == Made::Here && parts.identity.fingerprint() < kept.peer_now() {
                            newer.close("the connection that stands is the other one");
                        } else {
                            return Held::Replaced(newer);
                        }
                    }
                    closed = session.closed() => break (why(closed), false),
                    () = session.leaving() => return Held::Left,
                    () = renewed.changed() => break ("this cluster's certificate was renewed".to_owned(), true),
                    error = &mut receive => {
                        // A peer that goes away ends its streams as it says so, and in whatever order.
                        let leaves = tokio::select! {
                            _ = session.closed() => false,
                            left = tokio::time::timeout(LAST_WORD, session.leaving()) => left.is_ok(),
                        };
                        if leaves {
                            return Held::Left;
                        }
                        if error.is_unknown_link() {
                            // The peer knows us by an older certificate only, if it was away while that was renewed.
                            match self.introduce(session).await {
                                Introduced::Taken => {
                                    break ("the peer has taken this cluster's new certificate".to_owned(), true);
                                }
                                Introduced::Refused(reason) => {
                                    break (format!("the peer does not take this cluster's new certificate: {reason}"), false);
                                }
                                Introduced::Nothing => {}
                            }
                            // The peer has no such link any more and is about to say so on this very session: closing
                            // it now would cut off our answer, and leave the peer looking for us.
                            tokio::select! {
                                () = kept.stop.cancelled() => return Held::Stopped,
                                _ = session.closed() => {}
                                () = tokio::time::sleep(farewell::LIMIT) => {}
                            }
                        }
                        break (error.to_string(), false);
                    }
                }
            }
        };
        Held::Ended { reason: ended, heard: heard || taken }
    }

    /// Holds the session of a peer that may call here and is never called: nothing is opened towards it, and who
    /// would open something does not find the session.
    async fn host(self: &Arc<Self>, kept: &mut Kept, session: &Session, renewed: &mut Changed) -> Held {
        self.statuses.update(&kept.link, |status| status.connection = Connection::Up);
        self.confirm_active(&kept.link).await;
        tokio::select! {
            biased;
            () = kept.stop.cancelled() => Held::Stopped,
            Some(newer) = kept.incoming.recv() => Held::Replaced(newer),
            closed = session.closed() => Held::Ended { reason: why(closed), heard: true },
            () = session.leaving() => Held::Left,
            () = renewed.changed() => {
                Held::Ended { reason: "this cluster's certificate was renewed".to_owned(), heard: true }
            }
        }
    }
}

fn why(closed: Closed) -> String {
    match closed {
        Closed::Here(reason) => reason,
        Closed::ByPeer => "the peer closed the connection".to_owned(),
        Closed::Lost(reason) => format!("the connection to the peer broke: {reason}"),
    }
}

/// Pauses between attempts: none before the first, then from 100 ms doubling to 3 s, each with jitter, so that
/// a thousand links of a restarted peer do not call in step.
#[derive(Debug)]
pub(super) struct Backoff {
    attempts: u32,
    /// So many attempts are made with shorter pauses.
    quick: u32,
    most: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::up_to(Duration::from_secs(3))
    }
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    /// Longest of the quick pauses.
    const QUICK: Duration = Duration::from_millis(500);

    pub fn up_to(most: Duration) -> Self {
        Self { attempts: 0, quick: 0, most }
    }

    /// For a peer that said that it goes away: it is restarted, more often than not, and apps wait for it.
    pub fn returning() -> Self {
        Self { quick: 40, ..Self::default() }
    }

    pub fn pause(&mut self) -> Duration {
        let attempt = self.attempts;
        self.attempts = self.attempts.saturating_add(1);
        let Some(doublings) = attempt.checked_sub(1) else { return Duration::ZERO };
        let most = if attempt < self.quick { Self::QUICK } else { self.most };
        let whole = Self::FIRST.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(most);
        // Between half of it and the whole; one random byte is jitter enough.
        let [random, ..] = uuid::Uuid::new_v4().into_bytes();
        whole / 2 + whole * u32::from(random) / 512
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_begin_with_none() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.pause(), Duration::ZERO);
        let pauses: Vec<Duration> = (0..40).map(|_| backoff.pause()).collect();
        assert!(pauses[0] >= Backoff::FIRST / 2 && pauses[0] <= Backoff::FIRST);
        assert!(pauses.iter().all(|pause| *pause <= backoff.most));
        assert!(pauses[39] >= backoff.most / 2);

        let mut backoff = Backoff::returning();
        let pauses: Vec<Duration> = (0..60).map(|_| backoff.pause()).collect();
        assert!(pauses[..40].iter().all(|pause| *pause <= Backoff::QUICK));
        assert!(pauses[59] >= backoff.most / 2);
    }
}
