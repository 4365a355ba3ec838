//! `cluster_link "NAME" {}`: the trust between this cluster and another (LXD: cluster link, Consul: peering).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::fields::{Fields, Place};
use super::{Declaration, Decoded, Kind, meta};
use crate::diagnostic::secret::quoted;
use crate::diagnostic::{Diagnostic, Faults, Severity};
use crate::name::{GroupName, LinkName, RemoteName};
use crate::record::{Record, RecordKey};

pub mod address;

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
    /// Free keys, each beginning with [`USER_KEY`] (LXD: `config`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<String, String>,
    /// Where a public link leads, `HOST:PORT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The certificate that a public link pins: SHA-256, 64 lower-case hexadecimal digits. `None` while one that was
    /// made by hand waits to be confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
}

/// What the keys of a link's `config` that users may set begin with.
pub const USER_KEY: &str = "user.";

impl ClusterLink {
    /// Whether this is the side of a one-way link that is called: what it grants, the other side may do here. The
    /// calling side grants nothing.
    pub fn is_called(&self) -> bool {
        self.kind == LinkType::Unidirectional && !self.auth_groups.is_empty()
    }
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
    let config = user_config(&mut fields);
    let (address, fingerprint) = (address(&mut fields), fingerprint(&mut fields));
    match kind {
        LinkType::Public => {
            if !auth_groups.is_empty() || token.is_some() {
                let summary = "a public link has no auth_groups and takes no token";
                fields.fault("bad-value", summary, declaration.header);
            }
            for name in ["address", "fingerprint"] {
                if fields.span(name).is_none() {
                    fields.missing_with(name, format!("a public link needs its peer's {name}"));
                }
            }
        }
        LinkType::Unidirectional if token.is_some() && !auth_groups.is_empty() => {
            let at = fields.faults.at(fields.span("auth_groups").unwrap_or(declaration.header));
            fields.faults.push(
                Diagnostic::error(
                    "bad-value",
                    "the side of a unidirectional link that takes a token has no auth_groups",
                    Some(at),
                )
                .detail(
                    "It only calls; what it may do is said on the other side, which has auth_groups and makes the token.",
                ),
            );
        }
        LinkType::Bidirectional | LinkType::Unidirectional => {}
    }
    if kind != LinkType::Public {
        for name in ["address", "fingerprint"] {
            if let Some(span) = fields.span(name) {
                let summary = format!("{name} is for public links; of others the trust token tells it");
                fields.fault("bad-value", summary, span);
            }
        }
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
        let link = ClusterLink { kind, cluster, auth_groups, description, config, address, fingerprint };
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

fn user_config(fields: &mut Fields<'_, '_>) -> BTreeMap<String, String> {
    let config = meta::decode(fields, "config");
    let Some(span) = fields.span("config") else { return config };
    for key in config.keys().filter(|key| !key.starts_with(USER_KEY)) {
        let summary = format!("invalid configuration key {}: a link's begin with {USER_KEY:?}", quoted(key));
        fields.fault("bad-value", summary, span);
    }
    config
}

fn address(fields: &mut Fields<'_, '_>) -> Option<String> {
    let text = fields.text("address")?;
    match address::complete(text.text) {
        Ok(address) => Some(address),
        Err(error) => {
            fields.fault("bad-value", format!("address is not one: {error}"), text.span);
            None
        }
    }
}

fn fingerprint(fields: &mut Fields<'_, '_>) -> Option<String> {
    let text = fields.text("fingerprint")?;
    let good = text.text.len() == 64 && text.text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !good {
        let summary = "fingerprint is the SHA-256 of a certificate: 64 hexadecimal digits";
        fields.fault("bad-value", summary, text.span);
        return None;
    }
    Some(text.text.to_ascii_lowercase())
}
