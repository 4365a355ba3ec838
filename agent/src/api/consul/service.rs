//! `/v1/agent/service…`: what is registered with this agent, and how it is.
//!
//! A registered instance is a record that no manifest owns. One that a manifest owns is registered again with the same
//! words and no effect, and with others refused.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, put};
use http::{HeaderName, HeaderValue, StatusCode, header};
use schema::kind::service::{self, Check, Service};
use schema::name::{InstanceId, ServiceName};
use schema::plan::Data;
use schema::record::{Record, RecordKey};

use self::define::Defined;
use super::answer::{Answer, ConsulError};
use super::asked::Asked;
use super::blocking::{self, Found};
use super::body::Strict;
use super::filter::retain;
use super::rows::{Moment, sees, shapes};
use crate::api::ApiState;
use crate::apply::Edit;
use crate::authorize::{Entitlement, Entity, Permit, require_trust};
use crate::health::Status;
use crate::trust::Caller;
use crate::wire::consul::catalog::{AgentService, AgentServiceChecksInfo};
use crate::wire::consul::registration::ServiceDefinition;

pub mod change;
pub mod define;

const CONTENT_HASH: HeaderName = HeaderName::from_static("x-consul-contenthash");

/// How long a change that is committed may take to be seen by everybody.
const SEEN_WITHIN: Duration = Duration::from_secs(10);

pub fn router() -> Router<ApiState> {
    Router::new()
        .route("/agent/services", get(list))
        .route("/agent/service/{id}", get(one))
        .route("/agent/service/register", put(register))
        .route("/agent/service/deregister/{id}", put(deregister))
        .route("/agent/service/maintenance/{id}", put(maintenance))
        .route("/agent/health/service/id/{id}", get(health_by_id))
        .route("/agent/health/service/name/{name}", get(health_by_name))
}

async fn list(State(state): State<ApiState>, asked: Asked) -> Result<Answer, ConsulError> {
    require_trust(&asked.caller)?;
    let filter = asked.filter(&shapes::SERVICE)?;
    let moment = Moment::now(&state);
    let (mut rows, filtered) =
        moment.seen(&state, &asked.caller, |name, one| [moment.agent_service(name, one)]);
    retain(filter.as_ref(), &mut rows)?;
    let told: BTreeMap<&str, &AgentService> = rows.iter().map(|row| (row.id.as_str(), row)).collect();
    Ok(Answer::new(&asked, &told)?.filtered(filtered))
}

/// One instance. `?hash=` waits for its content to be another.
async fn one(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    mut asked: Asked,
) -> Result<Response, ConsulError> {
    require_trust(&asked.caller)?;
    let changes = state.health.indexes();
    let look = |caller: &Caller| -> Result<AgentService, ConsulError> {
        let moment = Moment::now(&state);
        let found = id.parse::<InstanceId>().ok();
        let found = found.as_ref().and_then(|id| moment.catalog.instance(id));
        let unknown = || ConsulError::not_found(format!("unknown service ID: {id}"));
        let (name, instance) = found.filter(|(name, _)| sees(&state, caller, name)).ok_or_else(unknown)?;
        let mut told = moment.agent_service(&name, instance);
        // Like Consul's, a number of 64 bits in hexadecimal.
        let hash = blake3::hash(&serde_json::to_vec(&told).unwrap_or_default());
        hash.to_hex()[..16].clone_into(&mut told.content_hash);
        Ok(told)
    };
    // A client that waits tells the hash it has seen in place of an index: it waits while that is the same.
    let index = state.health.indexes().borrow().newest();
    let current = look(&asked.caller)?;
    asked.index =
        (!asked.get("hash").is_empty() && asked.get("hash") == current.content_hash).then_some(index);
    let hash = Mutex::new(current.content_hash);
    let answer = blocking::answer(&state, &asked, changes, |caller| {
        let now = state.health.indexes().borrow().newest();
        let found = look(caller)?;
        hash.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&found.content_hash);
        Ok(Found::new(now, found))
    });
    let mut response = answer.await?.into_response();
    let hash = hash.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Ok(hash) = HeaderValue::from_str(&hash) {
        response.headers_mut().insert(CONTENT_HASH, hash);
    }
    Ok(response)
}

