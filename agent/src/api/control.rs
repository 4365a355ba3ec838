//! `/control/v1`: our own surface. Errors are `{code, message, hint}`.

use axum::Router;

use super::ApiState;

mod apply;
mod audit;
mod config;
mod explain;
pub mod link;
mod mesh_root;
mod rotation;
mod service;
mod state;
mod status;
mod transfer;
mod trust;
mod volume;
mod watch;

/// Every route under `/control/v1`, relative to it.
pub fn router() -> Router<ApiState> {
    Router::new()
        .merge(apply::router())
        .merge(audit::router())
        .merge(config::router())
        .merge(state::router())
        .merge(watch::router())
        .merge(explain::router())
        .merge(service::router())
        .merge(link::router())
        .merge(mesh_root::router())
        .merge(rotation::router())
        .merge(status::router())
        .merge(transfer::router())
        .merge(trust::router())
        .merge(volume::router())
}
