//! One attempt to get a certificate: account, order, proof, certificate. Nothing that is there already is touched.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Identifier, NewAccount, NewOrder, Order, OrderStatus,
    RetryPolicy,
};
use jiff::Timestamp;
use rcgen::{CertificateParams, DistinguishedName, PublicKeyData as _};

use super::account::{AccountFile, Kept};
use super::challenge::{Challenges, Open};
use super::door::Door;
use super::fault::{Fault, Said, plain};
use super::transport::Transport;
use super::{Method, Wanted, unfit};
use crate::task::Tasks;
use crate::trust::certificate::{CertificateError, KeyPair};
use crate::web::Web;

/// How long an order may take to become ready, and again until its certificate is there.
pub(super) const POLLING: Duration = Duration::from_secs(60);
/// First pause between two looks at an order; each later one is twice as long.
const FIRST_LOOK: Duration = Duration::from_millis(250);

const REGISTERING: &str = "signing in at the ACME server";
const ORDERING: &str = "ordering a certificate";
const PROVING: &str = "proving the name";
const FINISHING: &str = "having the certificate issued";

/// What an attempt works with.
pub(super) struct Means<'a> {
    pub dir: &'a Path,
    pub web: &'a Web,
    pub challenges: &'a Arc<Challenges>,
    pub tasks: &'a Tasks,
}

/// An attempt under way.
pub(super) struct Attempt<'a> {
    means: Means<'a>,
    wanted: &'a Wanted,
    transport: Transport,
    /// Told of each step that begins.
    told: &'a (dyn Fn(&'static str) + Sync),
}

/// What answers a challenge until it is dropped.
struct Proof {
    _open: Open,
    _door: Option<Door>,
}

