//! `/1.0`: LXD's shapes over the same model.

use axum::Router;

use super::ApiState;

pub mod answer;
pub mod attempt;
mod auth;
pub mod backup;
pub mod body;
mod certificates;
mod cluster_link;
pub mod etag;
mod events;
pub mod instance;
mod metrics;
pub mod migration;
pub mod operation;
mod profile;
mod project;
mod recursion;
mod resources;
mod server;
mod storage_pool;
mod volume;
mod volume_snapshot;

pub use server::versions;

/// Every route under `/1.0`, relative to it.
pub fn router(state: &ApiState) -> Router<ApiState> {
    Router::new()
        .merge(server::router())
        .merge(auth::router())
        .merge(certificates::router())
        .merge(metrics::router())
        .merge(cluster_link::router())
        .merge(operation::router())
        .merge(events::router())
        .merge(project::router())
        .merge(instance::router())
        .merge(profile::router())
        .merge(resources::router())
        .merge(storage_pool::router())
        .merge(volume::router())
        .merge(volume_snapshot::router())
        .merge(backup::router())
        .layer(axum::middleware::from_fn_with_state(state.clone(), project::asked::check))
}
