//! A login while it is used: tokens sent, renewed when they end, and asked for anew when they cannot be renewed.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use jiff::Timestamp;

use super::cookie::{self, Told};
use super::device::{self, Grant};
use super::provider::{self, Endpoints};
use super::token::{self, Heard, Refusal};
use super::{Cookie, LoginError, Provider, Show, Tokens};
use crate::web::{Web, WebError};
use crate::wire::printable;
use crate::wire::token::{ID_TOKEN, Secret};

/// LXD's client says so once it expects to be known: who is not, is refused instead of shown what strangers see.
const EXPECTS_LOGIN: HeaderName = HeaderName::from_static("x-lxd-authenticated");
/// LXD's client says so where it can log in.
const CAN_LOG_IN: HeaderName = HeaderName::from_static("x-lxd-oidc");

/// What is kept of a login between commands.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    pub tokens: Option<Tokens>,
    pub cookie: Option<Cookie>,
}

/// Where a login is kept. What goes wrong there is told in a sentence.
pub trait Shelf: Send + Sync {
    fn read(&self) -> Result<Kept, String>;
    fn keep_tokens(&self, tokens: &Tokens) -> Result<(), String>;
    /// `None` ends the session.
    fn keep_cookie(&self, cookie: Option<&Cookie>) -> Result<(), String>;
    /// Waits until no other command renews this login. None does before the answer is dropped.
    fn alone(&self) -> Result<Box<dyn Any + Send>, String>;
}

/// A login that is not kept (yet): what there is of it ends with the process.
#[derive(Debug, Default)]
pub struct Unkept(Mutex<Kept>);

/// A login at one agent.
pub struct Session {
    agent: String,
    /// Made when it is needed, which is seldom: the system's roots are many.
    web: OnceLock<Web>,
    shelf: Arc<dyn Shelf>,
    /// Who can approve a code; nobody, where nobody looks on.
    show: Option<Box<Show>>,
    state: tokio::sync::Mutex<State>,
}

#[derive(Default)]
struct State {
    /// `None`, before it was read.
    kept: Option<Kept>,
    /// Whether the tokens were given to this process: an agent that does not take those takes none.
    fresh: bool,
}

/// What a request was sent with.
#[derive(Debug, Default)]
pub struct Used {
    access_token: Option<Secret>,
    cookie: bool,
}

impl Used {
    pub fn nothing(&self) -> bool {
        self.access_token.is_none() && !self.cookie
    }
}

impl Session {
    /// The login that `shelf` keeps, at the agent that messages call `agent`.
    pub fn new(agent: &str, shelf: Arc<dyn Shelf>, show: Option<Box<Show>>) -> Self {
        let state = tokio::sync::Mutex::default();
        Self { agent: agent.to_owned(), web: OnceLock::new(), shelf, show, state }
    }

    /// One that was made just now: an agent that does not take its tokens takes none.
    pub fn begun(agent: &str, shelf: Arc<dyn Shelf>) -> Self {
        let state = State { kept: None, fresh: true };
        Self { state: tokio::sync::Mutex::new(state), ..Self::new(agent, shelf, None) }
    }

