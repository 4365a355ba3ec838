//! `/1.0`: LXD's shapes over the same model.

use axum::Router;

use super::ApiState;

pub mod answer;

/// Every route under `/1.0`.
pub fn router() -> Router<ApiState> {
    Router::new()
}
