//! Lets in whom the provider vouches for: judges an access token once, keeps an identity and a session for its user.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::OidcConfig;
use super::discovery::{Discovered, DiscoveryError, clocks, discover};
use super::person::{self, Person, PersonFault};
use super::provider::{AskError, Provider};
use super::token::{self, Claims, TokenFault, Unproven};
use super::verdicts::{Pace, TAKEN_FOR, Verdicts};
use crate::task::Tasks;
use crate::trust::client_token::{ClientError, Clients, Login};
use crate::trust::identity::Identities;
use crate::trust::{Origin, Who};
use crate::web::Web;
use crate::wire::token::{Secret, SecretDigest};

/// Longest access token that is looked at.
const MAX_TOKEN: usize = 16 * 1024;
/// Calls to the provider at a time because of tokens.
const MAX_CALLS: usize = 8;
/// How long a token waits for its turn.
const TURN: Duration = Duration::from_secs(10);
/// Tokens are judged one at a time in each of so many lanes, so that a token that comes twice is judged once.
const LANES: usize = 256;

/// The logins of this cluster.
pub struct Logins {
    web: Web,
    identities: Arc<Identities>,
    clients: Arc<Clients>,
    tasks: Tasks,
    provider: RwLock<Option<Arc<Provider>>>,
    verdicts: Mutex<Verdicts>,
    pace: Mutex<Pace>,
    calls: Semaphore,
    lanes: Vec<tokio::sync::Mutex<()>>,
}

/// Somebody who was let in.
#[derive(Debug)]
pub struct Entered {
    pub who: Who,
    pub session: Uuid,
    /// Of a session that begins: what its client is to keep.
    pub cookie: Option<Secret>,
}

/// What somebody shows of a login: the access token and, beside one that only the provider can read, the ID token.
#[derive(Debug)]
pub struct Presented {
    pub access: Secret,
    pub id: Option<Secret>,
}

impl Presented {
    /// Names what is shown: a verdict is on both tokens together.
    pub fn digest(&self) -> SecretDigest {
        match &self.id {
            None => self.access.digest(),
            Some(id) => Secret::new(format!("{} {}", self.access.expose(), id.expose())).digest(),
        }
    }
}

/// Where a token comes from.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    pub origin: Origin,
    pub user_agent: &'a str,
}

/// Why somebody was not let in.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refusal {
    /// It may be tried again once its user has logged in again.
    #[error("the access token is out of its time: {0}")]
    Stale(String),
    #[error("the access token is not taken: {0}")]
    NotGood(String),
    #[error(transparent)]
    Person(#[from] PersonFault),
    #[error(
        "logins by the identity provider cannot be judged at the moment: {0}. Other ways of logging in are not affected"
    )]
    Absent(String),
    #[error("too many access tokens are being judged at the moment; try again")]
    Busy { retry_after: Duration },
    #[error("a login could not be kept: {0}")]
    Failed(String),
}

impl Refusal {
    /// Whether it will be the same if it is asked again at once.
    fn is_verdict(&self) -> bool {
        matches!(self, Self::Stale(_) | Self::NotGood(_) | Self::Person(_))
    }
}

/// What the provider stands behind.
struct Vouched {
    person: Person,
    groups: Vec<String>,
    good_for: Duration,
}

impl Logins {
    pub fn new(web: Web, identities: Arc<Identities>, clients: Arc<Clients>, tasks: Tasks) -> Arc<Self> {
        Arc::new(Self {
            web,
            identities,
            clients,
            tasks,
            provider: RwLock::default(),
            verdicts: Mutex::default(),
            pace: Mutex::default(),
            calls: Semaphore::new(MAX_CALLS),
            lanes: (0..LANES).map(|_| tokio::sync::Mutex::default()).collect(),
        })
    }

    /// Asks a provider that is about to be set whether it is one.
    pub async fn try_provider(&self, issuer: &str) -> Result<Discovered, DiscoveryError> {
        discover(&self.web, issuer).await
    }

    /// Has logins be judged by this provider from now on, or by none. `found` is what it said when it was tried.
    pub fn set_provider(&self, config: Option<OidcConfig>, found: Option<Discovered>) {
        let mut provider = self.provider.write().unwrap_or_else(PoisonError::into_inner);
        let same = match (&*provider, &config) {
            (None, None) => true,
            (Some(old), Some(new)) => old.config.is(new),
            _ => false,
        };
        if same {
            if let (Some(provider), Some(found)) = (&*provider, found) {
                provider.found(found);
            }
            return;
        }
        if let Some(old) = provider.take() {
            old.forget();
        }
        // What was good for the old one may not be for this one.
        self.verdicts().clear();
        *provider = config.map(|config| {
            let provider = Provider::new(config, self.web.clone(), found);
            self.tasks.spawn("identity provider", provider.clone().follow(self.tasks.ending()));
            provider
        });
    }

