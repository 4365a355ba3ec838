//! Who a request is from, by what it brings: a bearer's token, a session's cookie, an access token of the identity
//! provider. Certificates are looked at with the connection; whoever is trusted by one is known by that.

use std::sync::Arc;

use axum::response::Response;
use http::header::{AUTHORIZATION, COOKIE, HOST, ORIGIN, SET_COOKIE, USER_AGENT, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use jiff::Timestamp;
use uuid::Uuid;

use super::credential::Credential;
use super::lxd::answer::LxdError;
use super::lxd::attempt::Failures;
use super::request::Connection;
use super::surface::Surface;
use crate::trust::identity::Identities;
use crate::trust::oidc::{Arrival, Entered, Logins, OidcConfig, Presented, Refusal};
use crate::trust::{Caller, Origin, Who};
use crate::wire::token::{self, ID_TOKEN, Secret};

/// LXD's name of the cookie.
const SESSION: &str = "session";

/// What tells callers.
pub struct Callers {
    pub identities: Arc<Identities>,
    pub logins: Arc<Logins>,
    pub failures: Failures,
}

/// What a request's credentials came to.
pub enum Brought {
    /// There are none.
    Nothing,
    Known {
        who: Who,
        session: Option<Uuid>,
        /// What the client is to keep, and until when.
        cookie: Option<HeaderValue>,
    },
    Refused(LxdError),
}

impl Callers {
    /// Looks at what a request brings whose connection is nobody's.
    pub async fn look(
        &self,
        connection: &Connection,
        surface: Surface,
        headers: &HeaderMap,
        origin: Origin,
    ) -> Brought {
        let credentials = match connection {
            Connection::Network { credentials, .. } | Connection::Plain { credentials, .. } => credentials,
            Connection::Local { .. } | Connection::Link { .. } => return Brought::Nothing,
        };
        let consul = (surface == Surface::Consul).then(|| consul_token(headers)).flatten();
        let bearer = consul.or_else(|| bearer(headers));
        if let Some(token) = &bearer
            && let digest = token.digest()
            && let Some(who) = self.identities.caller_by_bearer(&digest)
        {
            // The first is what the connection is known by; each request brings its own.
            credentials.add(Credential::Bearer(digest));
            return Brought::Known { who, session: None, cookie: None };
        }
        // In the clear a token is all that counts: the provider's would be given away.
        let is_plain = matches!(connection, Connection::Plain { .. });
        if !is_plain
            && let Some(cookie) = session_cookie(headers)
            && let digest = cookie.digest()
            && let Some(session) = self.identities.sessions(|sessions| sessions.by_cookie(&digest))
            && let Some(who) = self.identities.caller_by_session(&session)
        {
            credentials.add(Credential::Session(session));
            return Brought::Known { who, session: Some(session), cookie: None };
        }
        let Some(token) = bearer else { return Brought::Nothing };
        // A token of ours that is not good any more is nothing for others to see.
        if is_plain || self.logins.provider().is_none() || token::is_ours(token.expose()) {
            if token.expose().is_empty() {
                return Brought::Nothing;
            }
            let error = LxdError::plain(StatusCode::FORBIDDEN);
            return Brought::Refused(self.wrong(connection, origin, error).await);
        }
        if token.expose().is_empty() {
            // So asks a client that wants to know where to log in.
            let message = "Log in with the identity provider that this answer names";
            return Brought::Refused(LxdError::new(StatusCode::UNAUTHORIZED, message));
        }
        let id = headers.get(ID_TOKEN).and_then(|id| id.to_str().ok()).filter(|id| !id.is_empty());
        let shown = self.logins.presented(token, id.map(|id| Secret::new(id.to_owned())));
        match self.enter(connection, headers, &shown, origin).await {
            Ok(Entered { who, session, cookie }) => {
                credentials.add(Credential::Session(session));
                let cookie = cookie.and_then(|secret| self.kept(&session, &secret));
                Brought::Known { who, session: Some(session), cookie }
            }
            Err(error) => Brought::Refused(error),
        }
    }

    async fn enter(
        &self,
        connection: &Connection,
        headers: &HeaderMap,
        shown: &Presented,
        origin: Origin,
    ) -> Result<Entered, LxdError> {
        let digest = shown.digest();
        let refusal = match self.logins.judged(&digest) {
            Some(Ok(entered)) => return Ok(entered),
            Some(Err(refusal)) => refusal,
            None => {
                // Whoever guesses has the provider asked no more.
                if let Some(wait) = self.failures.must_wait(connection.address()) {
                    return Err(
                        LxdError::new(StatusCode::TOO_MANY_REQUESTS, Failures::TOO_MANY).retry_after(wait)
                    );
                }
                let agent = headers.get(USER_AGENT).and_then(|value| value.to_str().ok());
                let arrival = Arrival { origin, user_agent: agent.unwrap_or_default() };
                match self.logins.enter(shown, arrival).await {
                    Ok(entered) => return Ok(entered),
                    Err(refusal) => refusal,
                }
            }
        };
        let (status, wait) = match &refusal {
            Refusal::Stale(_) | Refusal::NotGood(_) | Refusal::Person(_) => (StatusCode::UNAUTHORIZED, None),
            Refusal::Absent(_) => (StatusCode::SERVICE_UNAVAILABLE, None),
            Refusal::Busy { retry_after } => (StatusCode::SERVICE_UNAVAILABLE, Some(*retry_after)),
            Refusal::Failed(_) => (StatusCode::INTERNAL_SERVER_ERROR, None),
        };
        let error = LxdError { retry_after: wait, ..LxdError::new(status, refusal.to_string()) };
        // A token that was good once is no guess; nor is one that the provider did give, to whomever.
        match refusal {
            Refusal::NotGood(_) if !self.logins.was_good(&digest) => {
                Err(self.wrong(connection, origin, error).await)
            }
            refusal => {
                tracing::info!(reason = %refusal, "an access token was refused");
                Err(error)
            }
        }
    }

    /// The answer to a token that may be a guess.
    async fn wrong(&self, connection: &Connection, origin: Origin, error: LxdError) -> LxdError {
        let certificate = connection.caller(&self.identities).fingerprint();
        let shown = connection.shown().cloned();
        let caller = Caller { who: Who::Anonymous { certificate }, origin, shown };
        self.failures.answer(&caller, "authorization", error).await
    }

    /// The cookie of a session, as its client is told to keep it: from scripts, from plain HTTP and from other sites.
    fn kept(&self, session: &Uuid, secret: &Secret) -> Option<HeaderValue> {
        let until =
            self.identities.sessions(|sessions| sessions.get(session).map(|known| known.expires_at))?;
        let seconds = until.duration_since(Timestamp::now()).as_secs().max(0);
        let text = format!(
            "{SESSION}={}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite=Strict",
            secret.expose()
        );
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Puts into an answer what its client needs besides: where to log in, if it is nobody yet, and the cookie.
    pub fn finish(&self, response: &mut Response, anonymous: bool, cookie: Option<HeaderValue>) {
        if let Some(cookie) = cookie {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
        let refused = matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        if !(anonymous && refused) {
            return;
        }
        let Some(provider) = self.logins.provider() else { return };
        if response.status() == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        put_headers(response.headers_mut(), &provider.config);
    }
}

/// Where LXD's client looks for what it needs to know to begin a login.
fn put_headers(headers: &mut HeaderMap, config: &OidcConfig) {
    let scopes = serde_json::to_string(&config.scopes).unwrap_or_default();
    let all = [
        ("x-lxd-oidc-issuer", config.issuer.as_str()),
        ("x-lxd-oidc-clientid", config.device_client()),
        ("x-lxd-oidc-audience", config.audience.as_deref().unwrap_or_default()),
        ("x-lxd-oidc-groups-claim", config.groups_claim.as_deref().unwrap_or_default()),
        ("x-lxd-oidc-scopes", scopes.as_str()),
    ];
    for (name, value) in all {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
}

/// The token that a request brings, if it brings one; it may be empty.
fn bearer(headers: &HeaderMap) -> Option<Secret> {
    let text = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
    scheme.eq_ignore_ascii_case("bearer").then(|| Secret::new(token.trim().to_owned()))
}

/// The token as Consul's clients send it, which goes before the other header.
fn consul_token(headers: &HeaderMap) -> Option<Secret> {
    let text = headers.get("x-consul-token")?.to_str().ok()?.trim();
    (!text.is_empty()).then(|| Secret::new(text.to_owned()))
}

/// The secret of the session that a request brings. A browser sends it along with what pages of other servers on this
/// host ask for, too, but says whose pages they are: those do not have it count.
fn session_cookie(headers: &HeaderMap) -> Option<Secret> {
    if let Some(origin) = headers.get(ORIGIN) {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok())?;
        if origin.to_str().ok()?.strip_prefix("https://")? != host {
            return None;
        }
    }
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(name, value)| *name == SESSION && !value.is_empty())?;
    Some(Secret::new(value.trim_matches('"').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs =
            pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
        pairs.collect()
    }

    fn cookie(pairs: &[(&'static str, &'static str)]) -> Option<String> {
        session_cookie(&headers(pairs)).map(|secret| secret.expose().to_owned())
    }

    #[test]
    fn a_cookie_counts_for_pages_of_this_server_alone() {
        let own = ("cookie", "a=b; session=secret; c=d");
        assert_eq!(cookie(&[own]).as_deref(), Some("secret"));
        let host = ("host", "east.example:8443");
        assert_eq!(cookie(&[own, host, ("origin", "https://east.example:8443")]).as_deref(), Some("secret"));
        for other in ["https://east.example:3000", "http://east.example:8443", "https://evil.example", "null"]
        {
            assert_eq!(cookie(&[own, host, ("origin", other)]), None, "{other}");
        }
        assert_eq!(cookie(&[("cookie", "session=; sessions=x")]), None);
    }

    #[test]
    fn an_empty_token_is_one() {
        let token =
            |text| bearer(&headers(&[("authorization", text)])).map(|token| token.expose().to_owned());
        assert_eq!(token("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(token("bearer  abc ").as_deref(), Some("abc"));
        assert_eq!(token("Bearer").as_deref(), Some(""));
        assert_eq!(token("Basic abc"), None);
    }
}
