//! `/1.0/auth/identity-provider-groups`: which of our groups a group of the identity provider is worth.

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use http::{HeaderMap, StatusCode};
use schema::name::GroupName;
use serde_json::json;

use super::{Asked, groups_named, held};
use crate::api::ApiState;
use crate::api::lxd::answer::{LxdError, created, empty, sync};
use crate::api::lxd::{body, etag};
use crate::authorize::{Entitlement, Entity, Permit, require_trust};
use crate::store::Revision;
use crate::trust::provider_group::{ProviderGroupError, ProviderGroups};
use crate::trust::{Caller, Groups};
use crate::wire::lxd::auth::{IdentityProviderGroup, Rename};
use crate::wire::lxd::entity_url::segment;

pub fn router() -> Router<ApiState> {
    Router::new().route("/auth/identity-provider-groups", get(list).post(create)).route(
        "/auth/identity-provider-groups/{name}",
        get(show).put(put).patch(patch).post(rename).delete(remove),
    )
}

impl From<ProviderGroupError> for LxdError {
    fn from(error: ProviderGroupError) -> Self {
        let status = match &error {
            ProviderGroupError::Name(_) => StatusCode::BAD_REQUEST,
            ProviderGroupError::NotFound => return LxdError::plain(StatusCode::NOT_FOUND),
            ProviderGroupError::NoSuchGroups(_) => StatusCode::NOT_FOUND,
            ProviderGroupError::Exists | ProviderGroupError::Moved | ProviderGroupError::TooMany => {
                StatusCode::CONFLICT
            }
            ProviderGroupError::Store(_)
            | ProviderGroupError::Value(_)
            | ProviderGroupError::Forget(_)
            | ProviderGroupError::Commit(_) => return LxdError::internal(&error),
        };
        LxdError::new(status, error.to_string())
    }
}

async fn list(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Query(asked): Query<Asked>,
) -> Result<Response, LxdError> {
    require_trust(&caller)?;
    let entitlements = asked.entitlements(&caller, "identity_provider_group")?;
    let policy = state.identities.policy();
    let seen = policy.provider_groups().iter().filter(|(name, _)| {
        state.permit(&caller, Entitlement::CanView, Entity::IdentityProviderGroup((*name).clone())).is_ok()
    });
    if !asked.whole() {
        return Ok(sync(seen.map(|(name, _)| location(name)).collect::<Vec<_>>()));
    }
    let shown = seen.map(|(name, groups)| {
        let entity = Entity::IdentityProviderGroup(name.clone());
        let access_entitlements = held(&state, &caller, entitlements.as_deref(), &entity);
        IdentityProviderGroup { access_entitlements, ..shown(&state, &caller, name, groups) }
    });
    Ok(sync(shown.collect::<Vec<_>>()))
}

