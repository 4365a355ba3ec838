//! The device authorization grant (RFC 8628), without I/O: what was granted, and what each answer to a poll means.

use std::time::Duration;

use http::{StatusCode, Uri};
use serde::Deserialize;

use super::provider::check_url;
use super::token::{self, Fresh, Heard, Refusal, check_secret};
use super::{LoginError, Provider};
use crate::wire::printable;
use crate::wire::token::Secret;

/// What a poll asks for.
pub const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// How long between polls where the provider does not say.
const INTERVAL: Duration = Duration::from_secs(5);
/// How much longer after `slow_down`.
const SLOWER: Duration = Duration::from_secs(5);
/// Longest time between polls: a login must not seem dead once it is approved.
const MOST: Duration = Duration::from_secs(60);
/// Longest life of a code.
const LONGEST: Duration = Duration::from_secs(30 * 60);
/// Longest code that somebody could be asked to compare.
const MAX_CODE: usize = 64;
/// Longest address.
const MAX_URL: usize = 2048;

/// What somebody is to do: open this, and see that it shows this code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    pub url: String,
    pub code: String,
    /// The address with the code in it, if there is one.
    pub complete: Option<String>,
}

/// A code that waits to be approved.
#[derive(Debug)]
pub struct Grant {
    pub invitation: Invitation,
    pub device_code: Secret,
    interval: Duration,
    lifetime: Duration,
}

#[derive(Deserialize)]
struct Granted {
    device_code: Secret,
    user_code: String,
    // Google's name for it came first.
    #[serde(alias = "verification_url")]
    verification_uri: String,
    #[serde(default)]
    verification_uri_complete: Option<String>,
    expires_in: f64,
    #[serde(default)]
    interval: Option<f64>,
}

/// The fields that ask for a code.
pub fn asking(provider: &Provider) -> Vec<(&'static str, String)> {
    let mut form = vec![("client_id", provider.client_id.clone()), ("scope", provider.scopes.join(" "))];
    form.extend(provider.audience.clone().map(|audience| ("audience", audience)));
    if provider.scopes.iter().any(|scope| scope == "offline_access") {
        // Without being asked for consent, nobody gets a refresh token (OpenID Connect Core 11).
        form.push(("prompt", "consent".to_owned()));
    }
    form
}

impl Grant {
    /// Reads what the provider answered to `asking`.
    pub fn read(status: StatusCode, body: &[u8]) -> Result<Self, LoginError> {
        let unexpected = |reason: String| LoginError::Unexpected { what: "a device code", reason };
        if !status.is_success() {
            return Err(match token::refusal(status, body) {
                Ok(Refusal::Other(error)) => LoginError::Refused { what: "to give a device code", error },
                Ok(refusal) => unexpected(format!("{refusal:?}")),
                Err(_) => unexpected(status.to_string()),
            });
        }
        // serde's words may repeat the device code.
        let granted: Granted = serde_json::from_slice(body)
            .map_err(|_| unexpected("it is not JSON with a code and where to enter it".to_owned()))?;
        check_secret("a device code", &granted.device_code)?;
        let user_code = printable(granted.user_code.trim());
        if user_code.is_empty() || user_code.chars().count() > MAX_CODE || user_code.contains('\n') {
            return Err(unexpected("its code is not one that somebody could compare".to_owned()));
        }
        let url = shown_url(&granted.verification_uri)?;
        // Only a convenience: one that is not fit to be shown is left out.
        let complete = granted.verification_uri_complete.and_then(|url| shown_url(&url).ok());
        let seconds = |seconds: f64, most| Duration::try_from_secs_f64(seconds).unwrap_or(most).min(most);
        let interval = granted.interval.map_or(INTERVAL, |given| seconds(given, MOST));
        Ok(Self {
            invitation: Invitation { url, code: user_code, complete },
            device_code: granted.device_code,
            interval: interval.max(Duration::from_secs(1)),
            lifetime: seconds(granted.expires_in, LONGEST),
        })
    }

    /// How long to wait before the next poll, `elapsed` after the code was given.
    pub fn wait(&self, elapsed: Duration) -> Result<Duration, LoginError> {
        if elapsed + self.interval < self.lifetime { Ok(self.interval) } else { Err(LoginError::Expired) }
    }

    /// What a poll's answer means: tokens, or wait on.
    pub fn heard(&mut self, heard: Heard) -> Result<Option<Fresh>, LoginError> {
        match heard {
            Heard::Tokens(fresh) => return Ok(Some(fresh)),
            Heard::Busy(_) => self.unheard(),
            Heard::Refused(Refusal::Pending) => {}
            Heard::Refused(Refusal::SlowDown) => self.interval = (self.interval + SLOWER).min(MOST),
            Heard::Refused(Refusal::Denied) => return Err(LoginError::Denied),
            Heard::Refused(Refusal::Expired) => return Err(LoginError::Expired),
            Heard::Refused(Refusal::InvalidGrant) => return Err(LoginError::Used),
            Heard::Refused(Refusal::Other(error)) => {
                return Err(LoginError::Refused { what: "the device code", error });
            }
        }
        Ok(None)
    }

