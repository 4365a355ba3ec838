//! `GET /1.0`: what the server is, and whether it knows the caller.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The whole answer. An untrusted caller gets it without the environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerInfo {
    /// Null for who may not edit the server; lxc reads null as empty.
    #[serde(default)]
    pub config: Option<Map<String, Value>>,
    pub api_extensions: Vec<String>,
    pub api_status: String,
    pub api_version: String,
    /// `trusted` or `untrusted`.
    pub auth: String,
    pub public: bool,
    pub auth_methods: Vec<String>,
    /// Whether the caller showed a certificate.
    #[serde(default)]
    pub client_certificate: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_user_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_user_method: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<Environment>,
}

/// Where the server runs and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    pub addresses: Vec<String>,
    pub architectures: Vec<String>,
    /// PEM.
    pub certificate: String,
    pub certificate_fingerprint: String,
    pub driver: String,
    pub driver_version: String,
    pub kernel: String,
    pub kernel_architecture: String,
    pub kernel_version: String,
    pub os_name: String,
    pub os_version: String,
    pub project: String,
    pub server: String,
    pub server_clustered: bool,
    pub server_name: String,
    pub server_pid: u32,
    pub server_version: String,
    pub storage: String,
    pub storage_version: String,
}
