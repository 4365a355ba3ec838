//! A peer renews its certificate: what we make of its proof, whichever way it reaches us.
//!
//! Over a link that is up, the peer announces what is to follow. A peer that did so while we were away is met in one
//! of two ways. We dial it and it shows a certificate that we do not know: then its public endpoint is asked how that
//! one follows the one we have pinned. Or it dials us, as a stranger, and brings the proof along. Either way the proof
//! alone decides, and who gives it has shown in the handshake to hold the newest key.

use std::sync::Arc;

use jiff::Timestamp;
use schema::name::LinkName;
use tokio::io::AsyncWriteExt as _;

use super::half::{Half, Peer};
use super::ledger;
use super::status::Connection;
use super::{Peering, PeeringError};
use crate::audit::{Action, Actor, Record, Writes};
use crate::client;
use crate::store::Revision;
use crate::trust::Fingerprint;
use crate::trust::lineage::{Pinned, Refused, Verdict};
use crate::trust::succession::Chain;
use crate::tunnel::{AttemptError, DialError, Incoming, Router, Session, dial, frame};
use crate::wire::link::{Refusal, StreamAnswer};

/// How often a step is decided anew because the link moved under it.
const TRIES: usize = 16;
/// Most proofs that are checked at once: a chain of the greatest length takes some 20 ms of a core.
pub(super) const CHECKS: usize = 2;

/// Why a peer's new certificate was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum RepinError {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("no link here has pinned a certificate that the proof begins with")]
    NoLink,
    #[error("too many proofs are being checked; try again")]
    Busy,
    #[error("the link changed meanwhile; try again")]
    Superseded,
    #[error(transparent)]
    Peering(#[from] PeeringError),
}

impl RepinError {
    /// What a person is to do about it, on this side.
    fn advice(&self) -> &'static str {
        match self {
            Self::Refused(Refused::Stale(_)) => {
                "; make the link anew: delete it on both sides, then exchange a token"
            }
            Self::Refused(Refused::Alarmed(_) | Refused::Number { .. }) => {
                "; ask the peer's administrator, and make the link anew once it is clear whose key is whose"
            }
            _ => "",
        }
    }
}

impl Peering {
    /// Connects to the peer by whichever of its certificates it shows, one that is proven now included.
    pub(super) async fn dial_peer(
        &self,
        link: &LinkName,
        peer: &Peer,
        router: &Arc<dyn Router>,
    ) -> Result<Session, String> {
        let own = self.parts.identity.current();
        let dial_with = |addresses: Vec<String>, pin: Fingerprint| {
            let (own, router) = (own.clone(), Arc::clone(router));
            async move { dial(&addresses, pin, &own, router, &self.parts.tasks).await }
        };
        let error = match dial_with(peer.reached_at(), peer.fingerprint).await {
            Ok(session) => return Ok(session),
            Err(error) => error,
        };
        let mut reason = error.to_string();
        for (address, shown) in mismatches(error) {
            if !peer.accepts(&shown)
                && let Err(refused) = self.follow_succession(link, peer.fingerprint, &address, shown).await
            {
                reason = format!("{reason}; {refused}");
                continue;
            }
            match dial_with(vec![address], shown).await {
                Ok(session) => return Ok(session),
                Err(error) => reason = error.to_string(),
            }
        }
        Err(reason)
    }

    /// Asks whoever shows `shown` at `address` how it follows what is pinned.
    pub(super) async fn follow_succession(
        &self,
        link: &LinkName,
        pinned: Fingerprint,
        address: &str,
        shown: Fingerprint,
    ) -> Result<(), String> {
        let chain = client::succession(address, shown, pinned).await.map_err(|error| {
            tracing::debug!(%link, %error, "no proof of succession");
            "the server has no proof that its certificate follows the pinned one: if the peer has renewed it by \
             `comity link rotate --compromised` or lost it, make the link anew; else somebody stands between"
                .to_owned()
        })?;
        match self.take_proof(link, &chain, shown).await {
            Ok(()) => Ok(()),
            Err(refused) => Err(format!("{refused}{}", refused.advice())),
        }
    }

    /// What `chain`, given by who has proved to hold the key of `shown`, makes of the link's peer: one commit.
    pub(super) async fn take_proof(
        &self,
        link: &LinkName,
        chain: &Chain,
        shown: Fingerprint,
    ) -> Result<(), RepinError> {
        let _place = self.checks.try_acquire().map_err(|_| RepinError::Busy)?;
        for _ in 0..TRIES {
            let before = ledger::read(&*self.parts.store, link).await?;
            let Some(pinned) = before.half.peer().map(Peer::pinned) else { return Err(RepinError::NoLink) };
            let (after, alarm) = match pinned.consider(chain, shown, Timestamp::now())? {
                Verdict::Known => return Ok(()),
                Verdict::Taken(after) => (after, None),
                Verdict::Alarm(after, alarm) => (after, Some(alarm)),
            };
            let txn = ledger::replace(link, &before, &before.half.clone().repinned(after.clone()));
            let writes = Writes::of(&txn);
            let Some(revision) = self.commit(txn).await? else { continue };
            self.audit_pins(link, &after, writes, revision);
            let Some(alarm) = alarm else {
                let accepted: Vec<String> = after.accepted().map(|shown| shown.to_string()).collect();
                tracing::info!(%link, accepted = accepted.join(" "), "the peer renews its certificate");
                return Ok(());
            };
            tracing::error!(%link, %alarm, "a peer's succession is in doubt");
            return Err(Refused::Alarmed(alarm).into());
        }
        Err(RepinError::Superseded)
    }

