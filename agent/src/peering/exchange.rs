//! The token exchange: minting, the issuer's side of a redemption, and the redeemer's.
//!
//! Each side's step is one guarded commit; a guard that fails means that somebody else moved the link, and the step
//! is decided anew from what is there then. That is also how fifty redeemers of one token are told from the one.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use schema::kind::cluster_link::LinkType;
use schema::name::LinkName;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::half::{
    ActivateError, Activation, Attempt, Begun, Issued, LinkedError, Peer, Presented, Redeeming,
};
use super::ledger::{self, Held};
use super::seal::Sealed;
use super::{ActivateRequest, Minted, Peering, PeeringError};
use crate::authorize::Permit;
use crate::client::{Client, ClientError};
use crate::store::{CommitError, Revision, Txn, keys};
use crate::task::crash;
use crate::trust::lineage::Lineage;
use crate::trust::{Fingerprint, certificate};
use crate::wire::cluster_link::{LinkPost, LinkReport, VOLATILE_ADDRESSES};
use crate::wire::token::{Secret, TYPE_CLUSTER_LINK, TokenError, TrustToken};

/// How long a token is good for.
const TOKEN_LIFE: SignedDuration = SignedDuration::from_hours(15 * 24);
/// How long the issuer has to answer a redemption, dialling included.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(5);
/// How often a step is decided anew because the link moved under it. Each time somebody else got on.
const TRIES: usize = 64;
/// Most addresses taken from a redeemer.
const MAX_ADDRESSES: usize = 8;

/// Why an exchange did not come about.
#[derive(Debug)]
pub(super) enum ExchangeFailure {
    /// The issuer said no, or is not who the token says: another try would end the same.
    Final(PeeringError),
    /// Nobody can tell whether the issuer would say yes, or has.
    Unclear(PeeringError),
}

impl ExchangeFailure {
    fn into_error(self) -> PeeringError {
        match self {
            ExchangeFailure::Final(error) | ExchangeFailure::Unclear(error) => error,
        }
    }
}

impl Peering {
    /// Issues a token for `link`, which must be declared. An older one that was not redeemed dies.
    pub async fn mint(
        &self,
        permit: &Permit,
        link: &LinkName,
        bound_to: Option<Fingerprint>,
    ) -> Result<Minted, PeeringError> {
        let parts = &self.parts;
        if parts.advertise.is_empty() {
            return Err(PeeringError::NotListening);
        }
        if bound_to == Some(parts.identity.fingerprint()) {
            return Err(PeeringError::Itself);
        }
        let secret = Secret::random();
        let now = Timestamp::now();
        let expires_at = now.saturating_add(TOKEN_LIFE).unwrap_or(Timestamp::MAX);
        let issued = Issued { id: Uuid::new_v4(), digest: secret.digest(), expires_at, bound_to };
        for _ in 0..TRIES {
            let declared = self.exchangeable(link).await?;
            let before = ledger::read(&*parts.store, link).await?;
            let after = before.half.clone().mint(issued.clone()).map_err(|error| already(link, error))?;
            let mut txn = ledger::replace(link, &before, &after);
            txn.guards.push(declared);
            if let Some(revision) = self.commit(txn).await? {
                crash::point("link-minted");
                // Only trust that is given up for the token changes who is known: else there is nothing to wait for.
                if before.half.peer().is_some() {
                    parts.identities.seen(revision).await;
                }
                tracing::info!(%link, by = %permit.caller(), id = %issued.id, "token issued");
                let token = TrustToken {
                    client_name: link.to_string(),
                    fingerprint: parts.identity.fingerprint().to_string(),
                    addresses: parts.advertise.clone(),
                    secret,
                    expires_at,
                    kind: TYPE_CLUSTER_LINK.to_owned(),
                };
                return Ok(Minted { id: issued.id, token, expires_at });
            }
        }
        Err(PeeringError::Superseded(link.clone()))
    }