async fn register(
    State(state): State<ApiState>,
    asked: Asked,
    Strict(definition): Strict<ServiceDefinition>,
) -> Result<Answer, ConsulError> {
    let Defined { name, id, service } = define::service(definition)?;
    let permit = permit_registering(&state, &asked, &name)?;
    let replaces =
        matches!(asked.get("replace-existing-checks"), "" | "true") && asked.has("replace-existing-checks");
    // Consul moves an id that is registered with another service.
    let other = state.catalog.view().instance(&id).map(|(other, _)| other).filter(|other| *other != name);
    if let Some(other) = other {
        state.permit(&asked.caller, Entitlement::CanDelete, Entity::Service(other.clone()))?;
        super::check::free_ids(&state, &asked.caller, &id, &service).await?;
        let gone = Edit::delete(RecordKey::instance(other, id.clone()), Data::Keep);
        let key = RecordKey::instance(name.clone(), id.clone());
        let put = Edit::put(key, Record::Service(service.clone()));
        state.apply.edit(&permit, vec![gone, put]).await?;
        seen(&state, &name, &id, Some(&service)).await;
        return Ok(Answer::empty());
    }
    super::check::free_ids(&state, &asked.caller, &id, &service).await?;
    change::change(&state, &permit, &name, &id, |known| {
        let mut service = service.clone();
        if let Some(known) = known.filter(|_| !replaces) {
            keep_checks(&mut service, known, &id);
            service::validate(&service)
                .map_err(|why| ConsulError::bad_request(format!("Invalid check: {why}")))?;
        }
        Ok(service)
    })
    .await?;
    Ok(Answer::empty())
}

/// The right to register `name`: to edit it, or where there is none yet to make services.
fn permit_registering(state: &ApiState, asked: &Asked, name: &ServiceName) -> Result<Permit, ConsulError> {
    let own = state.permit(&asked.caller, Entitlement::CanEdit, Entity::Service(name.clone()));
    let is_new = state.catalog.view().instances(name).is_none();
    match own {
        Err(_) if is_new => {
            Ok(state.permit(&asked.caller, Entitlement::CanCreateServices, Entity::Server)?)
        }
        own => Ok(own?),
    }
}

/// Checks that are registered already stay, unless the new registration has one of the same id.
fn keep_checks(service: &mut Service, before: &Service, instance: &InstanceId) {
    let count = service.checks.len();
    let mut ids: Vec<String> =
        service.checks.iter().enumerate().map(|(at, check)| check.id_in(instance, at, count)).collect();
    for (index, check) in before.checks.iter().enumerate() {
        let id = check.id_in(instance, index, before.checks.len());
        if ids.contains(&id) {
            continue;
        }
        if service.checks.len() == count {
            // More checks than before would give those without ids others.
            for (check, id) in service.checks.iter_mut().zip(&ids) {
                check.id.clone_from(id);
            }
        }
        service.checks.push(Check { id: id.clone(), ..check.clone() });
        ids.push(id);
    }
    // One check that has the id it would be given anyway says nothing by it.
    if let [only] = &mut service.checks[..]
        && only.id == format!("service:{instance}")
    {
        only.id.clear();
    }
}

/// Waits until whoever asks for the instance is told of what was committed.
pub(super) async fn seen(state: &ApiState, name: &ServiceName, id: &InstanceId, wanted: Option<&Service>) {
    let mut catalog = state.catalog.subscribe();
    let both = async {
        let is_there = catalog.wait_for(|view| {
            let found = view.instances(name).and_then(|instances| instances.get(id));
            found.map(|instance| &*instance.service) == wanted
        });
        // A sender that is gone is an agent that is ending.
        let _ = is_there.await;
        state.health.settle().await;
    };
    if tokio::time::timeout(SEEN_WITHIN, both).await.is_err() {
        tracing::warn!(service = %name, instance = %id, "a committed change of a service is not seen yet");
    }
}

/// The instance that `id` names, if the caller may know of it: an id tells the service's name to who asks.
pub(super) fn find(
    state: &ApiState,
    caller: &Caller,
    id: &str,
) -> Result<(ServiceName, InstanceId), ConsulError> {
    let known = id.parse::<InstanceId>().ok().and_then(|id| {
        let (name, instance) =
            state.catalog.view().instance(&id).map(|(name, one)| (name, one.id.clone()))?;
        sees(state, caller, &name).then_some((name, instance))
    });
    known.ok_or_else(|| {
        let shown: String = id.chars().take(schema::name::MAX_INSTANCE_ID).collect();
        ConsulError::not_found(format!(
            "Unknown service ID {shown:?}. Ensure that the service ID is passed, not the service name."
        ))
    })
}

async fn deregister(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    asked: Asked,
) -> Result<Answer, ConsulError> {
    require_trust(&asked.caller)?;
    let (name, id) = find(&state, &asked.caller, &id)?;
    let permit = state.permit(&asked.caller, Entitlement::CanDelete, Entity::Service(name.clone()))?;
    let edit = Edit::delete(RecordKey::instance(name.clone(), id.clone()), Data::Keep);
    state.apply.edit(&permit, vec![edit]).await?;
    seen(&state, &name, &id, None).await;
    Ok(Answer::empty())
}

