//! `/v1/health/…`: who is well.

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;
use schema::name::{LinkName, ServiceName};

use super::answer::{Answer, ConsulError};
use super::asked::Asked;
use super::blocking::{self, Found};
use super::catalog::{has_all_tags, has_tags, index, is_node, is_on_node, unseen};
use super::filter::retain;
use super::imported;
use super::rows::{Moment, sees, shapes};
use crate::api::ApiState;
use crate::authorize::require_trust;
use crate::catalog::Instance;
use crate::health::Status;
use crate::trust::Caller;
use crate::wire::consul::catalog::{CheckServiceNode, HealthCheck};

pub fn router() -> Router<ApiState> {
    Router::new()
        .route("/health/service/", get(no_name))
        .route("/health/service/{service}", get(service))
        .route("/health/connect/", get(no_name))
        .route("/health/connect/{service}", get(connect))
        .route("/health/checks/", get(no_name))
        .route("/health/checks/{service}", get(checks))
        .route("/health/node/", get(no_node))
        .route("/health/node/{node}", get(node))
        .route("/health/state/", get(no_state))
        .route("/health/state/{state}", get(in_state))
}

async fn no_name() -> ConsulError {
    ConsulError::bad_request("Missing service name")
}

async fn no_node() -> ConsulError {
    ConsulError::bad_request("Missing node name")
}

async fn no_state() -> ConsulError {
    ConsulError::bad_request("Missing check state")
}

/// Which instances are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    All,
    /// Those that speak mutual TLS themselves.
    Native,
}

async fn service(
    State(state): State<ApiState>,
    Path(service): Path<String>,
    asked: Asked,
) -> Result<Answer, ConsulError> {
    instances(&state, &service, &asked, Which::All).await
}

async fn connect(
    State(state): State<ApiState>,
    Path(service): Path<String>,
    asked: Asked,
) -> Result<Answer, ConsulError> {
    instances(&state, &service, &asked, Which::Native).await
}

/// `?passing`, with or without a value.
fn passing_only(asked: &Asked) -> Result<bool, ConsulError> {
    if !asked.has("passing") {
        return Ok(false);
    }
    match asked.get("passing") {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(ConsulError::bad_request("Invalid value for ?passing")),
    }
}

async fn instances(
    state: &ApiState,
    service: &str,
    asked: &Asked,
    which: Which,
) -> Result<Answer, ConsulError> {
    require_trust(&asked.caller)?;
    let passing = passing_only(asked)?;
    let group = [asked.get("sg"), asked.get("sameness-group")].into_iter().find(|group| !group.is_empty());
    let peer = [asked.get("peer"), asked.get("peer-name")].into_iter().find(|peer| !peer.is_empty());
    if peer.is_some() && group.is_some() {
        let message = "peer-name and sameness-group are mutually exclusive";
        return Err(ConsulError::bad_request(message));
    }
    let name = service.parse::<ServiceName>().ok();
    let filter = asked.filter(&shapes::WITH_CHECKS)?;
    let wanted = Wanted { name: name.as_ref(), which, passing };
    if let Some(peer) = peer {
        let changes = (state.health.indexes(), state.imports.subscribe());
        let link = peer.parse::<LinkName>().ok();
        return blocking::answer_live(state, asked, changes, |caller| {
            let mut found = wanted.of_peer(state, caller, asked, link.as_ref());
            if let Ok(rows) = &mut found.value {
                retain(filter.as_ref(), rows)?;
            }
            Ok(found)
        })
        .await;
    }
    if let Some(group) = group {
        let changes = (state.health.indexes(), state.imports.subscribe());
        return blocking::answer_live(state, asked, changes, |caller| {
            let (index, mut rows) = wanted.of_group(state, caller, asked, group)?;
            retain(filter.as_ref(), &mut rows)?;
            Ok(Found::new(index, rows))
        })
        .await;
    }
    let changes = state.health.indexes();
    blocking::answer_live(state, asked, changes, |caller| {
        let mut found = wanted.here(state, caller, asked);
        if let Ok(rows) = &mut found.value {
            retain(filter.as_ref(), rows)?;
        }
        Ok(found)
    })
    .await
}

/// What a query for instances asks for.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    /// `None` for what cannot be a service's name, of which there is nothing.
    name: Option<&'a ServiceName>,
    which: Which,
    passing: bool,
}

