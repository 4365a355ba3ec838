//! Calls to servers that are not agents: identity providers, certificate authorities.
//!
//! They are known by name and by the roots of this system (`SSL_CERT_FILE` and `SSL_CERT_DIR` name others), over TLS 1.3.
//! Plain HTTP goes to this machine alone. No redirect is followed: whoever was asked answers, or nobody does. What
//! comes back is bounded in time and size, and is hostile until it is decoded.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::LOCATION;
use http::{HeaderMap, Request, Response, StatusCode};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use serde::de::DeserializeOwned;

use crate::wire::printable;
use crate::wire::token::Secret;

/// How long making a connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long a whole call may take.
const CALL_LIMIT: Duration = Duration::from_secs(30);
/// Largest answer.
const MAX_ANSWER: usize = 1024 * 1024;

/// Sends requests. Cheap to copy; copies share their connections.
#[derive(Clone)]
pub struct Web(Client);

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    #[error("{0:?} is not an https:// address (http:// is for this machine alone)")]
    Address(String),
    #[error("{host} could not be reached: {reason}")]
    Unreachable { host: String, reason: String },
    #[error("{host} did not answer within {} s", CALL_LIMIT.as_secs())]
    Timeout { host: String },
    #[error("{host} answered with more than 1 MiB")]
    TooLarge { host: String },
    #[error(
        "{host} sends callers elsewhere ({to}), and no redirect is followed: set the address that it answers at"
    )]
    Redirect { host: String, to: String },
    #[error("{host} answered {path} with {status}")]
    Status { host: String, path: String, status: StatusCode, body: Bytes },
    #[error("{host} answered {path} with something else than expected: {reason}")]
    Malformed { host: String, path: String, reason: String },
    #[error("calls to the web cannot be made here: {0}")]
    Setup(String),
}

impl Web {
    /// With the roots of this system.
    pub fn new() -> Result<Self, WebError> {
        Self::trusting(roots())
    }

    /// With these roots and no others.
    pub fn trusting(roots: Arc<RootCertStore>) -> Result<Self, WebError> {
        let setup = |error: &dyn fmt::Display| WebError::Setup(error.to_string());
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| setup(&error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(Policy::none())
            .connect_timeout(CONNECT_LIMIT)
            .timeout(CALL_LIMIT)
            .user_agent(concat!("comity/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self(client.map_err(|error| setup(&error))?))
    }

    /// The JSON at `address`; `bearer` is sent as its reader's token.
    pub async fn get<T: DeserializeOwned>(
        &self,
        address: &str,
        bearer: Option<&Secret>,
    ) -> Result<T, WebError> {
        self.get_with_head(address, bearer).await.map(|(value, _)| value)
    }

    /// The same, and the head of the answer.
    pub async fn get_with_head<T: DeserializeOwned>(
        &self,
        address: &str,
        bearer: Option<&Secret>,
    ) -> Result<(T, HeaderMap), WebError> {
        let mut request = Request::get(address).header(http::header::ACCEPT, "application/json");
        if let Some(bearer) = bearer {
            request = request.header(http::header::AUTHORIZATION, format!("Bearer {}", bearer.expose()));
        }
        let request = request.body(Bytes::new()).map_err(|_| WebError::Address(shown(address)))?;
        let (place, answer) = self.call(request).await?;
        Ok((json(place, &answer)?, answer.headers().clone()))
    }

    /// Sends a form to `address` and gives what comes back, whatever its status: of a failure the body tells why.
    pub async fn post_form(&self, address: &str, form: &[(&str, &str)]) -> Result<Response<Bytes>, WebError> {
        let request = self.0.post(url(address)?).form(form).header(http::header::ACCEPT, "application/json");
        let request = request.build().map_err(|error| WebError::Setup(error.without_url().to_string()))?;
        self.execute(request).await
    }

    /// Sends a request as it is and gives what comes back, whatever its status.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, WebError> {
        let (parts, body) = request.into_parts();
        let mut sent = reqwest::Request::new(parts.method, url(&parts.uri.to_string())?);
        *sent.headers_mut() = parts.headers;
        *sent.body_mut() = Some(body.into());
        self.execute(sent).await
    }

    async fn call(&self, request: Request<Bytes>) -> Result<(Place, Response<Bytes>), WebError> {
        let place = Place::of(&url(&request.uri().to_string())?);
        let answer = self.send(request).await?;
        if answer.status().is_success() {
            return Ok((place, answer));
        }
        let Place { host, path } = place;
        let status = answer.status();
        if status.is_redirection() {
            let to = answer.headers().get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("nowhere");
            return Err(WebError::Redirect { host, to: shown(to) });
        }
        Err(WebError::Status { host, path, status, body: answer.into_body() })
    }

    async fn execute(&self, request: reqwest::Request) -> Result<Response<Bytes>, WebError> {
        let host = Place::of(request.url()).host;
        let failed = |error: reqwest::Error| {
            let host = host.clone();
            if error.is_timeout() {
                WebError::Timeout { host }
            } else {
                WebError::Unreachable { host, reason: innermost(&error) }
            }
        };
        let mut answer = self.0.execute(request).await.map_err(failed)?;
        let mut body = BytesMut::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(WebError::TooLarge { host });
            }
            body.extend_from_slice(&chunk);
        }
        let mut response = Response::new(body.freeze());
        *response.status_mut() = answer.status();
        *response.headers_mut() = answer.headers().clone();
        Ok(response)
    }
}

