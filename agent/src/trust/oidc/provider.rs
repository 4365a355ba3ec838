//! The provider that is set, as it is at this moment: there or not, with the keys that it has now.
//!
//! One task looks at it now and then, and at once when a call came to nothing. While it is not there, nobody's request
//! calls it: the task does, at growing intervals, until it is back.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{Request, StatusCode};
use tokio::sync::{Mutex, Notify, watch};
use tokio_util::sync::CancellationToken;

use super::OidcConfig;
use super::discovery::{self, Discovered, DiscoveryError, discover, is_absence};
use super::keys::Keys;
use super::token::Claims;
use crate::web::{Web, WebError};
use crate::wire::token::Secret;

/// How often a provider that is there is looked at.
const LOOK: Duration = Duration::from_secs(60);
/// How long one that is not there is left alone at first, and at most.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(60);
/// How often a token that names an unknown key makes us ask for the keys.
const KEYS_AGAIN: Duration = Duration::from_secs(15);
/// How long keys are believed of a provider that does not answer.
const KEYS_KEPT: Duration = Duration::from_secs(24 * 3600);
/// How long somebody's request waits for the provider.
const PATIENCE: Duration = Duration::from_secs(10);

/// A provider and what is known of it.
pub struct Provider {
    pub config: OidcConfig,
    web: Web,
    known: RwLock<Option<Known>>,
    /// Whether it answers.
    there: watch::Sender<bool>,
    doubted: Notify,
    /// When the keys were asked for because of a token. Held while they are.
    keys_asked: Mutex<Option<Instant>>,
    stop: CancellationToken,
}

#[derive(Clone)]
struct Known {
    discovered: Arc<Discovered>,
    at: Instant,
}

/// Why the provider did not say.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// It has looked at the token and wants nothing of it.
    #[error("the identity provider does not take it")]
    Refused,
    #[error("{0}")]
    Absent(String),
}

impl Provider {
    /// One that was looked at already, or one that is still to be found.
    pub fn new(config: OidcConfig, web: Web, found: Option<Discovered>) -> Arc<Self> {
        let known = found.map(|found| Known { discovered: Arc::new(found), at: Instant::now() });
        Arc::new(Self {
            config,
            web,
            there: watch::Sender::new(known.is_some()),
            known: RwLock::new(known),
            doubted: Notify::new(),
            keys_asked: Mutex::default(),
            stop: CancellationToken::new(),
        })
    }

    /// Whether it answers.
    pub fn is_there(&self) -> bool {
        *self.there.borrow()
    }

    /// Another has been set.
    pub fn forget(&self) {
        self.stop.cancel();
    }

