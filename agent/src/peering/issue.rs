//! The issuer's side of a token exchange: minting, and taking a redemption in.
//!
//! Each is one guarded commit; a guard that fails means that somebody else moved the link, and the step is decided
//! anew from what is there then. That is also how fifty redeemers of one token are told from the one.

use std::net::SocketAddr;
use std::sync::Arc;

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use schema::kind::cluster_link::{ClusterLink, LinkType};
use schema::name::LinkName;
use uuid::Uuid;

use super::dial_back::{Way, plausible};
use super::exchange::{TRIES, already, link_token};
use super::half::{ActivateError, Activation, Attempt, DialBack, Half, Issued, Peer, Presented};
use super::ledger::{self, Held};
use super::{Peering, PeeringError};
use crate::audit::Action;
use crate::authorize::Permit;
use crate::store::Guard;
use crate::task::crash;
use crate::trust::{Caller, Fingerprint, certificate};
use crate::wire::cluster_link::{LinkPost, VOLATILE_ADDRESSES};
use crate::wire::token::{Secret, TYPE_CLUSTER_LINK, TrustToken};

/// A redemption as it arrives at the issuer of a bidirectional link's token.
pub struct ActivateRequest {
    /// The token's text.
    pub token: String,
    pub attempt: Option<Attempt>,
    /// The certificate whose key the TLS handshake proved; a stock LXD shows none.
    pub presented: Option<CertificateDer<'static>>,
    /// The certificate that the body names, PEM; must be the one that was shown, where one was.
    pub cluster_certificate: Option<String>,
    /// Where the redeemer says that it listens.
    pub addresses: Vec<String>,
    pub way: Way,
}

/// A token fresh from the mint.
#[derive(Debug, Clone)]
pub struct Minted {
    pub id: Uuid,
    pub token: TrustToken,
    pub expires_at: Timestamp,
}

impl ActivateRequest {
    /// From the body of a request that came from `from` over a connection made with `presented`.
    pub fn from_post(
        post: LinkPost,
        presented: Option<CertificateDer<'static>>,
        from: Option<SocketAddr>,
    ) -> Self {
        let addresses = post.config.get(VOLATILE_ADDRESSES).map(String::as_str).unwrap_or_default();
        Self {
            addresses: addresses.split(',').map(|address| address.trim().to_owned()).collect(),
            token: post.trust_token,
            attempt: Some(post.attempt_id).filter(|id| !id.is_empty()).and_then(Attempt::read),
            presented,
            cluster_certificate: Some(post.cluster_certificate).filter(|pem| !pem.is_empty()),
            way: Way::of(from),
        }
    }
}

/// How a redeemer proves that it holds its certificate's key.
enum Proof {
    Handshake,
    /// By answering at an address of its own.
    DialBack,
}

impl Peering {
    /// Issues a token for `link`, which must be declared. An older one that was not redeemed dies.
    pub async fn mint(
        &self,
        permit: &Permit,
        link: &LinkName,
        bound_to: Option<Fingerprint>,
    ) -> Result<Minted, PeeringError> {
        self.issue(permit, link, bound_to, |half, token| {
            half.mint(token).map_err(|error| already(link, error))
        })
        .await
    }

    /// Issues a token for `link`, which must be declared, as Consul does: what trust there is stands until the token is
    /// redeemed, and only then is it made anew.
    pub async fn regenerate(&self, permit: &Permit, link: &LinkName) -> Result<Minted, PeeringError> {
        self.issue(permit, link, None, |half, token| {
            half.reissue(token).map_err(|_| PeeringError::Dials(link.clone()))
        })
        .await
    }

