//! `/1.0/auth/groups`: sets of permissions that identities and links are put into.
//!
//! A group is a declared record, so that manifests own theirs: a change to one that a manifest owns is refused and names
//! it. The group `admins` is always there, holds the server's `admin`, and cannot be changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use http::{HeaderMap, StatusCode};
use schema::kind::auth_group::AuthGroup as Record;
use schema::kind::auth_group::entitlements::ADMINS;
use schema::name::GroupName;
use schema::plan::Data;
use schema::record::{Record as AnyRecord, RecordKey};
use serde_json::json;

use super::identity::known::every;
use super::{Asked, held, proposed};
use crate::api::ApiState;
use crate::api::lxd::answer::{LxdError, created, empty, sync};
use crate::api::lxd::{body, etag};
use crate::apply::{ApplyError, Edit};
use crate::authorize::{Entitlement, Entity, Permit, require_trust};
use crate::store::keys;
use crate::store::value::{Declared, decode};
use crate::trust::Caller;
use crate::trust::policy::{Policy, admins};
use crate::wire::lxd::auth::{AuthGroup, AuthGroupPut, Permission, Rename};
use crate::wire::lxd::entity_url::Named;

pub fn router() -> Router<ApiState> {
    Router::new()
        .route("/auth/groups", get(list).post(create))
        .route("/auth/groups/{name}", get(show).put(put).patch(patch).post(rename).delete(remove))
}

async fn list(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Query(asked): Query<Asked>,
) -> Result<Response, LxdError> {
    require_trust(&caller)?;
    let entitlements = asked.entitlements(&caller, "group")?;
    let policy = state.identities.policy();
    let seen = policy.groups().map(|(name, _)| name).filter(|name| sees(&state, &caller, name));
    if !asked.whole() {
        return Ok(sync(seen.map(location).collect::<Vec<_>>()));
    }
    let mut records = descriptions(&state).await?;
    let members = Members::read(&state, &caller, &policy).await?;
    let groups = seen.map(|name| {
        let record = records.remove(name).unwrap_or_else(|| Record {
            description: String::new(),
            permissions: policy.permissions(name).to_vec(),
        });
        let entity = Entity::AuthGroup(name.clone());
        let held = held(&state, &caller, entitlements.as_deref(), &entity);
        AuthGroup { access_entitlements: held, ..members.shown(name, &record) }
    });
    Ok(sync(groups.collect::<Vec<_>>()))
}

