//! Telling a peer that its link was deleted here.
//!
//! The commit that deletes the link leaves a tombstone; whoever can speak with the peer first tells it and takes the
//! tombstone away: over the session that still stands, on one that the peer makes later, or on one dialled for the
//! purpose where dialling was our part. Until then a peer that was away finds the link FAILING, afterwards TERMINATED.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use schema::name::LinkName;

use super::half::Half;
use super::keeper::Backoff;
use super::ledger::{self, Tombstone};
use super::{Peering, PeeringError};
use crate::audit::{Action, Actor};
use crate::authorize::Permit;
use crate::store::value;
use crate::store::{Op, Txn, keys};
use crate::trust::Fingerprint;
use crate::tunnel::{Incoming, Router, Session, dial};
use crate::wire::cluster_link::Dials;
use crate::wire::link::{Refusal, StreamHeader};

/// How long the peer may take to note a deletion.
pub(super) const LIMIT: Duration = Duration::from_secs(2);
/// A peer that was away for longer is not looked for any more.
const TOMBSTONE_LIFE: SignedDuration = SignedDuration::from_hours(30 * 24);
/// How long, at most, until a peer that was not there is looked for again.
const SEEK_PAUSE: Duration = Duration::from_secs(60);
/// How long a stranger may stay: time enough to say farewell, not to be a burden.
const STRANGER_LIMIT: Duration = Duration::from_secs(5);
/// How many strangers are heard at once.
pub(super) const STRANGERS: usize = 32;

/// The end of a link's keeper: tells the peer if the link was deleted, then closes the session.
pub(super) async fn part(
    peering: &Arc<Peering>,
    link: &LinkName,
    peer: &Fingerprint,
    session: Option<Session>,
    router: &Arc<dyn Router>,
) {
    let tombstone = match ledger::tombstone(&*peering.parts.store, peer).await {
        Ok(tombstone) => tombstone,
        Err(error) => {
            tracing::error!(%error, "a tombstone could not be read");
            None
        }
    };
    let Some((tombstone, _)) = tombstone else {
        if let Some(session) = session {
            let half = ledger::read(&*peering.parts.store, link).await.map(|held| held.half);
            if matches!(half, Ok(Half::Terminated(_) | Half::Pending(_))) {
                // The peer's farewell, or that it gives up its key, is being answered on it; closing is the peer's
                // part, once it has the answer.
                let _ = tokio::time::timeout(LIMIT, session.closed()).await;
            }
            session.close("the link ended");
        }
        return;
    };
    if let Some(session) = session
        && tell(peering, &session).await
    {
        return;
    }
    seek(peering, *peer, &tombstone, router);
}

/// Goes on looking for a peer that is to be told, where dialling is our part.
pub(super) fn seek(
    peering: &Arc<Peering>,
    peer: Fingerprint,
    tombstone: &Tombstone,
    router: &Arc<dyn Router>,
) {
    if tombstone.dials != Dials::Here || tombstone.addresses.is_empty() {
        return;
    }
    let (peering, router, addresses) = (Arc::clone(peering), Arc::clone(router), tombstone.addresses.clone());
    let tasks = peering.parts.tasks.clone();
    tasks.spawn("farewell", async move {
        let ending = peering.parts.tasks.ending();
        let search = async {
            let mut backoff = Backoff::up_to(SEEK_PAUSE);
            // The tombstone goes when the peer was told, or is linked anew.
            while let Ok(Some(_)) = ledger::tombstone(&*peering.parts.store, &peer).await {
                tokio::time::sleep(backoff.pause()).await;
                let parts = &peering.parts;
                let own = parts.identity.current();
                let dialled = dial(&addresses, peer, &own, Arc::clone(&router), &parts.tasks);
                if let Ok(session) = dialled.await {
                    tell(&peering, &session).await;
                }
            }
        };
        tokio::select! {
            () = ending.cancelled() => {}
            () = search => {}
        }
    });
}

/// Tells the peer over `session` and closes it; true if the peer has noted it.
async fn tell(peering: &Arc<Peering>, session: &Session) -> bool {
    let told = match tokio::time::timeout(LIMIT, session.open(&StreamHeader::Farewell)).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => {
            tracing::debug!(%error, "the peer could not be told that the link was deleted");
            false
        }
        Err(_) => false,
    };
    session.close("the link was deleted");
    if told && let Err(error) = bury(peering, &session.peer()).await {
        tracing::error!(%error, "a tombstone could not be removed");
    }
    told
}

/// The peer knows: the tombstone goes, unless it is another one by now.
async fn bury(peering: &Peering, peer: &Fingerprint) -> Result<(), PeeringError> {
    if let Some((_, guard)) = ledger::tombstone(&*peering.parts.store, peer).await? {
        let key = guard.key.clone();
        peering.commit(Txn { guards: vec![guard], ops: vec![Op::Delete { key }] }).await?;
    }
    Ok(())
}

