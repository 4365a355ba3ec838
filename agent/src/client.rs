//! Typed calls to an agent, over its unix socket or over TLS with a pinned certificate.

pub mod link;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::combinators::BoxBody;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::trust::Fingerprint;
use crate::trust::certificate::KeyPair;

mod control;
mod service;

/// A body that is streamed, either way.
pub type Body = BoxBody<Bytes, std::io::Error>;

/// One agent, and how to reach it. A connection is made for each call.
#[derive(Clone)]
pub struct Client {
    target: Target,
    timeout: Duration,
}

#[derive(Clone)]
enum Target {
    Unix(PathBuf),
    Pinned { name: String, addresses: Vec<String>, pin: Fingerprint, identity: Option<Arc<KeyPair>> },
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{agent} could not be reached: {reason}")]
    Unreachable { agent: String, reason: String },
    #[error("certificate of {agent} does not match: expected {expected}, got {got}")]
    Mismatch { agent: String, expected: Fingerprint, got: Fingerprint },
    #[error("{agent} did not answer within {} s", .after.as_secs())]
    Timeout { agent: String, after: Duration },
    #[error("the connection to {agent} failed: {reason}")]
    Broken { agent: String, reason: String },
    #[error("{message}")]
    Refused { agent: String, status: StatusCode, code: String, message: String, hint: Option<String> },
    #[error("{agent} answered with something else than expected: {reason}")]
    Unexpected { agent: String, reason: String },
}

impl Client {
    /// Over an agent's unix socket, as the machine's administrator.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self { target: Target::Unix(path.into()), timeout: Duration::from_secs(30) }
    }

    /// Over TLS, to the first address that answers with the certificate that is pinned. `name` is for messages.
    pub fn pinned(
        name: &str,
        addresses: Vec<String>,
        pin: Fingerprint,
        identity: Option<Arc<KeyPair>>,
    ) -> Self {
        let target = Target::Pinned { name: name.to_owned(), addresses, pin, identity };
        Self { target, timeout: Duration::from_secs(30) }
    }

    /// The same agent, with another time limit for a whole call.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// As messages name the agent.
    pub fn agent(&self) -> String {
        match &self.target {
            Target::Unix(path) => path.display().to_string(),
            Target::Pinned { name, .. } => name.clone(),
        }
    }

    /// A call with JSON both ways; errors as `/control/v1` gives them. An empty answer reads as `null`.
    pub async fn request<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        let _ = (method, path, body.is_some());
        Err(self.unreachable("not built yet"))
    }

    /// A call under `/1.0`: the envelope's metadata.
    pub async fn lxd<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        let _ = (method, path, body.is_some());
        Err(self.unreachable("not built yet"))
    }

    /// A call whose bodies are streamed. The status has been checked; the time limit is for the head alone.
    pub async fn stream(&self, request: http::Request<Body>) -> Result<http::Response<Body>, ClientError> {
        let _ = request;
        Err(self.unreachable("not built yet"))
    }

    fn unreachable(&self, reason: &str) -> ClientError {
        ClientError::Unreachable { agent: self.agent(), reason: reason.to_owned() }
    }
}

/// No body to send: `client.request(Method::GET, path, NO_BODY)`.
pub const NO_BODY: Option<&()> = None;
