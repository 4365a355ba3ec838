//! `PUT` and `PATCH /1.0`: what the administrator sets.

use std::collections::BTreeMap;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use serde::Deserialize;

use crate::api::ApiState;
use crate::api::listener::doors::DoorError;
use crate::api::lxd::answer::{LxdError, empty};
use crate::api::lxd::{body, etag};
use crate::authorize::{Entitlement, Entity, Permit};
use crate::settings::{
    Config, ConfigError, Current, DEFAULT_PORT, Listen, OidcConfig, SettingsError, is_secret,
};
use crate::trust::Caller;
use crate::trust::oidc::discovery::Discovered;

/// What is shown in place of a secret.
pub const HIDDEN: &str = "true";

/// `config`, and what a `GET` shows beside it: that can be sent back, and is not changed by it.
const KEYS: &[&str] = &[
    "config",
    "api_extensions",
    "api_status",
    "api_version",
    "auth",
    "public",
    "auth_methods",
    "client_certificate",
    "auth_user_name",
    "auth_user_method",
    "environment",
];

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ServerPut {
    /// A key that is set to null is not set.
    config: Option<BTreeMap<String, Option<String>>>,
}

impl From<ConfigError> for LxdError {
    fn from(error: ConfigError) -> Self {
        LxdError::bad_request(error.to_string())
    }
}

impl From<DoorError> for LxdError {
    fn from(error: DoorError) -> Self {
        LxdError::bad_request(error.to_string())
    }
}

impl From<SettingsError> for LxdError {
    fn from(error: SettingsError) -> Self {
        match error {
            SettingsError::Changed => LxdError::new(StatusCode::PRECONDITION_FAILED, error.to_string()),
            error => LxdError::internal(&error),
        }
    }
}

/// Puts the body's settings in place of all that there were.
pub async fn put(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, LxdError> {
    let permit = state.permit(&caller, Entitlement::CanEdit, Entity::Server)?;
    let given = read(&body)?;
    let base = state.settings.current();
    etag::check(&headers, base.entries())?;
    let given = given.into_iter().map(|(key, value)| as_it_was(&base, key, value));
    change(&state, &permit, &base, Config::read(given)?).await
}

/// Sets what the body names and leaves the rest; a key that is set to nothing is unset.
pub async fn patch(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, LxdError> {
    let permit = state.permit(&caller, Entitlement::CanEdit, Entity::Server)?;
    let given = read(&body)?;
    let base = state.settings.current();
    etag::check(&headers, base.entries())?;
    let mut config = base.config.clone();
    for (key, value) in given {
        let (key, value) = as_it_was(&base, key, value);
        config.set(&key, &value)?;
    }
    config.check()?;
    change(&state, &permit, &base, config).await
}

/// A secret is shown as `true`, and what is shown can be sent back.
fn as_it_was(base: &Current, key: String, value: String) -> (String, String) {
    let before = base.entries().get(&key).filter(|_| is_secret(&key) && value == HIDDEN);
    let value = before.cloned().unwrap_or(value);
    (key, value)
}

/// What the identity provider says that is set from now on. One that is new must answer as it should, or nothing is set.
async fn try_provider(
    state: &ApiState,
    base: &Current,
    config: &Config,
) -> Result<Option<Discovered>, LxdError> {
    let same = match (base.oidc(), config.oidc()) {
        (Some(old), Some(new)) => old.is(&new),
        (old, new) => old.is_none() && new.is_none(),
    };
    let Some(issuer) = config.oidc_issuer() else { return Ok(None) };
    let known = base.oidc_issuer() == Some(issuer);
    if known && same {
        return Ok(None);
    }
    match state.logins.try_provider(issuer).await {
        Ok(found) => Ok(Some(found)),
        // What is set about it may be changed while it is away.
        Err(error) if known => {
            tracing::warn!(%error, "settings of logins were changed without asking the identity provider");
            Ok(None)
        }
        Err(error) => Err(LxdError::bad_request(format!("oidc.issuer: {error}. Nothing was set"))),
    }
}

/// Has logins be judged by what is set now. Sessions of logins that were judged otherwise
/// are over, and none goes on longer than is set.
async fn change_provider(
    state: &ApiState,
    permit: &Permit,
    base: &Current,
    provider: Option<OidcConfig>,
    found: Option<Discovered>,
) -> Result<(), LxdError> {
    let (before, now) = (base.oidc(), Timestamp::now());
    let same = match (&before, &provider) {
        (Some(before), Some(provider)) => provider.vouches_as(before),
        (before, provider) => before.is_none() && provider.is_none(),
    };
    let lasts = provider.as_ref().map(|provider| provider.session_expiry);
    let shorter = lasts.filter(|lasts| before.is_some_and(|before| *lasts < before.session_expiry));
    state.logins.set_provider(provider, found);
    let done = match shorter {
        _ if !same => state.clients.end_every_session(permit, now).await,
        Some(lasts) => state.clients.shorten_sessions(permit, lasts, now).await,
        None => Ok(()),
    };
    done.map_err(|error| LxdError::internal(&error))
}

fn read(bytes: &[u8]) -> Result<Vec<(String, String)>, LxdError> {
    let put: ServerPut = body::decode(bytes, KEYS)?;
    let pairs = put.config.unwrap_or_default().into_iter();
    Ok(pairs.map(|(key, value)| (key, value.unwrap_or_default())).collect())
}

/// Whoever says who is trusted gives away every right there is, so it takes them all: whom an identity provider or an
/// authority vouches for may be anybody whom groups here name. And a secret goes to the provider that it was set for.
fn check_trust(state: &ApiState, permit: &Permit, base: &Current, config: &Config) -> Result<(), LxdError> {
    let decides = |key: &String| key.starts_with("oidc.") || key == "core.trust_ca_certificates";
    if base.config.differing(config).iter().any(decides) {
        state.permit(permit.caller(), Entitlement::Admin, Entity::Server)?;
    }
    let secret = |config: &Config| config.entries().get("oidc.client.secret").cloned();
    let kept = secret(config).is_some() && secret(&base.config) == secret(config);
    if kept && base.oidc_issuer() != config.oidc_issuer() {
        return Err(LxdError::bad_request(
            "oidc.client.secret is the one that was set for another issuer: set it together with the new issuer, or to nothing",
        ));
    }
    Ok(())
}

/// Commits, and moves the listener if it is to be elsewhere: bound before the commit, so that what cannot be is not set.
async fn change(
    state: &ApiState,
    permit: &Permit,
    base: &Current,
    config: Config,
) -> Result<Response, LxdError> {
    check_trust(state, permit, base, &config)?;
    let now = Timestamp::now();
    let (provider, found) = (config.oidc(), try_provider(state, base, &config).await?);
    if base.https_address() == config.https_address() {
        state.settings.replace(permit, base, config, now).await?;
        change_provider(state, permit, base, provider, found).await?;
        return Ok(empty());
    }
    let usual = Listen::Everywhere(DEFAULT_PORT);
    let opening = state.doors.prepare(config.https_address().unwrap_or(usual)).await?;
    if let Err(error) = state.settings.replace(permit, base, config, now).await {
        opening.abandon().await;
        return Err(error.into());
    }
    opening.open().map_err(|error| LxdError::internal(&error))?;
    change_provider(state, permit, base, provider, found).await?;
    Ok(empty())
}