    /// The peer has connected with `shown`: if that was awaited, its predecessor opens nothing here any more.
    pub(super) async fn note_shown(&self, link: &LinkName, shown: &Fingerprint) {
        let moved = self.move_pins(link, |peer| peer.pinned().shown(shown, Timestamp::now())).await;
        match moved {
            Ok(true) => tracing::info!(%link, pinned = %shown, "the peer's new certificate is in use"),
            Ok(false) => {}
            Err(error) => tracing::error!(%link, %error, "the peer's new certificate could not be noted"),
        }
    }

    /// Forgets announced certificates that were not shown in time.
    pub(super) async fn note_lapses(&self) -> Result<(), PeeringError> {
        let (_, links) = ledger::all(&*self.parts.store).await?;
        let awaits = |half: &Half| half.peer().is_some_and(|peer| peer.lineage.next.is_some());
        for link in links.iter().filter(|(_, held)| awaits(&held.half)).map(|(link, _)| link) {
            if self.move_pins(link, |peer| peer.pinned().lapsed(Timestamp::now())).await? {
                tracing::warn!(%link, "the certificate that the peer had announced was not shown in time");
            }
        }
        Ok(())
    }

    async fn move_pins(
        &self,
        link: &LinkName,
        step: impl Fn(&Peer) -> Option<Pinned>,
    ) -> Result<bool, PeeringError> {
        loop {
            let before = ledger::read(&*self.parts.store, link).await?;
            let Some(after) = before.half.peer().and_then(&step) else { return Ok(false) };
            let txn = ledger::replace(link, &before, &before.half.clone().repinned(after.clone()));
            let writes = Writes::of(&txn);
            if let Some(revision) = self.commit(txn).await? {
                self.audit_pins(link, &after, writes, revision);
                return Ok(true);
            }
        }
    }

    fn audit_pins(&self, link: &LinkName, after: &Pinned, writes: Writes, revision: Revision) {
        let accepted: Vec<String> = after.accepted().map(|shown| shown.to_string()).collect();
        let record = Record::new(Actor::agent(), Action::ClusterLinkRepinned, Timestamp::now())
            .on(format!("/1.0/cluster/links/{link}"))
            .committed(writes, revision)
            .with("accepted", accepted);
        self.parts.audit.record(match &after.lineage.alarm {
            Some(alarm) => record.with("alarm", alarm.to_string()),
            None => record,
        });
    }

    /// The peer, or a stranger that may be one, brings a proof of its succession.
    pub(super) async fn note_succession(self: Arc<Self>, session: Session, incoming: Incoming) {
        let Ok(mut stream) = incoming.accept().await else { return };
        let Ok(chain) = frame::read::<Chain>(&mut stream).await else { return };
        let answer = match self.judge_succession(&session, &chain).await {
            Ok(()) => StreamAnswer::Accepted,
            Err(error) => {
                tracing::warn!(peer = %session.peer(), %error, "a peer's proof of succession is not taken");
                let message = match &error {
                    RepinError::Peering(_) => "the proof could not be judged".to_owned(),
                    other => other.to_string(),
                };
                StreamAnswer::Refused { code: Refusal::Denied, message }
            }
        };
        // The peer tries again if it does not hear this. Ended in order: a stream that is dropped takes back what was
        // not read yet.
        if frame::write(&mut stream, &answer).await.is_ok() {
            let _ = stream.shutdown().await;
        }
    }

    async fn judge_succession(&self, session: &Session, chain: &Chain) -> Result<(), RepinError> {
        let shown = session.peer();
        let link = match ledger::link_of(&*self.parts.store, &shown).await? {
            Some(link) => link,
            None => self.link_before(chain).await?.ok_or(RepinError::NoLink)?,
        };
        let judged = self.take_proof(&link, chain, shown).await;
        if let Err(refused @ RepinError::Refused(why)) = &judged
            && why.is_genuine()
        {
            // Only what the pinned key has said is worth showing to a person.
            let reason = format!("{refused}{}", refused.advice());
            self.statuses.update(&link, |status| {
                if status.connection != Connection::Up {
                    status.connection = Connection::Down { reason };
                }
            });
        }
        judged
    }

    /// The link whose pin, or the pin before that, is one of the chain's predecessors.
    async fn link_before(&self, chain: &Chain) -> Result<Option<LinkName>, PeeringError> {
        let (_, links) = ledger::all(&*self.parts.store).await?;
        let told = |fingerprint: &Fingerprint| chain.steps.iter().any(|step| step.from == *fingerprint);
        let knows = |half: &Half| {
            half.peer().is_some_and(|peer| {
                told(&peer.fingerprint) || peer.lineage.last.is_some_and(|last| told(&last.from))
            })
        };
        Ok(links.into_iter().find(|(_, held)| knows(&held.half)).map(|(link, _)| link))
    }
}

/// Where a certificate was shown that is not the pinned one, each once.
fn mismatches(error: DialError) -> Vec<(String, Fingerprint)> {
    let mut found: Vec<(String, Fingerprint)> = Vec::new();
    for (address, why) in error.attempts {
        if let AttemptError::Mismatch { got, .. } = why
            && !found.iter().any(|(_, known)| *known == got)
        {
            found.push((address, got));
        }
    }
    found
}
