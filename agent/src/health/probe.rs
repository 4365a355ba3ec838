//! One probe of one instance.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::ServerName;
use schema::kind::service::{Check, HttpRequest, Probe};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{MAX_OUTPUT, Status, cut};
use crate::wire::printable;

mod unverified;

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub status: Status,
    pub output: Arc<str>,
}

/// Why a probe came to nothing.
#[derive(Debug, thiserror::Error)]
enum ProbeError {
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    #[error("a check asks no link-local address: no service is there")]
    LinkLocal,
    #[error("cannot connect to {0}: {1}")]
    Connect(String, io::Error),
    #[error("not a URL that can be probed: http://HOST[:PORT]/PATH or https://… is")]
    Url,
    #[error("TLS failed: {0}")]
    Tls(String),
    #[error("HTTP failed: {0}")]
    Http(#[from] hyper::Error),
}

/// Asks once, for `timeout` at most.
pub(super) async fn run(check: &Check, timeout: Duration) -> Found {
    let asked = async {
        match &check.probe {
            Probe::Tcp(address) => {
                connect(address).await?;
                Ok(Found {
                    status: Status::Passing,
                    output: format!("TCP connect {address}: Success").into(),
                })
            }
            Probe::Http(url) => ask(url, check.request.as_deref().unwrap_or(&HttpRequest::default())).await,
            // Nobody asks.
            Probe::Ttl(_) => std::future::pending().await,
        }
    };
    let found = tokio::time::timeout(timeout, asked).await.unwrap_or(Err(ProbeError::Timeout(timeout)));
    found.unwrap_or_else(|error| Found { status: Status::Critical, output: error.to_string().into() })
}

async fn connect(address: &str) -> Result<TcpStream, ProbeError> {
    let failed = |error| ProbeError::Connect(address.to_owned(), error);
    let mut last = io::ErrorKind::NotFound.into();
    for resolved in tokio::net::lookup_host(address).await.map_err(failed)? {
        if is_link_local(resolved.ip()) {
            return Err(ProbeError::LinkLocal);
        }
        match TcpStream::connect(resolved).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(failed(last))
}

/// Where clouds give a machine its own credentials, and no service of this cluster is: who may declare a check shall not
/// read those by it.
fn is_link_local(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// A redirection is not followed: it says nothing of the instance that was asked.
async fn ask(url: &str, asked: &HttpRequest) -> Result<Found, ProbeError> {
    let uri: Uri = url.parse().map_err(|_| ProbeError::Url)?;
    let authority = uri.authority().ok_or(ProbeError::Url)?;
    let default_port = match uri.scheme_str() {
        Some("http") => 80,
        Some("https") => 443,
        _ => return Err(ProbeError::Url),
    };
    let stream =
        connect(&format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(default_port))).await?;
    let method = if asked.method.is_empty() { "GET" } else { &asked.method };
    let request = request(method, &uri, asked)?;
    let (status, body) = if default_port == 443 {
        exchange(encrypt(stream, authority.host(), asked).await?, request).await?
    } else {
        exchange(stream, request).await?
    };
    // Whoever views the service reads this: what stands behind the path may be a secret.
    let shown = url.split(['?', '#']).next().unwrap_or_default();
    let line = format!("HTTP {method} {shown}: {status} Output: {}", String::from_utf8_lossy(&body));
    let health = match status {
        status if status.is_success() => Status::Passing,
        StatusCode::TOO_MANY_REQUESTS => Status::Warning,
        _ => Status::Critical,
    };
    Ok(Found { status: health, output: cut(&printable(&line)).into() })
}

fn request(method: &str, uri: &Uri, asked: &HttpRequest) -> Result<Request<Full<Bytes>>, ProbeError> {
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| ProbeError::Url)?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let host = uri.authority().map_or("", |authority| authority.as_str());
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, "comity")
        .header(header::ACCEPT, "text/plain, text/*, */*")
        .header(header::CONNECTION, "close")
        .body(Full::new(Bytes::copy_from_slice(asked.body.as_bytes())))
        .map_err(|_| ProbeError::Url)?;
    for (name, values) in &asked.header {
        let name: HeaderName = name.parse().map_err(|_| ProbeError::Url)?;
        // What is declared takes the place of what is sent otherwise, as for Host in Consul.
        request.headers_mut().remove(&name);
        for value in values {
            let value = HeaderValue::from_str(value).map_err(|_| ProbeError::Url)?;
            request.headers_mut().append(name.clone(), value);
        }
    }
    Ok(request)
}

/// The status and the beginning of the body.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Vec<u8>), ProbeError> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let answer = async {
        let mut response = sender.send_request(request).await?;
        let mut body = Vec::new();
        while body.len() < MAX_OUTPUT
            && let Some(frame) = response.frame().await
        {
            // A body that breaks off has a status all the same.
            let Ok(frame) = frame else { break };
            if let Some(data) = frame.data_ref() {
                body.extend_from_slice(&data[..data.len().min(MAX_OUTPUT - body.len())]);
            }
        }
        Ok((response.status(), body))
    };
    let mut answer = std::pin::pin!(answer);
    // Driven here, beside the request, so that both end with the probe. A connection that ends may have brought the
    // answer with it, so the request has the last word.
    tokio::select! {
        answer = &mut answer => answer,
        ended = connection => {
            ended?;
            answer.await
        }
    }
}

async fn encrypt(
    stream: TcpStream,
    host: &str,
    asked: &HttpRequest,
) -> Result<impl AsyncRead + AsyncWrite + Unpin + Send + 'static, ProbeError> {
    let tls = |error: &dyn fmt::Display| ProbeError::Tls(error.to_string());
    let name = if asked.tls_server_name.is_empty() {
        host.trim_start_matches('[').trim_end_matches(']')
    } else {
        &asked.tls_server_name
    };
    let name = ServerName::try_from(name.to_owned()).map_err(|error| tls(&error))?;
    let config = config(asked.tls_skip_verify).map_err(|error| tls(&error))?;
    TlsConnector::from(config).connect(name, stream).await.map_err(|error| tls(&error))
}

/// By the roots of this system, or by none.
fn config(skip_verify: bool) -> Result<Arc<ClientConfig>, rustls::Error> {
    static VERIFYING: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    static UNVERIFIED: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let known = if skip_verify { &UNVERIFIED } else { &VERIFYING };
    if let Some(config) = known.get() {
        return Ok(Arc::clone(config));
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?;
    let config = if skip_verify {
        unverified::config(builder)
    } else {
        builder.with_root_certificates(crate::web::roots()).with_no_client_auth()
    };
    Ok(Arc::clone(known.get_or_init(|| Arc::new(config))))
}

#[cfg(test)]
mod tests;