    /// Writes into a request's headers who it is from.
    pub async fn introduce(&self, headers: &mut HeaderMap) -> Result<Used, LoginError> {
        expect_login(headers);
        let mut state = self.state.lock().await;
        let mut kept = self.kept(&mut state)?;
        let now = Timestamp::now();
        let cookie = kept.cookie.as_ref().and_then(|cookie| cookie.header(now));
        if kept.tokens.as_ref().is_some_and(|tokens| !tokens.is_live(now)) {
            // A session goes on without, also while the provider is away.
            let renewed = if cookie.is_none() {
                self.refresh(&mut state, &kept, None).await
            } else {
                Err(self.ended())
            };
            match renewed {
                Ok(()) => kept = self.kept(&mut state)?,
                // The agent's answer says how to begin anew, if that is needed.
                Err(LoginError::Ended { .. }) => kept.tokens = None,
                Err(error) => return Err(error),
            }
        }
        let mut used = Used { access_token: None, cookie: cookie.is_some() };
        if let Some(cookie) = cookie {
            headers.insert(header::COOKIE, cookie);
        }
        if let Some(tokens) = kept.tokens {
            let bearer = HeaderValue::from_str(&format!("Bearer {}", tokens.access_token.expose()));
            let mut bearer =
                bearer.map_err(|_| LoginError::Kept("the token that is kept cannot be sent".to_owned()))?;
            bearer.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, bearer);
            if let Some(id_token) = &tokens.id_token {
                let mut id_token = HeaderValue::from_str(id_token.expose())
                    .map_err(|_| LoginError::Kept("the token that is kept cannot be sent".to_owned()))?;
                id_token.set_sensitive(true);
                headers.insert(ID_TOKEN, id_token);
            }
            used.access_token = Some(tokens.access_token);
        }
        Ok(used)
    }

    /// Takes what an answer says of the session.
    pub async fn heed(&self, headers: &HeaderMap) -> Result<(), LoginError> {
        let cookie = match cookie::told(headers, Timestamp::now()) {
            Told::Nothing => return Ok(()),
            Told::Set(cookie) => Some(cookie),
            Told::Ended => None,
        };
        let mut state = self.state.lock().await;
        self.shelf.keep_cookie(cookie.as_ref()).map_err(LoginError::Kept)?;
        if let Some(kept) = &mut state.kept {
            kept.cookie = cookie;
        }
        Ok(())
    }

    /// Gets other tokens than those that were `used` and refused with these headers.
    pub async fn renew(&self, used: &Used, headers: &HeaderMap, reason: &str) -> Result<(), LoginError> {
        let mut state = self.state.lock().await;
        let mut kept = self.kept(&mut state)?;
        let live = kept.tokens.as_ref().filter(|tokens| tokens.is_live(Timestamp::now()));
        let current = live.map(|tokens| tokens.access_token.expose());
        if current.is_some() && current != used.access_token.as_ref().map(Secret::expose) {
            // Another request of this command was quicker.
            return Ok(());
        }
        if used.cookie {
            self.shelf.keep_cookie(None).map_err(LoginError::Kept)?;
            kept.cookie = None;
            state.kept = Some(kept.clone());
        }
        if state.fresh && used.access_token.is_some() {
            return Err(LoginError::NotAccepted { agent: self.agent.clone(), reason: printable(reason) });
        }
        let provider = Provider::from_headers(headers);
        match self.refresh(&mut state, &kept, provider.as_ref()).await {
            Err(LoginError::Ended { .. }) => {}
            ended => return ended,
        }
        if let (Some(before), Some(now)) = (&kept.tokens, &provider) {
            self.same_provider(before, now)?;
        }
        let Some(show) = &self.show else { return Err(self.ended()) };
        let provider = provider.ok_or_else(|| LoginError::NoProvider { agent: self.agent.clone() })?;
        let tokens = log_in(self.web()?, &provider, show.as_ref()).await?;
        self.shelf.keep_tokens(&tokens).map_err(LoginError::Kept)?;
        *state = State { kept: Some(Kept { tokens: Some(tokens), cookie: None }), fresh: true };
        Ok(())
    }

    /// An agent that has turned bad could name another service's provider and client, and somebody who approves the
    /// code by habit would give it a token for that service. Only whoever asks for it logs in there.
    fn same_provider(&self, before: &Tokens, now: &Provider) -> Result<(), LoginError> {
        if now.issuer == before.issuer && now.client_id == before.client_id {
            return Ok(());
        }
        Err(LoginError::OtherProvider {
            agent: self.agent.clone(),
            before: provider::named(&before.issuer, &before.client_id),
            now: provider::named(&now.issuer, &now.client_id),
        })
    }

    fn web(&self) -> Result<&Web, LoginError> {
        if let Some(web) = self.web.get() {
            return Ok(web);
        }
        let web = Web::new().map_err(|error| LoginError::Kept(error.to_string()))?;
        Ok(self.web.get_or_init(|| web))
    }

    fn kept(&self, state: &mut State) -> Result<Kept, LoginError> {
        if let Some(kept) = &state.kept {
            return Ok(kept.clone());
        }
        let kept = self.shelf.read().map_err(LoginError::Kept)?;
        state.kept = Some(kept.clone());
        Ok(kept)
    }

    /// Renews by the refresh token, unless another command has done it. `Ended`, where that is not possible.
    async fn refresh(
        &self,
        state: &mut State,
        kept: &Kept,
        provider: Option<&Provider>,
    ) -> Result<(), LoginError> {
        let Some(old) = &kept.tokens else { return Err(self.ended()) };
        if provider.is_some_and(|now| now.issuer != old.issuer || now.client_id != old.client_id) {
            return Err(self.ended());
        }
        let shelf = self.shelf.clone();
        // Held until the new tokens are kept. In a thread of its own: waiting must not make the command deaf.
        let alone = tokio::task::spawn_blocking(move || shelf.alone()).await;
        let _alone = alone.map_err(|error| LoginError::Kept(error.to_string()))?.map_err(LoginError::Kept)?;
        let again = self.shelf.read().map_err(LoginError::Kept)?;
        let Some(current) = again.tokens.clone() else { return Err(self.ended()) };
        if current.access_token.expose() != old.access_token.expose() && current.is_live(Timestamp::now()) {
            state.kept = Some(again);
            return Ok(());
        }
        let Some(refresh_token) = current.refresh_token.clone() else { return Err(self.ended()) };
        let endpoints = discover(self.web()?, &current.issuer).await?;
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token.expose()),
            ("client_id", &current.client_id),
        ];
        match ask_tokens(self.web()?, &current.issuer, &endpoints, &form).await? {
            Heard::Tokens(fresh) => {
                let tokens = fresh.of(&current.issuer, &current.client_id, Some(refresh_token));
                self.shelf.keep_tokens(&tokens).map_err(LoginError::Kept)?;
                *state = State { kept: Some(Kept { tokens: Some(tokens), ..again }), fresh: true };
                Ok(())
            }
            Heard::Busy(status) => Err(busy(&current.issuer, status)),
            Heard::Refused(Refusal::InvalidGrant) => {
                // It is worth nothing any more: it is not sent again.
                let tokens = Tokens { refresh_token: None, ..current };
                self.shelf.keep_tokens(&tokens).map_err(LoginError::Kept)?;
                state.kept = Some(Kept { tokens: Some(tokens), ..again });
                Err(self.ended())
            }
            Heard::Refused(Refusal::Other(error)) => {
                Err(LoginError::Refused { what: "to renew the login", error })
            }
            Heard::Refused(_) => Err(self.ended()),
        }
    }

    fn ended(&self) -> LoginError {
        LoginError::Ended { agent: self.agent.clone() }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({})", self.agent)
    }
}

