//! Errors that no handler made (no such path, wrong method, a body that is too large or makes no sense), in the shape
//! of the surface that was asked.

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Body as _;
use schema::diagnostic::secret::without_tokens;
use tower::ServiceExt as _;

use super::consul;
use super::consul::answer::{ConsulError, Worded};
use super::lxd::answer::LxdError;
use super::problem::Problem;

/// Longest message of axum's that is passed on.
const MAX_MESSAGE: usize = 2048;

/// Longest verb that is repeated to who used it.
const MAX_VERB: usize = 20;

/// Whose shapes a path's answers have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Surface {
    Lxd,
    Consul,
    Ours,
}

impl Surface {
    pub(super) fn of(path: &str) -> Self {
        let lxd = path == "/" || path == "/1.0" || path.starts_with("/1.0/");
        let consul = path == "/v1" || path.starts_with("/v1/");
        match (lxd, consul) {
            (true, _) => Surface::Lxd,
            (_, true) => Surface::Consul,
            _ => Surface::Ours,
        }
    }

    /// A refusal of whoever asks, before what is asked is looked at.
    pub(super) fn refusal(self, error: LxdError) -> Response {
        match self {
            Surface::Lxd => error.into_response(),
            Surface::Consul => {
                let refused = match error.status {
                    // Only a token is refused before what is asked is looked at.
                    StatusCode::FORBIDDEN => ConsulError::new(error.status, "ACL not found"),
                    status => ConsulError::new(status, error.message),
                };
                ConsulError { retry_after: error.retry_after, ..refused }.into_response()
            }
            Surface::Ours => {
                let retry_after = error.retry_after;
                let mut response = self.error(error.status, Some(error.message));
                if let Some(after) = retry_after {
                    let seconds = HeaderValue::from(after.as_secs().max(1));
                    response.headers_mut().insert(header::RETRY_AFTER, seconds);
                }
                response
            }
        }
    }

    pub(super) fn error(self, status: StatusCode, message: Option<String>) -> Response {
        match self {
            Surface::Lxd => {
                let status = match status {
                    // LXD says of a known path that it does not offer the method.
                    StatusCode::METHOD_NOT_ALLOWED => StatusCode::NOT_IMPLEMENTED,
                    // LXD tells no wrong type from wrong syntax.
                    StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
                    status => status,
                };
                let plain = LxdError::plain(status);
                message.map_or(plain, |message| LxdError::new(status, message)).into_response()
            }
            Surface::Consul => {
                let status = match status {
                    StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
                    status => status,
                };
                let plain = ConsulError::plain(status);
                message.map_or(plain, |message| ConsulError::new(status, message)).into_response()
            }
            Surface::Ours => {
                let code = match status {
                    StatusCode::UNAUTHORIZED => "unauthorized",
                    StatusCode::FORBIDDEN => "forbidden",
                    StatusCode::TOO_MANY_REQUESTS => "too_many",
                    StatusCode::SERVICE_UNAVAILABLE => "unavailable",
                    StatusCode::NOT_FOUND => "not_found",
                    StatusCode::METHOD_NOT_ALLOWED => "method_not_allowed",
                    StatusCode::PAYLOAD_TOO_LARGE => "too_large",
                    StatusCode::REQUEST_TIMEOUT => "timeout",
                    _ if status.is_server_error() => "internal",
                    _ => "bad_request",
                };
                let plain = status.canonical_reason().unwrap_or("Error").to_owned();
                Problem::new(status, code, message.unwrap_or(plain)).into_response()
            }
        }
    }
}

/// Whether LXD would not know the verb at all.
fn is_unknown(method: &Method) -> bool {
    !matches!(
        *method,
        Method::GET
            | Method::HEAD
            | Method::POST
            | Method::PUT
            | Method::PATCH
            | Method::DELETE
            | Method::OPTIONS
    )
}

/// Puts errors that are not JSON, which are axum's own, into the surface's shape.
pub(super) async fn shape(surface: Surface, mut request: Request, app: Router) -> Response {
    if surface == Surface::Lxd && is_unknown(request.method()) {
        let shown: String = request.method().as_str().chars().take(MAX_VERB).collect();
        return surface.error(StatusCode::NOT_FOUND, Some(format!("Method {shown:?} not found")));
    }
    if !request.headers().contains_key(header::CONTENT_TYPE) && !request.body().is_end_stream() {
        // LXD's clients need not say that their JSON is JSON. A browser always says what it sends, and what a page may
        // make it send without being asked is never called JSON: so nothing is let in by this.
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    if surface == Surface::Consul
        && let Some(error) = consul::refused(&request)
    {
        return error.into_response();
    }
    let method = request.method().clone();
    // Without a layer round it a router does not fail.
    let response = app.oneshot(request).await.unwrap_or_else(|never| match never {});
    if surface == Surface::Consul
        && let Some(response) = consul::unhandled(&method, &response)
    {
        return response;
    }
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE);
    let is_json = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let is_worded = is_json || response.extensions().get::<Worded>().is_some();
    if !(status.is_client_error() || status.is_server_error()) || is_worded {
        return response;
    }
    let allow = response.headers().get(header::ALLOW).cloned();
    let body = Limited::new(response.into_body(), MAX_MESSAGE).collect().await;
    let text = body.ok().and_then(|body| String::from_utf8(body.to_bytes().to_vec()).ok());
    // A wrong value is repeated by the message, and may be a token in the wrong place.
    let text = text.filter(|text| !text.is_empty()).map(|text| without_tokens(&text).into_owned());
    let mut response = surface.error(status, text);
    if let Some(allow) = allow.filter(|_| status == StatusCode::METHOD_NOT_ALLOWED) {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}
