//! `GET /control/v1/explain?source=&peer=&destination=`: which rule decides, and who declared it; without a source, every
//! rule that can.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use http::StatusCode;
use schema::access::Source;
use schema::name::{LinkName, ServiceName};
use schema::record::RecordKey;
use serde::Deserialize;

use crate::api::ApiState;
use crate::api::problem::Problem;
use crate::authorize::{Entitlement, Entity};
use crate::catalog::CatalogView;
use crate::store::{keys, value};
use crate::trust::Caller;
use crate::wire::service::{DeclaredBy, DeclaredRule, ExplainAnswer, Offer, RulesAnswer};

pub fn router() -> Router<ApiState> {
    Router::new().route("/explain", get(explain))
}

#[derive(Debug, Deserialize)]
struct Asked {
    #[serde(default)]
    source: Option<ServiceName>,
    #[serde(default)]
    peer: Option<LinkName>,
    destination: ServiceName,
}

async fn explain(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Response, Problem> {
    // The rejection's own words would repeat what was given, which may be a token in the wrong place.
    let bad = || {
        let message = "`source` and `destination` are names of services, and `peer` is the name of a link";
        Problem::new(StatusCode::BAD_REQUEST, "bad_request", message)
    };
    let Ok(Query(Asked { source, peer, destination })) = asked else { return Err(bad()) };
    state.permit(&caller, Entitlement::CanView, Entity::Service(destination.clone()))?;
    let view = state.catalog.view();
    let Some(service) = source else {
        if peer.is_some() {
            return Err(bad());
        }
        let rules = view.intentions.rules_for(&destination);
        let declared = declared(&state, rules.iter().map(|listed| &listed.rule)).await?;
        let exported_to = view.consumers().into_iter().filter(|link| view.is_exported(&destination, link));
        let exported_to = exported_to.collect();
        return Ok(Json(RulesAnswer { destination, rules, declared, exported_to }).into_response());
    };
    let source = Source { peer, service };
    let explanation = view.intentions.explain(&source, &destination);
    let deciding = explanation.decision.reason.rule();
    let declared = declared(&state, deciding.into_iter().chain(&explanation.overruled)).await?;
    let offer = offer(&view, &source, &destination);
    let allowed = explanation.decision.is_allowed() && matches!(offer, Offer::Local | Offer::Exported);
    Ok(Json(ExplainAnswer { allowed, explanation, declared, offer }).into_response())
}

/// Who declared each of `rules`. One that was deleted since the view was made is left out: the next answer will not
/// name it.
async fn declared(
    state: &ApiState,
    rules: impl Iterator<Item = &RecordKey>,
) -> Result<Vec<DeclaredRule>, Problem> {
    let mut declared = Vec::new();
    for rule in rules {
        let entry =
            state.store.get(&keys::declared(rule)).await.map_err(|error| Problem::internal(&error))?;
        let Some(entry) = entry else { continue };
        let value::Declared { owner, file, .. } =
            value::decode(&entry).map_err(|error| Problem::internal(&error))?;
        let by = DeclaredBy { manifest: owner, file };
        declared.push(DeclaredRule { rule: rule.clone(), by });
    }
    Ok(declared)
}

fn offer(view: &CatalogView, source: &Source, destination: &ServiceName) -> Offer {
    match (&source.peer, view.instances(destination)) {
        (_, None) => Offer::Undeclared,
        (None, Some(_)) => Offer::Local,
        (Some(link), Some(_)) if view.is_exported(destination, link) => Offer::Exported,
        (Some(_), Some(_)) => Offer::NotExported,
    }
}
