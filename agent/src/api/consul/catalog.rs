//! `/v1/catalog/…`: what is declared, on the one node that there is.

use std::collections::{BTreeMap, BTreeSet};

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::{get, put};
use schema::name::ServiceName;

use super::answer::{Answer, ConsulError};
use super::asked::Asked;
use super::blocking::{self, Found};
use super::filter::{Filter, retain};
use super::rows::{Moment, sees, shapes};
use crate::api::ApiState;
use crate::authorize::require_trust;
use crate::catalog::Instance;
use crate::trust::Caller;
use crate::wire::consul::catalog::{Node, NodeService, NodeServiceList, NodeServices, ServiceNode};

pub fn router() -> Router<ApiState> {
    Router::new()
        .route("/catalog/services", get(services))
        .route("/catalog/service/", get(no_name))
        .route("/catalog/service/{service}", get(service))
        .route("/catalog/connect/", get(no_name))
        .route("/catalog/connect/{service}", get(connect))
        .route("/catalog/nodes", get(nodes))
        .route("/catalog/node/", get(no_node))
        .route("/catalog/node/{node}", get(node))
        .route("/catalog/node-services/{node}", get(node_services))
        .route("/catalog/register", put(refuse))
        .route("/catalog/deregister", put(refuse))
}

async fn no_name() -> ConsulError {
    ConsulError::bad_request("Missing service name")
}

async fn no_node() -> ConsulError {
    ConsulError::bad_request("Missing node name")
}

/// Nodes are made by joining a cluster, which agents do for themselves.
async fn refuse(State(state): State<ApiState>, asked: Asked) -> Result<Answer, ConsulError> {
    require_trust(&asked.caller)?;
    Err(ConsulError::bad_request(format!(
        "nodes are not registered here: {} is the one there is. Register services with it: PUT /v1/agent/service/register",
        state.name
    )))
}

/// Whether the one node has the meta that is asked for, which it has none of.
pub(super) fn is_on_node(asked: &Asked) -> bool {
    asked.all("node-meta").all(str::is_empty)
}

/// Whether an instance has every tag that is asked for, in any case.
pub(super) fn has_tags(instance: &Instance, asked: &Asked) -> bool {
    has_all_tags(&instance.service.tags, asked)
}

pub(super) fn has_all_tags(tags: &[String], asked: &Asked) -> bool {
    let mut wanted = asked.all("tag").filter(|tag| !tag.is_empty());
    wanted.all(|wanted| tags.iter().any(|tag| tag.eq_ignore_ascii_case(wanted)))
}

async fn services(State(state): State<ApiState>, asked: Asked) -> Result<Answer, ConsulError> {
    require_trust(&asked.caller)?;
    let filter = asked.filter(&shapes::SERVICE_NODE)?;
    let changes = state.health.indexes();
    blocking::answer_live(&state, &asked, changes, |caller| {
        let index = index(&state, None);
        let moment = Moment::now(&state);
        let mut filtered = false;
        let mut told = BTreeMap::<String, BTreeSet<String>>::new();
        if is_on_node(&asked) {
            if filter.is_none() {
                // Consul's own servers, which clients leave out of what they show.
                told.entry("consul".to_owned()).or_default();
            }
            for (name, instances) in moment.catalog.services.iter() {
                if !sees(&state, caller, name) {
                    filtered = true;
                    continue;
                }
                let mut rows: Vec<_> = instances.iter().map(|one| moment.service_node(name, one)).collect();
                retain(filter.as_ref(), &mut rows)?;
                for row in rows {
                    told.entry(name.to_string()).or_default().extend(row.service_tags);
                }
            }
        }
        let told = serde_json::to_value(&told).map_err(|error| ConsulError::internal(&error))?;
        Ok(Found::new(index, told).filtered(filtered))
    })
    .await
}

async fn service(
    State(state): State<ApiState>,
    Path(service): Path<String>,
    asked: Asked,
) -> Result<Answer, ConsulError> {
    instances(&state, &service, &asked, |_| true).await
}

/// Those that speak mutual TLS themselves. For the others their agent does, which is reached by an upstream.
async fn connect(
    State(state): State<ApiState>,
    Path(service): Path<String>,
    asked: Asked,
) -> Result<Answer, ConsulError> {
    instances(&state, &service, &asked, |instance| instance.service.connect_native).await
}

