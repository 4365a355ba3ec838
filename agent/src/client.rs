//! Typed calls to an agent, over its unix socket or over TLS with a pinned certificate.
//!
//! A connection is made for each call and not kept: a command makes a handful of calls, and a pool would have to be
//! asked whether its connections still live. HTTP/1.1 is enough, and tells best why a call failed.

pub mod consul;
pub mod entry;
pub mod instance;
pub mod link;
pub mod login;
pub mod operation;
pub mod verify;
pub mod vouch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use schema::name::ProjectName;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::trust::Fingerprint;
use crate::trust::certificate::KeyPair;
use crate::tunnel::tls::Door;
use crate::wire::control::ErrorBody;
use crate::wire::lxd::{Envelope, EnvelopeKind};
use crate::wire::printable;
use credential::{Attempt, Reply};
use login::Session;

mod auth;
mod backup;
mod control;
mod credential;
mod distrust;
mod follow;
mod identity;
mod mesh_root;
mod peering;
mod rotation;
pub mod server;
mod service;
mod succession;
pub mod tagged;
mod transfer;
mod transport;
mod trust;
pub mod upgrade;
pub mod volume;
mod websocket;

pub use follow::Moved;
pub use succession::succession;
pub use transport::{FirstContact, first_contact};
pub use trust::{MintedToken, PendingToken, expires_in};

/// A body that is streamed, either way.
pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// No body to send: `client.request(Method::GET, path, NO_BODY)`.
pub const NO_BODY: Option<&()> = None;

/// How long a call may take unless it is said otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer that is read whole: the state of a cluster with some 100,000 declarations fits.
const MAX_ANSWER: usize = 256 * 1024 * 1024;
/// Largest error that is read; none of ours comes near.
const MAX_ERROR: usize = 256 * 1024;

/// One agent, and how to reach it.
#[derive(Clone)]
pub struct Client {
    target: Target,
    timeout: Duration,
    /// Who calls, where a login says so.
    session: Option<Arc<Session>>,
    /// Where what belongs to a project is looked for; everywhere, if it is not said.
    project: Option<ProjectName>,
    /// Whether volumes are looked for there, too: agents keep them in the default project.
    volumes: InProject,
}

/// In which project volumes are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InProject {
    Default,
    Asked,
}

#[derive(Clone)]
enum Target {
    Unix(PathBuf),
    Pinned {
        name: String,
        addresses: Vec<String>,
        pin: Fingerprint,
        door: Door,
        identity: Option<Arc<KeyPair>>,
        /// Where the pin may move by proof.
        following: Option<Arc<follow::Following>>,
    },
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{agent} could not be reached: {reason}")]
    Unreachable { agent: String, reason: String },
    #[error("certificate of {agent} does not match: expected {expected}, got {got}")]
    Mismatch { agent: String, expected: Fingerprint, got: Fingerprint },
    #[error("{agent} does not speak TLS 1.3")]
    OldTls { agent: String },
    #[error("{agent} did not answer within {} s", .after.as_secs())]
    Timeout { agent: String, after: Duration },
    #[error("the connection to {agent} failed: {reason}")]
    Broken { agent: String, reason: String },
    #[error("{message}")]
    Refused { agent: String, status: StatusCode, code: String, message: String, hint: Option<String> },
    #[error("{agent} answered with something else than expected: {reason}")]
    Unexpected { agent: String, reason: String },
    /// `remote` is what the agent is called here.
    #[error("{error}")]
    Login { remote: String, error: login::LoginError },
}

impl ClientError {
    /// The status of an answer that was a refusal.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            ClientError::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }
}