    /// The provider that is set, be it there or not.
    pub fn provider(&self) -> Option<Arc<Provider>> {
        self.provider.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether somebody can log in by the provider at this moment.
    pub fn is_usable(&self) -> bool {
        self.provider().is_some_and(|provider| provider.is_there())
    }

    /// What is shown of a login, without an ID token that would not be judged: whoever varied that would have the same
    /// access token judged again and again.
    pub fn presented(&self, access: Secret, id: Option<Secret>) -> Presented {
        let is_judged = Unproven::read(access.expose()).is_none()
            && self.provider().is_some_and(|provider| provider.needs_id_token());
        Presented { access, id: id.filter(|_| is_judged) }
    }

    fn verdicts(&self) -> std::sync::MutexGuard<'_, Verdicts> {
        // Whole between statements, so a panic elsewhere leaves nothing half done.
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was said of a token before: nothing is asked for that.
    pub fn judged(&self, digest: &SecretDigest) -> Option<Result<Entered, Refusal>> {
        if let Err(refusal) = self.verdicts().get(digest, Instant::now())? {
            return Some(Err(refusal));
        }
        let session = self.identities.sessions(|sessions| sessions.by_token(digest))?;
        let who = self.identities.caller_by_session(&session)?;
        Some(Ok(Entered { who, session, cookie: None }))
    }

    /// Whether a token was good once: then whoever brings it is not guessing.
    pub fn was_good(&self, digest: &SecretDigest) -> bool {
        self.identities.sessions(|sessions| sessions.by_token(digest)).is_some()
    }

    /// Lets in whom the provider gave this access token.
    pub async fn enter(&self, shown: &Presented, arrival: Arrival<'_>) -> Result<Entered, Refusal> {
        let digest = shown.digest();
        let lane = usize::from_str_radix(digest.as_str().get(..2).unwrap_or_default(), 16).unwrap_or(0);
        let turn = tokio::time::timeout(TURN, self.lanes[lane % LANES].lock()).await;
        let _turn = turn.map_err(|_| Refusal::Busy { retry_after: Duration::from_secs(1) })?;
        if let Some(judged) = self.judged(&digest) {
            return judged;
        }
        let provider = self.provider().ok_or_else(|| Refusal::Absent("none is set".to_owned()))?;
        match self.judge(&provider, shown).await {
            Ok(vouched) => self.keep(&provider, &digest, vouched, arrival).await,
            Err(refusal) => {
                if refusal.is_verdict() {
                    let refused = || self.verdicts().refused(&digest, refusal.clone(), Instant::now());
                    self.while_set(&provider, refused)?;
                }
                Err(refusal)
            }
        }
    }

    /// Does what holds only while this provider is the one that is set: another may have been set while it was asked.
    fn while_set<T>(&self, provider: &Arc<Provider>, then: impl FnOnce() -> T) -> Result<T, Refusal> {
        let set = self.provider.read().unwrap_or_else(PoisonError::into_inner);
        if set.as_ref().is_some_and(|set| Arc::ptr_eq(set, provider)) {
            return Ok(then());
        }
        Err(Refusal::Absent("what is set about it has changed meanwhile; try again".to_owned()))
    }

    /// Lets in whom `provider` vouches for, if it still has a say once that is written down.
    async fn keep(
        &self,
        provider: &Arc<Provider>,
        digest: &SecretDigest,
        vouched: Vouched,
        arrival: Arrival<'_>,
    ) -> Result<Entered, Refusal> {
        let good_for = vouched.good_for;
        self.while_set(provider, || ())?;
        let entered = self.admit(&provider.config, digest, vouched, arrival).await?;
        let kept = self.while_set(provider, || self.verdicts().taken(digest, good_for, Instant::now()));
        if let Err(refusal) = kept {
            // Whoever set another has ended the sessions that there were then, which this one may have come after.
            let ended = self.clients.end_begun_session(entered.session, Timestamp::now()).await;
            if let Err(error) = ended {
                tracing::error!(%error, session = %entered.session, "a login that does not count could not be ended");
            }
            return Err(refusal);
        }
        Ok(entered)
    }

    async fn judge(&self, provider: &Provider, shown: &Presented) -> Result<Vouched, Refusal> {
        let token = &shown.access;
        for token in [Some(token), shown.id.as_ref()].into_iter().flatten() {
            let text = token.expose();
            if text.len() > MAX_TOKEN || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(Refusal::NotGood("it is no token".to_owned()));
            }
        }
        let absent = || Refusal::Absent(format!("{} does not answer", provider.config.issuer));
        let discovered = provider.discovered().ok_or_else(absent)?;
        match Unproven::read(token.expose()) {
            Some(unproven) => {
                let (claims, good_for, discovered) = self.proven(provider, discovered, &unproven).await?;
                token::check_access(&claims).map_err(|fault| Refusal::NotGood(fault.to_string()))?;
                self.describe(provider, &discovered, token, claims, good_for).await
            }
            None if provider.is_there() => self.judge_opaque(provider, discovered, shown).await,
            None => Err(absent()),
        }
    }

