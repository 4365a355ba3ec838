//! `GET /control/v1/explain?source=&peer=&destination=`: which rule decides, and who declared it.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::routing::get;
use axum::{Extension, Json, Router};
use http::StatusCode;
use schema::access::Source;
use schema::name::{LinkName, ServiceName};
use serde::Deserialize;

use crate::api::ApiState;
use crate::api::problem::Problem;
use crate::authorize::{Entitlement, Entity};
use crate::catalog::CatalogView;
use crate::store::{keys, value};
use crate::trust::Caller;
use crate::wire::service::{DeclaredBy, ExplainAnswer, Offer};

pub fn router() -> Router<ApiState> {
    Router::new().route("/explain", get(explain))
}

#[derive(Debug, Deserialize)]
struct Asked {
    source: ServiceName,
    #[serde(default)]
    peer: Option<LinkName>,
    destination: ServiceName,
}

async fn explain(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<ExplainAnswer>, Problem> {
    // The rejection's own words would repeat what was given, which may be a token in the wrong place.
    let Ok(Query(asked)) = asked else {
        let message = "`source` and `destination` are names of services, and `peer` is the name of a link";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "bad_request", message));
    };
    state.permit(&caller, Entitlement::CanView, Entity::Service(asked.destination.clone()))?;
    let view = state.catalog.view();
    let source = Source { peer: asked.peer, service: asked.source };
    let explanation = view.intentions.explain(&source, &asked.destination);
    let declared = match explanation.decision.reason.rule() {
        None => None,
        Some(rule) => {
            let entry =
                state.store.get(&keys::declared(rule)).await.map_err(|error| Problem::internal(&error))?;
            match entry {
                // Deleted since the view was made: the next answer will not name it.
                None => None,
                Some(entry) => {
                    let declared: value::Declared =
                        value::decode(&entry).map_err(|error| Problem::internal(&error))?;
                    Some(DeclaredBy { manifest: declared.owner })
                }
            }
        }
    };
    let offer = offer(&view, &source, &asked.destination);
    let allowed = explanation.decision.is_allowed() && matches!(offer, Offer::Local | Offer::Exported);
    Ok(Json(ExplainAnswer { allowed, explanation, declared, offer }))
}

fn offer(view: &CatalogView, source: &Source, destination: &ServiceName) -> Offer {
    match (&source.peer, view.service(destination)) {
        (_, None) => Offer::Undeclared,
        (None, Some(_)) => Offer::Local,
        (Some(link), Some(_)) if view.is_exported(destination, link) => Offer::Exported,
        (Some(_), Some(_)) => Offer::NotExported,
    }
}
