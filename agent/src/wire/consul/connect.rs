//! The mesh CA, and whether a caller may connect, as Consul's API shows them.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Answer of `GET /v1/connect/ca/roots`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CaRoots {
    #[serde(rename = "ActiveRootID")]
    pub active_root_id: String,
    pub trust_domain: String,
    pub roots: Vec<CaRoot>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CaRoot {
    #[serde(rename = "ID")]
    pub id: String,
    pub name: String,
    pub serial_number: u64,
    #[serde(rename = "SigningKeyID")]
    pub signing_key_id: String,
    pub external_trust_domain: String,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub root_cert: String,
    pub intermediate_certs: Option<Vec<String>>,
    pub active: bool,
    pub private_key_type: String,
    pub private_key_bits: u32,
    pub create_index: u64,
    pub modify_index: u64,
}

/// A service's certificate, with its key where that was made along with it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Leaf {
    pub serial_number: String,
    #[serde(rename = "CertPEM")]
    pub cert_pem: String,
    #[serde(default, rename = "PrivateKeyPEM", skip_serializing_if = "String::is_empty")]
    pub private_key_pem: String,
    pub service: String,
    #[serde(rename = "ServiceURI")]
    pub service_uri: String,
    pub valid_after: Timestamp,
    pub valid_before: Timestamp,
    pub create_index: u64,
    pub modify_index: u64,
}

/// Without the key, which a debug line must not show.
impl fmt::Debug for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaf").field("service_uri", &self.service_uri).finish_non_exhaustive()
    }
}

/// Answer of `GET /v1/connect/ca/configuration`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CaConfiguration {
    pub provider: String,
    pub config: CaProvider,
    pub state: Option<()>,
    pub create_index: u64,
    pub modify_index: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CaProvider {
    #[serde(rename = "LeafCertTTL")]
    pub leaf_cert_ttl: String,
    #[serde(rename = "RootCertTTL")]
    pub root_cert_ttl: String,
    pub private_key_type: String,
    pub private_key_bits: u32,
}

/// Body of `POST /v1/agent/connect/authorize`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Authorize {
    pub target: String,
    #[serde(rename = "ClientCertURI")]
    pub client_cert_uri: String,
    /// Not looked at: nothing is revoked, since leaves live for three days.
    pub client_cert_serial: String,
}

/// Its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Authorized {
    pub authorized: bool,
    pub reason: String,
}