impl fmt::Debug for Web {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Web")
    }
}

/// What messages say of where a request went: never its query.
struct Place {
    host: String,
    path: String,
}

impl Place {
    fn of(url: &Url) -> Self {
        let host = url.host_str().unwrap_or("nowhere");
        let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        Self { host: shown(&host), path: shown(url.path()) }
    }
}

fn json<T: DeserializeOwned>(place: Place, answer: &Response<Bytes>) -> Result<T, WebError> {
    serde_json::from_slice(answer.body()).map_err(|error| {
        // The error's own words may repeat what was sent.
        let reason = format!("line {}, column {}", error.line(), error.column());
        WebError::Malformed { host: place.host, path: place.path, reason }
    })
}

/// Whether the host of an address is this machine, to which plain HTTP may go.
pub fn is_here(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// An address that may be called.
fn url(text: &str) -> Result<Url, WebError> {
    let wrong = || WebError::Address(shown(text));
    let url = Url::parse(text).map_err(|_| wrong())?;
    let host = url.host_str().ok_or_else(wrong)?;
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_here(host) => Ok(url),
        _ => Err(wrong()),
    }
}

/// Others' text in a message of ours.
fn shown(text: &str) -> String {
    let without_query = text.split(['?', '#']).next().unwrap_or_default();
    printable(&without_query.chars().take(200).collect::<String>())
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// The roots of this system, read once. Those that cannot be read are left out.
pub fn roots() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let read = || {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "some of this system's certificate authorities could not be read");
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        Arc::new(roots)
    };
    ROOTS.get_or_init(read).clone()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// The address of a server that answers every request with this, bytes for bytes.
    async fn answering(answer: Vec<u8>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/a?secret=1", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut head = [0; 4096];
                let _ = socket.read(&mut head).await;
                let _ = socket.write_all(&answer).await;
            }
        });
        address
    }

    async fn get(answer: Vec<u8>) -> Result<serde_json::Value, WebError> {
        let address = answering(answer).await;
        Web::new().unwrap().get(&address, None).await
    }

    #[tokio::test]
    async fn what_is_no_answer_is_said_without_what_was_asked() {
        let body = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{\"a\": 1}\n".to_vec();
        assert_eq!(get(body).await.unwrap()["a"], 1);
        let elsewhere =
            b"HTTP/1.1 302 Found\r\nlocation: https://evil.example/x?y\r\ncontent-length: 0\r\n\r\n".to_vec();
        let message = get(elsewhere).await.unwrap_err().to_string();
        assert!(message.contains("https://evil.example/x)") && !message.contains("secret"), "{message}");
        let endless = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b' '; MAX_ANSWER + 1]].concat();
        assert!(matches!(get(endless).await, Err(WebError::TooLarge { .. })));
        let other = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno".to_vec();
        assert!(matches!(get(other).await, Err(WebError::Malformed { .. })));
        let wrong = b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n".to_vec();
        assert!(matches!(get(wrong).await, Err(WebError::Status { .. })));
    }

    #[tokio::test]
    async fn nothing_is_sent_in_the_clear_to_another_machine() {
        let web = Web::new().unwrap();
        for wrong in ["http://login.example/x", "http://127.0.0.1.example/", "ftp://127.0.0.1/", "nowhere"] {
            let refused = web.get::<serde_json::Value>(wrong, None).await;
            assert!(matches!(refused, Err(WebError::Address(_))), "{wrong}");
        }
    }
}