    /// What a token says that can be read, if it is the provider's word for this cluster, and for how long.
    async fn proven(
        &self,
        provider: &Provider,
        mut discovered: Arc<Discovered>,
        unproven: &Unproven<'_>,
    ) -> Result<(Claims, Duration, Arc<Discovered>), Refusal> {
        let mut proven = unproven.prove(&discovered.keys);
        if proven == Err(TokenFault::UnknownKey) {
            let _call = self.call().await?;
            if let Some(newer) = provider.newer_keys(&discovered).await {
                proven = unproven.prove(&newer.keys);
                discovered = newer;
            } else if !provider.is_there() {
                return Err(Refusal::Absent(format!("{} does not answer", provider.config.issuer)));
            }
        }
        let refused = |fault: TokenFault| match fault {
            TokenFault::Expired { .. } | TokenFault::Future { .. } => {
                Refusal::Stale(format!("{fault}{}", clocks(discovered.skew)))
            }
            fault => Refusal::NotGood(fault.to_string()),
        };
        let claims = proven.map_err(refused)?;
        let clients = provider.config.clients();
        let now = Timestamp::now();
        let until = token::check(&claims, provider.config.expected(&clients), now).map_err(refused)?;
        // What is within the leeway is judged again each time.
        let good_for = Duration::try_from(until.duration_since(now)).unwrap_or_default();
        Ok((claims, good_for, discovered))
    }

    /// A token that only the provider can read. Where it can be asked as this cluster it tells whom the token is for.
    /// Else the ID token beside it says that its user has logged in for this cluster; the access token must be of the
    /// same user. By itself it is refused: it may have been given to another service, which could pose as its user here.
    async fn judge_opaque(
        &self,
        provider: &Provider,
        mut discovered: Arc<Discovered>,
        shown: &Presented,
    ) -> Result<Vouched, Refusal> {
        let token = &shown.access;
        let _call = self.call().await?;
        let unknown =
            || Refusal::NotGood("the identity provider does not know it, or not any more".to_owned());
        let (claims, good_for) = match provider.introspect(&discovered, token).await {
            Some(Ok(claims)) => {
                let clients = provider.config.clients();
                let not_good = |fault: TokenFault| Refusal::NotGood(fault.to_string());
                token::check_audience(&claims, provider.config.expected(&clients)).map_err(not_good)?;
                let until = token::time(&claims, "exp").map_err(not_good)?;
                let left = until.map(|until| until.duration_since(Timestamp::now()));
                let good_for = left.map(|left| Duration::try_from(left).unwrap_or_default());
                (claims, good_for.unwrap_or(TAKEN_FOR))
            }
            Some(Err(AskError::Refused)) => return Err(unknown()),
            Some(Err(AskError::Absent(reason))) => return Err(Refusal::Absent(reason)),
            None if provider.config.audience.is_some() => {
                return Err(Refusal::NotGood(
                    "it cannot be read here, so nobody knows whether it is for oidc.audience: have the identity \
                     provider issue tokens that can be read (JWT), or set oidc.client.secret, so that it can be asked"
                        .to_owned(),
                ));
            }
            None => {
                let id = shown.id.as_ref().and_then(|id| Unproven::read(id.expose()));
                let unproven = id.ok_or_else(|| {
                    Refusal::NotGood(
                        "it cannot be read here, so nobody knows whether it is for this cluster: show the ID token of the \
                         login beside it (`comity` does), have the identity provider issue tokens that can be read (JWT), \
                         or set oidc.client.secret, so that it can be asked"
                            .to_owned(),
                    )
                })?;
                let (claims, good_for, newer) = self.proven(provider, discovered, &unproven).await?;
                let goes = unproven.goes_with(&claims, token.expose());
                goes.map_err(|fault| Refusal::NotGood(fault.to_string()))?;
                discovered = newer;
                (claims, good_for)
            }
        };
        match self.ask(provider, &discovered, token, claims).await? {
            (claims, true) => vouched(provider, &claims, good_for),
            (_, false) => Err(unknown()),
        }
    }

