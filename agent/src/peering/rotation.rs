//! Renewing this cluster's own certificate, with every peer told first.
//!
//! What is asked for is written down before anything follows from it, and one task goes on from what is written,
//! after a crash as before it: it tells each peer over the link that still stands on the old certificate, notes who
//! has heard, and once that is everybody, or nobody is to be waited for, writes down that it is decided. From there
//! it only goes forward: the next pair is put in place, and the links are made anew with it.

mod record;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use schema::kind::cluster_link::LinkType;
use schema::name::LinkName;

use super::half::{Established, Half};
use super::ledger;
use super::status::Connection;
use super::{Peering, PeeringError};
use crate::audit::{Action, Actor, Record, Writes};
use crate::authorize::Permit;
use crate::store::value::{self, ValueError};
use crate::store::{Guard, Op, Revision, Store, StoreError, Txn, keys};
use crate::task::crash;
use crate::trust::Fingerprint;
use crate::trust::certificate::CertificateError;
use crate::trust::cluster_identity::ClusterIdentity;
use crate::trust::succession::{Chain, SignError, Succession};
use crate::tunnel::{Incoming, OpenError, Session, frame};
use crate::wire::cluster_link::Dials;
use crate::wire::link::{Refusal, StreamAnswer, StreamHeader};
use crate::wire::rotation::{Rotation as RotationRow, RotationReport, RotationState};
use record::{Asked, Cause, Own, Rotation, Stage};

/// How long a peer that is away may take the next certificate, unless it is said otherwise.
pub const USUAL_DEADLINE: SignedDuration = SignedDuration::from_hours(7 * 24);
/// The longest such time.
pub const LONGEST_DEADLINE: SignedDuration = SignedDuration::from_hours(90 * 24);
/// How long one peer may take to be told.
const TELL_LIMIT: Duration = Duration::from_secs(10);
/// How long peers are looked for that are to be told that the key is given up.
const PATIENCE: SignedDuration = SignedDuration::from_secs(10);
/// How often the task looks again when nothing wakes it, while a rotation is under way.
const TICK: Duration = Duration::from_secs(2);
/// The same, while there is none: for certificates that peers announced and did not show.
const IDLE_TICK: Duration = Duration::from_secs(30);
/// How often a step is decided anew because the record moved under it.
const TRIES: usize = 16;

/// What a rotation is to be like.
#[derive(Debug, Clone, Copy)]
pub struct RotationRequest {
    /// `None` for the usual one, or the one that was said when it was begun.
    pub deadline: Option<SignedDuration>,
    pub force: bool,
    pub compromised: bool,
}

/// Why a rotation cannot be begun, or go on.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    #[error("the deadline is to be between a second and {} days", LONGEST_DEADLINE.as_hours() / 24)]
    Deadline,
    #[error("the cluster's key is being given up; wait until that is done")]
    GivingUp,
    #[error("the rotation moves under every try; ask again")]
    Superseded,
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error(transparent)]
    Sign(#[from] SignError),
    #[error(transparent)]
    Peering(#[from] PeeringError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Value(#[from] ValueError),
}

impl RotationError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Certificate(CertificateError::NotPrepared { .. }) => Some(
                "Peers were told of a certificate that is lost. `comity link rotate --compromised` makes another, and every link anew.",
            ),
            Self::Sign(_) => {
                Some("`comity link rotate --compromised` makes another certificate, and every link anew.")
            }
            _ => None,
        }
    }
}

/// What became of showing a peer the proof of our succession.
pub(super) enum Introduced {
    Taken,
    Refused(String),
    /// There is no proof to show, or none that concerns the peer.
    Nothing,
}

/// Before anything is served: what was decided is done, and what was prepared for nothing is forgotten.
pub async fn settle(store: &dyn Store, identity: &ClusterIdentity) -> Result<(), RotationError> {
    let (own, _) = read(store).await?;
    match &own.rotation {
        Some(rotation) if rotation.stage == Stage::Announced => {}
        Some(rotation) if identity.fingerprint() == rotation.from => {
            identity.install(&rotation.to)?;
            tracing::info!(fingerprint = %rotation.to, "the cluster's certificate was renewed, as decided before");
        }
        _ => identity.discard()?,
    }
    identity.follows(own.predecessors(&identity.fingerprint()));
    Ok(())
}