async fn show(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Response, LxdError> {
    let (permit, name) = permit(&state, &caller, Entitlement::CanView, &name)?;
    let entitlements = asked.entitlements(&caller, "group")?;
    let (record, _) = current(&state, &name).await?;
    let members = Members::read(&state, &caller, &state.identities.policy()).await?;
    let mut shown = members.shown(&name, &record);
    shown.access_entitlements = held(&state, &caller, entitlements.as_deref(), permit.entity());
    Ok(etag::put(sync(shown), &tag(&name, &record)))
}

async fn create(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Result<Response, LxdError> {
    require_trust(&caller)?;
    let permit = state.permit(&caller, Entitlement::CanCreateGroups, Entity::Server)?;
    let post: AuthGroup = body::decode(&body, AuthGroup::KEYS)?;
    let name = new_name(&post.name)?;
    let permissions = proposed::checked(&state, &post.permissions, &[]).await?;
    let record = AnyRecord::AuthGroup(Record { description: post.description, permissions });
    let exists = || {
        let message = format!("A group with name {:?} already exists", name.as_str());
        LxdError::new(StatusCode::CONFLICT, message)
    };
    if name == admins() {
        return Err(exists());
    }
    let edit = Edit::put(RecordKey::AuthGroup(name.clone()), record).only_at(0);
    match state.apply.edit(&permit, vec![edit]).await {
        Ok(edited) => state.identities.groups_seen(edited.revision).await,
        Err(ApplyError::Moved(_)) => return Err(exists()),
        Err(error) => return Err(error.into()),
    }
    Ok(created(&location(&name), serde_json::Value::Null))
}

async fn put(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, LxdError> {
    let (permit, name) = permit(&state, &caller, Entitlement::CanEdit, &name)?;
    let wanted = written(&name, &body, "modified")?;
    let (record, revision) = current(&state, &name).await?;
    etag::check(&headers, &tag(&name, &record))?;
    let proposed = wanted.permissions.unwrap_or_default();
    let permissions = proposed::checked(&state, &proposed, &record.permissions).await?;
    let description = wanted.description.unwrap_or_default();
    write(&state, &permit, &name, Record { description, permissions }, revision).await
}

/// Adds permissions to those that there are, as LXD's documentation has it. (LXD 6.9 itself loses the old ones.)
async fn patch(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, LxdError> {
    let (permit, name) = permit(&state, &caller, Entitlement::CanEdit, &name)?;
    let wanted = written(&name, &body, "modified")?;
    let (record, revision) = current(&state, &name).await?;
    etag::check(&headers, &tag(&name, &record))?;
    let merged = merged(&record, &wanted);
    let permissions = proposed::checked(&state, &merged, &record.permissions).await?;
    let description =
        wanted.description.filter(|text| !text.is_empty()).unwrap_or_else(|| record.description.clone());
    write(&state, &permit, &name, Record { description, permissions }, revision).await
}

async fn rename(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Response, LxdError> {
    let (permit, name) = permit(&state, &caller, Entitlement::CanEdit, &name)?;
    changeable(&name, "renamed")?;
    let Rename { name: to } = body::decode(&body, &["name"])?;
    let to = new_name(&to)?;
    current(&state, &name).await?;
    if state.identities.policy().contains(&to) {
        let message = format!("A group with name {:?} already exists", to.as_str());
        return Err(LxdError::new(StatusCode::CONFLICT, message));
    }
    let revision = state.apply.rename_group(&permit, &name, &to).await?;
    state.identities.groups_seen(revision).await;
    Ok(created(&location(&to), serde_json::Value::Null))
}

async fn remove(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Response, LxdError> {
    let (permit, name) = permit(&state, &caller, Entitlement::CanDelete, &name)?;
    changeable(&name, "deleted")?;
    let (_, revision) = current(&state, &name).await?;
    let edit = Edit::delete(RecordKey::AuthGroup(name), Data::Keep).only_at(revision);
    let edited = state.apply.edit(&permit, vec![edit]).await?;
    state.identities.groups_seen(edited.revision).await;
    Ok(empty())
}

async fn write(
    state: &ApiState,
    permit: &Permit,
    name: &GroupName,
    record: Record,
    revision: u64,
) -> Result<Response, LxdError> {
    let edit = Edit::put(RecordKey::AuthGroup(name.clone()), AnyRecord::AuthGroup(record)).only_at(revision);
    state.apply.edit(permit, vec![edit]).await?;
    // Not the commit's revision: what says so already is not written.
    let key = keys::declared(&RecordKey::AuthGroup(name.clone()));
    if let Some(after) = state.store.get(&key).await? {
        state.identities.groups_seen(after.modify_revision).await;
    }
    Ok(empty())
}

fn permit(
    state: &ApiState,
    caller: &Caller,
    entitlement: Entitlement,
    name: &str,
) -> Result<(Permit, GroupName), LxdError> {
    require_trust(caller)?;
    let name: GroupName = name.parse().map_err(|_| LxdError::plain(StatusCode::NOT_FOUND))?;
    Ok((state.permit(caller, entitlement, Entity::AuthGroup(name.clone()))?, name))
}

fn sees(state: &ApiState, caller: &Caller, name: &GroupName) -> bool {
    state.permit(caller, Entitlement::CanView, Entity::AuthGroup(name.clone())).is_ok()
}

fn changeable(name: &GroupName, how: &str) -> Result<(), LxdError> {
    if name.as_str() == ADMINS {
        return Err(LxdError::bad_request(format!("The {ADMINS} group cannot be {how}")));
    }
    Ok(())
}

/// A body of PUT or PATCH: that of a GET will do, for the same group.
fn written(name: &GroupName, bytes: &Bytes, how: &str) -> Result<AuthGroupPut, LxdError> {
    changeable(name, how)?;
    let shown: AuthGroup = body::decode(bytes, AuthGroup::KEYS)?;
    if !shown.name.is_empty() && shown.name != name.as_str() {
        return Err(LxdError::bad_request("The name in the body is another group's: POST renames a group"));
    }
    body::decode(bytes, AuthGroup::KEYS)
}

/// What LXD says of names, then what names are here. A token in the wrong place is not repeated.
fn new_name(text: &str) -> Result<GroupName, LxdError> {
    let wrong = |what: &str| Err(LxdError::bad_request(format!("Group name {what}")));
    match text {
        "" => wrong("cannot be empty"),
        _ if text.contains('/') => wrong("cannot contain a forward slash"),
        _ if text.contains(':') => wrong("cannot contain a colon"),
        _ => text.parse().map_err(|error| LxdError::bad_request(format!("Invalid group name: {error}"))),
    }
}

/// A group and the revision of its record.
async fn current(state: &ApiState, name: &GroupName) -> Result<(Record, u64), LxdError> {
    if *name == admins() {
        let permissions = state.identities.policy().permissions(name).to_vec();
        return Ok((Record { description: String::new(), permissions }, 0));
    }
    let key = keys::declared(&RecordKey::AuthGroup(name.clone()));
    let entry = state.store.get(&key).await?.ok_or_else(|| LxdError::plain(StatusCode::NOT_FOUND))?;
    match decode::<Declared>(&entry)?.record {
        AnyRecord::AuthGroup(group) => Ok((group, entry.modify_revision.0)),
        _ => Err(LxdError::plain(StatusCode::NOT_FOUND)),
    }
}

/// The record of every group.
async fn descriptions(state: &ApiState) -> Result<BTreeMap<GroupName, Record>, LxdError> {
    let mut records = BTreeMap::new();
    for entry in state.store.range(&keys::declared_kind(schema::kind::Kind::AuthGroup)).await?.entries {
        let key = keys::declared_record(&entry.key);
        if let (Some(RecordKey::AuthGroup(name)), AnyRecord::AuthGroup(group)) =
            (key, decode::<Declared>(&entry)?.record)
        {
            records.insert(name, group);
        }
    }
    Ok(records)
}

/// What a change is made from: not who is in the group, which is no part of it.
fn tag(name: &GroupName, record: &Record) -> serde_json::Value {
    json!({"name": name, "description": record.description, "permissions": permissions(record)})
}

fn permissions(record: &Record) -> Vec<Permission> {
    let shown = record.permissions.iter().filter_map(|permission| {
        Some(Permission {
            entity_type: permission.entity_type.clone(),
            url: Named::of(permission)?.url(),
            entitlement: permission.entitlement.clone(),
        })
    });
    shown.collect()
}

/// What the group has and what is added to it.
fn merged(record: &Record, wanted: &AuthGroupPut) -> Vec<Permission> {
    let added = wanted.permissions.iter().flatten().cloned();
    permissions(record).into_iter().chain(added).collect::<BTreeSet<_>>().into_iter().collect()
}

fn location(name: &GroupName) -> String {
    format!("/1.0/auth/groups/{name}")
}

/// Who is in which group, as far as the caller may see them.
struct Members {
    identities: HashMap<GroupName, BTreeMap<String, Vec<String>>>,
    provider_groups: HashMap<GroupName, Vec<String>>,
}

impl Members {
    async fn read(state: &ApiState, caller: &Caller, policy: &Policy) -> Result<Self, LxdError> {
        let mut members = Self { identities: HashMap::new(), provider_groups: HashMap::new() };
        for known in every(state).await? {
            let groups = known.groups(state);
            if groups.is_empty() || state.permit(caller, Entitlement::CanView, known.entity()).is_err() {
                continue;
            }
            for group in groups.iter() {
                let listed = members.identities.entry(group.clone()).or_default();
                listed.entry(known.method().to_owned()).or_default().push(known.identifier());
            }
        }
        for (name, groups) in policy.provider_groups() {
            let entity = Entity::IdentityProviderGroup(name.clone());
            if state.permit(caller, Entitlement::CanView, entity).is_ok() {
                for group in groups.iter() {
                    members.provider_groups.entry(group.clone()).or_default().push(name.clone());
                }
            }
        }
        Ok(members)
    }

    fn shown(&self, name: &GroupName, record: &Record) -> AuthGroup {
        AuthGroup {
            name: name.to_string(),
            description: record.description.clone(),
            permissions: permissions(record),
            identities: self.identities.get(name).cloned().unwrap_or_default(),
            identity_provider_groups: self.provider_groups.get(name).cloned().unwrap_or_default(),
            access_entitlements: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use schema::kind::auth_group::entitlements::ENTITY_TYPES;

    use super::*;

    #[test]
    fn names_are_refused_in_lxds_words() {
        for (name, why) in [
            ("", "Group name cannot be empty"),
            ("a/b", "Group name cannot contain a forward slash"),
            ("a:b", "Group name cannot contain a colon"),
        ] {
            assert_eq!(new_name(name).unwrap_err().message, why);
        }
        let token = "x".repeat(400);
        let refused = new_name(&token).unwrap_err().message;
        assert!(refused.starts_with("Invalid group name: ") && !refused.contains("xxx"), "{refused}");
    }

    fn permission() -> impl Strategy<Value = Permission> {
        (0..ENTITY_TYPES.len(), 0..64usize, "[a-z]{1,3}").prop_map(|(kind, word, name)| {
            let known = &ENTITY_TYPES[kind];
            let word = known.words().nth(word % known.entitlements.len()).unwrap();
            let named = Named {
                entity_type: known.name,
                entity: Some(name),
                project: Some("default".to_owned()),
                pool: Some("default".to_owned()),
            };
            Permission { entity_type: known.name.to_owned(), url: named.url(), entitlement: word.to_owned() }
        })
    }

    proptest! {
        #[test]
        fn a_merge_loses_no_permission(
            had in proptest::collection::vec(permission(), 0..6),
            added in proptest::collection::vec(permission(), 0..6),
        ) {
            let granted = had
                .iter()
                .map(|had| Named::from_url(&had.url).unwrap().permission(&had.entitlement))
                .collect::<BTreeSet<_>>();
            let record = Record { description: String::new(), permissions: granted.into_iter().collect() };
            let wanted = AuthGroupPut { description: None, permissions: Some(added.clone()) };
            let merged = merged(&record, &wanted);
            for permission in had.iter().chain(&added) {
                prop_assert!(merged.contains(permission), "{permission:?}");
            }
            prop_assert!(merged.len() <= had.len() + added.len());
        }
    }
}
