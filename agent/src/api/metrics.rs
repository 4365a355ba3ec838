//! `GET /metrics`: the agent, its links and the traffic that it carries, in OpenMetrics' text format. Everything is read
//! when it is asked for; nothing is kept for it.

mod exposition;
mod traffic;

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Extension, Router};
use http::header;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use schema::name::{ClusterName, LinkName};
use schema::plan::LinkState;

use super::ApiState;
use super::problem::Problem;
use crate::authorize::{Entitlement, Entity};
use crate::trust::{Access, Caller, Who};
use crate::wire::service::{MeshStatus, PortState};
use exposition::{Exposition, Families, Labels, Sample};

/// When the routes were made, which is when the agent started.
static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);

pub(in crate::api) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How long the agent has run.
pub(in crate::api) fn uptime() -> Duration {
    STARTED.elapsed()
}

pub fn router() -> Router<ApiState> {
    LazyLock::force(&STARTED);
    Router::new().route("/metrics", get(show))
}

async fn show(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Problem> {
    state.permit(&caller, Entitlement::CanViewMetrics, Entity::Server)?;
    let mut seen = Seen::gather(&state).await?;
    if !sees_traffic(&caller) {
        seen.links.clear();
        seen.mesh = MeshStatus::default();
    }
    let text = Exposition::of(&seen).text().map_err(|error| Problem::internal(&error))?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}

/// Whether services and links are shown to somebody who may view metrics. What else is declared here is no business of a
/// linked cluster's, nor of a client's that is restricted to projects, of which services are none.
fn sees_traffic(caller: &Caller) -> bool {
    match &caller.who {
        Who::Peer { .. } | Who::Client { access: Access::Projects(_), .. } => false,
        Who::Local { .. }
        | Who::Client { access: Access::Unrestricted | Access::Groups(_), .. }
        | Who::Metrics { .. }
        | Who::Signed { .. }
        | Who::Node { .. }
        | Who::Anonymous { .. } => true,
    }
}

/// What there is to tell at this moment.
#[derive(Debug)]
struct Seen {
    name: ClusterName,
    uptime: Duration,
    revision: u64,
    identities: u64,
    operations: u64,
    draining: bool,
    leaves_issued: u64,
    handshakes_refused: u64,
    links: BTreeMap<LinkName, LinkState>,
    /// The links that have a session, with the streams that are open on it: ours, and the peer's.
    sessions: BTreeMap<LinkName, (usize, usize)>,
    mesh: MeshStatus,
}

impl Seen {
    async fn gather(state: &ApiState) -> Result<Self, Problem> {
        let mut identities = 0_u64;
        state.identities.each(|_, _| identities += 1);
        let links = state.peering.live_links().await.map_err(|error| Problem::internal(&error))?;
        Ok(Self {
            name: state.name.clone(),
            uptime: uptime(),
            revision: state.catalog.view().revision.0,
            identities,
            operations: state.operations.list().len() as u64,
            draining: state.tasks.ending().is_cancelled(),
            leaves_issued: state.mesh_ca.issued(),
            handshakes_refused: state.doors.refused(),
            links: links.into_iter().map(|(name, link)| (name, link.state)).collect(),
            sessions: state
                .sessions
                .all()
                .into_iter()
                .map(|(link, session)| (link, session.streams()))
                .collect(),
            mesh: state.mesh.status(),
        })
    }
}

impl Families for Seen {
    fn families(&self, to: &mut Exposition) {
        let none = Labels::new;
        let one = |value| vec![(Labels::new(), value)];
        let (gauge, counter) = (MetricType::Gauge, MetricType::Counter);
        to.add("comity_build", "The agent's version, and the cluster that it is of.", gauge, {
            let version = env!("CARGO_PKG_VERSION").to_owned();
            vec![(vec![("cluster", self.name.to_string()), ("version", version)], Sample::Number(1))]
        });
        to.add_with(
            ("comity_uptime", Some(Unit::Seconds)),
            "How long the agent has run.",
            gauge,
            vec![(none(), Sample::Seconds(self.uptime.as_secs_f64()))],
        );
        to.add(
            "comity_identities",
            "Identities that are known.",
            gauge,
            one(Sample::Number(self.identities)),
        );
        to.add(
            "comity_operations",
            "Operations under way or just ended.",
            gauge,
            one(Sample::Number(self.operations)),
        );
        to.add(
            "comity_catalog_revision",
            "The store's revision that the catalog of services and intentions has come to.",
            gauge,
            one(Sample::Number(self.revision)),
        );
        to.add(
            "comity_draining",
            "1 while the agent finishes what is under way before it stops, else 0.",
            gauge,
            one(Sample::Number(u64::from(self.draining))),
        );
        to.add(
            "comity_leaves_issued",
            "Service certificates that the mesh CA has issued.",
            counter,
            one(Sample::Number(self.leaves_issued)),
        );
        to.add(
            "comity_tls_handshakes_refused",
            "TLS handshakes of the network listener that came to nothing.",
            counter,
            one(Sample::Number(self.handshakes_refused)),
        );
        let states = self.links.iter().map(|(link, state)| {
            let labels = vec![("peer", link.to_string()), ("state", state.as_str().to_lowercase())];
            (labels, Sample::Number(1))
        });
        to.add(
            "comity_link_state",
            "The state that a cluster link is in, as a label.",
            gauge,
            states.collect(),
        );
        let sessions = self.links.keys().map(|link| {
            let up = u64::from(self.sessions.contains_key(link));
            (vec![("peer", link.to_string())], Sample::Number(up))
        });
        to.add(
            "comity_link_sessions",
            "Connections to the peer over which streams are opened.",
            gauge,
            sessions.collect(),
        );
        let streams = self.links.keys().filter_map(|link| Some((link, self.sessions.get(link)?)));
        let streams = streams.flat_map(|(link, (ours, theirs))| {
            [("here", *ours), ("peer", *theirs)].map(|(by, number)| {
                let labels = vec![("peer", link.to_string()), ("opened_by", by.to_owned())];
                (labels, Sample::Number(number as u64))
            })
        });
        to.add(
            "comity_link_streams",
            "Streams that are open on the connection to the peer, by which side opened them.",
            gauge,
            streams.collect(),
        );
        let listening = self.mesh.upstreams.iter().map(|row| {
            let labels = vec![
                ("service", row.service.to_string()),
                ("destination", row.destination.to_string()),
                ("peer", row.peer.as_ref().map(ToString::to_string).unwrap_or_default()),
                ("local", row.local.clone()),
            ];
            (labels, Sample::Number(u64::from(row.port == PortState::Listening)))
        });
        to.add(
            "comity_upstream_listening",
            "1 if connections to the upstream's local port or socket are taken, else 0.",
            gauge,
            listening.collect(),
        );
        traffic::families(&self.mesh.traffic, to);
    }
}
