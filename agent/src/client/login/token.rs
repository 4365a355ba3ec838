//! What a provider's token endpoint answers: tokens, or why not.

use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{LoginError, MAX_SECRET};
use crate::wire::printable;
use crate::wire::token::Secret;

/// How long before its end an access token is not used any more: a request has to arrive, and clocks differ.
const MARGIN: SignedDuration = SignedDuration::from_secs(10);
/// A life that nobody gives a token; what is longer is cut, so that sums stay in bounds.
const LONGEST_LIFE: u64 = 10 * 365 * 24 * 60 * 60;

/// What somebody is known by at the agent, and how to get the next.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    /// Who gave them; the refresh token goes there alone.
    pub issuer: String,
    pub client_id: String,
    pub access_token: Secret,
    /// Shown beside an access token that only the provider can read: it says for whom that was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_token: Option<Secret>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<Secret>,
    /// When the access token ends, if the provider said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiry: Option<Timestamp>,
}

impl Tokens {
    /// Whether the access token is worth sending at `now`.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.expiry.is_none_or(|expiry| now < expiry - MARGIN)
    }
}

/// What a token endpoint said.
#[derive(Debug)]
pub enum Heard {
    Tokens(Fresh),
    Refused(Refusal),
    /// Not now: it answered that something is wrong with itself.
    Busy(StatusCode),
}

/// Tokens as they arrive.
#[derive(Debug)]
pub struct Fresh {
    access_token: Secret,
    id_token: Option<Secret>,
    refresh_token: Option<Secret>,
    expiry: Option<Timestamp>,
}

/// Why there are no tokens (RFC 6749 5.2, RFC 8628 3.5).
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    Pending,
    SlowDown,
    Denied,
    Expired,
    /// The code or the refresh token is used, taken back, or another's.
    InvalidGrant,
    /// The provider's own words.
    Other(String),
}

#[derive(Deserialize)]
struct Success {
    access_token: Secret,
    #[serde(default)]
    id_token: Option<Secret>,
    #[serde(default)]
    token_type: String,
    #[serde(default)]
    expires_in: Option<serde_json::Value>,
    #[serde(default)]
    refresh_token: Option<Secret>,
}

#[derive(Deserialize)]
struct Failure {
    error: String,
    #[serde(default)]
    error_description: Option<String>,
}

impl Fresh {
    /// The tokens of this login. A provider that does not rotate refresh tokens leaves them out: `before` stays.
    pub fn of(self, issuer: &str, client_id: &str, before: Option<Secret>) -> Tokens {
        Tokens {
            issuer: issuer.to_owned(),
            client_id: client_id.to_owned(),
            access_token: self.access_token,
            id_token: self.id_token,
            refresh_token: self.refresh_token.or(before),
            expiry: self.expiry,
        }
    }
}

/// Reads the answer that arrived at `now`.
pub fn read(status: StatusCode, body: &[u8], now: Timestamp) -> Result<Heard, LoginError> {
    if status.is_success() {
        return success(body, now).map(Heard::Tokens);
    }
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        return Ok(Heard::Busy(status));
    }
    refusal(status, body).map(Heard::Refused)
}

/// The refusal in a body of an error.
pub fn refusal(status: StatusCode, body: &[u8]) -> Result<Refusal, LoginError> {
    let failure: Failure = serde_json::from_slice(body)
        .map_err(|_| unexpected("tokens", format!("{status}, without a word why")))?;
    Ok(match failure.error.as_str() {
        "authorization_pending" => Refusal::Pending,
        "slow_down" => Refusal::SlowDown,
        "access_denied" => Refusal::Denied,
        "expired_token" => Refusal::Expired,
        "invalid_grant" => Refusal::InvalidGrant,
        _ => Refusal::Other(words(&failure)),
    })
}

fn success(body: &[u8], now: Timestamp) -> Result<Fresh, LoginError> {
    // What serde says of a wrong body may repeat parts of it, and so a secret.
    let success: Success = serde_json::from_slice(body)
        .map_err(|_| unexpected("tokens", "it is not JSON with an access token".to_owned()))?;
    if !success.token_type.eq_ignore_ascii_case("bearer") {
        let kind = printable(&success.token_type.chars().take(40).collect::<String>());
        return Err(unexpected("tokens", format!("they are of the type {kind:?}, not Bearer")));
    }
    let given = [Some(&success.access_token), success.id_token.as_ref(), success.refresh_token.as_ref()];
    for token in given.into_iter().flatten() {
        check_secret("tokens", token)?;
    }
    let life = success.expires_in.as_ref().and_then(seconds);
    let stated = life.and_then(|life| now.checked_add(SignedDuration::from_secs(life)).ok());
    let written = expiry_of_jwt(success.access_token.expose());
    let id_token = success.id_token.filter(|_| written.is_none());
    let beside = id_token.as_ref().and_then(|token| expiry_of_jwt(token.expose()));
    let expiry = [stated, written, beside].into_iter().flatten().min();
    Ok(Fresh { access_token: success.access_token, id_token, refresh_token: success.refresh_token, expiry })
}

