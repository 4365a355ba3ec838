//! What every request has: an id, a caller looked up anew, a line in the log, and an answer even if a handler panics.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use futures::FutureExt as _;
use http::{HeaderName, HeaderValue, StatusCode, header};
use http_body_util::Limited;
use hyper::body::Body as _;
use rustls_pki_types::CertificateDer;
use schema::diagnostic::secret::without_tokens;
use tracing::Instrument as _;
use uuid::Uuid;

use super::callers::{Brought, Callers};
use super::consul::answer::ConsulError;
use super::credential::Credentials;
use super::listener::plain;
use super::pace::{self, Paced};
use super::surface::{Surface, shape};
use crate::authorize::Denied;
use crate::trust::identity::Identities;
use crate::trust::shown::Shown;
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
#[derive(Debug)]
pub enum Connection {
    /// The unix socket, from a process of this user.
    Local { uid: u32 },
    /// The network; whoever it is has proven to hold the key of the certificate, if there is one.
    Network { from: SocketAddr, certificate: Option<Arc<Shown>>, credentials: Credentials },
    /// This machine, in the clear: somebody for as long as a bearer's token says so.
    Plain { from: SocketAddr, credentials: Credentials },
    /// A stream of a session with a linked cluster.
    Link { peer: Fingerprint },
}

impl Connection {
    /// Who is calling, at this moment.
    pub fn caller(&self, identities: &Identities) -> Who {
        match self {
            Connection::Local { uid } => Who::Local { uid: *uid },
            Connection::Network { certificate: Some(shown), .. } => identities.caller_showing(shown),
            Connection::Network { certificate: None, .. } | Connection::Plain { .. } => {
                Who::Anonymous { certificate: None }
            }
            Connection::Link { peer } => match identities.caller_by_fingerprint(*peer) {
                peer @ Who::Peer { .. } => peer,
                // Only a link's own identity counts on a link's streams.
                _ => Who::Anonymous { certificate: Some(*peer) },
            },
        }
    }

    /// Who is at the other end, by all that was shown over this connection so far.
    pub fn known(&self, identities: &Identities) -> Who {
        let who = self.caller(identities);
        match (&who, self) {
            (
                Who::Anonymous { .. },
                Connection::Network { credentials, .. } | Connection::Plain { credentials, .. },
            ) => credentials.caller(identities).unwrap_or(who),
            _ => who,
        }
    }

    /// Whether somebody who sent requests over it is nobody by now.
    pub fn lost_any(&self, identities: &Identities) -> bool {
        match self {
            Connection::Network { credentials, .. } | Connection::Plain { credentials, .. } => {
                credentials.lost_any(identities)
            }
            Connection::Local { .. } | Connection::Link { .. } => false,
        }
    }

    /// Where it comes from, if that is a place on the network.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Connection::Network { from, .. } | Connection::Plain { from, .. } => Some(*from),
            Connection::Local { .. } | Connection::Link { .. } => None,
        }
    }

    /// The certificate that was shown, its key proven by the handshake, with what was sent along.
    pub fn shown(&self) -> Option<&Arc<Shown>> {
        match self {
            Connection::Network { certificate, .. } => certificate.as_ref(),
            _ => None,
        }
    }

    /// The certificate that was shown, its key proven by the handshake.
    pub fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.shown().map(|shown| &shown.der)
    }
}

