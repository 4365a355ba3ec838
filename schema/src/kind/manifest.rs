//! `manifest "NAME" {}`: the owner of what a folder declares, and the remote it is applied to.

use serde::{Deserialize, Serialize};

use super::fields::{Place, Text};
use super::{Declaration, Decoded, Kind};
use crate::diagnostic::{Faults, Severity};
use crate::name::{GroupName, RemoteName};
use crate::record::RecordKey;

/// A manifest as declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Manifest {
    /// The remote to apply to; `None` means the default remote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<RemoteName>,
    /// Groups whose members may apply it, besides the identity that first did. Sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owners: Vec<GroupName>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// Decodes one block.
pub fn decode(declaration: &Declaration<'_>, faults: &mut Faults) -> Decoded {
    let root = Place::Root(declaration.form);
    let mut decoded = Decoded::default();
    let name = declaration.parse_name(Kind::Manifest, faults);
    let mut fields = declaration.fields(&root, faults);
    let cluster = fields.name("cluster");
    let owners: Vec<Text<'_>> = fields.texts("owners");
    let mut groups: Vec<GroupName> = Vec::new();
    for text in owners {
        let Some(group) = fields.parse_name::<GroupName>("owners", text) else { continue };
        decoded.mention(None, RecordKey::AuthGroup(group.clone()), text.span, Severity::Error);
        groups.push(group);
    }
    groups.sort();
    groups.dedup();
    let manifest = Manifest { cluster, owners: groups, description: fields.string("description") };
    fields.finish();
    decoded.manifest = name.map(|name| (name, manifest));
    decoded
}
