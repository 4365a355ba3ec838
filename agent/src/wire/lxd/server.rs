//! `GET /1.0`: what the server is, and whether it knows the caller.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Text of which most is the same in every answer, and so is not made anew for each.
pub type Text = Cow<'static, str>;

/// The whole answer. An untrusted caller gets it without the environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerInfo {
    /// Null for who may not edit the server; lxc reads null as empty.
    #[serde(default)]
    pub config: Option<Map<String, Value>>,
    pub api_extensions: Vec<Text>,
    pub api_status: Text,
    pub api_version: Text,
    /// `trusted` or `untrusted`.
    pub auth: Text,
    pub public: bool,
    pub auth_methods: Vec<Text>,
    /// Whether the caller showed a certificate.
    #[serde(default)]
    pub client_certificate: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_user_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_user_method: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<Environment>,
}

/// Where the server runs and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    pub addresses: Vec<String>,
    pub architectures: Vec<Text>,
    /// PEM.
    pub certificate: String,
    pub certificate_fingerprint: String,
    pub driver: Text,
    pub driver_version: Text,
    pub kernel: Text,
    pub kernel_architecture: Text,
    pub kernel_version: Text,
    pub os_name: Text,
    pub os_version: Text,
    pub project: Text,
    pub server: Text,
    pub server_clustered: bool,
    pub server_name: String,
    pub server_pid: u32,
    pub server_version: Text,
    pub storage: Text,
    pub storage_version: Text,
}