impl Wanted<'_> {
    fn here(self, state: &ApiState, caller: &Caller, asked: &Asked) -> Found<Vec<CheckServiceNode>> {
        let index = index(state, self.name);
        let moment = Moment::now(state);
        let Some(name) = self.name.filter(|_| is_on_node(asked)) else {
            return Found::new(index, Vec::new());
        };
        if !sees(state, caller, name) {
            return unseen();
        }
        let wanted = |one: &&Instance| {
            has_tags(one, asked)
                && (self.which == Which::All || one.service.connect_native)
                && (!self.passing || moment.status(name, one) == Status::Passing)
        };
        let all = moment.catalog.instances(name).into_iter().flat_map(|all| all.iter());
        Found::new(index, all.filter(wanted).map(|one| moment.with_checks(name, one)).collect())
    }

    fn of_peer(
        self,
        state: &ApiState,
        caller: &Caller,
        asked: &Asked,
        link: Option<&LinkName>,
    ) -> Found<Vec<CheckServiceNode>> {
        imported::look(state, caller, link, self.name, |row| {
            // Of what a peer has, nothing is known to speak the mesh's TLS itself.
            self.which == Which::All
                && has_all_tags(&row.service.tags, asked)
                && (!self.passing || passes(row))
        })
    }

    /// The instances of the first member of the group that has one which passes: this cluster, if it is a member, then
    /// its peers in the group's order.
    fn of_group(
        self,
        state: &ApiState,
        caller: &Caller,
        asked: &Asked,
        group: &str,
    ) -> Result<(u64, Vec<CheckServiceNode>), ConsulError> {
        // Either may rise alone, and so the sum does.
        let index = index(state, None) + state.imports.index();
        let view = state.catalog.view();
        let known = group.parse().ok().and_then(|name| view.intentions.groups().get(&name).cloned());
        let Some(group) = known else {
            let shown: String = group.chars().take(schema::name::MAX_NAME).collect();
            return Err(ConsulError::not_found(format!("Sameness group not found: {shown:?}")));
        };
        if group.include_local
            && let Ok(rows) = self.here(state, caller, asked).value
            && rows.iter().any(passes)
        {
            return Ok((index, rows));
        }
        for link in &group.members {
            // Of a member that the caller may not know of there is nothing, so that it is passed over.
            if let Ok(rows) = self.of_peer(state, caller, asked, Some(link)).value
                && rows.iter().any(passes)
            {
                return Ok((index, rows));
            }
        }
        Ok((index, Vec::new()))
    }
}

fn passes(row: &CheckServiceNode) -> bool {
    row.checks.iter().all(|check| check.status == Status::Passing.as_str())
}

async fn checks(
    State(state): State<ApiState>,
    Path(service): Path<String>,
    asked: Asked,
) -> Result<Answer, ConsulError> {
    require_trust(&asked.caller)?;
    let filter = asked.filter(&shapes::CHECK)?;
    let name = service.parse::<ServiceName>().ok();
    let changes = state.health.indexes();
    blocking::answer_live(&state, &asked, changes, |caller| {
        let index = index(&state, name.as_ref());
        let moment = Moment::now(&state);
        let Some(name) = name.as_ref().filter(|_| is_on_node(&asked)) else {
            return Ok(Found::new(index, Vec::<HealthCheck>::new()));
        };
        if !sees(&state, caller, name) {
            return Ok(unseen());
        }
        let all = moment.catalog.instances(name).into_iter().flat_map(|all| all.iter());
        let mut rows = all.flat_map(|one| moment.checks(name, one)).collect();
        retain(filter.as_ref(), &mut rows)?;
        Ok(Found::new(index, rows))
    })
    .await
}

/// Every check of what the caller may know of, the node's own first.
fn every(state: &ApiState, caller: &Caller, moment: &Moment) -> (Vec<HealthCheck>, bool) {
    let (mut told, filtered) = moment.seen(state, caller, |name, one| moment.checks(name, one));
    told.insert(0, moment.node_check());
    (told, filtered)
}

async fn node(
    State(state): State<ApiState>,
    Path(node): Path<String>,
    asked: Asked,
) -> Result<Answer, ConsulError> {
    let is_here = is_node(&state, &node);
    checks_of_node(&state, &asked, is_here, |_| true).await
}

async fn in_state(
    State(state): State<ApiState>,
    Path(wanted): Path<String>,
    asked: Asked,
) -> Result<Answer, ConsulError> {
    let is_here = is_on_node(&asked);
    checks_of_node(&state, &asked, is_here, |check| wanted == "any" || check.status == wanted).await
}

/// The checks that are wanted, if it is this node's that are asked for.
async fn checks_of_node(
    state: &ApiState,
    asked: &Asked,
    is_here: bool,
    wanted: impl Fn(&HealthCheck) -> bool + Send + Sync,
) -> Result<Answer, ConsulError> {
    require_trust(&asked.caller)?;
    let filter = asked.filter(&shapes::CHECK)?;
    let changes = state.health.indexes();
    blocking::answer_live(state, asked, changes, |caller| {
        let index = index(state, None);
        let moment = Moment::now(state);
        let (mut told, filtered) = if is_here { every(state, caller, &moment) } else { (Vec::new(), false) };
        told.retain(&wanted);
        retain(filter.as_ref(), &mut told)?;
        Ok(Found::new(index, told).filtered(filtered))
    })
    .await
}
