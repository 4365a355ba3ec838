//! The redeemer's side of a token exchange. (`issue` is the other.)
//!
//! Each step is one guarded commit; a guard that fails means that somebody else moved the link, and the step is
//! decided anew from what is there then.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use schema::kind::cluster_link::LinkType;
use schema::name::LinkName;
use tokio::sync::oneshot;

use super::dial_back::plausible;
use super::half::{ActivateError, Attempt, Begun, Half, LinkedError, Pending, Redeeming, Remote};
use super::ledger;
use super::seal::Sealed;
use super::{Peering, PeeringError};
use crate::audit::{Action, Actor, Record, Writes};
use crate::authorize::Permit;
use crate::client::verify::{Verified, verify};
use crate::client::{Client, ClientError};
use crate::store::{CommitError, Guard, Op, Revision, Txn, keys};
use crate::task::crash;
use crate::trust::{Fingerprint, certificate};
use crate::tunnel::AttemptError;
use crate::tunnel::connect::ADDRESS_TIMEOUT;
use crate::wire::cluster_link::{Dials, LinkPost, LinkReport, VOLATILE_ADDRESSES};
use crate::wire::token::{Secret, TYPE_CLUSTER_LINK, TokenError, TrustToken};

/// How long the issuer has to answer a redemption, dialling included.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(5);
/// How often a step is decided anew because the link moved under it. Each time somebody else got on.
pub(super) const TRIES: usize = 64;

/// A token to be redeemed.
#[derive(Debug)]
pub struct Redemption {
    pub token: TrustToken,
    /// What the issuer says of itself beside.
    pub remote: Option<Remote>,
    pub again: Again,
}

/// Whether trust that carries data may be made anew with the same peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    No,
    Yes,
}

