//! Errors of our own surface: `{code, message, hint}` with a status, made from each floor's error by its handler.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::json;

use crate::authorize::Denied;

/// What went wrong, as the caller may know it.
#[derive(Debug, Clone)]
pub struct Problem {
    pub status: StatusCode,
    /// One word for programs: `not_found`, `conflict`, …
    pub code: &'static str,
    pub message: String,
    pub hint: Option<String>,
}

impl Problem {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), hint: None }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "Not Found")
    }

    /// A fault of ours: the cause goes to the log, not to the caller.
    pub fn internal(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(%cause, "request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "Something went wrong here; see the agent's log",
        )
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        tracing::info!(reason = %denied, "refused");
        match denied {
            Denied::NotFound(_) => Self::not_found(),
            Denied::Forbidden(_) => Self::new(StatusCode::FORBIDDEN, "forbidden", "Forbidden"),
            Denied::Untrusted(_) => {
                Self::new(StatusCode::FORBIDDEN, "untrusted", "This agent does not trust the caller").hint(
                    "`comity trust add --name NAME` there makes a token, `comity remote add NAME TOKEN` redeems it.",
                )
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = json!({ "code": self.code, "message": self.message, "hint": self.hint });
        (self.status, Json(body)).into_response()
    }
}
