//! `/1.0/auth`: groups, permissions, and what an identity provider's groups are worth.

use axum::Router;
use http::StatusCode;
use schema::name::GroupName;
use serde::Deserialize;

use super::answer::LxdError;
use super::recursion::Recursion;
use crate::api::ApiState;
use crate::authorize::{Entitlement, Entity};
use crate::trust::{Access, Caller, Who};

mod existing;
mod group;
mod identity;
mod oidc_session;
mod permission;
mod proposed;
mod provider_group;

pub fn router() -> Router<ApiState> {
    Router::new()
        .merge(group::router())
        .merge(identity::router())
        .merge(oidc_session::router())
        .merge(permission::router())
        .merge(provider_group::router())
}

/// What lists and entries are asked with.
#[derive(Debug, Default, Deserialize)]
pub struct Asked {
    #[serde(default)]
    recursion: Recursion,
    /// Entitlements of which the caller wants to know whether it has them (LXD: access entitlements).
    #[serde(default, rename = "with-access-entitlements")]
    with_access_entitlements: Option<String>,
}

/// Groups by the names that a body gives, if there are such.
pub fn existing_groups(state: &ApiState, names: &[String]) -> Result<Vec<GroupName>, LxdError> {
    let policy = state.identities.policy();
    groups_named(names, |group| policy.contains(group))
}

/// Groups by the names that a body gives, sorted, if each of them is one of those that `are_there`.
pub fn groups_named(
    names: &[String],
    are_there: impl Fn(&GroupName) -> bool,
) -> Result<Vec<GroupName>, LxdError> {
    let (mut known, mut missing) = (Vec::new(), Vec::new());
    for name in names {
        match name.parse::<GroupName>() {
            Ok(group) if are_there(&group) => known.push(group),
            _ => missing.push(schema::diagnostic::secret::quoted(name)),
        }
    }
    if !missing.is_empty() {
        let message = format!("One or more groups were not found: {}", missing.join(", "));
        return Err(LxdError::new(StatusCode::NOT_FOUND, message));
    }
    known.sort_unstable();
    known.dedup();
    Ok(known)
}

impl Asked {
    /// Whether whole entries are wanted instead of their places.
    pub fn whole(&self) -> bool {
        self.recursion.whole()
    }

    /// Which entitlements on a `entity_type` are asked about, if any are. Who holds every right is refused, as LXD does.
    pub fn entitlements(
        &self,
        caller: &Caller,
        entity_type: &'static str,
    ) -> Result<Option<Vec<Entitlement>>, LxdError> {
        let Some(words) = &self.with_access_entitlements else { return Ok(None) };
        let grained = matches!(&caller.who, Who::Client { access: Access::Groups(_), .. } | Who::Peer { .. });
        if !grained {
            return Err(LxdError::bad_request(
                "Cannot report entitlements for identities that do not use fine-grained authorization",
            ));
        }
        let known = |word: &str| {
            let there = schema::kind::auth_group::entitlements::is_known(entity_type, word);
            Entitlement::from_word(word).filter(|_| there).ok_or_else(|| {
                LxdError::bad_request(format!("Entitlement not valid for entity type {entity_type:?}"))
            })
        };
        words.split(',').filter(|word| !word.is_empty()).map(known).collect::<Result<_, _>>().map(Some)
    }
}

/// Those of `asked` that the caller has on `entity`.
pub fn held(
    state: &ApiState,
    caller: &Caller,
    asked: Option<&[Entitlement]>,
    entity: &Entity,
) -> Option<Vec<String>> {
    let held = asked?.iter().filter(|asked| state.permit(caller, **asked, entity.clone()).is_ok());
    Some(held.map(|entitlement| entitlement.as_str().to_owned()).collect())
}
