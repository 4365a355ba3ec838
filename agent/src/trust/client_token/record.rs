//! What the store holds of a token: never its secret.

use jiff::Timestamp;
use schema::name::LinkName;
use schema::record::RecordKey;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::super::{Access, Fingerprint};
use crate::store::{Guard, Op, Revision, keys};
use crate::wire::token::{SecretDigest, TYPE_CLUSTER_LINK, TYPE_IDENTITY};

/// What a token makes of its redeemer, and so where it is redeemed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// An entry of the trust store, at `/1.0/certificates`.
    #[default]
    Certificate,
    /// A TLS identity with groups, at `/1.0/auth/identities/tls`; until then a pending one.
    Identity,
    /// The identity of a cluster that links to this one unidirectionally, at the same place.
    ClusterLink { name: LinkName },
}

impl Purpose {
    /// LXD's `type` in the token's text.
    pub fn token_type(&self) -> &'static str {
        match self {
            Purpose::Certificate => "",
            Purpose::Identity => TYPE_IDENTITY,
            Purpose::ClusterLink { .. } => TYPE_CLUSTER_LINK,
        }
    }

    /// What must hold in a commit that makes such a token or its identity: no declared link has the name.
    pub(super) fn vacancy(&self) -> Option<Guard> {
        match self {
            Purpose::ClusterLink { name } => {
                let key = keys::declared(&RecordKey::ClusterLink(name.clone()));
                Some(Guard { key, modify_revision: Revision(0) })
            }
            Purpose::Certificate | Purpose::Identity => None,
        }
    }

    /// Whether an unredeemed token of this kind is a pending identity.
    pub fn is_identity(&self) -> bool {
        *self != Purpose::Certificate
    }
}

/// What `/token/ID` holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct TokenRecord {
    pub name: String,
    #[serde(default)]
    pub purpose: Purpose,
    pub access: Access,
    pub digest: SecretDigest,
    pub created_by: String,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_by: Option<Fingerprint>,
    /// Used up without making anybody trusted: its bearer was so already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub spent: bool,
}

/// What `/token-digest/DIGEST` holds: which token it is the digest of.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct TokenOf {
    pub id: Uuid,
}

/// A token that can still be redeemed, as lists show it. With an identity's purpose it is a pending identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenReport {
    pub id: Uuid,
    pub name: String,
    pub purpose: Purpose,
    pub access: Access,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
}

impl TokenRecord {
    pub fn is_pending(&self, now: Timestamp) -> bool {
        self.used_by.is_none() && self.expires_at > now
    }

    pub fn report(self, id: Uuid) -> TokenReport {
        let TokenRecord { name, purpose, access, created_at, expires_at, .. } = self;
        TokenReport { id, name, purpose, access, created_at, expires_at }
    }

    /// Takes the token away, and the way to find it.
    pub fn delete(&self, key: String) -> [Op; 2] {
        [Op::Delete { key }, Op::Delete { key: keys::token_digest(self.digest.as_str()) }]
    }
}