async fn read(store: &dyn Store) -> Result<(Own, Guard), RotationError> {
    let key = keys::SUCCESSION.to_owned();
    let Some(entry) = store.get(&key).await? else {
        return Ok((Own::default(), Guard { key, modify_revision: Revision(0) }));
    };
    Ok((value::decode(&entry)?, Guard { key, modify_revision: entry.modify_revision }))
}

impl Peering {
    /// Begins a rotation, or changes the one that has been announced. It goes on by itself.
    pub async fn rotate(
        &self,
        permit: &Permit,
        request: RotationRequest,
    ) -> Result<RotationReport, RotationError> {
        let deadline = request.deadline.unwrap_or(USUAL_DEADLINE);
        if deadline < SignedDuration::from_secs(1) || deadline > LONGEST_DEADLINE {
            return Err(RotationError::Deadline);
        }
        for _ in 0..TRIES {
            let now = Timestamp::now();
            let until = now.saturating_add(deadline).unwrap_or(Timestamp::MAX);
            let asked = Asked { by: permit.caller().to_string(), at: now, force: request.force };
            let (own, guard) = read(&*self.parts.store).await?;
            let after = match &own.rotation {
                Some(rotation) if rotation.cause == Cause::Compromise && !self.is_done(rotation) => {
                    return Err(RotationError::GivingUp);
                }
                _ if request.compromised => self.give_up(own, asked)?,
                Some(rotation) if rotation.stage == Stage::Announced => {
                    let again = request.deadline.is_some() || rotation.deadline <= now;
                    if again {
                        self.announce_again(own, until, asked)?
                    } else if request.force == rotation.force {
                        return self.rotation().await;
                    } else {
                        let rotation = Some(Rotation { force: request.force, ..rotation.clone() });
                        Own { rotation, ..own }
                    }
                }
                Some(rotation) if !self.is_done(rotation) => return self.rotation().await,
                _ => self.announce(own, until, asked)?,
            };
            crash::point("rotate-prepared");
            if let Some((writes, revision)) = self.write(&after, guard, Vec::new()).await? {
                crash::point("rotate-announced");
                let record = Record::new(permit.caller(), Action::ClusterCertificateRotated, now)
                    .committed(writes, revision)
                    .with("stage", "asked")
                    .with("force", request.force)
                    .with("compromised", request.compromised);
                self.parts.audit.record(record);
                tracing::info!(by = %permit.caller(), force = request.force, compromised = request.compromised, "the cluster's certificate is to be renewed");
                self.rotating.notify_one();
                return self.rotation().await;
            }
        }
        Err(RotationError::Superseded)
    }

    /// How the last rotation stands.
    pub async fn rotation(&self) -> Result<RotationReport, RotationError> {
        let (own, _) = read(&*self.parts.store).await?;
        let links = self.established().await?;
        let row = |rotation: Rotation| RotationRow {
            state: match rotation.stage {
                Stage::Announced => RotationState::Announced,
                Stage::Decided if self.is_done(&rotation) => RotationState::Done,
                Stage::Decided => RotationState::Switching,
            },
            missing: rotation.missing(&links),
            number: rotation.number,
            from: rotation.from.to_string(),
            to: rotation.to.to_string(),
            deadline: rotation.deadline,
            asked_by: rotation.asked_by,
            asked_at: rotation.asked_at,
            force: rotation.force,
            compromised: rotation.cause == Cause::Compromise,
            heard: rotation.heard.into_keys().collect(),
        };
        Ok(RotationReport {
            fingerprint: self.parts.identity.fingerprint().to_string(),
            rotation: own.rotation.map(row),
        })
    }

