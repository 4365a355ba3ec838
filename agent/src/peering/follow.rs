//! The task that follows `/link/` and keeps one keeper for each established link.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use schema::kind::cluster_link::LinkType;
use schema::name::LinkName;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::exchange::ExchangeFailure;
use super::half::{Half, Peer, Redeeming};
use super::keeper::{Backoff, Kept};
use super::ledger::{self, Held};
use super::status::Connection;
use super::{Peering, PeeringError};
use crate::store::{Event, Revision, keys};
use crate::trust::Fingerprint;
use crate::tunnel::{Room, Router, Session};
use crate::wire::cluster_link::Dials;

/// How long a session may wait for its link's keeper: the identity is seen by the listener before the watch tells us.
const HAND_OVER: Duration = Duration::from_secs(5);

/// The keepers that run.
#[derive(Default)]
pub(super) struct Keepers {
    running: Mutex<BTreeMap<LinkName, Running>>,
    started: watch::Sender<u64>,
}

struct Running {
    kind: LinkType,
    peer: watch::Sender<Peer>,
    dials: Dials,
    incoming: mpsc::Sender<Session>,
    stop: CancellationToken,
    done: CancellationToken,
}

impl Keepers {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<LinkName, Running>> {
        // The map is whole between statements, so a panic elsewhere leaves nothing half done.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cancelled once the keeper of `link` has ended, if there is one.
    pub(super) fn ended(&self, link: &LinkName) -> Option<CancellationToken> {
        self.lock().get(link).map(|kept| kept.done.clone())
    }

    fn incoming(&self, link: &LinkName, peer: &Fingerprint) -> Option<mpsc::Sender<Session>> {
        let running = self.lock();
        running.get(link).filter(|kept| kept.peer.borrow().accepts(peer)).map(|kept| kept.incoming.clone())
    }
}

impl Peering {
    /// Follows the links until the tasks end. What was read is as of `from`.
    pub(super) async fn follow(self: Arc<Self>, router: Arc<dyn Router>, mut from: Revision) {
        let ending = self.parts.tasks.ending();
        let mut backoff = Backoff::default();
        loop {
            let ended = tokio::select! {
                () = ending.cancelled() => return,
                ended = self.follow_watch(&router, &mut from) => ended,
            };
            if let Err(error) = ended {
                tracing::warn!(%error, "the links are read again");
            }
            tokio::select! {
                () = ending.cancelled() => return,
                () = tokio::time::sleep(backoff.pause()) => {}
            }
            match ledger::all(&*self.parts.store).await {
                Ok((revision, links)) => {
                    self.settle(&router, &links);
                    (from, backoff) = (revision, Backoff::default());
                }
                Err(error) => tracing::error!(%error, "the links could not be read"),
            }
        }
    }

    async fn follow_watch(
        self: &Arc<Self>,
        router: &Arc<dyn Router>,
        from: &mut Revision,
    ) -> Result<(), PeeringError> {
        let mut watch = self.parts.store.watch(keys::LINK, *from).await?;
        while let Some(batch) = watch.recv().await {
            let batch = batch?;
            for event in batch.events {
                match event {
                    Event::Put(entry) => {
                        if let Ok(link) = keys::last_part(&entry.key).parse() {
                            self.keep_as(router, &link, &ledger::held(&entry)?.half);
                        }
                    }
                    Event::Delete { key } => {
                        if let Ok(link) = keys::last_part(&key).parse() {
                            self.keep_as(router, &link, &Half::default());
                            self.statuses.forget(&link);
                        }
                    }
                }
            }
            *from = batch.revision;
        }
        Ok(())
    }

    /// Makes the keepers be those that `links` ask for.
    pub(super) fn settle(self: &Arc<Self>, router: &Arc<dyn Router>, links: &BTreeMap<LinkName, Held>) {
        let stale: Vec<LinkName> =
            self.keepers.lock().keys().filter(|link| !links.contains_key(*link)).cloned().collect();
        for link in stale {
            self.keep_as(router, &link, &Half::default());
        }
        for (link, held) in links {
            self.keep_as(router, link, &held.half);
        }
    }

