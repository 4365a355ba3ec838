//! `/v1/agent/check…`: checks of services, and what instances say of themselves.
//!
//! A check belongs to a service here: the node is the agent, which is well when it answers.

use std::collections::BTreeMap;

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::{get, put};
use schema::kind::service::{self, Service};
use schema::name::{InstanceId, ServiceName};

use super::answer::{Answer, ConsulError};
use super::asked::Asked;
use super::body::Strict;
use super::filter::retain;
use super::rows::{Moment, sees, shapes};
use super::service::change::change;
use super::service::define;
use crate::api::ApiState;
use crate::authorize::{Entitlement, Entity, require_trust};
use crate::health::{CheckPlace, Status, UpdateError};
use crate::trust::Caller;
use crate::wire::consul::catalog::HealthCheck;
use crate::wire::consul::registration::{CheckDefinition, CheckUpdate};

pub fn router() -> Router<ApiState> {
    Router::new()
        .route("/agent/checks", get(list))
        .route("/agent/check/register", put(register))
        .route("/agent/check/deregister/{id}", put(deregister))
        .route("/agent/check/pass/{id}", put(pass))
        .route("/agent/check/warn/{id}", put(warn))
        .route("/agent/check/fail/{id}", put(fail))
        .route("/agent/check/update/{id}", put(update))
}

async fn list(State(state): State<ApiState>, asked: Asked) -> Result<Answer, ConsulError> {
    require_trust(&asked.caller)?;
    let filter = asked.filter(&shapes::CHECK)?;
    let moment = Moment::now(&state);
    let (mut rows, filtered) = moment.seen(&state, &asked.caller, |name, one| moment.checks(name, one));
    retain(filter.as_ref(), &mut rows)?;
    let told: BTreeMap<&str, &HealthCheck> = rows.iter().map(|row| (row.check_id.as_str(), row)).collect();
    Ok(Answer::new(&asked, &told)?.filtered(filtered))
}

async fn register(
    State(state): State<ApiState>,
    asked: Asked,
    Strict(definition): Strict<CheckDefinition>,
) -> Result<Answer, ConsulError> {
    if definition.name.is_empty() {
        return Err(ConsulError::bad_request("Missing check name"));
    }
    if !matches!(definition.status.as_str(), "" | "passing" | "warning" | "critical") {
        return Err(ConsulError::bad_request("Bad check status"));
    }
    let instance = definition.service_id.clone();
    let mut check = define::check(definition)?;
    if check.id.is_empty() {
        check.id.clone_from(&check.name);
        check.validate().map_err(|why| ConsulError::bad_request(format!("Invalid check: {why}")))?;
    }
    if instance.is_empty() {
        return Err(ConsulError::bad_request(
            "Invalid check: a check belongs to a service here, and the node is the agent itself: give ServiceID",
        ));
    }
    require_trust(&asked.caller)?;
    let view = state.catalog.view();
    let found = instance.parse::<InstanceId>().ok();
    let found = found.as_ref().and_then(|id| view.instance(id));
    let Some((name, known)) = found.filter(|(name, _)| sees(&state, &asked.caller, name)) else {
        let shown: String = instance.chars().take(schema::name::MAX_INSTANCE_ID).collect();
        return Err(ConsulError::not_found(format!("ServiceID {shown:?} does not exist")));
    };
    state.permit(&asked.caller, Entitlement::CanEdit, Entity::Service(name.clone()))?;
    let alone = Service { checks: vec![check.clone()], ..Service::default() };
    free_ids(&state, &asked.caller, &known.id, &alone).await?;
    edit(&state, &asked, &name, &known.id, |service| {
        match service.checks.iter_mut().find(|known| known.id == check.id) {
            Some(known) => *known = check.clone(),
            None => service.checks.push(check.clone()),
        }
    })
    .await
}

async fn deregister(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    asked: Asked,
) -> Result<Answer, ConsulError> {
    require_trust(&asked.caller)?;
    let CheckPlace { service: name, instance, .. } = meant(&state, &asked.caller, &id).await?;
    edit(&state, &asked, &name, &instance, |service| service.checks.retain(|check| check.id != id)).await
}

/// Checks that are known by their place in the list are known by the same id wherever they stand.
fn fix_ids(service: &mut Service, instance: &InstanceId) {
    let count = service.checks.len();
    for (index, check) in service.checks.iter_mut().enumerate() {
        check.id = check.id_in(instance, index, count);
    }
}