    /// The proof of what follows the certificate `from`, for anybody; `None` if nothing does.
    pub async fn succession(&self, from: &Fingerprint) -> Result<Option<Chain>, RotationError> {
        let (own, _) = read(&*self.parts.store).await?;
        Ok(own.chain.and_then(|chain| chain.since(from)))
    }

    /// Goes on with whatever rotation there is until the tasks end.
    pub(super) async fn run_rotations(self: Arc<Self>) {
        let ending = self.parts.tasks.ending();
        let mut sessions = self.parts.sessions.subscribe();
        loop {
            let pass = async {
                let under_way = self.advance().await.unwrap_or_else(|error| {
                    tracing::error!(%error, "the renewal of the cluster's certificate does not go on");
                    true
                });
                if let Err(error) = self.note_lapses().await {
                    tracing::error!(%error, "peers' announced certificates could not be looked at");
                }
                tokio::select! {
                    () = self.rotating.notified() => {}
                    Ok(()) = sessions.changed() => {}
                    () = tokio::time::sleep(if under_way { TICK } else { IDLE_TICK }) => {}
                }
            };
            tokio::select! {
                () = ending.cancelled() => return,
                () = pass => {}
            }
        }
    }

    /// As far as it goes now; tells whether there is anything left to do.
    async fn advance(&self) -> Result<bool, RotationError> {
        loop {
            let (mut own, guard) = read(&*self.parts.store).await?;
            let chain = own.chain.clone();
            self.install_decided(&own)?;
            let Some(rotation) = &mut own.rotation else { return Ok(false) };
            let links = self.established().await?;
            let heard = self.tell(rotation, chain.as_ref(), &links).await;
            let news = !heard.is_empty();
            rotation.heard.extend(heard);
            if rotation.is_due(&links, Timestamp::now(), PATIENCE) {
                self.parts.identity.require_prepared(&rotation.to)?;
                rotation.stage = Stage::Decided;
                let given_up = match rotation.cause {
                    Cause::Renewal => Vec::new(),
                    Cause::Compromise => self.links_given_up().await?,
                };
                if let Some((writes, revision)) = self.write(&own, guard, given_up).await? {
                    crash::point("rotate-decided");
                    self.tell_audit(&own, "decided", |record| record.committed(writes, revision));
                }
            } else {
                let under_way = rotation.is_news(Timestamp::now()) && !rotation.missing(&links).is_empty();
                if !news || self.write(&own, guard, Vec::new()).await?.is_some() {
                    return Ok(under_way);
                }
            }
        }
    }

    /// Puts the next pair in place, if that is decided and not done.
    fn install_decided(&self, own: &Own) -> Result<(), RotationError> {
        let identity = &self.parts.identity;
        if let Some(rotation) = &own.rotation
            && rotation.stage == Stage::Decided
            && identity.fingerprint() == rotation.from
        {
            identity.install(&rotation.to)?;
            crash::point("rotate-installed");
            identity.follows(own.predecessors(&rotation.to));
            tracing::info!(fingerprint = %rotation.to, "the cluster's certificate was renewed");
            self.tell_audit(own, "in use", |record| record);
            self.statuses.touch();
        }
        Ok(())
    }

    /// Tells every peer that can be reached and has not heard; gives those that have now.
    async fn tell(
        &self,
        rotation: &Rotation,
        chain: Option<&Chain>,
        links: &BTreeMap<LinkName, Fingerprint>,
    ) -> Vec<(LinkName, Fingerprint)> {
        if !rotation.is_news(Timestamp::now()) {
            return Vec::new();
        }
        let telling = rotation.missing(links).into_iter().filter_map(|link| {
            let session = self.parts.sessions.get(&link)?;
            Some(async move {
                let told = async {
                    match (rotation.cause, chain) {
                        (Cause::Renewal, Some(chain)) => present(&session, chain).await,
                        (Cause::Renewal, None) => Ok(()),
                        (Cause::Compromise, _) => session.open(&StreamHeader::Compromised).await.map(drop),
                    }
                };
                match tokio::time::timeout(TELL_LIMIT, told).await.unwrap_or(Err(OpenError::Timeout)) {
                    Ok(()) => Some((link.clone(), *links.get(&link)?)),
                    Err(error) => {
                        tracing::warn!(%link, %error, "the peer has not taken the news of the next certificate");
                        None
                    }
                }
            })
        });
        join_all(telling).await.into_iter().flatten().collect()
    }

