//! Lists of instances, and one as it is.

use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use http::{StatusCode, Uri};

use super::filter::Filter;
use super::{Asked, entity, find, named, shown};
use crate::api::ApiState;
use crate::api::lxd::answer::{LxdError, sync};
use crate::api::lxd::etag;
use crate::authorize::{Entitlement, require_trust};
use crate::storage::instances::url;
use crate::trust::Caller;

pub(super) async fn list(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Query(asked): Query<Asked>,
    uri: Uri,
) -> Result<Response, LxdError> {
    require_trust(&caller)?;
    let all = matches!(asked.all_projects.as_str(), "true" | "1");
    if all && !asked.project.is_empty() {
        return Err(LxdError::bad_request("Cannot specify a project when requesting all projects"));
    }
    let containers = match asked.instance_type.as_str() {
        "" | "container" => true,
        "virtual-machine" => false,
        // LXD answers 500 here.
        _ => return Err(LxdError::new(StatusCode::BAD_REQUEST, "Invalid instance type")),
    };
    let filter = Filter::read(&asked.filter).map_err(|error| LxdError::bad_request(error.to_string()))?;
    let mut found = if all {
        state.instances.all().await?
    } else {
        let project = asked.project()?;
        let listed = state.instances.list(&project).await?;
        listed.into_iter().map(|(name, held)| (project.clone(), name, held)).collect()
    };
    found.retain(|(project, name, held)| {
        containers
            && state.permit(&caller, Entitlement::CanView, entity((project, name))).is_ok()
            && filter.takes(|| serde_json::to_value(shown::body((project, name), &held.instance)))
    });
    let found = found.iter().map(|(project, name, held)| ((project, name), &held.instance));
    Ok(match asked.recursion.0 {
        0 => {
            let old = uri.path().ends_with("/containers");
            let rename = |url: String| if old { url.replacen("/instances/", "/containers/", 1) } else { url };
            sync(found.map(|(place, _)| rename(url(place))).collect::<Vec<_>>())
        }
        1 => sync(found.map(|(place, instance)| shown::body(place, instance)).collect::<Vec<_>>()),
        _ => sync(found.map(|(place, instance)| shown::full(place, instance)).collect::<Vec<_>>()),
    })
}

pub(super) async fn show(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Response, LxdError> {
    let (project, name) = (asked.project()?, named(&name)?);
    let place = (&project, &name);
    let (_, held) = find(&state, &caller, Entitlement::CanView, place).await?;
    let answer = if asked.recursion.whole() {
        sync(shown::full(place, &held.instance))
    } else {
        sync(shown::body(place, &held.instance))
    };
    Ok(etag::put(answer, &held.instance.shape))
}