impl<'a> Attempt<'a> {
    pub fn new(means: Means<'a>, wanted: &'a Wanted, told: &'a (dyn Fn(&'static str) + Sync)) -> Self {
        let transport = Transport::new(means.web.clone(), &wanted.directory);
        Self { means, wanted, transport, told }
    }

    /// The new pair, its chain checked. It is in memory only.
    pub async fn run(&self) -> Result<KeyPair, Fault> {
        let account = self.account().await?;
        let mut order = match self.order(&account).await {
            // It has forgotten us, or was set up anew.
            Err(error) if is_stranger(&error) => {
                AccountFile::of(self.means.dir).forget(&self.wanted.directory)?;
                let account = self.account().await?;
                self.order(&account).await
            }
            ordered => ordered,
        }
        .map_err(|error| self.fault(ORDERING, error))?;
        self.prove(&mut order).await?;
        self.finish(&mut order).await
    }

    async fn account(&self) -> Result<Account, Fault> {
        (self.told)(REGISTERING);
        let Wanted { directory, email, .. } = self.wanted;
        let file = AccountFile::of(self.means.dir);
        let fault = |error| self.fault(REGISTERING, error);
        let builder = Account::builder_with_http(Box::new(self.transport.clone()));
        let contact = format!("mailto:{email}");
        let Some(kept) = file.find(directory)? else {
            let new = NewAccount {
                contact: &[&contact],
                // Nothing is wanted of any server before the administrator has said so.
                terms_of_service_agreed: true,
                only_return_existing: false,
            };
            let (account, credentials) =
                builder.create(&new, directory.clone(), None).await.map_err(fault)?;
            file.keep(Kept { directory: directory.clone(), email: email.clone(), credentials })?;
            tracing::info!(directory, account = account.id(), "an account was made at the ACME server");
            return Ok(account);
        };
        let written_to = kept.email == *email;
        let account = builder.from_credentials(kept.credentials).await.map_err(fault)?;
        if !written_to {
            match account.update_contacts(&[&contact]).await {
                // The order will say so as well, and have a new account made, with this address.
                Err(error) if is_stranger(&error) => {}
                updated => {
                    updated.map_err(fault)?;
                    file.rename(directory, email)?;
                }
            }
        }
        Ok(account)
    }

    async fn order(&self, account: &Account) -> Result<Order, instant_acme::Error> {
        (self.told)(ORDERING);
        let names = [Identifier::Dns(self.wanted.domain.clone())];
        account.new_order(&NewOrder::new(&names)).await
    }

    /// Answers the challenges of `order` until the server has looked.
    async fn prove(&self, order: &mut Order) -> Result<(), Fault> {
        (self.told)(PROVING);
        let fault = |error| self.fault(PROVING, error);
        let mut proofs = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(fault)?;
            match authorization.status {
                AuthorizationStatus::Valid => continue,
                AuthorizationStatus::Pending => {}
                other => return Err(self.unproven(format!("its authorization is {other:?} already"))),
            }
            let offered = authorization.challenges.iter().map(|challenge| format!("{:?}", challenge.r#type));
            let offered = plain(&offered.collect::<Vec<_>>().join(", "));
            let Some(mut challenge) = authorization.challenge(self.wanted.method.challenge_type()) else {
                let Wanted { domain, method, .. } = self.wanted;
                return Err(Fault::NotOffered { domain: domain.clone(), challenge: method.name(), offered });
            };
            let answer = challenge.key_authorization();
            proofs.push(match self.wanted.method {
                Method::TlsAlpn01 => {
                    let digest = answer.digest();
                    self.means
                        .challenges
                        .open_over_tls(&self.wanted.domain, digest.as_ref())
                        .map(Proof::over_tls)?
                }
                Method::Http01 => {
                    let open = self.means.challenges.open_in_clear(&challenge.token, answer.as_str());
                    let door = self.door(&self.wanted.http)?;
                    Proof { _open: open, _door: Some(door) }
                }
            });
            challenge.set_ready().await.map_err(fault)?;
        }
        if proofs.is_empty() && order.state().status == OrderStatus::Ready {
            return Ok(());
        }
        match order.poll_ready(&polling()).await {
            Ok(OrderStatus::Ready) => Ok(()),
            // The order's own error says less than its challenge's.
            Ok(_) => Err(self.explained(order, None).await),
            Err(instant_acme::Error::Api(problem)) if order.state().status == OrderStatus::Invalid => {
                Err(self.explained(order, Some(&problem)).await)
            }
            Err(error) => Err(fault(error)),
        }
    }

    fn door(&self, addresses: &[SocketAddr]) -> Result<Door, Fault> {
        let door = Door::open(addresses, Arc::clone(self.means.challenges), self.means.tasks)
            .map_err(|source| Fault::Door { addresses: addresses.to_vec(), source })?;
        tracing::debug!(at = %door.at(), "the ACME server may look for the proof");
        Ok(door)
    }

    /// Why an order became invalid: what its challenge says, or else what the order does.
    async fn explained(&self, order: &mut Order, problem: Option<&instant_acme::Problem>) -> Fault {
        let mut authorizations = order.authorizations();
        while let Some(Ok(mut authorization)) = authorizations.next().await {
            let Ok(state) = authorization.refresh().await else { continue };
            if let Some(problem) = state.challenges.iter().find_map(|challenge| challenge.error.as_ref()) {
                return self.unproven(Said::of(problem).to_string());
            }
        }
        let said = problem.map(|problem| Said::of(problem).to_string());
        self.unproven(said.unwrap_or_else(|| "it does not say why".to_owned()))
    }

    fn unproven(&self, problem: String) -> Fault {
        let Wanted { domain, method, .. } = self.wanted;
        let advice = match method {
            Method::TlsAlpn01 => format!(
                "Port 443 of every address that {domain} has must lead to this agent's port, with its TLS untouched; \
                 where it cannot, set acme.challenge=HTTP-01"
            ),
            Method::Http01 => {
                let port = self.wanted.http.first().map_or(80, SocketAddr::port);
                format!(
                    "Port 80 of every address that {domain} has must lead to this agent's port {port} (acme.http.port)"
                )
            }
        };
        Fault::Unproven { domain: domain.clone(), challenge: method.name(), problem, advice }
    }

    /// Has the certificate issued, for a key that nobody had before.
    async fn finish(&self, order: &mut Order) -> Result<KeyPair, Fault> {
        (self.told)(FINISHING);
        let fault = |error| self.fault(FINISHING, error);
        let (mut key, request) = self.request(&rcgen::PKCS_ECDSA_P384_SHA384)?;
        match order.finalize_csr(&request).await {
            // An authority that takes no P-384 takes P-256.
            Err(error) if is_about_the_key(&error) => {
                let (smaller, request) = self.request(&rcgen::PKCS_ECDSA_P256_SHA256)?;
                tracing::info!(%error, "the ACME server takes no P-384 key; a P-256 key is used");
                key = smaller;
                order.finalize_csr(&request).await.map_err(fault)?;
            }
            finalized => finalized.map_err(fault)?,
        }
        let pem = order.poll_certificate(&polling()).await.map_err(fault)?;
        let spki = key.subject_public_key_info();
        let chain = unfit::check(&pem, &spki, &self.wanted.domain, Timestamp::now())?;
        Ok(KeyPair::of_chain(chain, &key)?)
    }

    fn request(
        &self,
        algorithm: &'static rcgen::SignatureAlgorithm,
    ) -> Result<(rcgen::KeyPair, Vec<u8>), CertificateError> {
        let key = rcgen::KeyPair::generate_for(algorithm)?;
        let mut params = CertificateParams::new([self.wanted.domain.clone()])?;
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&key)?.der().to_vec();
        Ok((key, request))
    }

    fn fault(&self, doing: &'static str, error: instant_acme::Error) -> Fault {
        Fault::of(doing, &self.wanted.directory, error, self.transport.put_off(), Timestamp::now())
    }
}

impl Proof {
    fn over_tls(open: Open) -> Self {
        Self { _open: open, _door: None }
    }
}

fn polling() -> RetryPolicy {
    RetryPolicy::new().initial_delay(FIRST_LOOK).backoff(2.0).timeout(POLLING)
}

fn kind(error: &instant_acme::Error) -> String {
    match error {
        instant_acme::Error::Api(problem) => Said::of(problem).kind().to_owned(),
        _ => String::new(),
    }
}

fn is_stranger(error: &instant_acme::Error) -> bool {
    kind(error) == "accountDoesNotExist"
}

fn is_about_the_key(error: &instant_acme::Error) -> bool {
    ["badCSR", "badPublicKey", "badSignatureAlgorithm"].contains(&kind(error).as_str())
}

impl Method {
    fn challenge_type(self) -> ChallengeType {
        match self {
            Method::TlsAlpn01 => ChallengeType::TlsAlpn01,
            Method::Http01 => ChallengeType::Http01,
        }
    }
}