    /// The provider could not be asked: it is left alone for longer.
    pub fn unheard(&mut self) {
        self.interval = (self.interval * 2).min(MOST);
    }
}

/// An address that is fit to be shown and opened.
fn shown_url(text: &str) -> Result<String, LoginError> {
    let wrong =
        |reason| LoginError::Url { url: printable(&text.chars().take(200).collect::<String>()), reason };
    if text.len() > MAX_URL || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wrong("it has characters that no address has, or too many"));
    }
    let uri: Uri = text.parse().map_err(|_| wrong("it is no address"))?;
    check_url(&uri, text)?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn granted(more: &str) -> Result<Grant, LoginError> {
        let body = format!(
            r#"{{"device_code":"dc","user_code":"1234-5678","verification_uri":"https://idp/device","expires_in":600{more}}}"#
        );
        Grant::read(StatusCode::OK, body.as_bytes())
    }

    fn heard(status: u16, body: &str) -> Heard {
        token::read(StatusCode::from_u16(status).unwrap(), body.as_bytes(), Timestamp::UNIX_EPOCH).unwrap()
    }

    fn error(word: &str) -> Heard {
        heard(400, &format!(r#"{{"error":"{word}"}}"#))
    }

    #[test]
    fn polls_keep_the_pace_that_the_provider_asks_for_until_the_code_ends() {
        let mut grant = granted("").unwrap();
        let seconds = |grant: &Grant| grant.wait(Duration::ZERO).unwrap().as_secs();
        assert_eq!(seconds(&grant), 5, "RFC 8628 3.2");
        assert!(grant.heard(error("authorization_pending")).unwrap().is_none());
        assert_eq!(seconds(&grant), 5);
        assert!(grant.heard(error("slow_down")).unwrap().is_none());
        assert_eq!(seconds(&grant), 10);
        assert!(grant.heard(heard(503, "")).unwrap().is_none());
        grant.unheard();
        grant.unheard();
        assert_eq!(seconds(&grant), 60, "never so seldom that it seems dead");
        assert_eq!(grant.wait(Duration::from_secs(550)), Err(LoginError::Expired));
        let done = grant.heard(heard(200, r#"{"access_token":"a","token_type":"Bearer"}"#)).unwrap();
        assert!(done.is_some());
        assert_eq!(seconds(&granted(r#","interval":0"#).unwrap()), 1, "never without a pause");
        assert_eq!(seconds(&granted(r#","interval":-3"#).unwrap()), 60);
    }

    #[test]
    fn the_ends_of_a_login_are_told_apart() {
        for (word, expected) in [
            ("access_denied", LoginError::Denied),
            ("expired_token", LoginError::Expired),
            ("invalid_grant", LoginError::Used),
        ] {
            assert_eq!(granted("").unwrap().heard(error(word)).unwrap_err(), expected);
        }
        let other = granted("").unwrap().heard(error("unauthorized_client")).unwrap_err();
        assert_eq!(other.to_string(), "the identity provider refused the device code: unauthorized_client");
    }

    #[test]
    fn only_what_can_be_shown_is_taken() {
        let complete =
            granted(r#","verification_uri_complete":"https://idp/device?user_code=1234-5678""#).unwrap();
        assert_eq!(complete.invitation.complete.as_deref(), Some("https://idp/device?user_code=1234-5678"));
        let odd = granted(r#","verification_uri_complete":"javascript:alert(1)""#).unwrap();
        assert_eq!(odd.invitation.complete, None);
        for (code, url) in [
            ("", "https://idp/device"),
            ("one\\ntwo", "https://idp/device"),
            ("1234", "http://idp/device"),
            ("1234", "file:///etc/passwd"),
            ("1234", "https://idp/\\u001b[2J"),
            ("1234", ""),
        ] {
            let body = format!(
                r#"{{"device_code":"hush","user_code":"{code}","verification_uri":"{url}","expires_in":600}}"#
            );
            let error = Grant::read(StatusCode::OK, body.as_bytes()).unwrap_err().to_string();
            assert!(!error.contains('\u{1b}') && !error.contains("hush"), "{error}");
        }
        let refused = Grant::read(StatusCode::BAD_REQUEST, br#"{"error":"invalid_client"}"#).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the identity provider refused to give a device code: invalid_client"
        );
    }
}
