//! `GET /1.0/metrics`: what a monitor wants to know, as OpenMetrics text, where LXD's users
//! look for it. `/metrics` tells more. These two are all that a metrics certificate is good for.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Extension, Router};
use http::header;

use super::answer::LxdError;
use crate::api::ApiState;
use crate::api::metrics::{CONTENT_TYPE, uptime};
use crate::authorize::{Entitlement, Entity};
use crate::trust::Caller;

pub fn router() -> Router<ApiState> {
    Router::new().route("/metrics", get(show))
}

async fn show(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, LxdError> {
    state.permit(&caller, Entitlement::CanViewMetrics, Entity::Server)?;
    let mut identities = 0_u64;
    state.identities.each(|_, _| identities += 1);
    let mut links = BTreeMap::<String, u64>::new();
    for report in state.peering.reports().await? {
        *links.entry(format!("{:?}", report.state).to_lowercase()).or_default() += 1;
    }
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = gauge(&mut text, "comity_uptime_seconds", "How long the agent has run.", uptime().as_secs());
    let operations = state.operations.list().len() as u64;
    let _ = gauge(&mut text, "comity_operations", "Operations under way or just ended.", operations);
    let _ = gauge(&mut text, "comity_identities", "Identities that are known.", identities);
    let _ = writeln!(text, "# HELP comity_cluster_links Cluster links by state.");
    let _ = writeln!(text, "# TYPE comity_cluster_links gauge");
    for (state, number) in links {
        let _ = writeln!(text, "comity_cluster_links{{state=\"{state}\"}} {number}");
    }
    text.push_str("# EOF\n");
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}

fn gauge(text: &mut String, name: &str, help: &str, value: u64) -> std::fmt::Result {
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}")
}