impl Redemption {
    fn first(token: TrustToken) -> Self {
        Self { token, remote: None, again: Again::No }
    }
}

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
    /// Redeems a peer's token for `link`, which must be declared. On failure nothing of the exchange stays.
    ///
    /// The work goes on when the caller goes away: it is the store, not a connection, that says how far it came.
    pub async fn redeem(
        self: &Arc<Self>,
        permit: &Permit,
        link: &LinkName,
        token: &str,
    ) -> Result<LinkReport, PeeringError> {
        self.redeem_token(permit, link, Redemption::first(link_token(token)?)).await
    }

    /// The same with a token that was read already.
    pub async fn redeem_token(
        self: &Arc<Self>,
        permit: &Permit,
        link: &LinkName,
        redemption: Redemption,
    ) -> Result<LinkReport, PeeringError> {
        let token = check_kind(&redemption.token)?;
        let pinned: Fingerprint = token.fingerprint.parse().map_err(|_| PeeringError::BadFingerprint)?;
        if self.parts.identity.is_ours(&pinned, Timestamp::now()) {
            return Err(PeeringError::Itself);
        }
        tracing::info!(%link, by = %permit.caller(), peer = %pinned, "redeeming a token");
        let (answer, done) = oneshot::channel();
        let (peering, link) = (Arc::clone(self), link.clone());
        self.parts.tasks.spawn("redeem", async move {
            let result = peering.exchange_for(&link, redemption, pinned).await;
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
        redemption: Redemption,
        pinned: Fingerprint,
    ) -> Result<(), PeeringError> {
        let Redemption { token, remote, again } = redemption;
        let parts = &self.parts;
        let addresses = plausible(&token.addresses);
        if addresses.is_empty() {
            return Err(TokenError::NoAddresses.into());
        }
        let (kind, _) = self.redeems(link).await?;
        let redeeming = Redeeming {
            kind,
            attempt: Attempt::of(&token.secret, &parts.identity.fingerprint()),
            key: parts.identity.fingerprint(),
            pinned,
            addresses,
            sealed: Sealed::seal(&token.secret, &parts.identity.current()),
            remote,
            before: None,
        };
        // Trust that stands is not touched before the issuer has said yes.
        let renews = again == Again::Yes
            && self.dialler(link).await?.peer().is_some_and(|peer| peer.fingerprint == pinned);
        if !renews {
            self.begin(link, &redeeming, again).await?;
            crash::point("link-redeem-begun");
        }
        match self.ask_issuer(link, &redeeming, token.secret.clone()).await {
            Ok(_) if renews => self.begin(link, &redeeming, again).await,
            Ok(certificate) => self.accepted(link, &redeeming, certificate).await,
            Err(failure) => {
                self.abandon(link, &redeeming.attempt).await?;
                Err(failure.into_error())
            }
        }
    }

    /// Writes down what is about to be done, before the token leaves this side.
    async fn begin(&self, link: &LinkName, redeeming: &Redeeming, again: Again) -> Result<(), PeeringError> {
        let parts = &self.parts;
        for _ in 0..TRIES {
            let (kind, declared) = self.redeems(link).await?;
            if kind != redeeming.kind {
                return Err(PeeringError::Superseded(link.clone()));
            }
            let before = ledger::read(&*parts.store, link).await?;
            if again == Again::Yes {
                check_dials(link, &before.half)?;
            }
            if self.is_active(link) && again == Again::No {
                return Err(PeeringError::AlreadyLinked { link: link.clone(), peer: redeeming.pinned });
            }
            // Over a one-way link nobody comes in, so who is known here already is not in its way.
            if kind == LinkType::Bidirectional {
                match ledger::link_of(&*parts.store, &redeeming.pinned).await? {
                    Some(other) if other != *link => {
                        let half = ledger::read(&*parts.store, &other).await?.half;
                        if half.was_redeemed_by(&redeeming.attempt) {
                            return Err(ActivateError::Used.into());
                        }
                        return Err(PeeringError::LinkedElsewhere(other));
                    }
                    _ => {}
                }
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

    /// The half of a link that may dial, by Consul's rules.
    async fn dialler(&self, link: &LinkName) -> Result<Half, PeeringError> {
        let half = ledger::read(&*self.parts.store, link).await?.half;
        check_dials(link, &half)?;
        Ok(half)
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
            let txn = ledger::replace(link, &before, &after);
            let told = self.commit_told(Actor::agent(), Action::ClusterLinkActivated, link, txn);
            if told.await?.is_some() {
                crash::point("link-redeemed");
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
    /// Gives the issuer's certificate, PEM.
    pub(super) async fn ask_issuer(
        &self,
        link: &LinkName,
        redeeming: &Redeeming,
        secret: Secret,
    ) -> Result<String, ExchangeFailure> {
        let parts = &self.parts;
        let issuer = find_issuer(redeeming).await?;
        let token = TrustToken {
            client_name: link.to_string(),
            fingerprint: redeeming.pinned.to_string(),
            addresses: redeeming.addresses.clone(),
            secret,
            expires_at: Timestamp::MAX,
            kind: TYPE_CLUSTER_LINK.to_owned(),
        };
        let client = Client::pinned(
            &format!("the issuer of the token for link {link}"),
            vec![issuer.address.clone()],
            redeeming.pinned,
            Some(parts.identity.current()),
        )
        .with_timeout(EXCHANGE_LIMIT);
        let asked = async {
            match redeeming.kind {
                LinkType::Unidirectional => client.redeem_identity_token(&token.encode()).await,
                LinkType::Bidirectional | LinkType::Public => {
                    client
                        .activate_link(&LinkPost {
                            kind: "bidirectional".to_owned(),
                            trust_token: token.encode().expose().to_owned(),
                            cluster_certificate: parts.identity.current().pem.clone(),
                            // LXD takes a request without addresses for something else; an agent that does not
                            // listen has none to give, and dials itself.
                            config: [(VOLATILE_ADDRESSES.to_owned(), parts.addresses.current().join(","))]
                                .into(),
                            attempt_id: redeeming.attempt.as_str().to_owned(),
                            ..LinkPost::default()
                        })
                        .await
                        .map(drop)
                }
            }
        };
        match asked.await {
            Ok(()) => Ok(certificate::to_pem(&issuer.certificate)),
            Err(error) => Err(judge(link, redeeming, &issuer.address, error)),
        }
    }

    /// The type of a declared link that redeems tokens, and the guard on its declaration.
    async fn redeems(&self, link: &LinkName) -> Result<(LinkType, Guard), PeeringError> {
        let (declared, guard) = ledger::declared(&*self.parts.store, link).await?;
        match declared.kind {
            LinkType::Public => Err(PeeringError::Public(link.clone())),
            LinkType::Unidirectional if declared.is_called() => Err(PeeringError::Called(link.clone())),
            kind => Ok((kind, guard)),
        }
    }

    /// Commits as [`Peering::commit`], and tells the audit log who did what to `link`.
    pub(super) async fn commit_told(
        &self,
        by: impl Into<Actor>,
        action: Action,
        link: &LinkName,
        txn: Txn,
    ) -> Result<Option<Revision>, PeeringError> {
        let writes = Writes::of(&txn);
        let committed = self.commit(txn).await?;
        if let Some(revision) = committed {
            let record = Record::new(by, action, Timestamp::now()).on(format!("/1.0/cluster/links/{link}"));
            self.parts.audit.record(record.committed(writes, revision));
        }
        Ok(committed)
    }

    /// Commits; `None` if the link or its declaration has moved. A peer's identity that is in the way is an error.
    /// Whoever is known by it is so when this returns.
    pub(super) async fn commit(&self, txn: Txn) -> Result<Option<Revision>, PeeringError> {
        let of_identity = |op: &Op| op.key().starts_with(keys::IDENTITY);
        let changes_identities = txn.ops.iter().any(of_identity);
        match self.parts.store.commit(txn).await {
            Ok(revision) => {
                if changes_identities {
                    self.parts.identities.seen(revision).await;
                }
                Ok(Some(revision))
            }
            Err(CommitError::Conflict(moved)) if moved.iter().all(|key| key.starts_with(keys::IDENTITY)) => {
                Err(PeeringError::PeerKnown)
            }
            Err(CommitError::Conflict(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Consul's rule: who issued a token waits for it to be redeemed, and redeems none.
fn check_dials(link: &LinkName, half: &Half) -> Result<(), PeeringError> {
    let waits = match half {
        Half::Pending(Pending { token: Some(token) }) => token.expires_at > Timestamp::now(),
        Half::Established(established) => established.dials == Dials::Peer,
        _ => false,
    };
    if waits { Err(PeeringError::IsDialled(link.clone())) } else { Ok(()) }
}

/// Looks at every address at once for the certificate that the token names, before the token is shown to anybody.
async fn find_issuer(redeeming: &Redeeming) -> Result<Verified, ExchangeFailure> {
    let ask = |(position, address): (usize, &String)| {
        let address = address.clone();
        async move { (position, verify(&address, redeeming.pinned, None, ADDRESS_TIMEOUT).await, address) }
    };
    let mut asked: FuturesUnordered<_> = redeeming.addresses.iter().enumerate().map(ask).collect();
    let mut failures = Vec::new();
    while let Some((position, answer, address)) = asked.next().await {
        match answer {
            Ok(verified) => return Ok(verified),
            Err(error) => failures.push((position, address, error)),
        }
    }
    failures.sort_by_key(|(position, ..)| *position);
    let is_mismatch = |error: &AttemptError| matches!(error, AttemptError::Mismatch { .. });
    let all_others = !failures.is_empty() && failures.iter().all(|(_, _, error)| is_mismatch(error));
    let told = |(_, address, error): (usize, String, AttemptError)| {
        let why = match error {
            AttemptError::Mismatch { expected, got } => format!(
                "Certificate fingerprint mismatch for address {address:?}: expected {expected}, got {got}"
            ),
            other => format!("{address}: {other}"),
        };
        (address, why)
    };
    let error = PeeringError::NoIssuer { tried: failures.into_iter().map(told).collect() };
    Err(if all_others { ExchangeFailure::Final(error) } else { ExchangeFailure::Unclear(error) })
}

pub(super) fn link_token(text: &str) -> Result<TrustToken, PeeringError> {
    let token = TrustToken::decode(text)?;
    check_kind(&token)?;
    Ok(token)
}

fn check_kind(token: &TrustToken) -> Result<&TrustToken, PeeringError> {
    if token.kind != TYPE_CLUSTER_LINK {
        // Only LXD's own words are repeated: what stands there may be anything.
        let known = ["", "Client certificate"].into_iter().find(|known| *known == token.kind);
        return Err(PeeringError::OtherKind(known.unwrap_or("unknown").to_owned()));
    }
    Ok(token)
}

pub(super) fn already(link: &LinkName, LinkedError::Established(peer): LinkedError) -> PeeringError {
    PeeringError::AlreadyLinked { link: link.clone(), peer }
}

fn judge(link: &LinkName, redeeming: &Redeeming, address: &str, error: ClientError) -> ExchangeFailure {
    let (link, tried) = (link.clone(), redeeming.addresses.len());
    match error {
        ClientError::Refused { status, message, .. } => {
            let refused =
                PeeringError::RefusedByPeer { link, tried, address: address.to_owned(), status, message };
            if status.is_client_error() {
                ExchangeFailure::Final(refused)
            } else {
                ExchangeFailure::Unclear(refused)
            }
        }
        // Agents do not log in to each other.
        ClientError::Mismatch { .. } | ClientError::Unexpected { .. } | ClientError::Login { .. } => {
            ExchangeFailure::Final(PeeringError::Unreachable { link, reason: error.to_string() })
        }
        ClientError::Unreachable { .. }
        | ClientError::OldTls { .. }
        | ClientError::Timeout { .. }
        | ClientError::Broken { .. } => {
            ExchangeFailure::Unclear(PeeringError::Unreachable { link, reason: error.to_string() })
        }
    }
}
