//! `cluster_link "NAME" {}`: the trust between this cluster and another (LXD: cluster link, Consul: peering).

use serde::{Deserialize, Serialize};

use super::fields::{Fields, Place};
use super::{Declaration, Decoded, Kind};
use crate::diagnostic::{Diagnostic, Faults, Severity};
use crate::name::{GroupName, LinkName, RemoteName};
use crate::record::{Record, RecordKey};

/// One side's half of a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct ClusterLink {
    #[serde(default, rename = "type")]
    pub kind: LinkType,
    /// The remote that the peer's manifest names as its cluster, where that is not the link's own name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<RemoteName>,
    /// What the peer may do here. Sorted, without duplicates.
    #[serde(default)]
    pub auth_groups: Vec<GroupName>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// Who may call whom (LXD's three types).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum LinkType {
    #[default]
    Bidirectional,
    Unidirectional,
    Public,
}

/// Where a declared link takes its trust token from, when the other side is applied elsewhere. Never stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// A path, beneath the declaring file's folder.
    File(String),
    /// An environment variable of the command.
    Environment(String),
}

const TYPES: [(&str, LinkType); 3] = [
    ("bidirectional", LinkType::Bidirectional),
    ("unidirectional", LinkType::Unidirectional),
    ("public", LinkType::Public),
];

/// Decodes one block.
pub fn decode(declaration: &Declaration<'_>, faults: &mut Faults) -> Decoded {
    let root = Place::Root(declaration.form);
    let mut decoded = Decoded::default();
    let name: Option<LinkName> = declaration.parse_name(Kind::ClusterLink, faults);
    let mut fields = declaration.fields(&root, faults);
    let kind = fields.word("type", &TYPES).unwrap_or_default();
    let cluster = fields.name::<RemoteName>("cluster");
    let mut auth_groups: Vec<GroupName> = Vec::new();
    for text in fields.texts("auth_groups") {
        let Some(group) = fields.parse_name::<GroupName>("auth_groups", text) else { continue };
        if let Some(name) = &name {
            let from = Some(RecordKey::ClusterLink(name.clone()));
            decoded.mention(from, RecordKey::AuthGroup(group.clone()), text.span, Severity::Error);
        }
        auth_groups.push(group);
    }
    auth_groups.sort();
    auth_groups.dedup();
    let token = token_source(&mut fields);
    let description = fields.string("description");
    if kind == LinkType::Public && (!auth_groups.is_empty() || token.is_some()) {
        let summary = "a public link has no auth_groups and takes no token";
        fields.fault("bad-value", summary, declaration.header);
    }
    // Refused here, before anything is committed: their token exchange is not made yet, and half a link helps nobody.
    if kind != LinkType::Bidirectional {
        let summary = "only bidirectional links can be made yet";
        fields.fault("not-yet", summary, declaration.header);
    }
    fields.finish_with(|key| {
        (key == "token" || key == "trust_token").then_some(
            "A token must not stand in a declaration. Put it in a file of its own and name that as token_file, or in \
             the environment and name the variable as token_env.",
        )
    });
    if let Some(name) = name {
        // Naming the cluster that the link's name stands for anyway means the same as not naming it.
        let cluster = cluster.filter(|cluster| cluster.as_str() != name.as_str());
        decoded.token_source = token.map(|token| (name.clone(), token));
        let link = ClusterLink { kind, cluster, auth_groups, description };
        decoded.record(RecordKey::ClusterLink(name), Record::ClusterLink(link), declaration.header);
    }
    decoded
}

fn token_source(fields: &mut Fields<'_, '_>) -> Option<TokenSource> {
    let file = fields.text("token_file");
    let variable = fields.text("token_env");
    if let (Some(_), Some(variable)) = (file, variable) {
        let summary = "token_file and token_env are both given; a link takes one token";
        fields.fault("bad-value", summary, variable.span);
        return None;
    }
    for (name, text) in [("token_file", file), ("token_env", variable)] {
        let Some(text) = text.filter(|text| crate::diagnostic::secret::looks_secret(text.text)) else {
            continue;
        };
        let at = fields.faults.at(text.span);
        fields.faults.push(
            Diagnostic::error("bad-value", format!("{name} looks like a token itself"), Some(at))
                .detail("It names where the token is. The token is not shown here.")
                .hiding_source(),
        );
        return None;
    }
    file.map(|file| TokenSource::File(file.text.to_owned()))
        .or_else(|| variable.map(|variable| TokenSource::Environment(variable.text.to_owned())))
}
