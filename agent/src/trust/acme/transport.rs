//! How the ACME protocol reaches its server: over `web`, with what it must not be able to make us do left out.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::uri::Scheme;
use http::{HeaderMap, Request, StatusCode, Uri, header};
use http_body_util::BodyExt as _;
use instant_acme::{BodyWrapper, BytesResponse, HttpClient};
use jiff::{SignedDuration, Timestamp};

use crate::web::{Web, WebError};

/// Why a request to an ACME server brought no answer of its.
#[derive(Debug, thiserror::Error)]
pub enum TransportFault {
    #[error(transparent)]
    Web(#[from] WebError),
    #[error("{url} answers with status {status}{}", .redirected.then_some(", which would lead elsewhere; no redirect is followed").unwrap_or_default())]
    Status { url: String, status: StatusCode, redirected: bool },
    #[error("{0} is no address that a server reached by https may send us to")]
    Downgrade(String),
}

/// The way to one ACME server.
#[derive(Clone)]
pub struct Transport {
    web: Web,
    /// Whether the directory is reached by https, so that nothing else of it may be reached otherwise.
    secure: bool,
    put_off: Arc<Mutex<Option<SignedDuration>>>,
}

impl Transport {
    pub fn new(web: Web, directory: &str) -> Self {
        let secure = directory.parse::<Uri>().is_ok_and(|url| url.scheme() == Some(&Scheme::HTTPS));
        Self { web, secure, put_off: Arc::default() }
    }

    /// How long the last answer asked to wait, if it was a refusal that did.
    pub fn put_off(&self) -> Option<SignedDuration> {
        *self.put_off.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(&self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, TransportFault> {
        let (parts, body) = request.into_parts();
        if self.secure && parts.uri.scheme() != Some(&Scheme::HTTPS) {
            return Err(TransportFault::Downgrade(parts.uri.to_string()));
        }
        let body = body.collect().await.unwrap_or_else(|never| match never {}).to_bytes();
        let url = parts.uri.to_string();
        let response = self.web.send(Request::from_parts(parts, body)).await?;
        let (parts, body) = response.into_parts();
        let refused = parts.status.is_client_error() || parts.status.is_server_error();
        let put_off = refused.then(|| wait(&parts.headers, Timestamp::now())).flatten();
        *self.put_off.lock().unwrap_or_else(PoisonError::into_inner) = put_off;
        // A refusal of the protocol's own is a JSON object; everything else comes from somebody in between.
        let explained = || serde_json::from_slice::<serde_json::Map<_, _>>(&body).is_ok();
        let redirected = parts.status.is_redirection();
        if redirected || (refused && !explained()) {
            return Err(TransportFault::Status { url, status: parts.status, redirected });
        }
        Ok(BytesResponse { parts, body: Box::new(body) })
    }
}

impl HttpClient for Transport {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let transport = self.clone();
        Box::pin(async move {
            let sent = transport.send(request).await;
            sent.map_err(|fault| instant_acme::Error::Other(Box::new(fault)))
        })
    }
}

/// `Retry-After`: seconds, or a date.
fn wait(headers: &HeaderMap, now: Timestamp) -> Option<SignedDuration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(SignedDuration::from_secs(seconds.into()));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(date.timestamp().duration_since(now).max(SignedDuration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_a_number_of_seconds_or_a_date() {
        let now: Timestamp = "2026-11-22T08:00:00Z".parse().unwrap();
        let asked = |text: &str| {
            let headers = [(header::RETRY_AFTER, text.parse().unwrap())];
            wait(&headers.into_iter().collect(), now).map(|wait| wait.as_secs())
        };
        assert_eq!(asked("120"), Some(120));
        assert_eq!(asked("Sun, 22 Nov 2026 09:00:00 GMT"), Some(3600));
        assert_eq!(asked("Sun, 22 Nov 2026 07:00:00 GMT"), Some(0));
        for odd in ["", "soon", "-1", "99999999999999999999"] {
            assert_eq!(asked(odd), None, "{odd}");
        }
    }
}
