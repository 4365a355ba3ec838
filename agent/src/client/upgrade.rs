//! A connection taken over from HTTP: what follows the head is the caller's own protocol, both ways.

use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;

use super::credential::{Attempt, Reply};
use super::{Client, ClientError};
use crate::wire::token::Secret;

/// The header that a transfer's one-time secret goes in. Kept out of logs by being marked sensitive.
pub const SECRET_HEADER: &str = "comity-secret";

/// A taken-over connection.
pub type Upgraded = TokioIo<hyper::upgrade::Upgraded>;

impl Client {
    /// Asks to speak `protocol` over the connection from now on.
    pub async fn upgrade(
        &self,
        path: &str,
        protocol: &str,
        secret: Option<&Secret>,
    ) -> Result<Upgraded, ClientError> {
        let mut request = asking(Method::POST, path, protocol);
        if let Some(secret) = secret {
            let mut value = HeaderValue::from_str(secret.expose()).map_err(|e| self.unexpected(&e))?;
            value.set_sensitive(true);
            request = request.header(SECRET_HEADER, value);
        }
        self.take_over(request).await
    }

    /// The same, with another method and with headers that are the protocol's.
    pub(super) async fn upgrade_with(
        &self,
        method: Method,
        path: &str,
        protocol: &str,
        headers: &[(&str, &str)],
    ) -> Result<Upgraded, ClientError> {
        let request = asking(method, path, protocol);
        self.take_over(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)))
            .await
    }

    async fn take_over(&self, request: http::request::Builder) -> Result<Upgraded, ClientError> {
        let (head, ()) = request.body(()).map_err(|e| self.unexpected(&e))?.into_parts();
        let mut attempt = Attempt::First;
        loop {
            let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
            let mut request = Request::from_parts(head.clone(), body);
            let used = self.introduce(request.headers_mut()).await?;
            let answered = self.within(async {
                let response = match self.attempt(request, &used).await? {
                    Reply::Answered(response) => response,
                    Reply::Challenged(headers, refusal) => return Ok(Err((headers, refusal))),
                };
                match response.status() {
                    StatusCode::SWITCHING_PROTOCOLS => {
                        let upgraded = hyper::upgrade::on(response).await.map(TokioIo::new);
                        upgraded.map(Ok).map_err(|e| self.broken(&e))
                    }
                    status if status.is_success() => {
                        Err(self.unexpected(&"it does not change the protocol when asked to"))
                    }
                    _ => Err(self.refusal(response).await),
                }
            });
            match answered.await? {
                Ok(upgraded) => return Ok(upgraded),
                Err((headers, refusal)) => self.renew(attempt, &used, &headers, refusal).await?,
            }
            attempt = Attempt::Second;
        }
    }
}

fn asking(method: Method, path: &str, protocol: &str) -> http::request::Builder {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, protocol)
}
