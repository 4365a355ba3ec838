//! Whether a connection may be made, and go on: one function of the catalog, asked again whenever that changes.

use std::sync::Arc;

use schema::access::{Reason, Source};
use schema::name::{LinkName, ServiceName};
use tokio::sync::watch;

use super::MeshParts;
use crate::catalog::{CatalogView, Instances};
use crate::trust::identity::Identities;
use crate::trust::{Fingerprint, Who};
use crate::wire::traffic::Denial;

/// Who wants to reach what.
#[derive(Debug, Clone)]
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
    #[error("no instance of the service has a port: it only calls others")]
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
#[derive(Debug)]
pub(super) struct Admitted {
    /// Every instance of the service. At least one has a port.
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
    if !instances.iter().any(|instance| instance.service.port.is_some()) {
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

/// The permit of one connection for as long as that lives.
pub(super) struct Standing<'a> {
    parts: &'a MeshParts,
    request: &'a Request,
    /// The certificate that the link was known by; `None` for a connection within this cluster.
    peer: Option<Fingerprint>,
    catalog: watch::Receiver<Arc<CatalogView>>,
    identities: watch::Receiver<u64>,
}

impl<'a> Standing<'a> {
    /// Decides now. Whatever changes from here on is seen by [`Standing::fallen`].
    pub(super) fn decide(
        parts: &'a MeshParts,
        request: &'a Request,
        peer: Option<Fingerprint>,
    ) -> Result<(Self, Admitted), Refused> {
        let mut standing = Self {
            parts,
            request,
            peer,
            catalog: parts.catalog.subscribe(),
            identities: parts.identities.changed(),
        };
        let admitted = standing.ask()?;
        Ok((standing, admitted))
    }

    /// Waits until the permit falls and tells why it did.
    pub(super) async fn fallen(mut self) -> Refused {
        loop {
            // A sender that is gone changes nothing any more; the drain ends the connection then.
            let changed = tokio::select! {
                changed = self.catalog.changed() => changed,
                changed = self.identities.changed() => changed,
            };
            if changed.is_err() {
                return std::future::pending().await;
            }
            if let Err(refused) = self.ask() {
                return refused;
            }
        }
    }

    fn ask(&mut self) -> Result<Admitted, Refused> {
        self.identities.mark_unchanged();
        if let Some(peer) = self.peer
            && link_of(&self.parts.identities, peer) != self.request.source.peer
        {
            return Err(Refused::NoLink);
        }
        let view = self.catalog.borrow_and_update().clone();
        admit(&view, self.request)
    }
}