/// Changes the checks of an instance, each of which has its id.
async fn edit(
    state: &ApiState,
    asked: &Asked,
    name: &ServiceName,
    id: &InstanceId,
    write: impl Fn(&mut Service),
) -> Result<Answer, ConsulError> {
    let permit = state.permit(&asked.caller, Entitlement::CanEdit, Entity::Service(name.clone()))?;
    change(state, &permit, name, id, |known| {
        let gone = || ConsulError::not_found(format!("ServiceID {:?} does not exist", id.as_str()));
        let mut service = known.cloned().ok_or_else(gone)?;
        fix_ids(&mut service, id);
        write(&mut service);
        service::normalise(&mut service);
        service::validate(&service)
            .map_err(|why| ConsulError::bad_request(format!("Invalid check: {why}")))?;
        Ok(service)
    })
    .await?;
    Ok(Answer::empty())
}

/// The check that a caller means by `id`: the one that is the caller's to say something of. What somebody else has called
/// the same is in nobody's way, and nothing is said of what the caller may not know.
async fn meant(state: &ApiState, caller: &Caller, id: &str) -> Result<CheckPlace, ConsulError> {
    let edits = |place: &CheckPlace| {
        state.permit(caller, Entitlement::CanEdit, Entity::Service(place.service.clone())).map(drop)
    };
    let all = state.health.places(id).await;
    let mut own: Vec<CheckPlace> = all.iter().filter(|place| edits(place).is_ok()).cloned().collect();
    match (own.pop(), own.is_empty()) {
        (Some(place), true) => Ok(place),
        (Some(place), false) => {
            let mut names: Vec<&str> =
                own.iter().chain([&place]).map(|place| place.instance.as_str()).collect();
            names.sort_unstable();
            Err(ConsulError::refused(format!(
                "check ID {id:?} is that of checks of several instances ({}): give each an ID of its own",
                names.join(", ")
            )))
        }
        (None, _) => {
            let known = all.iter().find(|place| sees(state, caller, &place.service));
            known.map_or(Ok(()), edits)?;
            Err(unknown(id))
        }
    }
}

/// Whether `service`, as instance `own`, may call its checks what it calls them: not what another's is called that the
/// caller may know of, nor what another's would be called without a word.
pub(super) async fn free_ids(
    state: &ApiState,
    caller: &Caller,
    own: &InstanceId,
    service: &Service,
) -> Result<(), ConsulError> {
    for id in service.checks.iter().map(|check| check.id.as_str()).filter(|id| !id.is_empty()) {
        let of_own = |rest: &str| {
            rest.strip_prefix(own.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
        };
        if id.strip_prefix("service:").is_some_and(|rest| !of_own(rest)) {
            let message = format!(
                "Invalid check: the check ID {id:?} is what a check of another instance is called: give it another"
            );
            return Err(ConsulError::bad_request(message));
        }
        let others = state.health.places(id).await;
        let known = others.iter().find(|place| place.instance != *own && sees(state, caller, &place.service));
        if let Some(place) = known {
            let message = format!(
                "Invalid check: the check ID is that of a check of service {}: give it another",
                place.service
            );
            return Err(ConsulError::bad_request(message));
        }
    }
    Ok(())
}

fn unknown(id: &str) -> ConsulError {
    let shown: String = id.chars().take(255).collect();
    ConsulError::not_found(UpdateError::Unknown(shown).to_string())
}

async fn pass(state: State<ApiState>, id: Path<String>, asked: Asked) -> Result<Answer, ConsulError> {
    say(state, id, asked, Status::Passing).await
}

async fn warn(state: State<ApiState>, id: Path<String>, asked: Asked) -> Result<Answer, ConsulError> {
    say(state, id, asked, Status::Warning).await
}

async fn fail(state: State<ApiState>, id: Path<String>, asked: Asked) -> Result<Answer, ConsulError> {
    say(state, id, asked, Status::Critical).await
}

async fn say(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    asked: Asked,
    status: Status,
) -> Result<Answer, ConsulError> {
    tell(&state, &asked, &id, status, asked.get("note")).await
}

async fn update(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    asked: Asked,
    Strict(update): Strict<CheckUpdate>,
) -> Result<Answer, ConsulError> {
    let status = match update.status.as_str() {
        "passing" => Status::Passing,
        "warning" => Status::Warning,
        "critical" => Status::Critical,
        other => {
            let shown: String = other.chars().take(40).collect();
            return Err(ConsulError::bad_request(format!("Invalid check status: '{shown}'")));
        }
    };
    tell(&state, &asked, &id, status, &update.output).await
}

async fn tell(
    state: &ApiState,
    asked: &Asked,
    id: &str,
    status: Status,
    output: &str,
) -> Result<Answer, ConsulError> {
    require_trust(&asked.caller)?;
    let place = meant(state, &asked.caller, id).await?;
    match state.health.update(&place, status, output).await {
        Ok(()) => Ok(Answer::empty()),
        Err(UpdateError::Unknown(_)) => Err(unknown(id)),
        Err(error) => Err(ConsulError::refused(error.to_string())),
    }
}
