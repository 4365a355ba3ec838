//! The life of cluster links: making trust with a one-time token, keeping one connection to each peer, telling each
//! other what is exported, and ending it.
//!
//! Everything follows the store. Whoever commits a change of `/link/…` (this module for exchanges, `apply` for
//! removals) need tell nobody: one task watches the prefix and starts, restarts or ends what each half asks for.

pub mod half;
mod seal;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use jiff::Timestamp;
use schema::name::{ClusterName, LinkName};
use schema::plan::LiveLink;
use tokio::sync::watch;

use crate::authorize::Permit;
use crate::catalog::{Catalog, Imports};
use crate::health::Health;
use crate::store::{CommitError, Op, Store, StoreError};
use crate::task::Tasks;
use crate::trust::Fingerprint;
use crate::trust::certificate::KeyPair;
use crate::trust::identity::Identities;
use crate::tunnel::{Incoming, Router, Session, Sessions};
use crate::wire::cluster_link::LinkReport;
use crate::wire::link::StreamHeader;
use crate::wire::token::{TokenError, TrustToken};
use half::{ActivateError, Attempt};

/// What a `Peering` works with.
pub struct PeeringParts {
    pub store: Arc<dyn Store>,
    /// The cluster's key pair.
    pub identity: Arc<KeyPair>,
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
    changed: watch::Sender<u64>,
}

/// A redemption as it arrives at the issuer.
#[derive(Debug)]
pub struct ActivateRequest {
    /// The token's text.
    pub token: String,
    pub attempt: Option<Attempt>,
    /// The certificate whose key the TLS handshake proved, DER.
    pub presented: Vec<u8>,
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
    LinkedElsewhere(String),
    #[error("a cluster link already exists between these clusters")]
    PeerKnown,
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("this token is for {0:?}, not for a cluster link")]
    OtherKind(String),
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
    #[error("another exchange has been begun for link {0}; try again")]
    Superseded(LinkName),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Value(#[from] crate::store::value::ValueError),
}

impl Peering {
    pub fn new(parts: PeeringParts) -> Arc<Self> {
        Arc::new(Self { parts, changed: watch::Sender::default() })
    }

    /// Reads the links and keeps them until the tasks end. `router` serves what arrives on sessions dialled here.
    pub async fn run(self: &Arc<Self>, router: Arc<dyn Router>) -> Result<(), PeeringError> {
        let _ = router;
        self.parts.store.range("/link/").await?;
        Ok(())
    }

    /// Rises whenever the state of a link may have changed.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Issues a token for `link`, which must be declared. An older one that was not redeemed dies.
    pub async fn mint(
        &self,
        permit: &Permit,
        link: &LinkName,
        bound_to: Option<Fingerprint>,
    ) -> Result<Minted, PeeringError> {
        let _ = (permit, bound_to);
        Err(PeeringError::NotFound(link.clone()))
    }

    /// Redeems a peer's token for `link`, which must be declared. On failure nothing of the exchange stays.
    pub async fn redeem(
        self: &Arc<Self>,
        permit: &Permit,
        link: &LinkName,
        token: &str,
    ) -> Result<LinkReport, PeeringError> {
        let _ = (permit, token);
        Err(PeeringError::NotFound(link.clone()))
    }

    /// The issuer's side of a redemption: needs no permit but the token. Gives the link's name here.
    pub async fn activate(&self, request: ActivateRequest) -> Result<LinkName, PeeringError> {
        let _ = request;
        Err(PeeringError::UnknownToken)
    }

    /// What a plan needs to know of every link, declared or left over.
    pub async fn live_links(&self) -> Result<BTreeMap<LinkName, LiveLink>, PeeringError> {
        Ok(BTreeMap::new())
    }

    /// The truth about every link.
    pub async fn reports(&self) -> Result<Vec<LinkReport>, PeeringError> {
        Ok(Vec::new())
    }

    pub async fn report(&self, link: &LinkName) -> Result<LinkReport, PeeringError> {
        Err(PeeringError::NotFound(link.clone()))
    }

    /// What deletes a link's trust: to be put into the very commit that deletes its declaration. The rest (telling
    /// the peer, cutting the connection, withdrawing what was imported) follows from the commit by itself.
    pub async fn removal(&self, link: &LinkName) -> Result<crate::store::Txn, PeeringError> {
        let _ = link;
        Ok(crate::store::Txn { guards: Vec::new(), ops: Vec::<Op>::new() })
    }

    /// Takes in a connection that a peer has made. One that nobody knows is closed.
    pub fn adopt(self: &Arc<Self>, session: Session) {
        session.close("not a linked cluster");
    }

    /// Serves a stream of peering's own kind ([`StreamHeader::Sync`] and what ends a link) to its end.
    pub fn serve(self: &Arc<Self>, session: &Session, incoming: Incoming) -> BoxFuture<'static, ()> {
        let _ = session;
        debug_assert!(matches!(incoming.header, StreamHeader::Sync { .. }));
        Box::pin(incoming.refuse(crate::wire::link::Refusal::Unavailable, "not ready"))
    }
}