    /// The issuer's side of a redemption: needs no permit but the token. Gives the link's name here.
    pub async fn activate(&self, request: ActivateRequest) -> Result<LinkName, PeeringError> {
        let parts = &self.parts;
        let token = link_token(&request.token)?;
        if token.fingerprint != parts.identity.fingerprint().to_string() {
            return Err(PeeringError::ForeignToken);
        }
        let fingerprint = certificate::fingerprint(&request.presented);
        if fingerprint == parts.identity.fingerprint() {
            return Err(PeeringError::Itself);
        }
        if let Some(named) = &request.cluster_certificate
            && certificate::from_pem(named).as_ref() != Some(&request.presented)
        {
            return Err(PeeringError::WrongCertificate);
        }
        let peer = Peer {
            fingerprint,
            certificate_pem: certificate::to_pem(&request.presented),
            addresses: plausible(request.addresses),
            lineage: Lineage::default(),
        };
        for _ in 0..TRIES {
            let (_, links) = ledger::all(&*parts.store).await?;
            // Every link is compared, found or not, so that the time taken tells nothing.
            let mut found: Option<(LinkName, Held)> = None;
            for (name, held) in links {
                if held.half.issued(&token.secret) {
                    found = Some((name, held));
                }
            }
            let Some((link, before)) = found else { return Err(PeeringError::UnknownToken) };
            let declared = self.exchangeable(&link).await?;
            let presented = Presented {
                secret: token.secret.clone(),
                attempt: request.attempt.clone(),
                peer: peer.clone(),
            };
            let after = match before.half.clone().activate(presented, Timestamp::now())? {
                Activation::Repeated => return Ok(link),
                Activation::Fresh(after) => after,
            };
            let mut txn = ledger::replace(&link, &before, &after);
            txn.guards.push(declared);
            crash::point("link-activate-before-commit");
            if let Some(revision) = self.commit(txn).await? {
                crash::point("link-activated");
                // The peer dials as soon as it has the answer: it must be known by then.
                parts.identities.seen(revision).await;
                tracing::info!(%link, peer = %fingerprint, "token redeemed");
                return Ok(link);
            }
        }
        Err(ActivateError::Used.into())
    }

    /// Redeems a peer's token for `link`, which must be declared. On failure nothing of the exchange stays.
    ///
    /// The work goes on when the caller goes away: it is the store, not a connection, that says how far it came.
    pub async fn redeem(
        self: &Arc<Self>,
        permit: &Permit,
        link: &LinkName,
        token: &str,
    ) -> Result<LinkReport, PeeringError> {
        let token = link_token(token)?;
        let pinned: Fingerprint = token.fingerprint.parse().map_err(|_| PeeringError::BadFingerprint)?;
        if pinned == self.parts.identity.fingerprint() {
            return Err(PeeringError::Itself);
        }
        tracing::info!(%link, by = %permit.caller(), peer = %pinned, "redeeming a token");
        let (answer, done) = oneshot::channel();
        let (peering, link) = (Arc::clone(self), link.clone());
        self.parts.tasks.spawn("redeem", async move {
            let result = peering.exchange_for(&link, &token, pinned).await;
            // Nobody may be waiting any more.
            let _ = answer.send(match result {
                Ok(()) => peering.report(&link).await,
                Err(error) => Err(error),
            });
        });
        done.await.map_err(|_| PeeringError::Ending)?
    }

    async fn exchange_for(
        &self,
        link: &LinkName,
        token: &TrustToken,
        pinned: Fingerprint,
    ) -> Result<(), PeeringError> {
        let parts = &self.parts;
        let addresses = plausible(token.addresses.clone());
        if addresses.is_empty() {
            return Err(TokenError::NoAddresses.into());
        }
        let redeeming = Redeeming {
            attempt: Attempt::of(&token.secret, &parts.identity.fingerprint()),
            key: parts.identity.fingerprint(),
            pinned,
            addresses,
            sealed: Sealed::seal(&token.secret, &parts.identity.current()),
        };
        self.begin(link, &redeeming).await?;
        crash::point("link-redeem-begun");
        match self.ask_issuer(link, &redeeming, token.secret.clone()).await {
            Ok(certificate) => self.accepted(link, &redeeming, certificate).await,
            Err(failure) => {
                self.abandon(link, &redeeming.attempt).await?;
                Err(failure.into_error())
            }
        }
    }

