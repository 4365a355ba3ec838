//! LXD's envelope as axum answers.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::api::problem::Problem;
use crate::apply::ApplyError;
use crate::authorize::Denied;
use crate::store::StoreError;
use crate::store::value::ValueError;
use crate::wire::lxd::EnvelopeKind;

/// Most answers are shorter.
const USUAL_BYTES: usize = 4096;

/// An error as LXD words it: the status and one line.
#[derive(Debug, Clone)]
pub struct LxdError {
    pub status: StatusCode,
    pub message: String,
    /// When the same may be asked again.
    pub retry_after: Option<Duration>,
}

/// 200 with `metadata`.
pub fn sync(metadata: impl Serialize) -> Response {
    envelope(StatusCode::OK, metadata)
}

/// 200 without anything to say.
pub fn empty() -> Response {
    envelope(StatusCode::OK, serde_json::Map::new())
}

/// 201 with a `Location`.
pub fn created(location: &str, metadata: impl Serialize) -> Response {
    let mut response = envelope(StatusCode::CREATED, metadata);
    if let Ok(location) = HeaderValue::from_str(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// 202: an operation was begun at `location`.
pub fn operation(location: &str, metadata: impl Serialize) -> Response {
    let body = Body {
        kind: EnvelopeKind::Async,
        status: "Operation created",
        status_code: 100,
        operation: location,
        error_code: 0,
        error: "",
        metadata,
    };
    let mut response = write(StatusCode::ACCEPTED, &body);
    if let Ok(location) = HeaderValue::from_str(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

fn envelope(status: StatusCode, metadata: impl Serialize) -> Response {
    let body = Body {
        kind: EnvelopeKind::Sync,
        status: "Success",
        status_code: 200,
        operation: "",
        error_code: 0,
        error: "",
        metadata,
    };
    write(status, &body)
}

/// A body as JSON. Not axum's `Json`, which writes it in many small pieces into a buffer that is slow at them.
fn write(status: StatusCode, body: &Body<'_, impl Serialize>) -> Response {
    let mut bytes = Vec::with_capacity(USUAL_BYTES);
    // What is answered is made of derived types with text keys, which always serialise.
    if let Err(error) = serde_json::to_writer(&mut bytes, body) {
        tracing::error!(%error, "an answer could not be written");
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let mut response = Response::new(bytes.into());
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// `wire::lxd::Envelope` as it is written: its metadata goes straight into the answer, with no tree of values between.
#[derive(Serialize)]
struct Body<'a, T> {
    #[serde(rename = "type")]
    kind: EnvelopeKind,
    status: &'a str,
    status_code: u16,
    operation: &'a str,
    error_code: u16,
    error: &'a str,
    metadata: T,
}

impl LxdError {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), retry_after: None }
    }

    /// The status's own words, as LXD answers when it says no more.
    pub fn plain(status: StatusCode) -> Self {
        Self::new(status, status.canonical_reason().unwrap_or("Error"))
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// Says when to come back.
    #[must_use]
    pub fn retry_after(self, after: Duration) -> Self {
        Self { retry_after: Some(after), ..self }
    }

    /// A fault of ours: the cause goes to the log, not to the caller.
    pub fn internal(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(%cause, "request failed");
        Self::plain(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

/// As our own surface words it, with the hint in the one line that there is.
impl From<ApplyError> for LxdError {
    fn from(error: ApplyError) -> Self {
        let Problem { status, message, hint, .. } = Problem::from(error);
        match hint {
            Some(hint) => Self::new(status, format!("{message}. {hint}")),
            None => Self::new(status, message),
        }
    }
}

impl From<StoreError> for LxdError {
    fn from(error: StoreError) -> Self {
        Self::internal(&error)
    }
}

impl From<ValueError> for LxdError {
    fn from(error: ValueError) -> Self {
        Self::internal(&error)
    }
}

impl From<Denied> for LxdError {
    fn from(denied: Denied) -> Self {
        tracing::info!(reason = %denied, "refused");
        match denied {
            Denied::NotFound(_) => Self::plain(StatusCode::NOT_FOUND),
            Denied::Forbidden(_) | Denied::Untrusted(_) => Self::plain(StatusCode::FORBIDDEN),
        }
    }
}

impl IntoResponse for LxdError {
    fn into_response(self) -> Response {
        let body = Body {
            kind: EnvelopeKind::Error,
            status: "",
            status_code: 0,
            operation: "",
            error_code: self.status.as_u16(),
            error: &self.message,
            metadata: (),
        };
        let mut response = write(self.status, &body);
        response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some(after) = self.retry_after {
            let seconds = HeaderValue::from(after.as_secs().max(1));
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}