    /// Shows the proof to a peer that says that it does not know us.
    pub(super) async fn introduce(&self, session: &Session) -> Introduced {
        let chain = match read(&*self.parts.store).await {
            Ok((Own { chain: Some(chain), .. }, _)) => chain,
            Ok(_) => return Introduced::Nothing,
            Err(error) => {
                tracing::error!(%error, "the proof of succession could not be read");
                return Introduced::Nothing;
            }
        };
        match tokio::time::timeout(TELL_LIMIT, present(session, &chain)).await {
            Ok(Ok(())) => Introduced::Taken,
            Ok(Err(OpenError::Refused { code: Refusal::Denied, message })) => Introduced::Refused(message),
            _ => Introduced::Nothing,
        }
    }

    /// The peer gives up its key: its half and ours are worth nothing any more.
    pub(super) async fn note_compromise(self: Arc<Self>, session: Session, incoming: Incoming) {
        match self.distrust(&session.peer()).await {
            Ok(()) => {
                // Nothing follows; dropping the stream is its end.
                let _ = incoming.accept().await;
            }
            Err(error) => {
                tracing::error!(%error, "that a peer gives up its key could not be noted");
                incoming.refuse(Refusal::Unavailable, "it could not be noted").await;
            }
        }
    }

    async fn distrust(self: &Arc<Self>, peer: &Fingerprint) -> Result<(), PeeringError> {
        while let Some(link) = ledger::link_of(&*self.parts.store, peer).await? {
            // With no link behind it, its identity is all that there is to give up.
            if let Some((_, guard)) = ledger::guest(&*self.parts.store, peer).await? {
                let ops = vec![Op::Delete { key: guard.key.clone() }];
                let txn = Txn { guards: vec![guard], ops };
                self.commit_told(Actor::agent(), Action::IdentityDeleted, &link, txn).await?;
                continue;
            }
            let before = ledger::read(&*self.parts.store, &link).await?;
            let kept = self.keepers.ended(&link);
            let txn = ledger::replace(&link, &before, &Half::default());
            let writes = Writes::of(&txn);
            let Some(revision) = self.commit(txn).await? else { continue };
            let record = Record::new(Actor::agent(), Action::ClusterLinkUpdated, Timestamp::now())
                .on(format!("/1.0/cluster/links/{link}"))
                .committed(writes, revision)
                .with("given_up", peer.to_string());
            self.parts.audit.record(record);
            tracing::error!(%link, %peer, "the peer's key may be in other hands: its trust is given up here");
            let peering = Arc::clone(self);
            self.parts.tasks.spawn("distrust", async move {
                // A keeper that ends takes the link's status with it.
                if let Some(kept) = kept {
                    kept.cancelled().await;
                }
                let reason =
                    "the peer has given up its key, which may be in other hands: exchange a token anew";
                peering.statuses.update(&link, |status| {
                    status.connection = Connection::Down { reason: reason.to_owned() };
                });
            });
        }
        Ok(())
    }

    fn announce(&self, own: Own, until: Timestamp, asked: Asked) -> Result<Own, RotationError> {
        let current = self.parts.identity.current();
        // One that was prepared for a try that came to nothing was never seen by anybody.
        let next = self.parts.identity.prepare(self.parts.cluster.as_str())?;
        let step = Succession::sign(own.next_number(), &current, &next.certificate, until, asked.at)?;
        Ok(own.announced(step, next.fingerprint, &current.pem, asked))
    }

    /// The same certificate under the same number, with another deadline: there is never a second one to choose from.
    fn announce_again(&self, own: Own, until: Timestamp, asked: Asked) -> Result<Own, RotationError> {
        let Some(rotation) = &own.rotation else { return self.announce(own, until, asked) };
        self.parts.identity.require_prepared(&rotation.to)?;
        let current = self.parts.identity.current();
        let next = self.parts.identity.prepare(self.parts.cluster.as_str())?;
        let step = Succession::sign(rotation.number, &current, &next.certificate, until, asked.at)?;
        Ok(own.announced(step, next.fingerprint, &current.pem, asked))
    }