    /// Starts, restarts or ends a link's keeper, as its half asks for.
    fn keep_as(self: &Arc<Self>, router: &Arc<dyn Router>, link: &LinkName, half: &Half) {
        let wanted = match half {
            Half::Established(established) => Some((established.kind, &established.peer, established.dials)),
            _ => None,
        };
        let mut running = self.keepers.lock();
        if let Some(kept) = running.get(link)
            && let Some((kind, peer, dials)) = wanted
            && (kind, dials) == (kept.kind, kept.dials)
            && kept.peer.borrow().is_still(peer)
        {
            kept.peer.send_replace(peer.clone());
            drop(running);
            return self.statuses.touch();
        }
        let previous = running.remove(link).map(|kept| {
            kept.stop.cancel();
            kept.done
        });
        if let Some((kind, peer, dials)) = wanted {
            let (incoming, arriving) = mpsc::channel(1);
            let (stop, done) = (self.parts.tasks.ending().child_token(), CancellationToken::new());
            let (known, following) = watch::channel(peer.clone());
            let kept = Kept {
                link: link.clone(),
                kind,
                peer: following,
                dials,
                router: Arc::clone(router),
                incoming: arriving,
                stop: stop.clone(),
                previous,
                done: done.clone(),
            };
            match kind {
                LinkType::Public => self.parts.tasks.spawn("link", Arc::clone(self).watch_public(kept)),
                LinkType::Bidirectional | LinkType::Unidirectional => {
                    self.parts.tasks.spawn("link", Arc::clone(self).keep(kept));
                }
            }
            running.insert(link.clone(), Running { kind, peer: known, dials, incoming, stop, done });
        }
        drop(running);
        self.keepers.started.send_modify(|generation| *generation += 1);
        self.statuses.touch();
    }

    /// Takes in a connection that a peer has made. One that nobody knows is closed.
    pub fn adopt(self: &Arc<Self>, session: Session) {
        let peering = Arc::clone(self);
        self.parts.tasks.spawn("adopt", async move {
            let ending = peering.parts.tasks.ending();
            let adopted = async {
                match ledger::link_of(&*peering.parts.store, &session.peer()).await {
                    // Linked while it connected: it has a stranger's room, and its dialler tries again.
                    Ok(Some(_)) if session.room() == Room::Little => {
                        session.close("the link was made just now; connect again");
                    }
                    Ok(Some(link)) if peering.is_kept(&link, &session).await => {
                        peering.hand_over(&link, session.clone()).await;
                    }
                    Ok(Some(_)) => Arc::clone(&peering).receive_guest(session.clone()).await,
                    Ok(None) => Arc::clone(&peering).receive_stranger(session.clone()).await,
                    Err(error) => {
                        tracing::error!(%error, "a connection could not be judged");
                        session.close("the store cannot be read");
                    }
                }
            };
            tokio::select! {
                () = ending.cancelled() => session.close("this agent is ending"),
                () = adopted => {}
            }
        });
    }

    /// Whether the link has a half here, whose keeper takes the session. A caller over a one-way link may be known by
    /// its identity alone.
    async fn is_kept(&self, link: &LinkName, session: &Session) -> bool {
        let held = ledger::read(&*self.parts.store, link).await;
        held.is_ok_and(|held| held.half.peer().is_some_and(|peer| peer.accepts(&session.peer())))
    }

    async fn hand_over(&self, link: &LinkName, session: Session) {
        let mut started = self.keepers.started.subscribe();
        let handing = async {
            loop {
                started.borrow_and_update();
                if let Some(incoming) = self.keepers.incoming(link, &session.peer())
                    && incoming.send(session.clone()).await.is_ok()
                {
                    return;
                }
                if started.changed().await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(HAND_OVER, handing).await.is_err() {
            session.close("the link is not kept here");
        }
    }

    /// Goes on with a redemption that a crash interrupted, until the issuer has said yes or no.
    pub(super) fn resume(self: &Arc<Self>, link: LinkName, redeeming: Redeeming) {
        let peering = Arc::clone(self);
        self.parts.tasks.spawn("redeem", async move {
            let ending = peering.parts.tasks.ending();
            tokio::select! {
                () = ending.cancelled() => {}
                ended = peering.finish(&link, &redeeming) => {
                    if let Err(error) = ended {
                        tracing::warn!(%link, %error, "an interrupted redemption came to nothing");
                    }
                }
            }
        });
    }

    async fn finish(&self, link: &LinkName, redeeming: &Redeeming) -> Result<(), PeeringError> {
        let mut backoff = Backoff::default();
        loop {
            tokio::time::sleep(backoff.pause()).await;
            // Redeemed anew, deleted or minted over meanwhile: then this attempt is nobody's.
            match ledger::read(&*self.parts.store, link).await?.half {
                Half::Redeeming(current) if current == *redeeming => {}
                _ => return Ok(()),
            }
            let Ok(secret) = redeeming.sealed.open(&self.parts.identity.current()) else {
                return self.abandon(link, &redeeming.attempt).await;
            };
            match self.ask_issuer(link, redeeming, secret).await {
                Ok(certificate) => return self.accepted(link, redeeming, certificate).await,
                Err(ExchangeFailure::Final(error)) => {
                    self.abandon(link, &redeeming.attempt).await?;
                    let reason = error.to_string();
                    self.statuses.update(link, |status| status.connection = Connection::Down { reason });
                    return Err(error);
                }
                Err(ExchangeFailure::Unclear(error)) => {
                    let reason = error.to_string();
                    self.statuses.update(link, |status| status.connection = Connection::Down { reason });
                }
            }
        }
    }
}