async fn maintenance(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    asked: Asked,
) -> Result<Answer, ConsulError> {
    if !asked.has("enable") {
        return Err(ConsulError::bad_request("Missing value for enable"));
    }
    let enable = match asked.get("enable") {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
        "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
        other => {
            let shown: String = other.chars().take(40).collect();
            return Err(ConsulError::bad_request(format!("Invalid value for enable: {shown:?}")));
        }
    };
    require_trust(&asked.caller)?;
    let (name, id) = find(&state, &asked.caller, &id)?;
    let permit = state.permit(&asked.caller, Entitlement::CanEdit, Entity::Service(name.clone()))?;
    let reason: String = asked.get("reason").chars().filter(|c| !c.is_control()).take(512).collect();
    let reason = enable.then_some(reason);
    state.apply.maintain(&permit, RecordKey::instance(name.clone(), id.clone()), reason.clone()).await?;
    state.health.set_maintenance(&name, &id, reason.map(Arc::from)).await;
    Ok(Answer::empty())
}

/// The status of an instance as an HTTP status, for load balancers that read nothing else.
fn code(status: Status) -> StatusCode {
    match status {
        Status::Passing => StatusCode::OK,
        Status::Warning => StatusCode::TOO_MANY_REQUESTS,
        Status::Critical | Status::Maintenance => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// Whether the status alone is wanted.
fn wants_text(asked: &Asked, accept: Option<&HeaderValue>) -> bool {
    let accepts = accept.and_then(|accept| accept.to_str().ok());
    accepts.is_some_and(|accept| accept.starts_with("text/plain")) || asked.get("format") == "text"
}

fn plain(status: StatusCode, text: String) -> Response {
    let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"))];
    // Whatever the status, this is the answer and no error.
    let mut response = (status, kind, text).into_response();
    response.extensions_mut().insert(super::answer::Worded);
    response
}

fn with_status(status: StatusCode, answer: Answer) -> Response {
    let mut response = answer.into_response();
    *response.status_mut() = status;
    response.extensions_mut().insert(super::answer::Worded);
    response
}

async fn health_by_id(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    headers: http::HeaderMap,
    asked: Asked,
) -> Result<Response, ConsulError> {
    require_trust(&asked.caller)?;
    let text = wants_text(&asked, headers.get(header::ACCEPT));
    let moment = Moment::now(&state);
    let known = id.parse::<InstanceId>().ok();
    let found = known.as_ref().and_then(|id| moment.catalog.instance(id));
    let Some((name, instance)) = found.filter(|(name, _)| sees(&state, &asked.caller, name)) else {
        let status = StatusCode::NOT_FOUND;
        if text {
            return Ok(plain(status, format!("ServiceId {id} not found")));
        }
        let none = AgentServiceChecksInfo { aggregated_status: "critical".to_owned(), ..Default::default() };
        return Ok(with_status(status, Answer::new(&asked, &none)?));
    };
    let status = moment.status(&name, instance);
    if text {
        return Ok(plain(code(status), status.as_str().to_owned()));
    }
    let info = info(&moment, &name, instance, status);
    Ok(with_status(code(status), Answer::new(&asked, &info)?))
}

fn info(
    moment: &Moment,
    name: &ServiceName,
    instance: &crate::catalog::Instance,
    status: Status,
) -> AgentServiceChecksInfo {
    AgentServiceChecksInfo {
        aggregated_status: status.as_str().to_owned(),
        service: Some(moment.agent_service(name, instance)),
        checks: Some(moment.checks(name, instance)),
    }
}

async fn health_by_name(
    State(state): State<ApiState>,
    Path(service): Path<String>,
    headers: http::HeaderMap,
    asked: Asked,
) -> Result<Response, ConsulError> {
    require_trust(&asked.caller)?;
    let text = wants_text(&asked, headers.get(header::ACCEPT));
    let moment = Moment::now(&state);
    let name = service.parse::<ServiceName>().ok();
    if let Some(name) = &name {
        state.permit(&asked.caller, Entitlement::CanView, Entity::Service(name.clone()))?;
    }
    let found = name.as_ref().and_then(|name| Some((name, moment.catalog.instances(name)?)));
    let mut rows = Vec::new();
    let mut worst = None;
    if let Some((name, instances)) = found {
        for instance in instances.iter() {
            let status = moment.status(name, instance);
            worst = worst.max(Some(status));
            rows.push(info(&moment, name, instance, status));
        }
    }
    let status = worst.map_or(StatusCode::NOT_FOUND, code);
    if text {
        let none = format!("ServiceName {service} Not Found");
        return Ok(plain(status, worst.map_or(none, |worst| worst.as_str().to_owned())));
    }
    Ok(with_status(status, Answer::new(&asked, &rows)?))
}