impl Peering {
    /// The peer says that it has deleted the link.
    pub(super) async fn note_farewell(self: Arc<Self>, session: Session, incoming: Incoming) {
        let peer = session.peer();
        let dialled = if session.was_dialled() { Dials::Here } else { Dials::Peer };
        match self.terminate(&peer, dialled).await {
            Ok(()) => {
                // Nothing follows; dropping the stream is its end.
                let _ = incoming.accept().await;
            }
            Err(error) => {
                tracing::error!(%error, "a peer's deletion could not be noted");
                incoming.refuse(Refusal::Unavailable, "the deletion could not be noted").await;
            }
        }
    }

    /// `dialled` says who opened the connection that it was told over: of two one-way links it tells which.
    async fn terminate(&self, peer: &Fingerprint, dialled: Dials) -> Result<(), PeeringError> {
        let store = &*self.parts.store;
        'again: loop {
            for (link, before) in ledger::all(store).await?.1 {
                let now = Timestamp::now();
                let Some(after) = before.half.clone().terminated(peer, dialled, now) else { continue };
                let txn = ledger::replace(&link, &before, &after);
                let told = self.commit_told(Actor::agent(), Action::ClusterLinkTerminated, &link, txn);
                if told.await?.is_some() {
                    tracing::warn!(%link, %peer, "the peer has deleted the link");
                }
                continue 'again;
            }
            break;
        }
        if dialled == Dials::Peer
            && let Some((link, guard)) = ledger::guest(store, peer).await?
        {
            let key = guard.key.clone();
            let txn = Txn { guards: vec![guard], ops: vec![Op::Delete { key }] };
            self.commit_told(Actor::agent(), Action::IdentityDeleted, &link, txn).await?;
            tracing::warn!(%link, %peer, "the peer has deleted its link to this cluster");
        }
        // Both sides deleted it: the peer need not be told.
        bury(self, peer).await
    }

    /// A connection from a cluster that may call here over a one-way link, and is known by its identity alone.
    pub(super) async fn receive_guest(self: Arc<Self>, session: Session) {
        let mut changed = self.parts.identities.changed();
        loop {
            tokio::select! {
                _ = session.closed() => return,
                told = changed.changed() => if told.is_err() { return },
            }
            if matches!(ledger::link_of(&*self.parts.store, &session.peer()).await, Ok(None)) {
                return self.receive_stranger(session).await;
            }
        }
    }

    /// Ends the trust in a cluster that may call here over a one-way link and is known by its identity alone; it is
    /// told so. An identity that a link stands behind goes with its link.
    pub async fn dismiss(&self, permit: &Permit, peer: &Fingerprint) -> Result<(), PeeringError> {
        let store = &*self.parts.store;
        loop {
            let Some((link, guard)) = ledger::guest(store, peer).await? else {
                return match ledger::link_of(store, peer).await? {
                    Some(link) => Err(PeeringError::IsLinked(link)),
                    None => Err(PeeringError::UnknownPeer),
                };
            };
            let tombstone = Tombstone {
                link: link.clone(),
                at: Timestamp::now(),
                dials: Dials::Peer,
                addresses: Vec::new(),
            };
            let ops = vec![
                Op::Delete { key: guard.key.clone() },
                Op::Put { key: keys::tombstone(&peer.to_string()), value: value::encode(&tombstone) },
            ];
            let txn = Txn { guards: vec![guard], ops };
            if self.commit_told(permit.caller(), Action::IdentityDeleted, &link, txn).await?.is_some() {
                tracing::info!(%link, %peer, by = %permit.caller(), "a linked cluster is no longer trusted");
                return Ok(());
            }
        }
    }

    /// A connection from somebody who is not linked: perhaps one that is to be told so.
    pub(super) async fn receive_stranger(self: Arc<Self>, session: Session) {
        match ledger::tombstone(&*self.parts.store, &session.peer()).await {
            Ok(Some(_)) => {
                tell(&self, &session).await;
            }
            Ok(None) => {
                // It may be here to say that it has deleted a link that is deleted here as well.
                if let Ok(_place) = self.strangers.try_acquire() {
                    let _ = tokio::time::timeout(STRANGER_LIMIT, session.closed()).await;
                }
                session.close("there is no link with your cluster here");
            }
            Err(error) => {
                tracing::error!(%error, "a tombstone could not be read");
                session.close("the store cannot be read");
            }
        }
    }

    /// Looks again for peers that were to be told when this agent last ended.
    pub(super) async fn resume_farewells(
        self: &Arc<Self>,
        router: &Arc<dyn Router>,
    ) -> Result<(), PeeringError> {
        let now = Timestamp::now();
        for entry in self.parts.store.range(keys::TOMBSTONE).await?.entries {
            let Ok(peer) = keys::last_part(&entry.key).parse::<Fingerprint>() else { continue };
            let tombstone: Tombstone = value::decode(&entry)?;
            if now.duration_since(tombstone.at) > TOMBSTONE_LIFE {
                bury(self, &peer).await?;
            } else {
                seek(self, peer, &tombstone, router);
            }
        }
        Ok(())
    }
}