    /// Who a good token stands for: by itself, or by what the provider tells about its user.
    async fn describe(
        &self,
        provider: &Provider,
        discovered: &Discovered,
        token: &Secret,
        claims: Claims,
        good_for: Duration,
    ) -> Result<Vouched, Refusal> {
        let claim = provider.config.groups_claim.as_deref();
        let says_all = claims.contains_key("email") && claim.is_none_or(|claim| claims.contains_key(claim));
        if says_all {
            return vouched(provider, &claims, good_for);
        }
        if !provider.is_there() {
            return Err(Refusal::Absent(format!("{} does not answer", provider.config.issuer)));
        }
        let _call = self.call().await?;
        // One that is for an API alone may not be good for asking: then what it says is all there is.
        let (claims, _) = self.ask(provider, discovered, token, claims).await?;
        vouched(provider, &claims, good_for)
    }

    /// What is known of a token's user with what the provider tells about them, and whether it tells anything.
    async fn ask(
        &self,
        provider: &Provider,
        discovered: &Discovered,
        token: &Secret,
        mut claims: Claims,
    ) -> Result<(Claims, bool), Refusal> {
        match provider.userinfo(discovered, token).await {
            Ok(told) => {
                let (own, other) = (claims.get("sub"), told.get("sub"));
                if own.is_some() && own != other {
                    return Err(Refusal::NotGood("the identity provider tells of another user".to_owned()));
                }
                person::add_told(&mut claims, told);
                Ok((claims, true))
            }
            Err(AskError::Refused) => Ok((claims, false)),
            Err(AskError::Absent(reason)) => Err(Refusal::Absent(reason)),
        }
    }

    /// A call to the provider that a token makes necessary, once there may be one.
    async fn call(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Refusal> {
        let paced = self.pace.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now());
        paced.map_err(|retry_after| Refusal::Busy { retry_after })?;
        let busy = || Refusal::Busy { retry_after: Duration::from_secs(1) };
        match tokio::time::timeout(TURN, self.calls.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(busy()),
        }
    }

    /// The session of a token that is good: a new one, or the one that it has.
    async fn admit(
        &self,
        config: &OidcConfig,
        digest: &SecretDigest,
        vouched: Vouched,
        arrival: Arrival<'_>,
    ) -> Result<Entered, Refusal> {
        let Vouched { person, groups, .. } = vouched;
        let address: Option<IpAddr> = arrival.origin.address.map(|address| address.ip());
        let login = Login {
            email: &person.email,
            name: &person.name,
            groups,
            token: digest,
            address,
            user_agent: arrival.user_agent,
            lasts: config.session_expiry,
        };
        let failed = |error: ClientError| match error {
            ClientError::TooMany => {
                Refusal::NotGood("too many people have logged in here already".to_owned())
            }
            error => {
                tracing::error!(%error, "a login could not be kept");
                Refusal::Failed("the agent's log says why".to_owned())
            }
        };
        let begun =
            self.clients.begin_session(arrival.origin, login, Timestamp::now()).await.map_err(failed)?;
        let (session, cookie) = begun;
        let who = self.identities.caller_by_session(&session);
        let who = who.ok_or_else(|| Refusal::Failed("it was ended at once".to_owned()))?;
        Ok(Entered { who, session, cookie })
    }
}

/// Who the provider's claims are about, and for how long they hold.
fn vouched(provider: &Provider, claims: &Claims, good_for: Duration) -> Result<Vouched, Refusal> {
    let person = Person::of(claims)?;
    let claim = provider.config.groups_claim.as_deref();
    let groups = claim.and_then(|claim| person::groups(claims, claim)).unwrap_or_default();
    Ok(Vouched { person, groups, good_for })
}

#[cfg(test)]
mod tests;