/// Serves one request of `connection` with `app`.
pub(super) async fn observe(
    callers: &Callers,
    app: Router,
    connection: Arc<Connection>,
    mut request: Request,
) -> Response {
    let id = request_id();
    let begun = Instant::now();
    let mut origin = Origin { request: id, address: connection.address(), session: None };
    let mut who = connection.caller(&callers.identities);
    let is_plain = matches!(*connection, Connection::Plain { .. });
    let surface = if is_plain { Surface::Consul } else { Surface::of(request.uri().path()) };
    let out_of_place = if is_plain { plain::refused(&request) } else { None };
    let (mut refused, mut kept) = (None, None);
    if matches!(who, Who::Anonymous { .. }) && out_of_place.is_none() {
        match callers.look(&connection, surface, request.headers(), origin).await {
            Brought::Nothing => {}
            Brought::Known { who: known, session, cookie } => {
                (who, kept) = (known, cookie);
                origin.session = session;
            }
            Brought::Refused(error) => refused = Some(error),
        }
    }
    let node = match &who {
        Who::Node { id, .. } => Some(format!(
            "The certificate is that of node {id}: with it an agent joins the cluster, and nobody is a client of the API"
        )),
        _ => None,
    };
    let caller = Caller { who, origin, shown: connection.shown().cloned() };
    let span = tracing::info_span!("request", %id);
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let trusted = caller.is_trusted();
    let named = caller.clone();
    let mut too_slow = None;
    if !request.body().is_end_stream() {
        request = request.map(|body| {
            let allowance = if trusted { pace::TRUSTED } else { pace::STRANGER };
            let (body, flag) = Paced::keeping(body, allowance);
            too_slow = flag;
            if trusted { body } else { Body::new(Limited::new(body, STRANGER_BODY)) }
        });
    }
    request.extensions_mut().insert(caller);
    request.extensions_mut().insert(connection);

    let served = async {
        if let Some(error) = out_of_place {
            return error.into_response();
        }
        if is_plain && !trusted && refused.is_none() {
            return ConsulError::from(Denied::Untrusted("plain HTTP takes a token".to_owned()))
                .into_response();
        }
        match (refused, node) {
            (Some(error), _) => surface.refusal(error),
            (None, Some(node)) => surface.error(StatusCode::FORBIDDEN, Some(node)),
            (None, None) => shape(surface, request, app).await,
        }
    };
    let answer = AssertUnwindSafe(served).catch_unwind().instrument(span.clone());
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
    if let Ok(id) = HeaderValue::from_str(id.as_hyphenated().encode_lower(&mut Uuid::encode_buffer())) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    callers.finish(&mut response, matches!(named.who, Who::Anonymous { .. }), kept);
    let status = response.status();
    // Whoever is trusted and only looks, changes nothing: such lines would bury those that matter, and cost as much
    // as the answer.
    let looks = trusted && method.is_safe() && !status.is_client_error() && !status.is_server_error();
    let line = |path: &str| {
        let (status, ms, caller) = (status.as_u16(), begun.elapsed().as_millis(), named.to_string());
        if looks {
            tracing::debug!(%method, path, status, caller, ms, "request");
        } else {
            tracing::info!(%method, path, status, caller, ms, "request");
        }
    };
    if !looks || tracing::enabled!(tracing::Level::DEBUG) {
        line(&logged(uri.path()));
    }
    response
}

/// A new id. Not a secret, so what makes it need not be unpredictable, only never the same twice: a number that counts
/// up, spread over all bits by a mixing that maps no two numbers to one (SplitMix64's), beside one that is this
/// process's own.
fn request_id() -> Uuid {
    static PROCESS: LazyLock<(u64, u64)> = LazyLock::new(|| Uuid::new_v4().as_u64_pair());
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mixed = |number: u64| {
        let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    };
    let (own, begin) = *PROCESS;
    // All but a few bits of it stay: more than any process counts through.
    let count = COUNT.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let (high, low) = (mixed(own ^ count), mixed(begin.wrapping_add(count)));
    uuid::Builder::from_random_bytes(((u128::from(high) << 64) | u128::from(low)).to_be_bytes()).into_uuid()
}

/// A path as the log has it: never its query, which may hold a secret, and not what no path of ours is like.
fn logged(path: &str) -> String {
    if path.len() <= MAX_LOGGED_PATH {
        return without_tokens(path).into_owned();
    }
    let known: String = path.chars().take(24).collect();
    format!("{known}… ({} bytes)", path.len())
}
