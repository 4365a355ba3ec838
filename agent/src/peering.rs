//! The life of cluster links: making trust with a one-time token, keeping one connection to each peer, telling each
//! other what is exported, and ending it.
//!
//! Everything follows the store. Whoever commits a change of `/link/…` (this module for exchanges, `apply` for
//! removals) need tell nobody: one task watches the prefix and starts, restarts or ends what each half asks for.

mod exchange;
mod export;
mod farewell;
mod follow;
pub mod half;
mod import;
mod keeper;
mod ledger;
mod repin;
pub mod rotation;
mod seal;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use schema::name::{ClusterName, LinkName};
use schema::plan::LiveLink;
use tokio::sync::{Notify, Semaphore, watch};

use crate::catalog::{Catalog, Imports};
use crate::health::Health;
use crate::store::{CommitError, Guard, Store, StoreError, Txn, keys};
use crate::task::Tasks;
use crate::trust::Fingerprint;
use crate::trust::cluster_identity::ClusterIdentity;
use crate::trust::identity::Identities;
use crate::tunnel::{Incoming, Router, Session, Sessions};
use crate::wire::cluster_link::{LinkPost, LinkReport, VOLATILE_ADDRESSES};
use crate::wire::link::{Refusal, StreamHeader};
use crate::wire::token::{TokenError, TrustToken};
use half::{ActivateError, Attempt, Half};

/// What a `Peering` works with.
pub struct PeeringParts {
    pub store: Arc<dyn Store>,
    /// The cluster's key pair, whichever is current.
    pub identity: Arc<ClusterIdentity>,
    pub identities: Arc<Identities>,
    pub sessions: Arc<Sessions>,
    pub catalog: Arc<Catalog>,
    pub imports: Arc<Imports>,
    pub health: Arc<Health>,
    /// Where peers reach this agent, `host:port`; empty if it does not listen.
    pub advertise: Vec<String>,
    pub cluster: ClusterName,
    pub tasks: Tasks,
}

/// The links of this cluster.
pub struct Peering {
    parts: PeeringParts,
    statuses: status::Statuses,
    keepers: follow::Keepers,
    strangers: Semaphore,
    /// Proofs of succession that are being checked.
    checks: Semaphore,
    /// Wakes the task that renews our own certificate.
    rotating: Notify,
}

/// A redemption as it arrives at the issuer.
pub struct ActivateRequest {
    /// The token's text.
    pub token: String,
    pub attempt: Option<Attempt>,
    /// The certificate whose key the TLS handshake proved.
    pub presented: CertificateDer<'static>,
    /// The certificate that the body names, PEM; must be the same where it is given.
    pub cluster_certificate: Option<String>,
    /// Where the redeemer says that it listens.
    pub addresses: Vec<String>,
}

/// A token fresh from the mint.
#[derive(Debug, Clone)]
pub struct Minted {
    pub id: uuid::Uuid,
    pub token: TrustToken,
    pub expires_at: Timestamp,
}

/// Why a link could not be made, or read.
#[derive(Debug, thiserror::Error)]
pub enum PeeringError {
    #[error("there is no cluster link {0}")]
    NotFound(LinkName),
    #[error("cluster link {0} is neither bidirectional nor made by a token; only that is built yet")]
    Unsupported(LinkName),
    #[error("this agent does not listen on the network, so no token of its own could be redeemed")]
    NotListening,
    #[error("cluster link {link} is already made, with certificate {peer}")]
    AlreadyLinked { link: LinkName, peer: Fingerprint },
    #[error("the cluster that the token is from is already linked here, as {0}")]
    LinkedElsewhere(LinkName),
    #[error("a cluster link already exists between these clusters")]
    PeerKnown,
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("this token is not for a cluster link, but for a client")]
    OtherKind,
    #[error("the token's certificate fingerprint is not one: part of the token may be missing")]
    BadFingerprint,
    #[error("the token is another cluster's, not this one's")]
    ForeignToken,
    #[error("this token is this cluster's own: a link to itself cannot be made")]
    Itself,
    #[error("no link here has such a token: it was never issued, or a newer one has replaced it")]
    UnknownToken,
    #[error("{0}")]
    Activate(#[from] ActivateError),
    #[error("the certificate in the request is not the one that the connection was made with")]
    WrongCertificate,
    #[error(
        "a link is activated with the cluster's certificate as the connection's client certificate; none came"
    )]
    NoCertificate,
    #[error("the peer refused the token: {0}")]
    RefusedByPeer(String),
    #[error("{0}")]
    Unreachable(String),
    #[error("the agent is ending")]
    Ending,
    #[error("another exchange has been begun for link {0}; try again")]
    Superseded(LinkName),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Value(#[from] crate::store::value::ValueError),
}

impl PeeringError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Unsupported(_) => "Use type = \"bidirectional\".",
            Self::NotListening => {
                "Start the agent with --listen, or mint the token on the peer and redeem it here."
            }
            Self::AlreadyLinked { .. } => "To make it anew, delete the link first.",
            Self::LinkedElsewhere(_) | Self::PeerKnown => {
                "Two clusters share one link: use it, or delete it first."
            }
            Self::Token(_) | Self::BadFingerprint => "Copy the whole token again, or mint another.",
            Self::OtherKind => "Redeem it with `comity remote add`, or mint one for a link on the peer.",
            Self::Itself => "Mint the token on the other cluster.",
            Self::ForeignToken | Self::UnknownToken | Self::Activate(_) | Self::RefusedByPeer(_) => {
                "Mint another token on the peer: apply both sides together, or `comity link create` there."
            }
            Self::Unreachable(_) => {
                "See that the peer's agent runs and listens where the token says, then try again."
            }
            Self::Superseded(_) => "Try again.",
            Self::NotFound(_)
            | Self::WrongCertificate
            | Self::NoCertificate
            | Self::Ending
            | Self::Store(_)
            | Self::Commit(_)
            | Self::Value(_) => return None,
        })
    }
}