    /// Follows the provider until it is forgotten or `ending` is cancelled.
    pub async fn follow(self: Arc<Self>, ending: CancellationToken) {
        let mut pause = if self.is_there() { LOOK } else { Duration::ZERO };
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.doubted.notified() => {}
                () = ending.cancelled() => return,
                () = self.stop.cancelled() => return,
            }
            pause = match discover(&self.web, &self.config.issuer).await {
                Ok(found) => {
                    self.found(found);
                    LOOK
                }
                Err(error) => {
                    self.lost(&error);
                    if pause == LOOK { RETRY_FIRST } else { (pause * 2).clamp(RETRY_FIRST, RETRY_MOST) }
                }
            };
        }
    }

    /// Takes what it has just said.
    pub fn found(&self, found: Discovered) {
        if let Some(skew) = found.skew {
            let clocks = discovery::clocks(Some(skew));
            tracing::warn!(issuer = self.config.issuer, "tokens may be refused{clocks}");
        }
        self.set(Some(Known { discovered: Arc::new(found), at: Instant::now() }));
        if !self.there.send_replace(true) {
            tracing::info!(
                issuer = self.config.issuer,
                "the identity provider is there; logins by it are taken"
            );
        }
    }

    fn lost(&self, error: &DiscoveryError) {
        if self.there.send_replace(false) || self.known().is_none() {
            tracing::warn!(%error, "logins by the identity provider are not taken until it is back");
        }
    }

    fn known(&self) -> Option<Known> {
        // One assignment is all that is ever done to it, so a panic elsewhere cannot have torn it.
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, known: Option<Known>) {
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = known;
    }

    /// What is known of it, be it there or not.
    pub fn discovered(&self) -> Option<Arc<Discovered>> {
        self.known().filter(|known| known.at.elapsed() < KEYS_KEPT).map(|known| known.discovered)
    }

    /// The provider's keys anew, for a token whose key is not among `old`: asked for once, however many want them, and
    /// not again for a while, since anybody can make up a token. `None` where that brings nothing.
    pub async fn newer_keys(&self, old: &Arc<Discovered>) -> Option<Arc<Discovered>> {
        let mut asked = self.keys_asked.lock().await;
        let current = self.discovered()?;
        if !Arc::ptr_eq(&current, old) {
            return Some(current);
        }
        if !self.is_there() || asked.is_some_and(|asked| asked.elapsed() < KEYS_AGAIN) {
            return None;
        }
        *asked = Some(Instant::now());
        let keys: Keys = match self.patiently(discovery::keys(&self.web, &current.metadata)).await? {
            Ok(keys) => keys,
            Err(error) => {
                self.doubt(error.is_absence());
                return None;
            }
        };
        let discovered =
            Arc::new(Discovered { metadata: current.metadata.clone(), keys, skew: current.skew });
        self.set(Some(Known { discovered: discovered.clone(), at: Instant::now() }));
        Some(discovered)
    }

    /// What the provider tells about the user whom it gave this access token.
    pub async fn userinfo(&self, discovered: &Discovered, token: &Secret) -> Result<Claims, AskError> {
        let endpoint = discovered.metadata.userinfo_endpoint.as_deref().ok_or(AskError::Refused)?;
        let asked = self.patiently(self.web.get::<Claims>(endpoint, Some(token))).await;
        asked.ok_or_else(|| self.absent())?.map_err(|error| match &error {
            WebError::Status { status, .. } if status.is_client_error() => AskError::Refused,
            _ => {
                self.doubt(is_absence(&error));
                AskError::Absent(error.to_string())
            }
        })
    }

    /// What the provider tells about an access token, to who can prove to be this cluster; `None` where that cannot be
    /// asked.
    pub async fn introspect(
        &self,
        discovered: &Discovered,
        token: &Secret,
    ) -> Option<Result<Claims, AskError>> {
        let endpoint = discovered.metadata.introspection_endpoint.as_deref()?;
        let secret = self.config.client_secret.as_ref()?;
        let name = format!("{}:{}", escaped(&self.config.client_id), escaped(secret.expose()));
        let body = format!("token={}&token_type_hint=access_token", escaped(token.expose()));
        let request = Request::post(endpoint)
            .header(AUTHORIZATION, format!("Basic {}", STANDARD.encode(name)))
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json")
            .body(Bytes::from(body))
            .ok()?;
        let Some(asked) = self.patiently(self.web.send(request)).await else {
            return Some(Err(self.absent()));
        };
        Some(match asked {
            Err(error) => {
                self.doubt(is_absence(&error));
                Err(AskError::Absent(error.to_string()))
            }
            Ok(answer) if answer.status() == StatusCode::OK => {
                match serde_json::from_slice::<Claims>(answer.body()) {
                    Ok(claims) if claims.get("active") == Some(&true.into()) => Ok(claims),
                    Ok(_) => Err(AskError::Refused),
                    Err(_) => Err(AskError::Absent("the identity provider's answer is none".to_owned())),
                }
            }
            Ok(answer) => {
                self.doubt(answer.status().is_server_error());
                let status = answer.status();
                Err(AskError::Absent(format!(
                    "the identity provider answered {status} where it is asked about tokens; oidc.client.id and \
                     oidc.client.secret may be wrong"
                )))
            }
        })
    }

    /// Whether an ID token is looked at beside an access token that cannot be read: where the provider cannot be asked
    /// whom that one is for, and no audience is set, about which an ID token says nothing.
    pub fn needs_id_token(&self) -> bool {
        let can_ask =
            self.known().is_none_or(|known| known.discovered.metadata.introspection_endpoint.is_some());
        self.config.audience.is_none() && !(self.config.client_secret.is_some() && can_ask)
    }

    /// Has the provider looked at before its time, if it seems not to be there.
    fn doubt(&self, is_absence: bool) {
        if is_absence {
            self.doubted.notify_one();
        }
    }

    fn absent(&self) -> AskError {
        self.doubt(true);
        AskError::Absent(format!("the identity provider did not answer within {} s", PATIENCE.as_secs()))
    }

    async fn patiently<T>(&self, asking: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(PATIENCE, asking).await.ok()
    }
}

/// Text as a form holds it.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let parts = text.bytes().map(|byte| match byte {
        _ if plain(byte) => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    });
    parts.collect()
}
