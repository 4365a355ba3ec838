//! The permissions that a body proposes for a group: each is checked as LXD checks it, then stands as records hold it.

use schema::diagnostic::nearest::nearest;
use schema::diagnostic::secret::without_tokens;
use schema::kind::auth_group::Permission as Granted;
use schema::kind::auth_group::entitlements::{DERIVED, ENTITY_TYPES, NOT_HERE, entity_type};
use schema::name::GroupName;

use super::existing::exists;
use crate::api::ApiState;
use crate::api::lxd::answer::LxdError;
use crate::authorize::{Entitlement, Entity, decide};
use crate::trust::policy::Policy;
use crate::trust::{Access, Caller, Groups, Who};
use crate::wire::lxd::auth::Permission;
use crate::wire::lxd::entity_url::Named;

/// Most permissions of one group.
const MAX_PERMISSIONS: usize = 10_000;

/// What `proposed` grants, sorted and without duplicates. What the group has (`had`) need not exist any more, so that a
/// group can be sent back as it was shown.
pub async fn checked(
    state: &ApiState,
    proposed: &[Permission],
    had: &[Granted],
) -> Result<Vec<Granted>, LxdError> {
    if proposed.len() > MAX_PERMISSIONS {
        let message = format!("A group can have at most {MAX_PERMISSIONS} permissions");
        return Err(LxdError::bad_request(message));
    }
    let mut granted = proposed.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    for permission in granted.iter_mut().filter(|permission| permission.entity_type == "identity") {
        if let Some(entity) = permission.entity.take() {
            permission.entity = Some(identified(state, entity).await?);
        }
    }
    granted.sort();
    granted.dedup();
    for permission in granted.iter().filter(|permission| !had.contains(permission)) {
        let there = match Entity::meant_by(permission) {
            Some(entity) => exists(state, &entity).await?,
            None => false,
        };
        if !there {
            let url = Named::of(permission).map(|named| named.url()).unwrap_or_default();
            let kind = &permission.entity_type;
            return Err(LxdError::bad_request(format!(
                "Could not resolve permission URLs: no entity of type {kind:?} at {:?}",
                without_tokens(&url)
            )));
        }
    }
    if let Some(unseen) = granted.iter().find(|permission| !sees_project_of(permission, &granted)) {
        return Err(LxdError::bad_request(format!(
            "Entitlement {:?} on entity type {:?} references project {:?}, but the project cannot be viewed by the \
             group",
            unseen.entitlement,
            unseen.entity_type,
            unseen.project.as_deref().unwrap_or_default()
        )));
    }
    Ok(granted)
}

/// `METHOD/ID` for `METHOD/NAME`, where exactly one identity has the name: permissions are on identities, not on names.
async fn identified(state: &ApiState, entity: String) -> Result<String, LxdError> {
    let Some((method, name)) = entity.split_once('/') else { return Ok(entity) };
    if name.parse::<crate::trust::IdentityId>().is_ok() {
        return Ok(entity);
    }
    let all = super::identity::known::every(state).await?;
    let mut found =
        all.iter().filter(|known| known.goes_by_name() && known.name() == name && known.method() == method);
    Ok(match (found.next(), found.next()) {
        (Some(known), None) => format!("{method}/{}", known.identifier()),
        _ => entity,
    })
}

fn read(permission: &Permission) -> Result<Granted, LxdError> {
    let Permission { entity_type: kind, url, entitlement } = permission;
    let (url, entitlement) = (without_tokens(url), entitlement.as_str());
    let wrong = |what: &str, why: String| {
        LxdError::bad_request(format!(
            "Failed to {what} with entity reference {url:?} and entitlement {:?}: {why}",
            without_tokens(entitlement)
        ))
    };
    let Some(known) = entity_type(kind) else {
        return Err(wrong(
            "validate group permission",
            if DERIVED.contains(&kind.as_str()) {
                format!("No entitlements can be granted against entities of type {kind:?}")
            } else if NOT_HERE.contains(&kind.as_str()) {
                format!("There are no entities of type {kind:?} here")
            } else {
                let near = meant(kind, ENTITY_TYPES.iter().map(|known| known.name));
                format!("Unknown entity type {:?}{near}", without_tokens(kind))
            },
        ));
    };
    let named =
        Named::from_url(&permission.url).map_err(|error| wrong("parse permission", error.to_string()))?;
    if named.entity_type != known.name {
        let why = "Entity type does not correspond to entity reference".to_owned();
        return Err(wrong("parse permission", why));
    }
    if known.entitlement(entitlement).is_none() {
        let near = meant(entitlement, known.words());
        let given = without_tokens(entitlement);
        let why = format!("Entitlement {given:?} not valid for entity type {kind:?}{near}");
        return Err(wrong("validate group permission", why));
    }
    Ok(named.permission(entitlement))
}

