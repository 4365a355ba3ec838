//! `/control/v1`: our own surface. Errors are `{code, message, hint}`.

use axum::Router;

use super::ApiState;

mod explain;
mod service;

/// Every route under `/control/v1`.
pub fn router() -> Router<ApiState> {
    Router::new().merge(explain::router()).merge(service::router())
}
