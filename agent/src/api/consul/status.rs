//! `/v1/status`: who leads. A cluster is one agent, so it leads itself, and no one else is asked.

use axum::Router;
use axum::extract::State;
use axum::routing::get;

use super::answer::{Answer, ConsulError};
use super::asked::Asked;
use crate::api::ApiState;
use crate::authorize::require_trust;

pub fn router() -> Router<ApiState> {
    Router::new().route("/status/leader", get(leader)).route("/status/peers", get(peers))
}

async fn leader(State(state): State<ApiState>, asked: Asked) -> Result<Answer, ConsulError> {
    require_trust(&asked.caller)?;
    Answer::new(&asked, &own_address(&state))
}

async fn peers(State(state): State<ApiState>, asked: Asked) -> Result<Answer, ConsulError> {
    require_trust(&asked.caller)?;
    Answer::new(&asked, &[own_address(&state)])
}

/// Where this agent is reached; empty, as Consul has it where no one leads, if it only dials.
fn own_address(state: &ApiState) -> String {
    state.addresses.current().first().cloned().unwrap_or_default()
}