/// Whether a secret of the provider's can be sent on: in a header, in a form.
pub fn check_secret(what: &'static str, secret: &Secret) -> Result<(), LoginError> {
    let text = secret.expose();
    let odd = if text.is_empty() {
        "one of them is empty"
    } else if text.len() > MAX_SECRET {
        "one of them is too long"
    } else if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        "one of them has characters that no token has"
    } else {
        return Ok(());
    };
    Err(unexpected(what, odd.to_owned()))
}

/// Some providers write the number as a string.
fn seconds(value: &serde_json::Value) -> Option<i64> {
    let number = value.as_u64().or_else(|| value.as_str()?.parse().ok())?;
    i64::try_from(number.min(LONGEST_LIFE)).ok()
}

/// The `exp` of an access token that is a JWT. Only for knowing when to ask for the next: whether the token is good
/// is the agent's business.
fn expiry_of_jwt(token: &str) -> Option<Timestamp> {
    use base64::Engine as _;
    #[derive(Deserialize)]
    struct Claims {
        exp: i64,
    }
    let mut parts = token.split('.');
    let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).ok()?;
    Timestamp::from_second(serde_json::from_slice::<Claims>(&claims).ok()?.exp).ok()
}

fn words(failure: &Failure) -> String {
    let said = match &failure.error_description {
        Some(description) => format!("{} ({})", description, failure.error),
        None => failure.error.clone(),
    };
    printable(&said.chars().take(300).collect::<String>())
}

fn unexpected(what: &'static str, reason: String) -> LoginError {
    LoginError::Unexpected { what, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

    fn tokens(body: &str) -> Tokens {
        match read(StatusCode::OK, body.as_bytes(), NOW).unwrap() {
            Heard::Tokens(fresh) => fresh.of("https://idp", "cli", Some(Secret::new("before".to_owned()))),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_life_is_what_is_stated_or_what_the_token_says_if_that_is_sooner() {
        let opaque = tokens(r#"{"access_token":"abc","token_type":"Bearer","expires_in":"60"}"#);
        assert_eq!(opaque.expiry, Some(NOW + SignedDuration::from_secs(60)));
        assert!(opaque.is_live(NOW) && !opaque.is_live(NOW + SignedDuration::from_secs(51)));
        assert_eq!(opaque.refresh_token.unwrap().expose(), "before", "what is not rotated stays");

        // {"exp":1800000030}
        let jwt = tokens(
            r#"{"access_token":"e30.eyJleHAiOjE4MDAwMDAwMzB9.x","token_type":"bearer","expires_in":60,"refresh_token":"next"}"#,
        );
        assert_eq!(jwt.expiry, Some(NOW + SignedDuration::from_secs(30)));
        assert_eq!(jwt.refresh_token.unwrap().expose(), "next");
        assert!(tokens(r#"{"access_token":"abc","token_type":"Bearer"}"#).is_live(NOW));
        let endless =
            tokens(r#"{"access_token":"abc","token_type":"Bearer","expires_in":18446744073709551615}"#);
        assert!(endless.is_live(NOW));
    }

    #[test]
    fn an_id_token_is_kept_beside_an_access_token_that_cannot_be_read_and_ends_with_it() {
        // {"exp":1800000030}
        const ID: &str = "e30.eyJleHAiOjE4MDAwMDAwMzB9.x";
        let kept = |access: &str| {
            tokens(&format!(
                r#"{{"access_token":"{access}","id_token":"{ID}","token_type":"Bearer","expires_in":60}}"#
            ))
        };
        let opaque = kept("abc");
        assert_eq!(opaque.id_token.unwrap().expose(), ID);
        assert_eq!(opaque.expiry, Some(NOW + SignedDuration::from_secs(30)));
        assert!(kept("e30.eyJleHAiOjE4MDAwMDAwNTB9.x").id_token.is_none(), "it says itself for whom it is");
    }

    #[test]
    fn what_is_no_answer_is_said_without_repeating_it() {
        for body in [
            "",
            "<html>",
            r#"{"token_type":"Bearer"}"#,
            r#"{"access_token":"hushhush","token_type":"mac"}"#,
            r#"{"access_token":"hush\u001bhush","token_type":"Bearer"}"#,
            r#"{"access_token":["hushhush"],"token_type":"Bearer"}"#,
            r#"{"access_token":"","token_type":"Bearer"}"#,
        ] {
            let error = read(StatusCode::OK, body.as_bytes(), NOW).unwrap_err().to_string();
            assert!(error.contains("something else than tokens") && !error.contains("hush"), "{error}");
        }
    }

    #[test]
    fn refusals_are_told_apart_and_steer_no_terminal() {
        let heard = |body: &str| refusal(StatusCode::BAD_REQUEST, body.as_bytes()).unwrap();
        assert_eq!(heard(r#"{"error":"slow_down"}"#), Refusal::SlowDown);
        assert_eq!(heard(r#"{"error":"invalid_grant","error_description":"x"}"#), Refusal::InvalidGrant);
        assert_eq!(
            heard("{\"error\":\"invalid_client\",\"error_description\":\"no \\u001b[2Jsuch client\"}"),
            Refusal::Other("no  [2Jsuch client (invalid_client)".to_owned())
        );
        assert!(matches!(read(StatusCode::BAD_GATEWAY, b"", NOW), Ok(Heard::Busy(_))));
        assert!(read(StatusCode::BAD_REQUEST, b"<html>", NOW).is_err());
    }
}