    async fn issue(
        &self,
        permit: &Permit,
        link: &LinkName,
        bound_to: Option<Fingerprint>,
        place: impl Fn(Half, Issued) -> Result<Half, PeeringError>,
    ) -> Result<Minted, PeeringError> {
        let parts = &self.parts;
        if parts.addresses.current().is_empty() {
            return Err(PeeringError::NotListening);
        }
        if bound_to == Some(parts.identity.fingerprint()) {
            return Err(PeeringError::Itself);
        }
        let secret = Secret::random();
        let now = Timestamp::now();
        let expires_at =
            now.saturating_add(parts.settings.current().token_expiry()).unwrap_or(Timestamp::MAX);
        let issued = Issued { id: Uuid::new_v4(), digest: secret.digest(), expires_at, bound_to };
        for _ in 0..TRIES {
            let (_, declared) = self.mints(link).await?;
            let before = ledger::read(&*parts.store, link).await?;
            let after = place(before.half.clone(), issued.clone())?;
            let mut txn = ledger::replace(link, &before, &after);
            txn.guards.push(declared);
            if self.commit_told(permit.caller(), Action::TokenIssued, link, txn).await?.is_some() {
                crash::point("link-minted");
                tracing::info!(%link, by = %permit.caller(), id = %issued.id, "token issued");
                let token = TrustToken {
                    client_name: link.to_string(),
                    fingerprint: parts.identity.fingerprint().to_string(),
                    addresses: parts.addresses.current().to_vec(),
                    secret,
                    expires_at,
                    kind: TYPE_CLUSTER_LINK.to_owned(),
                };
                return Ok(Minted { id: issued.id, token, expires_at });
            }
        }
        Err(PeeringError::Superseded(link.clone()))
    }

    /// Takes in the redeemer of a bidirectional link's token: needs no permit but the token. Gives the link's name here.
    pub async fn activate(
        self: &Arc<Self>,
        by: &Caller,
        request: ActivateRequest,
    ) -> Result<LinkName, PeeringError> {
        let token = self.own_token(&request.token)?;
        let named = request.cluster_certificate.as_ref().map(|pem| certificate::from_pem(pem));
        let (der, proof) = match (request.presented, named) {
            (Some(shown), Some(named)) if named.as_ref() != Some(&shown) => {
                return Err(PeeringError::WrongCertificate);
            }
            (Some(shown), _) => (shown, Proof::Handshake),
            (None, Some(Some(named))) => (named, Proof::DialBack),
            (None, Some(None)) => return Err(PeeringError::BadCertificate),
            (None, None) => return Err(PeeringError::CertificateRequired),
        };
        let mut presented = self.presented(&token, &der, LinkType::Bidirectional)?;
        presented.attempt = request.attempt;
        presented.peer.addresses = plausible(&request.addresses);
        if matches!(proof, Proof::DialBack) {
            // The token is looked at first, so that nobody has addresses dialled without one.
            self.find(&presented).await?;
            let peer = presented.peer.fingerprint;
            match self.dial_back(peer, &presented.peer.addresses, request.way).await {
                reached @ DialBack::Reached { .. } => presented.dial_back = Some(reached),
                DialBack::Unreached { .. } | DialBack::Nowhere { .. } => {
                    let why = "Failed retrieving cluster certificate from any address";
                    return Err(PeeringError::Unverified(why.to_owned()));
                }
            }
        }
        let link = self.take_in(by, presented.clone()).await?;
        if matches!(proof, Proof::Handshake) {
            // After the answer: nothing depends on it.
            let (peering, link, peer) = (Arc::clone(self), link.clone(), presented.peer);
            self.parts.tasks.spawn("dial-back", async move {
                let ending = peering.parts.tasks.ending();
                let noted = peering.note_dial_back(&link, peer.fingerprint, &peer.addresses, request.way);
                ending.run_until_cancelled(noted).await;
            });
        }
        Ok(link)
    }

    /// Takes in the redeemer of a unidirectional link's token, minted for a declared link: it may call here from now
    /// on. It has shown its certificate in the handshake. Gives the link's name here.
    pub async fn admit(
        &self,
        by: &Caller,
        token: &str,
        shown: &CertificateDer<'static>,
    ) -> Result<LinkName, PeeringError> {
        let token = self.own_token(token)?;
        let mut presented = self.presented(&token, shown, LinkType::Unidirectional)?;
        presented.attempt = Some(Attempt::of(&token.secret, &presented.peer.fingerprint));
        self.take_in(by, presented).await
    }

