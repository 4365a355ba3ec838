//! Whether the server at an address is the one whose certificate is known, and serves `/1.0`.
//!
//! Nothing is sent before the certificate is found to be the pinned one, and nothing secret afterwards: `GET /1.0` is
//! what LXD asks in the same place, and what every LXD and every agent answers to everybody.

use std::time::Duration;

use futures::future::join_all;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::CertificateDer;
use serde::Deserialize;

use crate::trust::Fingerprint;
use crate::trust::certificate::KeyPair;
use crate::tunnel::tls::Door;
use crate::tunnel::{AttemptError, connect, tls};
use crate::wire::lxd::Envelope;
use crate::wire::printable;

/// Largest `GET /1.0` that is read: LXD's is some 20 KiB.
const MAX_SERVER: usize = 1024 * 1024;

/// A server that is who it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Where it answered, as it was given.
    pub address: String,
    pub certificate: CertificateDer<'static>,
    pub standing: Standing,
    /// What it calls itself; told only to those whom it trusts.
    pub name: Option<String>,
}

/// What the server makes of the certificate that was shown to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Trusted,
    Unknown,
}

/// As much of `GET /1.0` as is looked at.
#[derive(Deserialize)]
struct Server {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    environment: Option<Environment>,
}

#[derive(Deserialize)]
struct Environment {
    #[serde(default)]
    server_name: String,
}

/// Asks `address`, within `limit`; with `identity` as client certificate, or without one.
pub async fn verify(
    address: &str,
    pin: Fingerprint,
    identity: Option<&KeyPair>,
    limit: Duration,
) -> Result<Verified, AttemptError> {
    let asked = tokio::time::timeout(limit, ask(address, pin, identity));
    asked.await.unwrap_or(Err(AttemptError::Timeout))
}

/// Asks every address at once: one answer each, in their order.
pub async fn verify_each(
    addresses: &[String],
    pin: Fingerprint,
    identity: Option<&KeyPair>,
    limit: Duration,
) -> Vec<Result<Verified, AttemptError>> {
    join_all(addresses.iter().map(|address| verify(address, pin, identity, limit))).await
}

async fn ask(address: &str, pin: Fingerprint, identity: Option<&KeyPair>) -> Result<Verified, AttemptError> {
    let failed = |error: &dyn std::fmt::Display| AttemptError::Tls(error.to_string());
    let config =
        tls::client_config_pinned(pin, identity, Door::Cluster.alpn()).map_err(|error| failed(&error))?;
    let stream = connect::connect(address, config).await?;
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).cloned();
    let certificate =
        shown.ok_or_else(|| AttemptError::Tls("it showed no certificate".to_owned()))?.into_owned();
    let (mut sender, connection) =
        http1::handshake::<_, Full<bytes::Bytes>>(TokioIo::new(stream)).await.map_err(|e| failed(&e))?;
    let call = async {
        let request = http::Request::get("/1.0").header(http::header::HOST, "comity");
        let request = request.body(Full::default()).map_err(|error| failed(&error))?;
        let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
        if response.status() != http::StatusCode::OK {
            return Err(AttemptError::Answer(format!("it answered GET /1.0 with {}", response.status())));
        }
        let body = Limited::new(response.into_body(), MAX_SERVER).collect().await;
        Ok(body.map_err(|error| failed(&error))?.to_bytes())
    };
    // The connection is driven only for as long as the call goes on: dropping it is its end.
    let body = tokio::select! {
        body = call => body?,
        ended = connection => match ended {
            Ok(()) => return Err(AttemptError::Answer("it hung up".to_owned())),
            Err(error) => return Err(failed(&error)),
        },
    };
    let odd = || AttemptError::Answer("it answered GET /1.0 with something else than LXD does".to_owned());
    let envelope: Envelope = serde_json::from_slice(&body).map_err(|_| odd())?;
    let server: Server = serde_json::from_value(envelope.metadata).map_err(|_| odd())?;
    let standing = if server.auth == "trusted" { Standing::Trusted } else { Standing::Unknown };
    let name = server.environment.map(|environment| environment.server_name).filter(|name| !name.is_empty());
    Ok(Verified { address: address.to_owned(), certificate, standing, name: name.as_deref().map(printable) })
}
