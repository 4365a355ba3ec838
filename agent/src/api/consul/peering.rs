//! `/v1/peering`: links in Consul's shapes. A peering is a link that goes both ways; links of other types, and names that
//! only our own surfaces let be made, are shown too.

use std::collections::BTreeMap;

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use http::StatusCode;
use schema::kind::cluster_link::{ClusterLink, LinkType, USER_KEY};
use schema::name::LinkName;
use schema::record::{Record, RecordKey};

use super::answer::{Answer, ConsulError};
use super::asked::Asked;
use super::blocking::{self, Found};
use crate::api::ApiState;
use crate::apply::{ApplyError, Edit};
use crate::authorize::{Entitlement, Entity, Permit, require_trust};
use crate::peering::{Listed, PeeringError};
use crate::wire::cluster_link::Dials;
use crate::wire::consul::peering::{Peering, Remote, StreamStatus};

mod delete;
mod establish;
mod given;
mod token;

/// The one partition.
const DEFAULT: &str = "default";

pub fn router() -> Router<ApiState> {
    Router::new()
        .route("/peerings", get(list))
        .route("/peering/token", post(token::generate))
        .route("/peering/establish", post(establish::establish))
        .route("/peering/", get(nameless).delete(delete::nameless))
        .route("/peering/{name}", get(read).delete(delete::delete))
}

impl From<PeeringError> for ConsulError {
    fn from(error: PeeringError) -> Self {
        let message = match &error {
            PeeringError::Store(_) | PeeringError::Commit(_) | PeeringError::Value(_) => {
                return ConsulError::internal(&error);
            }
            PeeringError::Ending => {
                return ConsulError::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string());
            }
            // A secret that nobody takes any more, in the words that clients look for.
            PeeringError::RefusedByPeer { status, .. }
                if matches!(*status, StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED) =>
            {
                return spent();
            }
            PeeringError::Activate(_) => return spent(),
            PeeringError::RefusedByPeer { address, message, .. } => failed_through(address, message),
            PeeringError::NoIssuer { tried } => {
                tried.iter().map(|(address, why)| failed_through(address, why)).collect::<Vec<_>>().join("\n")
            }
            PeeringError::Unreachable { reason, .. } => {
                format!("failed to exchange peering secret: {reason}")
            }
            // Consul's whole sentence: its clients show it as it is.
            PeeringError::Dials(_) | PeeringError::IsDialled(_) => error.to_string(),
            other => match other.hint() {
                Some(hint) => format!("{other}. {hint}"),
                None => other.to_string(),
            },
        };
        ConsulError::refused(message)
    }
}

fn spent() -> ConsulError {
    let message = "a new peering token must be generated: invalid peering establishment secret";
    ConsulError::new(StatusCode::FORBIDDEN, message)
}

fn failed_through(address: &str, why: &str) -> String {
    format!("failed to exchange peering secret through address {address:?}: {why}")
}

async fn list(State(state): State<ApiState>, asked: Asked) -> Result<Answer, ConsulError> {
    let changes = (state.peering.changed(), state.catalog.subscribe());
    blocking::answer_read(&state, &asked, changes, |caller| {
        let state = &state;
        async move {
            require_trust(&caller)?;
            let index = state.peering.index();
            let mut listed = state.peering.listed().await?;
            let all = listed.len();
            listed.retain(|one| {
                let entity = Entity::ClusterLink(one.report.name.clone());
                state.permit(&caller, Entitlement::CanView, entity).is_ok()
            });
            let filtered = listed.len() < all;
            Ok(Found::new(index, listed.iter().map(shown).collect::<Vec<_>>()).filtered(filtered))
        }
    })
    .await
}