async fn instances(
    state: &ApiState,
    service: &str,
    asked: &Asked,
    wanted: impl Fn(&Instance) -> bool + Send + Sync,
) -> Result<Answer, ConsulError> {
    require_trust(&asked.caller)?;
    let filter = asked.filter(&shapes::SERVICE_NODE)?;
    let changes = state.health.indexes();
    let name = service.parse::<ServiceName>().ok();
    blocking::answer_live(state, asked, changes, |caller| {
        let index = index(state, name.as_ref());
        let moment = Moment::now(state);
        let Some(name) = name.as_ref().filter(|_| is_on_node(asked)) else {
            return Ok(Found::new(index, Vec::<ServiceNode>::new()));
        };
        if !sees(state, caller, name) {
            return Ok(unseen());
        }
        let all = moment.catalog.instances(name).into_iter().flat_map(|all| all.iter());
        let told = all.filter(|one| wanted(one) && has_tags(one, asked));
        let mut rows = told.map(|one| moment.service_node(name, one)).collect();
        retain(filter.as_ref(), &mut rows)?;
        Ok(Found::new(index, rows))
    })
    .await
}

/// What somebody who may not know of a service is told of it: nothing, and that this is not all. So Consul has it, whose
/// clients watch services of which they may know some. The index tells nothing of what goes on either.
pub(super) fn unseen<T>() -> Found<Vec<T>> {
    Found::new(1, Vec::new()).filtered(true)
}

/// Of the newest change to `service`.
pub(super) fn index(state: &ApiState, service: Option<&ServiceName>) -> u64 {
    let indexes = state.health.indexes();
    let indexes = indexes.borrow();
    service.map_or_else(|| indexes.newest(), |service| indexes.of(service))
}

async fn nodes(State(state): State<ApiState>, asked: Asked) -> Result<Answer, ConsulError> {
    require_trust(&asked.caller)?;
    let filter = asked.filter(&shapes::NODE)?;
    let changes = state.health.indexes();
    blocking::answer_live(&state, &asked, changes, |_| {
        let node = Moment::now(&state).node();
        // The node does not change: whoever waits for it waits as long as was asked.
        let mut told: Vec<Node> = if is_on_node(&asked) { vec![node] } else { Vec::new() };
        retain(filter.as_ref(), &mut told)?;
        Ok(Found::new(1, told))
    })
    .await
}

/// Every instance that the caller may know of.
fn on_node(
    state: &ApiState,
    caller: &Caller,
    moment: &Moment,
    filter: Option<&Filter>,
) -> Result<(Vec<NodeService>, bool), ConsulError> {
    let (mut told, filtered) =
        moment.seen(state, caller, |name, one| [moment.with_checks(name, one).service]);
    retain(filter, &mut told)?;
    Ok((told, filtered))
}

async fn node(
    State(state): State<ApiState>,
    Path(node): Path<String>,
    asked: Asked,
) -> Result<Answer, ConsulError> {
    require_trust(&asked.caller)?;
    let filter = asked.filter(&shapes::SERVICE)?;
    let changes = state.health.indexes();
    blocking::answer_live(&state, &asked, changes, |caller| {
        let index = index(&state, None);
        let moment = Moment::now(&state);
        if !is_node(&state, &node) {
            return Ok(Found::new(index, None));
        }
        let (services, filtered) = on_node(&state, caller, &moment, filter.as_ref())?;
        let services = services.into_iter().map(|service| (service.id.clone(), service)).collect();
        Ok(Found::new(index, Some(NodeServices { node: moment.node(), services })).filtered(filtered))
    })
    .await
}

async fn node_services(
    State(state): State<ApiState>,
    Path(node): Path<String>,
    asked: Asked,
) -> Result<Answer, ConsulError> {
    require_trust(&asked.caller)?;
    let filter = asked.filter(&shapes::SERVICE)?;
    let changes = state.health.indexes();
    blocking::answer_live(&state, &asked, changes, |caller| {
        let index = index(&state, None);
        let moment = Moment::now(&state);
        if !is_node(&state, &node) {
            return Ok(Found::new(index, None));
        }
        let (services, filtered) = on_node(&state, caller, &moment, filter.as_ref())?;
        Ok(Found::new(index, Some(NodeServiceList { node: moment.node(), services })).filtered(filtered))
    })
    .await
}

/// Whether `name` is the agent's.
pub(super) fn is_node(state: &ApiState, name: &str) -> bool {
    name.eq_ignore_ascii_case(state.name.as_str())
}
