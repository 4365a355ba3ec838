//! What every request has: an id, a caller looked up anew, a line in the log, and an answer even if a handler panics.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use futures::FutureExt as _;
use http::{HeaderName, HeaderValue, StatusCode, header};
use http_body_util::Limited;
use hyper::body::Body as _;
use rustls_pki_types::CertificateDer;
use tracing::Instrument as _;
use uuid::Uuid;

use super::ApiState;
use super::pace::{self, Paced};
use super::surface::Surface;
use crate::trust::identity::Identities;
use crate::trust::{Caller, Fingerprint, Origin, Who};

/// The header that tells a request's id, as the log has it.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// How long a stranger's request may take, body and all.
const STRANGER_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest body of a stranger's request: a token and a certificate.
const STRANGER_BODY: usize = 64 * 1024;
/// Longest path that the log repeats; none of ours is longer, and what is may be something pasted.
const MAX_LOGGED_PATH: usize = 200;

/// The connection that a request came over. Handlers find it as `Extension<Arc<Connection>>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Connection {
    /// The unix socket, from a process of this user.
    Local { uid: u32 },
    /// The network; whoever it is has proven to hold the key of the certificate, if there is one.
    Network { from: SocketAddr, certificate: Option<CertificateDer<'static>> },
    /// A stream of a session with a linked cluster.
    Link { peer: Fingerprint },
}

impl Connection {
    /// Who is calling, at this moment.
    pub fn caller(&self, identities: &Identities) -> Who {
        match self {
            Connection::Local { uid } => Who::Local { uid: *uid },
            Connection::Network { certificate, .. } => identities.caller(certificate.as_ref()),
            Connection::Link { peer } => match identities.caller_by_fingerprint(*peer) {
                peer @ Who::Peer { .. } => peer,
                // Only a link's own identity counts on a link's streams.
                _ => Who::Anonymous { certificate: Some(*peer) },
            },
        }
    }

    /// Where it comes from, if that is a place on the network.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Connection::Network { from, .. } => Some(*from),
            Connection::Local { .. } | Connection::Link { .. } => None,
        }
    }

    /// The certificate that was shown, its key proven by the handshake.
    pub fn certificate(&self) -> Option<&CertificateDer<'static>> {
        match self {
            Connection::Network { certificate, .. } => certificate.as_ref(),
            _ => None,
        }
    }
}

pub(super) async fn observe(State(state): State<ApiState>, mut request: Request, next: Next) -> Response {
    let id = Uuid::new_v4();
    let begun = Instant::now();
    let connection = request.extensions().get::<Arc<Connection>>();
    // Without a connection there is nobody: the listener sets one for each.
    let who = connection.map_or(Who::Anonymous { certificate: None }, |c| c.caller(&state.identities));
    let origin = Origin { request: id, address: connection.and_then(|c| c.address()) };
    let caller = Caller { who, origin };
    let span = tracing::info_span!("request", %id);
    let (method, path) = (request.method().clone(), logged(request.uri().path()));
    let surface = Surface::of(request.uri().path());
    let (name, trusted) = (caller.to_string(), caller.is_trusted());
    let mut too_slow = None;
    if !request.body().is_end_stream() {
        request = request.map(|body| {
            let allowance = if trusted { pace::TRUSTED } else { pace::STRANGER };
            let (body, flag) = Paced::new(body, allowance);
            too_slow = flag;
            if trusted { body } else { Body::new(Limited::new(body, STRANGER_BODY)) }
        });
    }
    request.extensions_mut().insert(caller);

    let answer = AssertUnwindSafe(next.run(request)).catch_unwind().instrument(span.clone());
    let answered =
        if trusted { Some(answer.await) } else { tokio::time::timeout(STRANGER_TIMEOUT, answer).await.ok() };
    let _entered = span.enter();
    // What the handler made of a body that was cut off is not what the sender is to be told.
    let slow = too_slow.is_some_and(|flag| flag.load(Ordering::Acquire));
    let answered = answered.filter(|_| !slow);
    let mut response = match answered {
        Some(Ok(response)) => response,
        Some(Err(_)) => {
            tracing::error!("the handler panicked");
            surface.error(StatusCode::INTERNAL_SERVER_ERROR, None)
        }
        None => {
            let mut response = surface.error(StatusCode::REQUEST_TIMEOUT, None);
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            response
        }
    };
    if let Ok(id) = HeaderValue::from_str(&id.to_string()) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    let (status, ms) = (response.status().as_u16(), begun.elapsed().as_millis());
    tracing::info!(%method, path, status, caller = name, ms, "request");
    response
}

/// A path as the log has it: never its query, which may hold a secret, and not what no path of ours is like.
fn logged(path: &str) -> String {
    if path.len() <= MAX_LOGGED_PATH {
        return path.to_owned();
    }
    let known: String = path.chars().take(24).collect();
    format!("{known}… ({} bytes)", path.len())
}