    /// A token's content, if it is of this cluster.
    fn own_token(&self, text: &str) -> Result<TrustToken, PeeringError> {
        let token = link_token(text)?;
        if token.fingerprint != self.parts.identity.fingerprint().to_string() {
            tracing::info!("a token of another cluster was brought");
            return Err(PeeringError::UnknownToken);
        }
        Ok(token)
    }

    fn presented(
        &self,
        token: &TrustToken,
        der: &CertificateDer<'static>,
        kind: LinkType,
    ) -> Result<Presented, PeeringError> {
        let fingerprint = certificate::fingerprint(der);
        if fingerprint == self.parts.identity.fingerprint() {
            return Err(PeeringError::Itself);
        }
        let peer = Peer {
            fingerprint,
            certificate_pem: certificate::to_pem(der),
            addresses: Vec::new(),
            told: Vec::new(),
            lineage: Box::default(),
        };
        Ok(Presented { secret: token.secret.clone(), attempt: None, kind, peer, dial_back: None })
    }

    async fn take_in(&self, by: &Caller, presented: Presented) -> Result<LinkName, PeeringError> {
        for _ in 0..TRIES {
            let (link, before, declared) = self.find(&presented).await?;
            let after = match before.half.clone().activate(presented.clone(), Timestamp::now())? {
                Activation::Repeated => return Ok(link),
                Activation::Fresh(after) => after,
            };
            let mut txn = ledger::replace(&link, &before, &after);
            txn.guards.push(declared);
            if let Some(replaced) = before.half.linked()
                && !replaced.accepts(&presented.peer.fingerprint)
            {
                // Another cluster took its place, by a token that was issued for that: it is told that it is out.
                txn.ops.extend(ledger::told_later(&link, &before.half, Timestamp::now()));
            }
            crash::point("link-activate-before-commit");
            // The peer dials as soon as it has the answer; it is known by then, for the commit waits for that.
            if self.commit_told(by, Action::ClusterLinkActivated, &link, txn).await?.is_some() {
                crash::point("link-activated");
                tracing::info!(%link, peer = %presented.peer.fingerprint, "token redeemed");
                return Ok(link);
            }
        }
        Err(ActivateError::Used.into())
    }

    /// The link that the secret was minted for, if a link of that type takes it.
    async fn find(&self, presented: &Presented) -> Result<(LinkName, Held, Guard), PeeringError> {
        let (_, links) = ledger::all(&*self.parts.store).await?;
        // Every link is compared, found or not, so that the time taken tells nothing.
        let mut found: Option<(LinkName, Held)> = None;
        for (name, held) in links {
            if held.half.issued(&presented.secret) {
                found = Some((name, held));
            }
        }
        let Some((link, before)) = found else { return Err(PeeringError::UnknownToken) };
        let (declared, guard) = self.mints(&link).await?;
        if declared.kind != presented.kind {
            // Each type's token is for its own endpoint: who holds one must not choose what it makes.
            tracing::info!(%link, kind = ?declared.kind, "a token was brought to the other type's endpoint");
            return Err(PeeringError::UnknownToken);
        }
        // What can be told without dialling is told without dialling.
        if let Half::Pending(_) | Half::Established(_) = &before.half {
            before.half.clone().activate(presented.clone(), Timestamp::now())?;
        }
        Ok((link, before, guard))
    }

    /// A declared link that tokens are minted for, and the guard on its declaration.
    async fn mints(&self, link: &LinkName) -> Result<(ClusterLink, Guard), PeeringError> {
        let (declared, guard) = ledger::declared(&*self.parts.store, link).await?;
        match declared.kind {
            LinkType::Public => Err(PeeringError::Public(link.clone())),
            LinkType::Unidirectional if !declared.is_called() => Err(PeeringError::Calls(link.clone())),
            LinkType::Bidirectional | LinkType::Unidirectional => Ok((declared, guard)),
        }
    }
}
