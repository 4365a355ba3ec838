//! One intention as `/v1/connect/intentions` gives it, and what it may permit.

use std::collections::BTreeMap;

use schema::access::precedence;
use schema::kind::entry::Entry as Rest;
use schema::kind::service_intentions::permission as kept;
use schema::kind::service_intentions::{Action, IntentionSource};
use schema::record::RecordKey;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::config::{action_of, named};

/// A source and its destination.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Intention {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    #[serde(rename = "SourceNS")]
    pub source_ns: String,
    pub source_name: String,
    #[serde(rename = "DestinationNS")]
    pub destination_ns: String,
    pub destination_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source_peer: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source_sameness_group: String,
    pub source_type: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub action: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub permissions: Vec<Permission>,
    #[serde(rename = "JWT", skip_serializing_if = "Option::is_none")]
    pub jwt: Option<Jwt>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
    pub precedence: u8,
    pub create_index: u64,
    pub modify_index: u64,
}

/// The id of an intention, made of its key: the same wherever and however it was written, and again after it was gone.
pub fn id(key: &RecordKey) -> Uuid {
    let digest = blake3::hash(format!("intention {key}").as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.as_bytes()[..16]);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

impl Intention {
    /// The intention under `key`; `None` if that names none. `rest` is what its entry has besides.
    pub fn of(
        key: &RecordKey,
        rule: &IntentionSource,
        rest: Option<&Rest>,
        created: u64,
        modified: u64,
    ) -> Option<Self> {
        let RecordKey::Intention { destination, origin, source } = key else { return None };
        let (source_peer, source_sameness_group) = named(origin);
        Some(Self {
            id: id(key).to_string(),
            description: rule.description.clone(),
            source_ns: "default".to_owned(),
            source_name: source.to_string(),
            destination_ns: "default".to_owned(),
            destination_name: destination.to_string(),
            source_peer,
            source_sameness_group,
            source_type: "consul".to_owned(),
            action: action_of(rule).to_owned(),
            permissions: rule.permissions.iter().map(Permission::from).collect(),
            jwt: rest.map(|rest| &rest.jwt).filter(|jwt| !jwt.is_empty()).map(Jwt::from),
            meta: rest.map(|rest| rest.meta.clone()).unwrap_or_default(),
            precedence: precedence(destination, source),
            create_index: created,
            modify_index: modified,
        })
    }
}

/// What may be asked over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Permission {
    pub action: String,
    #[serde(rename = "HTTP")]
    pub http: HttpMatch,
    #[serde(rename = "JWT", skip_serializing_if = "Option::is_none")]
    pub jwt: Option<Jwt>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HttpMatch {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path_exact: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path_prefix: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path_regex: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub header: Vec<HeaderMatch>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HeaderMatch {
    pub name: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub present: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub exact: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub suffix: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub contains: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub regex: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub invert: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ignore_case: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Jwt {
    pub providers: Vec<JwtProvider>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct JwtProvider {
    pub name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub verify_claims: Vec<Claim>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Claim {
    pub path: Vec<String>,
    pub value: String,
}

impl From<&kept::Permission> for Permission {
    fn from(kept: &kept::Permission) -> Self {
        let kept::Permission { action, http, jwt } = kept;
        let header = http.header.iter().cloned().map(|header| {
            let kept::HeaderMatch {
                name,
                present,
                exact,
                prefix,
                suffix,
                contains,
                regex,
                invert,
                ignore_case,
            } = header;
            HeaderMatch { name, present, exact, prefix, suffix, contains, regex, invert, ignore_case }
        });
        Self {
            action: match action {
                Action::Allow => "allow".to_owned(),
                Action::Deny => "deny".to_owned(),
            },
            http: HttpMatch {
                path_exact: http.path_exact.clone(),
                path_prefix: http.path_prefix.clone(),
                path_regex: http.path_regex.clone(),
                header: header.collect(),
                methods: http.methods.clone(),
            },
            jwt: (!jwt.is_empty()).then(|| jwt.into()),
        }
    }
}

impl From<&kept::Jwt> for Jwt {
    fn from(kept: &kept::Jwt) -> Self {
        let claim = |claim: &kept::Claim| Claim { path: claim.path.clone(), value: claim.value.clone() };
        let provider = |provider: &kept::JwtProvider| JwtProvider {
            name: provider.name.clone(),
            verify_claims: provider.verify_claims.iter().map(claim).collect(),
        };
        Self { providers: kept.providers.iter().map(provider).collect() }
    }
}