async fn show(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Response, LxdError> {
    let permit = permit(&state, &caller, Entitlement::CanView, &name)?;
    let entitlements = asked.entitlements(&caller, "identity_provider_group")?;
    let (record, _) = mappings(&state).get(&name).await?;
    let mut body = shown(&state, &caller, &name, &record.groups);
    body.access_entitlements = held(&state, &caller, entitlements.as_deref(), permit.entity());
    Ok(etag::put(sync(body), &tag(&name, &record.groups)))
}

async fn create(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Result<Response, LxdError> {
    require_trust(&caller)?;
    let permit = state.permit(&caller, Entitlement::CanCreateIdentityProviderGroups, Entity::Server)?;
    let post: IdentityProviderGroup = body::decode(&body, IdentityProviderGroup::KEYS)?;
    let groups = given(&state, &caller, &post.groups, &Groups::default())?;
    mappings(&state).create(&permit, &post.name, groups).await?;
    Ok(created(&location(&post.name), serde_json::Value::Null))
}

async fn put(
    state: State<ApiState>,
    caller: Extension<Caller>,
    path: Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, LxdError> {
    change(&state, &caller, &path, &headers, &body, Change::Replace).await
}

async fn patch(
    state: State<ApiState>,
    caller: Extension<Caller>,
    path: Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, LxdError> {
    change(&state, &caller, &path, &headers, &body, Change::Merge).await
}

/// What becomes of the groups that there are.
enum Change {
    Replace,
    Merge,
}

async fn change(
    state: &ApiState,
    caller: &Caller,
    name: &str,
    headers: &HeaderMap,
    body: &Bytes,
    change: Change,
) -> Result<Response, LxdError> {
    let permit = permit(state, caller, Entitlement::CanEdit, name)?;
    let wanted: IdentityProviderGroup = body::decode(body, IdentityProviderGroup::KEYS)?;
    if !wanted.name.is_empty() && wanted.name != name {
        return Err(LxdError::bad_request("The name in the body is another group's: POST renames a group"));
    }
    let (record, revision): (_, Revision) = mappings(state).get(name).await?;
    etag::check(headers, &tag(name, &record.groups))?;
    let wanted = given(state, caller, &wanted.groups, &record.groups)?;
    let groups = match change {
        Change::Replace => wanted,
        Change::Merge => record.groups.and(&wanted),
    };
    mappings(state).update(&permit, name, groups, revision).await?;
    Ok(empty())
}

async fn rename(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Response, LxdError> {
    let permit = permit(&state, &caller, Entitlement::CanEdit, &name)?;
    let Rename { name: to } = body::decode(&body, &["name"])?;
    // Under another name the groups go to other people: that is giving them away.
    let (record, _) = mappings(&state).get(&name).await?;
    state.permit_groups(&caller, &record.groups)?;
    mappings(&state).rename(&permit, &name, &to).await?;
    Ok(created(&location(&to), serde_json::Value::Null))
}

async fn remove(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Response, LxdError> {
    let permit = permit(&state, &caller, Entitlement::CanDelete, &name)?;
    mappings(&state).delete(&permit, &name).await?;
    Ok(empty())
}

fn permit(
    state: &ApiState,
    caller: &Caller,
    entitlement: Entitlement,
    name: &str,
) -> Result<Permit, LxdError> {
    require_trust(caller)?;
    Ok(state.permit(caller, entitlement, Entity::IdentityProviderGroup(name.to_owned()))?)
}

fn mappings(state: &ApiState) -> ProviderGroups {
    ProviderGroups::new(state.store.clone(), state.identities.clone(), state.audit.clone())
}

/// The groups of a body. To map a group is to give it to others, so whoever adds one must have it to give.
fn given(state: &ApiState, caller: &Caller, groups: &[String], had: &Groups) -> Result<Groups, LxdError> {
    let policy = state.identities.policy();
    // One that has gone since it was mapped is not carried on.
    let named = groups_named(groups, |group| policy.contains(group) || had.contains(group))?;
    let groups: Groups = named.into_iter().filter(|group| policy.contains(group)).collect();
    let added: Vec<GroupName> = groups.iter().filter(|name| !had.contains(name)).cloned().collect();
    state.permit_groups(caller, &added)?;
    Ok(groups)
}

/// Of the groups that it is mapped to, the caller sees those that it may view.
fn shown(state: &ApiState, caller: &Caller, name: &str, groups: &Groups) -> IdentityProviderGroup {
    let seen = groups.iter().filter(|group| {
        state.permit(caller, Entitlement::CanView, Entity::AuthGroup((*group).clone())).is_ok()
    });
    IdentityProviderGroup {
        name: name.to_owned(),
        groups: seen.map(ToString::to_string).collect(),
        access_entitlements: None,
    }
}

fn tag(name: &str, groups: &Groups) -> serde_json::Value {
    json!({"name": name, "groups": groups})
}

fn location(name: &str) -> String {
    format!("/1.0/auth/identity-provider-groups/{}", segment(name))
}
