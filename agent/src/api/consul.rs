//! `/v1`: Consul's shapes.
//!
//! Each area is a file with a `router()`, merged here. A handler takes `Asked` (the options that every query may have,
//! and its caller) and, if it has a body, `Strict<T>` or `Sent`; asks for a permit; calls one function below; and
//! answers `Result<Answer, ConsulError>`. One that clients may wait on goes through `blocking::answer`. See `status` for
//! the shortest of them. What has no endpoint here, and methods that an endpoint has not, are answered in Consul's words
//! by `surface`.

use axum::Router;
use axum::extract::{Query, Request};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, Method, StatusCode, header};

use self::answer::{ConsulError, Worded};
use crate::api::ApiState;

pub mod answer;
pub mod asked;
pub mod blocking;
pub mod body;
mod catalog;
mod check;
mod config;
mod connect;
mod exported;
pub mod filter;
pub mod go_json;
mod health;
mod imported;
mod intentions;
pub mod own;
mod peering;
mod rows;
mod service;
mod status;
pub mod watched;

/// Every area.
pub fn router() -> Router<ApiState> {
    Router::new()
        .merge(catalog::router())
        .merge(check::router())
        .merge(config::router())
        .merge(connect::router())
        .merge(exported::router())
        .merge(health::router())
        .merge(intentions::router())
        .merge(own::router())
        .merge(peering::router())
        .merge(service::router())
        .merge(status::router())
}

/// What is refused whatever the endpoint.
pub(super) fn refused(request: &Request) -> Option<ConsulError> {
    let pairs = Query::<Vec<(String, String)>>::try_from_uri(request.uri());
    if pairs.is_ok_and(|Query(pairs)| pairs.iter().any(|(name, value)| name == "token" && !value.is_empty()))
    {
        // What is in a URL ends up in logs and histories.
        let message = "Invalid query parameter: \"token\" - a token in the URL is not accepted: send it as \
                       X-Consul-Token, or as Authorization: Bearer";
        return Some(ConsulError::bad_request(message));
    }
    if !request.method().is_safe() && is_of_another_site(request) {
        // Bodies are read whatever they are said to be, so a browser would not ask before it sends one.
        let message = "Permission denied: the request is made by a page of another site";
        return Some(ConsulError::new(StatusCode::FORBIDDEN, message));
    }
    None
}

/// Whether a browser says that it asks for a page of somebody else's, along with its own certificate.
fn is_of_another_site(request: &Request) -> bool {
    let Some(origin) = request.headers().get(header::ORIGIN) else { return false };
    let named = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let host = named.or_else(|| request.uri().authority().map(http::uri::Authority::as_str));
    let from = origin.to_str().ok().and_then(|origin| origin.strip_prefix("https://"));
    from.is_none() || from != host
}

/// What axum answers where it has no handler, as Consul answers there; `None` for what a handler has worded.
pub(super) fn unhandled(method: &Method, response: &Response) -> Option<Response> {
    if response.extensions().get::<Worded>().is_some() {
        return None;
    }
    if response.status() != StatusCode::METHOD_NOT_ALLOWED {
        return None;
    }
    let offered = response.headers().get(header::ALLOW).and_then(|allow| allow.to_str().ok());
    // Consul does not speak of HEAD.
    let offered = offered.unwrap_or_default().split(',').filter(|method| *method != "HEAD");
    let allow = std::iter::once("OPTIONS").chain(offered).collect::<Vec<_>>().join(",");
    let mut answer = if *method == Method::OPTIONS {
        StatusCode::OK.into_response()
    } else {
        let shown: String = method.as_str().chars().take(20).collect();
        ConsulError::new(StatusCode::METHOD_NOT_ALLOWED, format!("method {shown} not allowed"))
            .into_response()
    };
    if let Ok(allow) = HeaderValue::from_str(&allow) {
        answer.headers_mut().insert(header::ALLOW, allow);
    }
    Some(answer)
}