async fn read(
    State(state): State<ApiState>,
    asked: Asked,
    Path(name): Path<String>,
) -> Result<Answer, ConsulError> {
    let changes = (state.peering.changed(), state.catalog.subscribe());
    blocking::answer_read(&state, &asked, changes, |caller| {
        let (state, name) = (&state, name.as_str());
        async move {
            require_trust(&caller)?;
            let index = state.peering.index();
            let absent = || ConsulError::not_found(format!("Peering not found for {name:?}"));
            let Some(link) = looked_up(state, name).await? else { return Ok(Found::absent(index, absent())) };
            state.permit(&caller, Entitlement::CanView, Entity::ClusterLink(link.clone()))?;
            match state.peering.listed_one(&link).await? {
                Some(listed) => Ok(Found::new(index, shown(&listed))),
                None => Ok(Found::absent(index, absent())),
            }
        }
    })
    .await
}

async fn nameless() -> ConsulError {
    ConsulError::bad_request("Must specify a name to fetch.")
}

/// The link that a name means: the one that is called so, else, as Consul has it, what it is in lower case. `None` where
/// no link can be called that.
async fn looked_up(state: &ApiState, name: &str) -> Result<Option<LinkName>, ConsulError> {
    let Ok(exact) = name.parse::<LinkName>() else { return Ok(None) };
    let lower = name.to_ascii_lowercase();
    if lower == name || state.peering.listed_one(&exact).await?.is_some() {
        return Ok(Some(exact));
    }
    Ok(lower.parse().ok())
}

/// As Consul shows it: what the peer is called and reached by is told by the side that dials alone.
fn shown(listed: &Listed) -> Peering {
    let report = &listed.report;
    let dials = report.dials == Some(Dials::Here) || (report.dials.is_none() && !report.addresses.is_empty());
    let remote = listed.remote.as_ref();
    let names = |names: &[schema::name::ServiceName]| {
        (!names.is_empty()).then(|| names.iter().map(ToString::to_string).collect())
    };
    Peering {
        id: listed.id.to_string(),
        name: report.name.to_string(),
        deleted_at: listed.deleted_at,
        meta: meta(&report.config),
        state: report.state,
        peer_id: remote.map(|remote| remote.peering.clone()).unwrap_or_default(),
        peer_ca_pems: listed.certificate_pem.iter().filter(|_| dials).cloned().collect(),
        peer_server_name: remote.map(|remote| remote.server_name.clone()).unwrap_or_default(),
        peer_server_addresses: if dials { report.addresses.clone() } else { Vec::new() },
        stream_status: StreamStatus {
            imported_services: names(&listed.stream.imported),
            exported_services: names(&listed.stream.exported),
            last_heartbeat: listed.stream.times.last_heartbeat,
            last_receive: listed.stream.times.last_receive,
            last_send: listed.stream.times.last_send,
        },
        create_index: listed.created.0,
        modify_index: listed.modified.0,
        remote: Remote {
            partition: DEFAULT.to_owned(),
            datacenter: listed.cluster.clone().unwrap_or_default(),
        },
    }
}

/// Consul's `Meta` is LXD's free keys without what they begin with.
fn meta(config: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let free = config
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix(USER_KEY)?.to_owned(), value.clone())));
    free.collect()
}

fn config(meta: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    meta.iter().map(|(key, value)| (format!("{USER_KEY}{key}"), value.clone())).collect()
}

/// Declares the link of a new peering. It grants nothing until its groups are set.
async fn declare(
    state: &ApiState,
    permit: &Permit,
    link: &LinkName,
    meta: &BTreeMap<String, String>,
) -> Result<(), ConsulError> {
    let declared =
        ClusterLink { kind: LinkType::Bidirectional, config: config(meta), ..ClusterLink::default() };
    let edit = Edit::put(RecordKey::ClusterLink(link.clone()), Record::ClusterLink(declared)).only_at(0);
    match state.apply.edit(permit, vec![edit]).await {
        Ok(_) => Ok(()),
        // Somebody made one of that name just now.
        Err(ApplyError::Moved(_)) => Err(PeeringError::Superseded(link.clone()).into()),
        Err(error) => Err(error.into()),
    }
}

/// Takes back what was declared for a peering that could not be made. Gives what went wrong first.
async fn undo(state: &ApiState, permit: &Permit, link: &LinkName, error: PeeringError) -> ConsulError {
    if let Err(left) = delete::whole(state, permit, link).await {
        tracing::error!(%link, error = left.message, "a peering that could not be made is still declared");
    }
    error.into()
}