impl Unkept {
    /// With tokens to begin with.
    pub fn of(tokens: Tokens) -> Self {
        Self(Mutex::new(Kept { tokens: Some(tokens), cookie: None }))
    }

    /// What there is of it now.
    pub fn kept(&self) -> Kept {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shelf for Unkept {
    fn read(&self) -> Result<Kept, String> {
        Ok(self.kept())
    }

    fn keep_tokens(&self, tokens: &Tokens) -> Result<(), String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).tokens = Some(tokens.clone());
        Ok(())
    }

    fn keep_cookie(&self, cookie: Option<&Cookie>) -> Result<(), String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).cookie = cookie.cloned();
        Ok(())
    }

    fn alone(&self) -> Result<Box<dyn Any + Send>, String> {
        Ok(Box::new(()))
    }
}

/// Says that the caller means to be known: who is not, is told how to log in.
pub fn expect_login(headers: &mut HeaderMap) {
    headers.insert(EXPECTS_LOGIN, HeaderValue::from_static("true"));
    headers.insert(CAN_LOG_IN, HeaderValue::from_static("true"));
    // A token that is none: an agent answers it with where to get one.
    headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer"));
    // Sessions are listed with what began them.
    headers
        .insert(header::USER_AGENT, HeaderValue::from_static(concat!("comity/", env!("CARGO_PKG_VERSION"))));
}

/// Has somebody approve a code at the provider, and waits for it.
pub async fn log_in(web: &Web, provider: &Provider, show: &Show) -> Result<Tokens, LoginError> {
    let issuer = &provider.issuer;
    let endpoints = discover(web, issuer).await?;
    let none = || LoginError::NoDeviceCodes { issuer: printable(issuer) };
    let device = endpoints.device.as_ref().ok_or_else(none)?;
    let form = device::asking(provider);
    let form: Vec<(&str, &str)> = form.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let answer = post(web, issuer, device, &form).await?;
    if answer.status().is_server_error() {
        return Err(busy(issuer, answer.status()));
    }
    let mut grant = Grant::read(answer.status(), answer.body())?;
    show(&grant.invitation);
    let begun = Instant::now();
    loop {
        tokio::time::sleep(grant.wait(begun.elapsed())?).await;
        let form = [
            ("grant_type", device::GRANT_TYPE),
            ("device_code", grant.device_code.expose()),
            ("client_id", provider.client_id.as_str()),
        ];
        match ask_tokens(web, issuer, &endpoints, &form).await {
            Ok(heard) => {
                if let Some(fresh) = grant.heard(heard)? {
                    return Ok(fresh.of(issuer, &provider.client_id, None));
                }
            }
            // It may come back before the code ends.
            Err(LoginError::Unreachable { .. }) => grant.unheard(),
            Err(error) => return Err(error),
        }
    }
}

async fn discover(web: &Web, issuer: &str) -> Result<Endpoints, LoginError> {
    let unsaid =
        |error: http::Error| LoginError::Unexpected { what: "an address", reason: error.to_string() };
    let request = Request::get(provider::discovery_url(issuer)?).body(Bytes::new()).map_err(unsaid)?;
    let answer = web.send(request).await.map_err(|error| unreachable(issuer, &error))?;
    provider::read_document(issuer, answer.status(), answer.headers(), answer.body())
}

async fn ask_tokens(
    web: &Web,
    issuer: &str,
    endpoints: &Endpoints,
    form: &[(&str, &str)],
) -> Result<Heard, LoginError> {
    let answer = post(web, issuer, &endpoints.token, form).await?;
    token::read(answer.status(), answer.body(), Timestamp::now())
}

async fn post(
    web: &Web,
    issuer: &str,
    url: &str,
    form: &[(&str, &str)],
) -> Result<Response<Bytes>, LoginError> {
    let answer = web.post_form(url, form).await.map_err(|error| unreachable(issuer, &error))?;
    if answer.status().is_redirection() {
        let to = answer.headers().get(header::LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("nowhere");
        let to = printable(&to.chars().take(200).collect::<String>());
        return Err(LoginError::Redirected { issuer: printable(issuer), to });
    }
    Ok(answer)
}

fn unreachable(issuer: &str, error: &WebError) -> LoginError {
    LoginError::Unreachable { issuer: printable(issuer), reason: error.to_string() }
}

fn busy(issuer: &str, status: StatusCode) -> LoginError {
    LoginError::Unreachable { issuer: printable(issuer), reason: format!("it answered {status}") }
}

#[cfg(test)]
mod tests;