    /// Writes down what is about to be done, before the token leaves this side.
    async fn begin(&self, link: &LinkName, redeeming: &Redeeming) -> Result<(), PeeringError> {
        let parts = &self.parts;
        for _ in 0..TRIES {
            let declared = self.exchangeable(link).await?;
            let before = ledger::read(&*parts.store, link).await?;
            if self.is_active(link) {
                return Err(PeeringError::AlreadyLinked { link: link.clone(), peer: redeeming.pinned });
            }
            match ledger::link_of(&*parts.store, &redeeming.pinned).await? {
                Some(other) if other != *link => return Err(PeeringError::LinkedElsewhere(other)),
                _ => {}
            }
            let (Begun::Redeeming(after) | Begun::Renewing(after)) =
                before.half.clone().begin(redeeming.clone()).map_err(|error| already(link, error))?;
            let mut txn = ledger::replace(link, &before, &after);
            txn.guards.push(declared);
            if self.commit(txn).await?.is_some() {
                return Ok(());
            }
        }
        Err(PeeringError::Superseded(link.clone()))
    }

    /// The issuer said yes. A link that was moved meanwhile (deleted, or begun anew) stays as it was moved.
    pub(super) async fn accepted(
        &self,
        link: &LinkName,
        redeeming: &Redeeming,
        certificate: String,
    ) -> Result<(), PeeringError> {
        crash::point("link-redeemed-before-commit");
        for _ in 0..TRIES {
            let before = ledger::read(&*self.parts.store, link).await?;
            if before.half.peer().is_some_and(|peer| peer.fingerprint == redeeming.pinned) {
                return Ok(());
            }
            let after = before
                .half
                .clone()
                .accepted(&redeeming.attempt, certificate.clone())
                .map_err(|_| PeeringError::Superseded(link.clone()))?;
            if let Some(revision) = self.commit(ledger::replace(link, &before, &after)).await? {
                crash::point("link-redeemed");
                self.parts.identities.seen(revision).await;
                return Ok(());
            }
        }
        Err(PeeringError::Superseded(link.clone()))
    }

    /// The exchange came to nothing: the token is forgotten.
    pub(super) async fn abandon(&self, link: &LinkName, attempt: &Attempt) -> Result<(), PeeringError> {
        for _ in 0..TRIES {
            let before = ledger::read(&*self.parts.store, link).await?;
            let Ok(after) = before.half.clone().abandoned(attempt) else { return Ok(()) };
            if self.commit(ledger::replace(link, &before, &after)).await?.is_some() {
                return Ok(());
            }
        }
        Err(PeeringError::Superseded(link.clone()))
    }

