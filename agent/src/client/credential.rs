//! Saying who calls where that is by a login: with each request, and again once the login was renewed.

use std::sync::Arc;

use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;

use super::login::{LoginError, Provider, Session, Used, expect_login};
use super::{Body, Client, ClientError, Target};

/// Whether a refused request may be sent a second time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    First,
    /// It was, after the login was renewed.
    Second,
}

/// What became of one request.
pub(super) enum Reply {
    Answered(Response<Incoming>),
    /// The login did not do; these headers say how to get another.
    Challenged(HeaderMap, ClientError),
}

impl Client {
    /// The same agent, to whom this login says who calls. No certificate is shown then.
    #[must_use]
    pub fn logged_in(mut self, session: Arc<Session>) -> Self {
        if let Target::Pinned { identity, .. } = &mut self.target {
            *identity = None;
        }
        self.session = Some(session);
        self
    }

    /// Writes into a request who it is from, where that is not said by a certificate.
    pub(super) async fn introduce(&self, headers: &mut HeaderMap) -> Result<Used, ClientError> {
        match &self.session {
            Some(session) => session.introduce(headers).await.map_err(|error| self.login(error)),
            None => Ok(Used::default()),
        }
    }

    /// Sends a request over a connection of its own.
    pub(super) async fn attempt(&self, request: Request<Body>, used: &Used) -> Result<Reply, ClientError> {
        let (sender, driver) = self.connect().await?;
        let response = self.send(sender, driver, request).await?;
        let Some(session) = &self.session else { return Ok(Reply::Answered(response)) };
        session.heed(response.headers()).await.map_err(|error| self.login(error))?;
        let challenged = match response.status() {
            StatusCode::UNAUTHORIZED => true,
            // LXD's answer to who brings nothing at all.
            StatusCode::FORBIDDEN => used.nothing(),
            _ => false,
        };
        if !challenged {
            return Ok(Reply::Answered(response));
        }
        let headers = response.headers().clone();
        Ok(Reply::Challenged(headers, self.refusal(response).await))
    }

    /// Renews the login that was refused so, for a second attempt. It may take as long as somebody needs.
    pub(super) async fn renew(
        &self,
        attempt: Attempt,
        used: &Used,
        headers: &HeaderMap,
        refusal: ClientError,
    ) -> Result<(), ClientError> {
        let Some(session) = &self.session else { return Err(refusal) };
        let reason = match &refusal {
            ClientError::Refused { message, .. } => message.clone(),
            other => other.to_string(),
        };
        if attempt == Attempt::Second {
            return Err(self.login(LoginError::NotAccepted { agent: self.agent(), reason }));
        }
        session.renew(used, headers, &reason).await.map_err(|error| self.login(error))
    }

    /// How to log in there, as the server says to somebody who has not: in the headers of its refusal or, with less
    /// detail, in what it tells everybody.
    pub async fn provider(&self) -> Result<Provider, ClientError> {
        let body = || Full::default().map_err(|never| match never {}).boxed_unsync();
        let mut request = Request::new(body());
        *request.uri_mut() = http::Uri::from_static("/1.0");
        expect_login(request.headers_mut());
        let told = self.within(async {
            let (sender, driver) = self.connect().await?;
            Ok(Provider::from_headers(self.send(sender, driver, request).await?.headers()))
        });
        if let Some(provider) = told.await? {
            return Ok(provider);
        }
        let config = self.server().await?.config.unwrap_or_default();
        Provider::from_config(&config)
            .ok_or_else(|| self.login(LoginError::NoProvider { agent: self.agent() }))
    }

    pub(super) fn login(&self, error: LoginError) -> ClientError {
        let remote = match &self.target {
            Target::Pinned { name, .. } => name.clone(),
            Target::Unix(_) => "NAME".to_owned(),
        };
        ClientError::Login { remote, error }
    }
}
