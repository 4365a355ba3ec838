//! Answers as Consul gives them: JSON with the headers that its clients look for, and errors as plain text.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use schema::diagnostic::secret::without_tokens;
use serde::Serialize;
use serde_json::ser::PrettyFormatter;

use super::asked::Asked;
use crate::api::problem::Problem;
use crate::apply::ApplyError;
use crate::authorize::Denied;
use crate::store::StoreError;
use crate::store::value::ValueError;

const INDEX: HeaderName = HeaderName::from_static("x-consul-index");
const KNOWN_LEADER: HeaderName = HeaderName::from_static("x-consul-knownleader");
const LAST_CONTACT: HeaderName = HeaderName::from_static("x-consul-lastcontact");
const CONSISTENCY: HeaderName = HeaderName::from_static("x-consul-effective-consistency");
const DEFAULT_POLICY: HeaderName = HeaderName::from_static("x-consul-default-acl-policy");
const FILTERED: HeaderName = HeaderName::from_static("x-consul-results-filtered-by-acls");

/// An error as Consul words it: the status and the bare message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsulError {
    pub status: StatusCode,
    pub message: String,
    /// When the same may be asked again.
    pub retry_after: Option<Duration>,
    /// From where on a client may wait for what is not there.
    pub index: Option<u64>,
}

/// Marks an answer that a handler has worded, as opposed to one that axum has.
#[derive(Debug, Clone, Copy)]
pub(in crate::api) struct Worded;

impl ConsulError {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), retry_after: None, index: None }
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// 500, which Consul answers to whatever is wrong with a request that could be read, such as what it validates.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// A fault of ours: the cause goes to the log, not to the caller.
    pub fn internal(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(%cause, "request failed");
        Self::refused("rpc error: something went wrong here; see the agent's log")
    }

    #[must_use]
    pub fn index(self, index: u64) -> Self {
        Self { index: Some(index.max(1)), ..self }
    }

    /// What the status means, where nobody said more.
    pub(in crate::api) fn plain(status: StatusCode) -> Self {
        let message = match status {
            StatusCode::NOT_FOUND => "Invalid URL path: not a recognized HTTP API endpoint",
            StatusCode::FORBIDDEN => "Permission denied",
            StatusCode::INTERNAL_SERVER_ERROR => "something went wrong here; see the agent's log",
            status => status.canonical_reason().unwrap_or("Error"),
        };
        Self::new(status, message)
    }
}

impl From<Denied> for ConsulError {
    fn from(denied: Denied) -> Self {
        tracing::info!(reason = %denied, "refused");
        let message = match denied.lacking() {
            // Says the same whether there is such a thing or not: whoever asked has named it.
            Some((caller, entitlement, entity)) => {
                let on = match entity.name() {
                    Some(name) => format!("{} {name:?}", entity.entity_type()),
                    None => format!("the {}", entity.entity_type()),
                };
                format!("Permission denied: {caller} lacks permission '{}' on {on}", entitlement.as_str())
            }
            None => "Permission denied: anonymous token lacks permission. The anonymous token is used \
                          implicitly when a request does not specify a token: send one as X-Consul-Token, or show a \
                          certificate that this agent trusts"
                .to_owned(),
        };
        Self::new(StatusCode::FORBIDDEN, message)
    }
}

impl From<StoreError> for ConsulError {
    fn from(error: StoreError) -> Self {
        Self::internal(&error)
    }
}

impl From<ValueError> for ConsulError {
    fn from(error: ValueError) -> Self {
        Self::internal(&error)
    }
}

/// As our own surface words it, with the hint in the one line that there is.
impl From<ApplyError> for ConsulError {
    fn from(error: ApplyError) -> Self {
        // What Consul finds in validating is 500 there.
        if let ApplyError::SourceExists { .. } | ApplyError::MetaGiven | ApplyError::Protocol { .. } = &error
        {
            return Self::refused(error.to_string());
        }
        let Problem { status, message, hint, .. } = Problem::from(error);
        match hint {
            Some(hint) => Self::new(status, format!("{message}. {hint}")),
            None => Self::new(status, message),
        }
    }
}

