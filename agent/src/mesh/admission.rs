//! Whether a connection may be made: one pure function of the catalog. [`super::grant`] keeps what it says.

use std::sync::Arc;

use schema::access::{Reason, Source};
use schema::name::{LinkName, ServiceName};

use crate::catalog::{CatalogView, Instances};
use crate::trust::identity::Identities;
use crate::trust::{Fingerprint, Who};
use crate::wire::traffic::Denial;

/// Who wants to reach what.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Request {
    pub source: Source,
    pub destination: ServiceName,
}

/// Why a connection is refused, or cut. For our log; a peer is told only that it is denied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("the certificate of the session belongs to no link")]
    NoLink,
    #[error("no such service is declared here")]
    NotDeclared,
    #[error("the service is not exported to the link")]
    NotExported,
    #[error("no instance of the service listens: it only calls others")]
    NoPort,
    #[error("{}", match .0 {
        Reason::Rule { rule, .. } => format!("{rule} denies it"),
        Reason::Permissions { rule, .. } => format!("{rule} has HTTP permissions or asks for a JWT, which are not enforced yet"),
        Reason::NoRule => "no intention matches, and what none allows is denied".to_owned(),
    })]
    Intention(Reason),
}

impl From<&Refused> for Denial {
    fn from(refused: &Refused) -> Self {
        match refused {
            Refused::NoLink => Denial::NoLink,
            Refused::NotDeclared => Denial::NotDeclared,
            Refused::NotExported => Denial::NotExported,
            Refused::NoPort => Denial::NoPort,
            Refused::Intention(reason) => reason.into(),
        }
    }
}

/// A connection that may be made, as of one view.
#[derive(Debug, Clone)]
pub(super) struct Admitted {
    /// Every instance of the service. At least one listens.
    pub instances: Arc<Instances>,
    /// The rule that allows it.
    pub reason: Reason,
}

/// Decides by exports (for a peer) and intentions. Denied unless an intention allows.
pub(super) fn admit(view: &CatalogView, request: &Request) -> Result<Admitted, Refused> {
    let instances = view.instances(&request.destination).ok_or(Refused::NotDeclared)?;
    if let Some(link) = &request.source.peer
        && !view.is_exported(&request.destination, link)
    {
        return Err(Refused::NotExported);
    }
    let decision = view.intentions.decide(&request.source, &request.destination);
    if !decision.is_allowed() {
        return Err(Refused::Intention(decision.reason));
    }
    if !instances.listen() {
        return Err(Refused::NoPort);
    }
    Ok(Admitted { instances: Arc::clone(instances), reason: decision.reason })
}

/// The link that a session is of, as of now.
pub(super) fn link_of(identities: &Identities, peer: Fingerprint) -> Option<LinkName> {
    match identities.caller_by_fingerprint(peer) {
        Who::Peer { link, .. } => Some(link),
        _ => None,
    }
}
