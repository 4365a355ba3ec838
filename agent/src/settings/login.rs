//! The keys of logins that an identity provider vouches for (OpenID Connect), as LXD names them.

use std::collections::BTreeMap;

use http::Uri;
use jiff::SignedDuration;

use super::Config;
use super::config::{ConfigError, wrong};
use super::expiry::expiry;
use crate::trust::oidc::OidcConfig;
use crate::web::is_here;
use crate::wire::token::Secret;

pub(super) const ISSUER: &str = "oidc.issuer";
pub(super) const CLIENT_ID: &str = "oidc.client.id";
pub(super) const CLIENT_SECRET: &str = "oidc.client.secret";
pub(super) const DEVICE_CLIENT_ID: &str = "oidc.device.client.id";
pub(super) const AUDIENCE: &str = "oidc.audience";
pub(super) const GROUPS_CLAIM: &str = "oidc.groups.claim";
pub(super) const SCOPES: &str = "oidc.scopes";
pub(super) const SESSION_EXPIRY: &str = "oidc.session.expiry";

/// What is asked for where nothing is set (LXD's default).
const DEFAULT_SCOPES: &str = "openid email offline_access profile";
/// Scopes without which nobody could be told from another.
const NEEDED_SCOPES: [&str; 2] = ["openid", "email"];
const DEFAULT_SESSION_EXPIRY: SignedDuration = SignedDuration::from_hours(7 * 24);

impl Config {
    /// The identity provider, where one is set.
    pub fn oidc(&self) -> Option<OidcConfig> {
        let value = |key: &str| self.entries().get(key).cloned();
        Some(OidcConfig {
            issuer: value(ISSUER)?,
            client_id: value(CLIENT_ID)?,
            client_secret: value(CLIENT_SECRET).map(Secret::new),
            device_client_id: value(DEVICE_CLIENT_ID),
            audience: value(AUDIENCE),
            groups_claim: value(GROUPS_CLAIM),
            scopes: words(&value(SCOPES).unwrap_or_else(|| DEFAULT_SCOPES.to_owned())),
            session_expiry: value(SESSION_EXPIRY)
                .and_then(|text| expiry(&text).ok())
                .unwrap_or(DEFAULT_SESSION_EXPIRY),
        })
    }
}

impl Config {
    /// The name of the identity provider, be it of use already or not.
    pub fn oidc_issuer(&self) -> Option<&str> {
        self.entries().get(ISSUER).map(String::as_str)
    }

    /// What is not set of a login of which something is; `None` where nothing is.
    pub fn login_gaps(&self) -> Option<Vec<&'static str>> {
        let entries = self.entries();
        entries.keys().any(|key| key.starts_with("oidc.")).then(|| {
            [ISSUER, CLIENT_ID].into_iter().filter(|needed| !entries.contains_key(*needed)).collect()
        })
    }

    /// What somebody must know who is to log in: no secret, and told to everybody (LXD does so).
    pub fn public_login(&self) -> Option<BTreeMap<&'static str, String>> {
        let oidc = self.oidc()?;
        let client = match oidc.device_client_id {
            Some(id) => (DEVICE_CLIENT_ID, id),
            None => (CLIENT_ID, oidc.client_id),
        };
        let audience = oidc.audience.map(|audience| (AUDIENCE, audience));
        Some([(ISSUER, oidc.issuer), client].into_iter().chain(audience).collect())
    }
}

/// Whether a key's value is shown to nobody.
pub fn is_secret(key: &str) -> bool {
    key == CLIENT_SECRET
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Whether `value`, which is not empty, makes sense for a key of this group.
pub(super) fn check(key: &'static str, value: &str) -> Result<(), ConfigError> {
    match key {
        ISSUER => web_address(value).map_err(|reason| wrong(key, reason)),
        SCOPES => {
            let scopes = words(value);
            let missing = NEEDED_SCOPES.iter().find(|needed| !scopes.iter().any(|scope| scope == *needed));
            missing.map_or(Ok(()), |missing| Err(wrong(key, format!("{missing:?} must be among the scopes"))))
        }
        SESSION_EXPIRY => expiry(value).map(drop).map_err(|error| wrong(key, error.to_string())),
        _ if value.chars().any(char::is_control) => Err(wrong(key, "it is one line of text".to_owned())),
        _ => Ok(()),
    }
}

/// What only makes sense together.
pub(super) fn check_whole(config: &Config) -> Result<(), ConfigError> {
    let is_set = |key: &str| config.entries().contains_key(key);
    if is_set(DEVICE_CLIENT_ID) && !is_set(CLIENT_ID) {
        return Err(wrong(DEVICE_CLIENT_ID, format!("it needs {CLIENT_ID:?} beside it")));
    }
    Ok(())
}

/// An address of a web server whose answers can be believed: by TLS, or of this machine.
pub(super) fn web_address(text: &str) -> Result<(), String> {
    let explain =
        || "it is an https:// address, without a query (http:// is for this machine alone)".to_owned();
    let uri: Uri = text.parse().map_err(|_| explain())?;
    let host = uri.host().ok_or_else(explain)?;
    let trusty = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => is_here(host),
        _ => false,
    };
    let has_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
    if trusty && uri.query().is_none() && !has_user && !text.contains('#') { Ok(()) } else { Err(explain()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(pairs: &[(&str, &str)]) -> String {
        let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Config::read(pairs).unwrap_err().to_string()
    }

    #[test]
    fn a_provider_is_known_once_issuer_and_client_are_set() {
        let mut config = Config::default();
        config.set(ISSUER, "https://login.example/realms/one").unwrap();
        assert!(config.oidc().is_none());
        config.set(CLIENT_ID, "comity").unwrap();
        let oidc = config.oidc().unwrap();
        assert_eq!((oidc.device_client(), oidc.scopes.len()), ("comity", 4));
        assert_eq!(oidc.session_expiry, SignedDuration::from_hours(168));
        config.set(DEVICE_CLIENT_ID, "cli").unwrap();
        config.set(SESSION_EXPIRY, "1d").unwrap();
        let oidc = config.oidc().unwrap();
        assert_eq!((oidc.device_client(), oidc.session_expiry), ("cli", SignedDuration::from_hours(24)));
    }

    #[test]
    fn what_cannot_be_a_provider_is_refused() {
        for wrong in [
            "hunter2",
            "http://login.example",
            "https://a@b",
            "https://x/?q=hunter2",
            "ftp://x",
            "https://x/#y",
        ] {
            let message = refused(&[(ISSUER, wrong)]);
            assert!(message.contains(ISSUER) && !message.contains("hunter2"), "{message}");
        }
        for here in ["http://127.0.0.1:3000", "http://localhost:3000/x", "http://[::1]:3000"] {
            Config::default().set(ISSUER, here).unwrap();
        }
        for (scopes, missing) in [("email", "openid"), ("openid profile", "email")] {
            assert!(refused(&[(SCOPES, scopes)]).contains(missing));
        }
        assert!(refused(&[(DEVICE_CLIENT_ID, "cli")]).contains(CLIENT_ID));
        assert!(refused(&[(SESSION_EXPIRY, "soon")]).contains(SESSION_EXPIRY));
    }
}
