//! `auth_group "NAME" {}`: a set of permissions that identities and links are put into (LXD: auth group).

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::fields::{Fields, Place, Text};
use super::{Declaration, Decoded, Kind};
use crate::diagnostic::nearest::suggestion;
use crate::diagnostic::{Diagnostic, Faults};
use crate::name::GroupName;
use crate::record::{Record, RecordKey};

pub mod entitlements;

use entitlements::{ADMINS, DERIVED, ENTITY_TYPES, EntityType, NOT_HERE, needs};

/// A group of permissions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct AuthGroup {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Sorted, without duplicates.
    #[serde(default)]
    pub permissions: Vec<Permission>,
}

/// What becomes of a permission when what it names is renamed or goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is about something else.
    Stays,
    /// It was rewritten.
    Moves,
    Goes,
}

impl AuthGroup {
    /// Has `judge` look at each permission, and rewrite it where that is its fate. True if any has changed.
    pub fn rewrite(&mut self, mut judge: impl FnMut(&mut Permission) -> Fate) -> bool {
        let mut changed = false;
        self.permissions.retain_mut(|permission| {
            let fate = judge(permission);
            changed |= fate != Fate::Stays;
            fate != Fate::Goes
        });
        if changed {
            self.permissions.sort();
            self.permissions.dedup();
        }
        changed
    }
}

/// One right: an entitlement on an entity (LXD: permission). Types and entitlements are LXD's table, checked on decode.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Permission {
    pub entity_type: String,
    pub entitlement: String,
    /// The entity's name, for types that have several (`instance`, `cluster_link`, …).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entity: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
}

/// What the group that is always there may do (LXD): everything.
pub static ADMINS_PERMISSIONS: LazyLock<Vec<Permission>> = LazyLock::new(|| {
    vec![Permission {
        entity_type: "server".to_owned(),
        entitlement: "admin".to_owned(),
        entity: None,
        project: None,
        pool: None,
    }]
});

/// Decodes one block.
pub fn decode(declaration: &Declaration<'_>, faults: &mut Faults) -> Decoded {
    let root = Place::Root(declaration.form);
    let mut decoded = Decoded::default();
    let name = declaration.parse_name::<GroupName>(Kind::AuthGroup, faults);
    let mut fields = declaration.fields(&root, faults);
    let description = fields.string("description");
    let mut permissions = Vec::new();
    for (index, table, span) in fields.tables("permissions") {
        let place = Place::Item(&root, "permissions", index);
        permissions.extend(decode_permission(Fields::new(table, span, place, &mut *fields.faults)));
    }
    fields.finish();
    permissions.sort();
    permissions.dedup();
    if let Some(name) = name {
        if name.as_str() == ADMINS {
            faults.error("built-in", format!("auth group \"{ADMINS}\" is built in"), declaration.name.span);
            return decoded;
        }
        let group = AuthGroup { description, permissions };
        decoded.record(RecordKey::AuthGroup(name), Record::AuthGroup(group), declaration.header);
    }
    decoded
}

fn decode_permission(mut fields: Fields<'_, '_>) -> Option<Permission> {
    let entity_type = fields.required_text("entity_type");
    let entitlement = fields.required_text("entitlement");
    let known = entity_type.and_then(|entity_type| entitlements_of(&mut fields, entity_type));
    if let (Some(entity_type), Some(known), Some(entitlement)) = (entity_type, known, entitlement)
        && known.entitlement(entitlement.text).is_none()
    {
        let near = suggestion(entitlement.text, known.words());
        let at = fields.faults.at(entitlement.span);
        let list = known.words().collect::<Vec<_>>().join(", ");
        fields.faults.push(
            Diagnostic::error(
                "unknown-entitlement",
                format!("entity type \"{}\" has no entitlement {entitlement}{near}", entity_type.text),
                Some(at),
            )
            .detail(if known.entitlements.len() <= 12 {
                format!("It has {list}.")
            } else {
                String::new()
            }),
        );
    }
    let [entity, project, pool] =
        ["entity", "project", "pool"].map(|name| fields.text(name).filter(|text| !text.text.is_empty()));
    if let (Some(entity_type), Some(_)) = (entity_type, known) {
        let needs = needs(entity_type.text);
        for (name, needed, given) in [
            ("entity", needs.entity, entity),
            ("project", needs.project, project),
            ("pool", needs.pool, pool),
        ] {
            match given {
                None if needed => {
                    let summary = format!(
                        "a permission on entity type \"{}\" needs {}",
                        entity_type.text,
                        fields.place.field(name)
                    );
                    fields.fault("missing-key", summary, entity_type.span);
                }
                Some(text) if !needed => {
                    let summary =
                        format!("a permission on entity type \"{}\" takes no {name}", entity_type.text);
                    fields.fault("bad-value", summary, text.span);
                }
                _ => {}
            }
        }
    }
    fields.finish();
    let owned = |text: Option<Text<'_>>| text.map(|text| text.text.to_owned());
    Some(Permission {
        entity_type: entity_type?.text.to_owned(),
        entitlement: entitlement?.text.to_owned(),
        entity: owned(entity),
        project: owned(project),
        pool: owned(pool),
    })
}

/// The entitlements of a type, or a fault that says which types there are.
fn entitlements_of(fields: &mut Fields<'_, '_>, entity_type: Text<'_>) -> Option<&'static EntityType> {
    if let Some(known) = entitlements::entity_type(entity_type.text) {
        return Some(known);
    }
    let at = fields.faults.at(entity_type.span);
    let types: Vec<&str> = ENTITY_TYPES.iter().map(|known| known.name).collect();
    let summary = if NOT_HERE.contains(&entity_type.text) {
        format!("there are no entities of type {entity_type} here")
    } else if DERIVED.contains(&entity_type.text) {
        format!("nothing can be granted on entities of type {entity_type}; grant it on what they belong to")
    } else {
        format!(
            "there is no entity type {entity_type}{}",
            suggestion(entity_type.text, types.iter().copied())
        )
    };
    fields.faults.push(
        Diagnostic::error("unknown-entity-type", summary, Some(at))
            .detail(format!("It is one of {}.", types.join(", "))),
    );
    None
}
