//! What a provider says about itself: who it is, and where it is asked what.

use http::HeaderMap;
use http::header::DATE;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::Value;

use super::keys::Keys;
use super::token::spelled;
use crate::web::{Web, WebError};
use crate::wire::printable;

/// Where every provider has it, after its name.
const WELL_KNOWN: &str = "/.well-known/openid-configuration";
/// How far the provider's clock may be from this one before it is worth a word.
const SKEW: SignedDuration = SignedDuration::from_secs(120);

/// Where a provider is asked what.
#[derive(Debug, Clone, Deserialize)]
pub struct Metadata {
    issuer: String,
    jwks_uri: String,
    #[serde(default)]
    pub userinfo_endpoint: Option<String>,
    #[serde(default)]
    pub introspection_endpoint: Option<String>,
}

/// A provider that has answered.
#[derive(Debug)]
pub struct Discovered {
    pub metadata: Metadata,
    pub keys: Keys,
    /// How far its clock is ahead of this machine's, where that is worth a word.
    pub skew: Option<SignedDuration>,
}

/// Why a provider cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    #[error("the identity provider {issuer} cannot be used: {cause}")]
    Web { issuer: String, cause: WebError },
    #[error(
        "what answers as the identity provider {wanted} calls itself {found:?}: set oidc.issuer to the name that it \
         gives itself, letter by letter"
    )]
    OtherIssuer { wanted: String, found: String },
    #[error("the identity provider {issuer} has its {what} at {at:?}, which is no https:// address")]
    Address { issuer: String, what: &'static str, at: String },
    #[error(
        "the identity provider {issuer} publishes no key that can be used here (RSA from 2048 bits, P-256, P-384, Ed25519)"
    )]
    NoKeys { issuer: String },
}

impl DiscoveryError {
    /// Whether it may be over by itself: nobody has answered.
    pub fn is_absence(&self) -> bool {
        match self {
            Self::Web { cause, .. } => is_absence(cause),
            _ => false,
        }
    }
}

/// Whether the other end is not there, or not well, rather than of another mind.
pub fn is_absence(error: &WebError) -> bool {
    match error {
        WebError::Unreachable { .. } | WebError::Timeout { .. } => true,
        WebError::Status { status, .. } => status.is_server_error(),
        _ => false,
    }
}

/// Asks the provider of this name what there is to know.
pub async fn discover(web: &Web, issuer: &str) -> Result<Discovered, DiscoveryError> {
    let failed = |cause| DiscoveryError::Web { issuer: issuer.to_owned(), cause };
    let address = format!("{}{WELL_KNOWN}", issuer.trim_end_matches('/'));
    let (metadata, head): (Metadata, _) = web.get_with_head(&address, None).await.map_err(failed)?;
    let skew = skew(&head, Timestamp::now());
    if metadata.issuer != issuer {
        let found = printable(&metadata.issuer.chars().take(200).collect::<String>());
        return Err(DiscoveryError::OtherIssuer { wanted: issuer.to_owned(), found });
    }
    let places = [
        ("keys", Some(&metadata.jwks_uri)),
        ("userinfo endpoint", metadata.userinfo_endpoint.as_ref()),
        ("introspection endpoint", metadata.introspection_endpoint.as_ref()),
    ];
    for (what, place) in places {
        if let Some(at) = place.filter(|at| !is_as_safe(at, issuer)) {
            let at = printable(&at.chars().take(200).collect::<String>());
            return Err(DiscoveryError::Address { issuer: issuer.to_owned(), what, at });
        }
    }
    let keys = keys(web, &metadata).await?;
    Ok(Discovered { metadata, keys, skew })
}

/// Asks for the keys alone.
pub async fn keys(web: &Web, metadata: &Metadata) -> Result<Keys, DiscoveryError> {
    let issuer = || metadata.issuer.clone();
    let published: Value = web
        .get(&metadata.jwks_uri, None)
        .await
        .map_err(|cause| DiscoveryError::Web { issuer: issuer(), cause })?;
    let keys = Keys::read(published).filter(|keys| !keys.is_empty());
    keys.ok_or_else(|| DiscoveryError::NoKeys { issuer: issuer() })
}

/// A provider that is spoken to by TLS does not send us to where there is none, which would be this machine itself.
fn is_as_safe(place: &str, issuer: &str) -> bool {
    place.starts_with("https://") || issuer.starts_with("http://")
}

fn skew(head: &HeaderMap, now: Timestamp) -> Option<SignedDuration> {
    let date = head.get(DATE)?.to_str().ok()?;
    let there = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).ok()?;
    let skew = there.duration_since(now);
    (skew.abs() > SKEW).then_some(skew)
}

/// What a clock that is far from the other has to do with a token that is not taken.
pub fn clocks(skew: Option<SignedDuration>) -> String {
    match skew {
        Some(skew) if skew.is_negative() => {
            format!(" (the provider's clock is {} behind this machine's)", spelled(skew))
        }
        Some(skew) => format!(" (the provider's clock is {} ahead of this machine's)", spelled(skew)),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_an_hour_off_is_noticed() {
        let now: Timestamp = "2026-11-22T08:00:00Z".parse().unwrap();
        let head = |date: &str| HeaderMap::from_iter([(DATE, date.parse().unwrap())]);
        assert_eq!(skew(&head("Sun, 22 Nov 2026 08:00:30 GMT"), now), None);
        let ahead = skew(&head("Sun, 22 Nov 2026 10:00:00 GMT"), now);
        assert_eq!(clocks(ahead), " (the provider's clock is 2 h ahead of this machine's)");
        let behind = skew(&head("Sun, 22 Nov 2026 06:00:00 GMT"), now);
        assert_eq!(clocks(behind), " (the provider's clock is 2 h behind this machine's)");
        assert_eq!(skew(&head("yesterday"), now), None);
    }

    #[test]
    fn a_provider_does_not_send_us_into_our_own_machine() {
        assert!(is_as_safe("https://keys.example/x", "https://login.example"));
        assert!(!is_as_safe("http://127.0.0.1:8500/x", "https://login.example"));
        assert!(is_as_safe("http://127.0.0.1:3000/x", "http://127.0.0.1:3000"));
    }
}