impl IntoResponse for ConsulError {
    fn into_response(self) -> Response {
        let mut response = Response::new(without_tokens(&self.message).into_owned().into());
        *response.status_mut() = self.status;
        response.extensions_mut().insert(Worded);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some(after) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
        }
        if self.index.is_some() {
            put_headers(headers, self.index);
        }
        response
    }
}

/// A good answer: JSON, or nothing at all, where Consul says nothing.
#[derive(Debug)]
pub struct Answer {
    body: Vec<u8>,
    index: Option<u64>,
    filtered: bool,
}

impl Answer {
    /// `value` as JSON, indented if that was asked for.
    pub fn new(asked: &Asked, value: &impl Serialize) -> Result<Self, ConsulError> {
        Ok(Self { body: json(value, asked.pretty)?, index: None, filtered: false })
    }

    /// 200 and an empty body.
    pub fn empty() -> Self {
        Self { body: Vec::new(), index: None, filtered: false }
    }

    pub(super) fn of(body: Vec<u8>) -> Self {
        Self { body, index: None, filtered: false }
    }

    /// Tells from where on a client may wait for a change.
    #[must_use]
    pub fn index(self, index: u64) -> Self {
        // Clients do not block on 0, and would ask in a loop.
        Self { index: Some(index.max(1)), ..self }
    }

    /// Tells that the caller may not see all that there is.
    #[must_use]
    pub fn filtered(self, filtered: bool) -> Self {
        Self { filtered, ..self }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let is_empty = self.body.is_empty();
        let mut response = Response::new(self.body.into());
        let headers = response.headers_mut();
        if !is_empty {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        put_headers(headers, self.index);
        if self.filtered {
            headers.insert(FILTERED, HeaderValue::from_static("true"));
        }
        response
    }
}

/// What clients read of each answer. Go's cannot do without a number for the last contact.
fn put_headers(headers: &mut http::HeaderMap, index: Option<u64>) {
    if let Some(index) = index {
        headers.insert(INDEX, HeaderValue::from(index));
    }
    headers.insert(KNOWN_LEADER, HeaderValue::from_static("true"));
    headers.insert(LAST_CONTACT, HeaderValue::from_static("0"));
    headers.insert(CONSISTENCY, HeaderValue::from_static("leader"));
    headers.insert(DEFAULT_POLICY, HeaderValue::from_static("deny"));
}

pub(super) fn json(value: &impl Serialize, pretty: bool) -> Result<Vec<u8>, ConsulError> {
    let mut bytes = Vec::with_capacity(1024);
    let written = if pretty {
        let indented = PrettyFormatter::with_indent(b"    ");
        value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, indented))
    } else {
        serde_json::to_writer(&mut bytes, value)
    };
    // What is answered is made of derived types with text keys, which always serialise.
    written.map_err(|error| ConsulError::internal(&error))?;
    if pretty {
        bytes.push(b'\n');
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pretty_is_four_spaces_and_a_newline() {
        let value = json!({"Kind": "mesh", "List": [1]});
        assert_eq!(json(&value, false).unwrap(), br#"{"Kind":"mesh","List":[1]}"#);
        let pretty = "{\n    \"Kind\": \"mesh\",\n    \"List\": [\n        1\n    ]\n}\n";
        assert_eq!(String::from_utf8(json(&value, true).unwrap()).unwrap(), pretty);
    }

    #[test]
    fn an_answer_has_what_clients_read_and_never_the_index_0() {
        let response = Answer::of(b"[]".to_vec()).index(0).filtered(true).into_response();
        for (name, value) in [
            ("x-consul-index", "1"),
            ("x-consul-knownleader", "true"),
            ("x-consul-lastcontact", "0"),
            ("x-consul-results-filtered-by-acls", "true"),
            ("content-type", "application/json"),
        ] {
            assert_eq!(response.headers()[name], value, "{name}");
        }
        let empty = Answer::empty().into_response();
        assert!(!empty.headers().contains_key("content-type") && !empty.headers().contains_key(INDEX));
    }
}