/// After LXD's words, what was likely meant.
fn meant<'c>(given: &str, known: impl IntoIterator<Item = &'c str>) -> String {
    nearest(given, known).map(|near| format!(", did you mean {near:?}?")).unwrap_or_default()
}

/// Whether a group with `granted` can view the project that the permission's entity is in.
fn sees_project_of(permission: &Granted, granted: &[Granted]) -> bool {
    let Some(project) = permission.project.as_deref() else { return true };
    let Ok(project) = project.parse() else { return false };
    // Any name but the built-in one's will do.
    let Ok(group) = "proposed".parse::<GroupName>() else { return false };
    let mut policy = Policy::default();
    policy.put(group.clone(), granted.to_vec());
    let access = Access::Groups(Groups::from(vec![group]));
    let id = crate::trust::IdentityId::Token(uuid::Uuid::nil());
    let member: Caller = Who::Client { id, name: "proposed".to_owned(), access }.into();
    decide(&member, Entitlement::CanView, Entity::Project(project), &policy).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permission(kind: &str, url: &str, entitlement: &str) -> Permission {
        Permission { entity_type: kind.to_owned(), url: url.to_owned(), entitlement: entitlement.to_owned() }
    }

    #[test]
    fn faults_are_worded_as_lxd_words_them() {
        let reference = |what, url, word| {
            format!("Failed to {what} with entity reference {url:?} and entitlement {word:?}: ")
        };
        let invalid = "validate group permission";
        for (kind, url, word, what, why) in [
            ("not_an_entity_type", "/1.0", "admin", invalid, "Unknown entity type \"not_an_entity_type\""),
            (
                "container",
                "/1.0/instances/c1",
                "can_view",
                invalid,
                "No entitlements can be granted against entities of type \"container\"",
            ),
            (
                "projct",
                "/1.0/projects/default",
                "can_view",
                invalid,
                "Unknown entity type \"projct\", did you mean \"project\"?",
            ),
            (
                "project",
                "/1.0/projects/default",
                "can_viw",
                invalid,
                "Entitlement \"can_viw\" not valid for entity type \"project\", did you mean \"can_view\"?",
            ),
            ("image", "/1.0/images/x", "can_view", invalid, "There are no entities of type \"image\" here"),
            (
                "project",
                "/1.0",
                "can_view",
                "parse permission",
                "Entity type does not correspond to entity reference",
            ),
            (
                "group",
                "/1.0/nonsense",
                "can_view",
                "parse permission",
                "Not the URL of an entity that permissions can be granted on",
            ),
            (
                "project",
                "/1.0/projects/default",
                "not_a_project_entitlement",
                invalid,
                "Entitlement \"not_a_project_entitlement\" not valid for entity type \"project\"",
            ),
        ] {
            let refused = read(&permission(kind, url, word)).unwrap_err();
            assert_eq!(refused.message, reference(what, url, word) + why);
        }
    }

    #[test]
    fn a_project_is_seen_by_what_is_proposed_with_it() {
        let sees = |with: &[(&str, &str, &str)]| {
            let volume = permission(
                "storage_volume",
                "/1.0/storage-pools/p/volumes/custom/v?project=default",
                "can_manage_backups",
            );
            let volume = read(&volume).unwrap();
            let mut all = vec![volume.clone()];
            all.extend(with.iter().map(|(kind, url, word)| read(&permission(kind, url, word)).unwrap()));
            sees_project_of(&volume, &all)
        };
        assert!(!sees(&[]));
        assert!(!sees(&[("project", "/1.0/projects/other", "viewer")]));
        assert!(!sees(&[("project", "/1.0/projects/default", "can_view_storage_volumes")]));
        for word in ["viewer", "operator", "can_view"] {
            assert!(sees(&[("project", "/1.0/projects/default", word)]), "{word}");
        }
        for word in ["viewer", "admin", "project_manager", "can_view_projects"] {
            assert!(sees(&[("server", "/1.0", word)]), "{word}");
        }
    }
}