impl ActivateRequest {
    /// From the body of a request that came over a connection made with `presented`.
    pub fn from_post(post: LinkPost, presented: CertificateDer<'static>) -> Self {
        let addresses = post.config.get(VOLATILE_ADDRESSES).map(String::as_str).unwrap_or_default();
        Self {
            addresses: addresses.split(',').map(str::to_owned).collect(),
            token: post.trust_token,
            attempt: Some(post.attempt_id).filter(|id| !id.is_empty()).and_then(Attempt::read),
            presented,
            cluster_certificate: Some(post.cluster_certificate).filter(|pem| !pem.is_empty()),
        }
    }
}

impl Peering {
    pub fn new(parts: PeeringParts) -> Arc<Self> {
        Arc::new(Self {
            parts,
            statuses: status::Statuses::default(),
            keepers: follow::Keepers::default(),
            strangers: Semaphore::new(farewell::STRANGERS),
            checks: Semaphore::new(repin::CHECKS),
            rotating: Notify::new(),
        })
    }

    /// Reads the links and keeps them until the tasks end. `router` serves what arrives on sessions dialled here.
    pub async fn run(self: &Arc<Self>, router: Arc<dyn Router>) -> Result<(), PeeringError> {
        let (revision, links) = ledger::all(&*self.parts.store).await?;
        self.settle(&router, &links);
        self.resume_farewells(&router).await?;
        for (link, held) in links {
            if let Half::Redeeming(redeeming) = held.half {
                self.resume(link, redeeming);
            }
        }
        self.parts.tasks.spawn("rotation", Arc::clone(self).run_rotations());
        self.parts.tasks.spawn("links", Arc::clone(self).follow(router, revision));
        Ok(())
    }

    /// Rises whenever the state of a link may have changed.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.statuses.subscribe()
    }

    /// What a plan needs to know of every link, declared or left over.
    pub async fn live_links(&self) -> Result<BTreeMap<LinkName, LiveLink>, PeeringError> {
        Ok(self
            .reports()
            .await?
            .into_iter()
            .map(|report| (report.name.clone(), status::live(report)))
            .collect())
    }

    /// The truth about every link.
    pub async fn reports(&self) -> Result<Vec<LinkReport>, PeeringError> {
        let now = Timestamp::now();
        let declared = ledger::all_declared(&*self.parts.store).await?;
        let (_, mut halves) = ledger::all(&*self.parts.store).await?;
        for link in declared.keys() {
            halves.entry(link.clone()).or_default();
        }
        Ok(halves
            .into_iter()
            .map(|(link, held)| {
                let status = self.statuses.get(&link);
                status::report(&link, declared.get(&link), &held.half, status, now)
            })
            .collect())
    }

    pub async fn report(&self, link: &LinkName) -> Result<LinkReport, PeeringError> {
        let (declared, _) = ledger::declared(&*self.parts.store, link).await?;
        let held = ledger::read(&*self.parts.store, link).await?;
        Ok(status::report(link, Some(&declared), &held.half, self.statuses.get(link), Timestamp::now()))
    }

    /// What deletes a link's trust: to be put into the very commit that deletes its declaration. The rest (telling
    /// the peer, cutting the connection, withdrawing what was imported) follows from the commit by itself. Where its
    /// guard fails the link was active meanwhile: ask again.
    pub async fn removal(&self, link: &LinkName) -> Result<Txn, PeeringError> {
        let held = ledger::read(&*self.parts.store, link).await?;
        if held.revision.0 == 0 {
            let guard = Guard { key: keys::link(link), modify_revision: held.revision };
            return Ok(Txn { guards: vec![guard], ops: Vec::new() });
        }
        Ok(ledger::remove(link, &held, Timestamp::now()))
    }

    /// Serves a stream of peering's own kinds (all but [`StreamHeader::Service`] and [`StreamHeader::Api`]) to its end.
    pub fn serve(self: &Arc<Self>, session: &Session, incoming: Incoming) -> BoxFuture<'static, ()> {
        let (peering, session) = (Arc::clone(self), session.clone());
        match incoming.header {
            StreamHeader::Sync { .. } => Box::pin(peering.export(session, incoming)),
            StreamHeader::Farewell => Box::pin(peering.note_farewell(session, incoming)),
            StreamHeader::Succession => Box::pin(peering.note_succession(session, incoming)),
            StreamHeader::Compromised => Box::pin(peering.note_compromise(session, incoming)),
            StreamHeader::Service { .. } | StreamHeader::Api => {
                Box::pin(incoming.refuse(Refusal::Malformed, "not a stream of the link itself"))
            }
        }
    }

    fn is_active(&self, link: &LinkName) -> bool {
        self.statuses.get(link).connection == status::Connection::Up
    }
}

#[cfg(test)]
mod tests;