impl Client {
    /// Over an agent's unix socket, as the machine's administrator.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self {
            target: Target::Unix(path.into()),
            timeout: TIMEOUT,
            session: None,
            project: None,
            volumes: InProject::Default,
        }
    }

    /// Over TLS, to the first address that answers with the certificate that is pinned: the cluster's own, where the
    /// server has another one for clients. `name` is for messages.
    pub fn pinned(
        name: &str,
        addresses: Vec<String>,
        pin: Fingerprint,
        identity: Option<Arc<KeyPair>>,
    ) -> Self {
        let (name, door) = (name.to_owned(), Door::Cluster);
        let target = Target::Pinned { name, addresses, pin, door, identity, following: None };
        Self { target, timeout: TIMEOUT, session: None, project: None, volumes: InProject::Default }
    }

    /// The same agent, of which the certificate for clients is pinned.
    #[must_use]
    pub fn by_clients_door(mut self) -> Self {
        if let Target::Pinned { door, .. } = &mut self.target {
            *door = Door::Clients;
        }
        self
    }

    /// The same agent, with another time limit for a whole call.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The same agent, of which what belongs to a project is looked for in this one.
    #[must_use]
    pub fn in_project(mut self, project: Option<ProjectName>) -> Self {
        self.project = project;
        self
    }

    /// The same, and volumes as well: whoever names a project for one call means all that is in it.
    #[must_use]
    pub fn wholly_in_project(mut self, project: ProjectName) -> Self {
        self.project = Some(project);
        self.volumes = InProject::Asked;
        self
    }

    /// The part of a query that says which projects are meant.
    fn which_projects(&self) -> String {
        match &self.project {
            Some(project) => format!("project={}", trust::segment(project.as_str())),
            None => "all-projects=true".to_owned(),
        }
    }

    /// As messages name the agent.
    pub fn agent(&self) -> String {
        match &self.target {
            Target::Unix(path) => format!("the agent at {}", path.display()),
            Target::Pinned { name, addresses, .. } => format!("{name} ({})", addresses.join(", ")),
        }
    }

    /// A call with JSON both ways; errors as `/control/v1` gives them. An empty answer reads as `null`.
    pub async fn request<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        let (answer, _) = self.exchange(method, path, body, None).await?;
        let answer = if answer.is_empty() { Bytes::from_static(b"null") } else { answer };
        serde_json::from_slice(&answer).map_err(|error| self.unexpected(&format_args!("{path}: {error}")))
    }

    /// A call under `/1.0`: the envelope's metadata.
    pub async fn lxd<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        Ok(self.lxd_tagged(method, path, body, None).await?.0)
    }

    /// The same, with the tag of what it is about (LXD: ETag). `only_at` is the tag that it must still have.
    pub async fn lxd_tagged<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        only_at: Option<&str>,
    ) -> Result<(T, String), ClientError> {
        let (answer, tag) = self.exchange(method, path, body, only_at).await?;
        let envelope: Envelope = serde_json::from_slice(&answer)
            .map_err(|error| self.unexpected(&format_args!("{path}: {error}")))?;
        if envelope.kind == EnvelopeKind::Error {
            let status =
                StatusCode::from_u16(envelope.error_code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            return Err(self.refused(status, &envelope.error, None, None));
        }
        let metadata = serde_json::from_value(envelope.metadata)
            .map_err(|error| self.unexpected(&format_args!("{path}: {error}")))?;
        Ok((metadata, tag))
    }

    /// A call whose bodies are streamed. A refusal is an error already. Only making the connection is limited in
    /// time, since nobody knows how long a body takes; a peer that vanishes is found by the connection's own probes.
    pub async fn stream(&self, mut request: Request<Body>) -> Result<Response<Body>, ClientError> {
        // A body is sent once. Where there is none, the request can be made again.
        let again = hyper::body::Body::is_end_stream(request.body())
            .then(|| (request.method().clone(), request.uri().clone(), request.headers().clone()));
        let mut attempt = Attempt::First;
        loop {
            let used = self.introduce(request.headers_mut()).await?;
            let response = match self.within(self.attempt(request, &used)).await? {
                Reply::Answered(response) => response,
                Reply::Challenged(headers, refusal) => {
                    self.renew(attempt, &used, &headers, refusal).await?;
                    let Some((method, uri, headers)) = again.clone() else {
                        return Err(self.login(login::LoginError::Renewed { agent: self.agent() }));
                    };
                    request = Request::new(Full::default().map_err(|never| match never {}).boxed_unsync());
                    *request.method_mut() = method;
                    *request.uri_mut() = uri;
                    *request.headers_mut() = headers;
                    attempt = Attempt::Second;
                    continue;
                }
            };
            if response.status().is_success() {
                return Ok(response.map(|body| body.map_err(std::io::Error::other).boxed_unsync()));
            }
            let refusal = async { Ok(self.told_apart(self.refusal(response).await).await) };
            return Err(self.within(refusal).await?);
        }
    }

    /// The answer's body and its tag, empty if it has none.
    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        only_at: Option<&str>,
    ) -> Result<(Bytes, String), ClientError> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(tag) = only_at {
            request = request.header(header::IF_MATCH, tag);
        }
        let content = match body {
            None => Bytes::new(),
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                let json = serde_json::to_vec(body);
                json.map_err(|error| {
                    self.unexpected(&format_args!("the request could not be written: {error}"))
                })?
                .into()
            }
        };
        let (head, ()) = request.body(()).map_err(|error| self.unexpected(&error))?.into_parts();
        let mut attempt = Attempt::First;
        loop {
            let content = Full::new(content.clone()).map_err(|never| match never {}).boxed_unsync();
            let mut request = Request::from_parts(head.clone(), content);
            let used = self.introduce(request.headers_mut()).await?;
            let answered = self.within(async {
                let response = match self.attempt(request, &used).await? {
                    Reply::Answered(response) => response,
                    Reply::Challenged(headers, refusal) => return Ok(Err((headers, refusal))),
                };
                if !response.status().is_success() {
                    let refusal = self.refusal(response).await;
                    return Err(self.told_apart(refusal).await);
                }
                let tag = response.headers().get(header::ETAG).and_then(|tag| tag.to_str().ok());
                let tag = tag.unwrap_or_default().to_owned();
                let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
                Ok(Ok((body.map_err(|error| self.broken(&*error))?.to_bytes(), tag)))
            });
            match answered.await? {
                Ok(answer) => return Ok(answer),
                Err((headers, refusal)) => self.renew(attempt, &used, &headers, refusal).await?,
            }
            attempt = Attempt::Second;
        }
    }

    async fn within<T>(&self, call: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
        match tokio::time::timeout(self.timeout, call).await {
            Ok(ended) => ended,
            Err(_) => Err(ClientError::Timeout { agent: self.agent(), after: self.timeout }),
        }
    }

    /// The error that a response with a status of failure tells: ours, LXD's, Consul's, or whatever text there is.
    async fn refusal(&self, response: Response<hyper::body::Incoming>) -> ClientError {
        let status = response.status();
        let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let is_text = kind.is_some_and(|kind| kind.starts_with("text/plain"));
        let body = match Limited::new(response.into_body(), MAX_ERROR).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return self.broken(&*error),
        };
        if let Ok(ErrorBody { code, message, hint, .. }) = serde_json::from_slice(&body) {
            return self.refused(status, &message, Some(code), hint.as_deref());
        }
        if let Ok(envelope) = serde_json::from_slice::<Envelope>(&body) {
            return self.refused(status, &envelope.error, None, None);
        }
        // Consul's way.
        if is_text
            && let Ok(text) = std::str::from_utf8(&body)
            && !text.trim().is_empty()
        {
            return self.refused(status, text.trim(), None, None);
        }
        self.refused(status, &format!("{} answered: {status}", self.agent()), None, None)
    }

    fn refused(
        &self,
        status: StatusCode,
        message: &str,
        code: Option<String>,
        hint: Option<&str>,
    ) -> ClientError {
        let code = code.unwrap_or_else(|| {
            let reason = status.canonical_reason().unwrap_or("refused");
            reason.to_ascii_lowercase().replace(' ', "_")
        });
        let (message, hint) = (printable(message), hint.map(printable));
        ClientError::Refused { agent: self.agent(), status, code: printable(&code), message, hint }
    }

    fn broken(&self, error: &(dyn std::error::Error + 'static)) -> ClientError {
        ClientError::Broken { agent: self.agent(), reason: transport::root_cause(error) }
    }

    fn unexpected(&self, reason: &dyn std::fmt::Display) -> ClientError {
        ClientError::Unexpected { agent: self.agent(), reason: reason.to_string() }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.agent())
    }
}