    fn give_up(&self, own: Own, asked: Asked) -> Result<Own, RotationError> {
        // Whoever has the old key may have seen the pair that it was to vouch for.
        self.parts.identity.discard()?;
        let next = self.parts.identity.prepare(self.parts.cluster.as_str())?;
        Ok(own.given_up(self.parts.identity.fingerprint(), next.fingerprint, asked))
    }

    /// Every link without its trust, to be written with the decision.
    async fn links_given_up(&self) -> Result<Vec<Txn>, RotationError> {
        let (_, links) = ledger::all(&*self.parts.store).await?;
        // What does not rest on our key stays: a public link's peer never saw it.
        let trusts = |half: &Half| match half {
            Half::Established(established) => established.kind != LinkType::Public,
            Half::Redeeming(_) => true,
            Half::Pending(pending) => pending.token.is_some(),
            Half::Unconfirmed(_) | Half::Terminated(_) => false,
        };
        Ok(links
            .into_iter()
            .filter(|(_, held)| trusts(&held.half))
            .map(|(link, held)| ledger::replace(&link, &held, &Half::default()))
            .collect())
    }

    /// Tells the audit log what the agent does for whoever asked for the rotation.
    fn tell_audit(&self, own: &Own, stage: &str, with: impl FnOnce(Record) -> Record) {
        let Some(rotation) = &own.rotation else { return };
        let record = Record::new(Actor::agent(), Action::ClusterCertificateRotated, Timestamp::now())
            .with("stage", stage)
            .with("asked_by", rotation.asked_by.as_str())
            .with("from", rotation.from.to_string())
            .with("to", rotation.to.to_string());
        self.parts.audit.record(with(record));
    }

    /// `None` if the record, or what is written besides, has moved.
    async fn write(
        &self,
        own: &Own,
        guard: Guard,
        besides: Vec<Txn>,
    ) -> Result<Option<(Writes, Revision)>, RotationError> {
        let mut txn = Txn {
            ops: vec![Op::Put { key: guard.key.clone(), value: value::encode(own) }],
            guards: vec![guard],
        };
        for more in besides {
            txn.guards.extend(more.guards);
            txn.ops.extend(more.ops);
        }
        let writes = Writes::of(&txn);
        Ok(self.commit(txn).await?.map(|revision| (writes, revision)))
    }

    fn is_done(&self, rotation: &Rotation) -> bool {
        rotation.stage == Stage::Decided && self.parts.identity.fingerprint() != rotation.from
    }

    /// The links whose peers are to know our next certificate first, each with its peer's. Nobody knows us by a public
    /// link, and to a peer of a one-way link that calls here nothing is opened: it asks for the proof when it calls.
    async fn established(&self) -> Result<BTreeMap<LinkName, Fingerprint>, PeeringError> {
        let (_, links) = ledger::all(&*self.parts.store).await?;
        let told = |established: &Established| match established.kind {
            LinkType::Bidirectional => true,
            LinkType::Unidirectional => established.dials == Dials::Here,
            LinkType::Public => false,
        };
        Ok(links
            .into_iter()
            .filter_map(|(link, held)| match held.half {
                Half::Established(established) if told(&established) => {
                    Some((link, established.peer.fingerprint))
                }
                _ => None,
            })
            .collect())
    }
}

async fn present(session: &Session, chain: &Chain) -> Result<(), OpenError> {
    let mut stream = session.open(&StreamHeader::Succession).await?;
    frame::write(&mut stream, chain).await?;
    match frame::read(&mut stream).await? {
        StreamAnswer::Accepted => Ok(()),
        StreamAnswer::Refused { code, message } => {
            Err(OpenError::Refused { code, message: crate::wire::printable(&message) })
        }
    }
}
