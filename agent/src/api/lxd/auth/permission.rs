//! `/1.0/auth/permissions`: everything that could be granted on what exists here.

use std::collections::HashMap;

use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use schema::diagnostic::secret::without_tokens;
use schema::kind::auth_group::entitlements::{DERIVED, EntityType, NOT_HERE, entity_type};
use serde::Deserialize;

use super::existing::every;
use crate::api::ApiState;
use crate::api::lxd::answer::{LxdError, sync};
use crate::api::lxd::recursion::Recursion;
use crate::authorize::{Entitlement, Entity, require_trust};
use crate::trust::Caller;
use crate::wire::lxd::auth::{Permission, PermissionInfo};
use crate::wire::lxd::entity_url::Named;

pub fn router() -> Router<ApiState> {
    Router::new().route("/auth/permissions", get(list))
}

#[derive(Debug, Deserialize)]
struct Wanted {
    #[serde(default)]
    recursion: Recursion,
    #[serde(default, rename = "entity-type")]
    entity_type: String,
    #[serde(default)]
    project: String,
}

async fn list(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, LxdError> {
    require_trust(&caller)?;
    state.permit(&caller, Entitlement::CanViewPermissions, Entity::Server)?;
    let kind = wanted.entity_type.as_str();
    let known = kind.is_empty() || entity_type(kind).is_some();
    if !known && !DERIVED.contains(&kind) && !NOT_HERE.contains(&kind) {
        let message = format!("Unknown entity type {:?}", without_tokens(kind));
        return Err(LxdError::bad_request(format!("Invalid `entity-type` query parameter: {message}")));
    }
    let project = (!wanted.project.is_empty()).then_some(wanted.project.as_str());
    let mut entities = every(&state).await?;
    entities.retain(|named| {
        (kind.is_empty() || named.entity_type == kind) && project.is_none_or(|project| is_of(named, project))
    });
    entities.sort();
    if !wanted.recursion.whole() {
        return Ok(sync(possible(&entities).collect::<Vec<_>>()));
    }
    let policy = state.identities.policy();
    let mut granted = HashMap::<(String, &str), Vec<String>>::new();
    for (group, permissions) in policy.groups() {
        if state.permit(&caller, Entitlement::CanView, Entity::AuthGroup(group.clone())).is_err() {
            continue;
        }
        for permission in permissions {
            let Some(named) = Named::of(permission) else { continue };
            granted.entry((named.url(), &permission.entitlement)).or_default().push(group.to_string());
        }
    }
    let listed = possible(&entities).map(|Permission { entity_type, url, entitlement }| PermissionInfo {
        groups: granted.get(&(url.clone(), entitlement.as_str())).cloned().unwrap_or_default(),
        entity_type,
        url,
        entitlement,
    });
    Ok(sync(listed.collect::<Vec<_>>()))
}

/// Whether an entity is in a project, or is it.
fn is_of(named: &Named, project: &str) -> bool {
    match named.entity_type {
        "project" => named.entity.as_deref() == Some(project),
        _ => named.project.as_deref() == Some(project),
    }
}

/// Each entitlement on each entity.
fn possible(entities: &[Named]) -> impl Iterator<Item = Permission> {
    entities.iter().flat_map(|named| {
        let url = named.url();
        let words = entity_type(named.entity_type).into_iter().flat_map(EntityType::words);
        words.map(move |word| Permission {
            entity_type: named.entity_type.to_owned(),
            url: url.clone(),
            entitlement: word.to_owned(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_could_be_granted_is_listed() {
        let volume = Named {
            entity_type: "storage_volume",
            entity: Some("orders".to_owned()),
            project: Some("default".to_owned()),
            pool: Some("default".to_owned()),
        };
        let listed: Vec<Permission> = possible(&[Named::server(), volume.clone()]).collect();
        let server = listed.iter().filter(|permission| permission.url == "/1.0").count();
        assert_eq!(server, entity_type("server").unwrap().entitlements.len());
        assert_eq!(listed.len() - server, 5);
        assert!(is_of(&volume, "default") && !is_of(&volume, "other") && !is_of(&Named::server(), "default"));
        assert!(is_of(&Named::simple("project", "blah"), "blah"));
    }
}