    /// Shows the issuer the token, over TLS pinned to the token's certificate, with our own as client certificate.
    pub(super) async fn ask_issuer(
        &self,
        link: &LinkName,
        redeeming: &Redeeming,
        secret: Secret,
    ) -> Result<String, ExchangeFailure> {
        let parts = &self.parts;
        let token = TrustToken {
            client_name: link.to_string(),
            fingerprint: redeeming.pinned.to_string(),
            addresses: redeeming.addresses.clone(),
            secret,
            expires_at: Timestamp::MAX,
            kind: TYPE_CLUSTER_LINK.to_owned(),
        };
        let body = LinkPost {
            kind: "bidirectional".to_owned(),
            trust_token: token.encode().expose().to_owned(),
            cluster_certificate: parts.identity.current().pem.clone(),
            // LXD takes a request without addresses for something else; an agent that does not listen has none to
            // give, and dials itself.
            config: [(VOLATILE_ADDRESSES.to_owned(), parts.advertise.join(","))].into(),
            attempt_id: redeeming.attempt.as_str().to_owned(),
            ..LinkPost::default()
        };
        let issuer = Client::pinned(
            &format!("the issuer of the token for link {link}"),
            redeeming.addresses.clone(),
            redeeming.pinned,
            Some(parts.identity.current()),
        )
        .with_timeout(EXCHANGE_LIMIT);
        let answer = tokio::time::timeout(EXCHANGE_LIMIT, issuer.activate_link(&body)).await;
        let activated = match answer {
            Ok(Ok(activated)) => activated,
            Ok(Err(error)) => return Err(judge(error)),
            Err(_) => {
                return Err(ExchangeFailure::Unclear(PeeringError::Unreachable(format!(
                    "the issuer of the token did not answer within {} s at {}",
                    EXCHANGE_LIMIT.as_secs(),
                    redeeming.addresses.join(", ")
                ))));
            }
        };
        // What the issuer says of itself is kept only if it is the certificate that was pinned.
        let ours = certificate::from_pem(&activated.cluster_certificate)
            .is_some_and(|der| certificate::fingerprint(&der) == redeeming.pinned);
        Ok(if ours { activated.cluster_certificate } else { String::new() })
    }

    /// The guard on the declaration of a link whose trust is made by a token.
    async fn exchangeable(&self, link: &LinkName) -> Result<crate::store::Guard, PeeringError> {
        let (declared, guard) = ledger::declared(&*self.parts.store, link).await?;
        match declared.kind {
            LinkType::Bidirectional => Ok(guard),
            LinkType::Unidirectional | LinkType::Public => Err(PeeringError::Unsupported(link.clone())),
        }
    }

    /// Commits; `None` if the link or its declaration has moved. A peer's identity that is in the way is an error.
    pub(super) async fn commit(&self, txn: Txn) -> Result<Option<Revision>, PeeringError> {
        match self.parts.store.commit(txn).await {
            Ok(revision) => Ok(Some(revision)),
            Err(CommitError::Conflict(moved)) if moved.iter().all(|key| key.starts_with(keys::IDENTITY)) => {
                Err(PeeringError::PeerKnown)
            }
            Err(CommitError::Conflict(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn link_token(text: &str) -> Result<TrustToken, PeeringError> {
    let token = TrustToken::decode(text)?;
    if token.kind != TYPE_CLUSTER_LINK {
        return Err(PeeringError::OtherKind);
    }
    Ok(token)
}

fn already(link: &LinkName, LinkedError::Established(peer): LinkedError) -> PeeringError {
    PeeringError::AlreadyLinked { link: link.clone(), peer }
}

fn judge(error: ClientError) -> ExchangeFailure {
    match error {
        ClientError::Refused { status, message, .. } if status.is_client_error() => {
            ExchangeFailure::Final(PeeringError::RefusedByPeer(message))
        }
        ClientError::Refused { message, .. } => {
            ExchangeFailure::Unclear(PeeringError::RefusedByPeer(message))
        }
        ClientError::Mismatch { .. } | ClientError::Unexpected { .. } => {
            ExchangeFailure::Final(PeeringError::Unreachable(error.to_string()))
        }
        ClientError::Unreachable { .. } | ClientError::OldTls { .. } | ClientError::Timeout { .. } | ClientError::Broken { .. } => {
            ExchangeFailure::Unclear(PeeringError::Unreachable(error.to_string()))
        }
    }
}

/// Addresses that could be dialled, at most as many as are taken from a peer. They are hints: what is there is
/// pinned before a byte is sent.
fn plausible(addresses: Vec<String>) -> Vec<String> {
    let dialable = |address: &String| {
        address.len() <= 300
            && address.rsplit_once(':').is_some_and(|(host, port)| {
                !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0)
            })
            && address.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
    };
    addresses.into_iter().filter(dialable).take(MAX_ADDRESSES).collect()
}
