//! What is sent to register a service or a check: Consul's `ServiceDefinition` and `CheckDefinition`.

use std::collections::BTreeMap;
use std::fmt;

use schema::kind::duration;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// A service to be registered. The command line sends it too.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename = "ServiceDefinition", rename_all = "PascalCase", default)]
pub struct ServiceDefinition {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(rename = "ID", skip_serializing_if = "String::is_empty")]
    pub id: String,
    pub name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub port: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub address: String,
    #[serde(alias = "socket_path", skip_serializing_if = "String::is_empty")]
    pub socket_path: String,
    #[serde(alias = "tagged_addresses", skip_serializing_if = "BTreeMap::is_empty")]
    pub tagged_addresses: BTreeMap<String, ServiceAddress>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<Weights>,
    #[serde(alias = "enable_tag_override", skip_serializing_if = "std::ops::Not::not")]
    pub enable_tag_override: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<CheckDefinition>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckDefinition>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect: Option<ServiceConnect>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locality: Option<Value>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub partition: String,
    /// In definition files, the token to register with.
    #[serde(skip_serializing)]
    pub token: String,
}

/// An address with its port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ServiceAddress {
    pub address: String,
    pub port: i64,
}

/// How much an instance shall have of the calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Weights {
    pub passing: i64,
    pub warning: i64,
}

/// How a service takes part in the mesh.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ServiceConnect {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub native: bool,
    #[serde(alias = "sidecar_service", skip_serializing_if = "Option::is_none")]
    pub sidecar_service: Option<Sidecar>,
}

/// A proxy beside a service. The agent is one already, so what counts is where it leads.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Sidecar {
    #[serde(skip_serializing_if = "is_zero")]
    pub port: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<SidecarProxy>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SidecarProxy {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub upstreams: Vec<UpstreamDefinition>,
}

/// A local port that leads to another service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct UpstreamDefinition {
    #[serde(alias = "destination_type", skip_serializing_if = "String::is_empty")]
    pub destination_type: String,
    #[serde(alias = "destination_name")]
    pub destination_name: String,
    #[serde(alias = "destination_peer", skip_serializing_if = "String::is_empty")]
    pub destination_peer: String,
    #[serde(alias = "local_bind_address", skip_serializing_if = "String::is_empty")]
    pub local_bind_address: String,
    #[serde(alias = "local_bind_port")]
    pub local_bind_port: i64,
    #[serde(alias = "local_bind_socket_path", skip_serializing_if = "String::is_empty")]
    pub local_bind_socket_path: String,
    #[serde(alias = "local_bind_socket_mode", skip_serializing_if = "String::is_empty")]
    pub local_bind_socket_mode: String,
}

/// A check to be registered, on its own or with its service. What is not made here is known, so that it can be refused
/// by its name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CheckDefinition {
    /// Of a check that is registered with its service.
    #[serde(rename = "CheckID", alias = "check_id", skip_serializing_if = "String::is_empty")]
    pub check_id: String,
    /// Of one that is registered on its own.
    #[serde(rename = "ID", skip_serializing_if = "String::is_empty")]
    pub id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub notes: String,
    #[serde(rename = "ServiceID", alias = "service_id", skip_serializing_if = "String::is_empty")]
    pub service_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    #[serde(rename = "HTTP", skip_serializing_if = "String::is_empty")]
    pub http: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub header: BTreeMap<String, Vec<String>>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub method: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub body: String,
    #[serde(alias = "disable_redirects", skip_serializing_if = "std::ops::Not::not")]
    pub disable_redirects: bool,
    #[serde(rename = "TLSServerName", alias = "tls_server_name", skip_serializing_if = "String::is_empty")]
    pub tls_server_name: String,
    #[serde(rename = "TLSSkipVerify", alias = "tls_skip_verify", skip_serializing_if = "std::ops::Not::not")]
    pub tls_skip_verify: bool,
    #[serde(rename = "TCP", skip_serializing_if = "String::is_empty")]
    pub tcp: String,
    #[serde(rename = "TTL", skip_serializing_if = "GoDuration::is_zero")]
    pub ttl: GoDuration,
    #[serde(skip_serializing_if = "GoDuration::is_zero")]
    pub interval: GoDuration,
    #[serde(skip_serializing_if = "GoDuration::is_zero")]
    pub timeout: GoDuration,
    #[serde(alias = "success_before_passing", skip_serializing_if = "is_zero")]
    pub success_before_passing: i64,
    #[serde(alias = "failures_before_warning", skip_serializing_if = "is_zero")]
    pub failures_before_warning: i64,
    #[serde(alias = "failures_before_critical", skip_serializing_if = "is_zero")]
    pub failures_before_critical: i64,
    #[serde(alias = "deregister_critical_service_after", skip_serializing_if = "GoDuration::is_zero")]
    pub deregister_critical_service_after: GoDuration,
    #[serde(alias = "output_max_size", skip_serializing_if = "is_zero")]
    pub output_max_size: i64,
    #[serde(alias = "script_args", alias = "ScriptArgs", skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub script: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub shell: String,
    #[serde(
        rename = "DockerContainerID",
        alias = "docker_container_id",
        skip_serializing_if = "String::is_empty"
    )]
    pub docker_container_id: String,
    #[serde(rename = "GRPC", skip_serializing_if = "String::is_empty")]
    pub grpc: String,
    #[serde(rename = "GRPCUseTLS", alias = "grpc_use_tls", skip_serializing_if = "std::ops::Not::not")]
    pub grpc_use_tls: bool,
    #[serde(rename = "H2PING", alias = "H2Ping", skip_serializing_if = "String::is_empty")]
    pub h2ping: String,
    #[serde(rename = "H2PingUseTLS", alias = "h2ping_use_tls", skip_serializing_if = "std::ops::Not::not")]
    pub h2ping_use_tls: bool,
    #[serde(rename = "UDP", skip_serializing_if = "String::is_empty")]
    pub udp: String,
    #[serde(rename = "TCPUseTLS", alias = "tcp_use_tls", skip_serializing_if = "std::ops::Not::not")]
    pub tcp_use_tls: bool,
    #[serde(rename = "OSService", alias = "os_service", skip_serializing_if = "String::is_empty")]
    pub os_service: String,
    #[serde(alias = "alias_node", skip_serializing_if = "String::is_empty")]
    pub alias_node: String,
    #[serde(alias = "alias_service", skip_serializing_if = "String::is_empty")]
    pub alias_service: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub partition: String,
    /// In definition files, the token to register with.
    #[serde(skip_serializing)]
    pub token: String,
}

/// What `PUT /v1/agent/check/update/:id` takes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "checkUpdate", rename_all = "PascalCase", default)]
pub struct CheckUpdate {
    pub status: String,
    pub output: String,
}

/// For serde, which passes references.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// A time: Go's text (`10s`), or a whole number of nanoseconds. Kept in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GoDuration(pub u64);

impl GoDuration {
    /// For serde, which passes a reference.
    #[allow(clippy::trivially_copy_pass_by_ref)]
    fn is_zero(&self) -> bool {
        self.0 == 0
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&duration::text(self.0))
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = GoDuration;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time such as \"10s\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<GoDuration, E> {
                let ms = if matches!(text, "" | "0") { Some(0) } else { duration::parse_ms(text) };
                let shown: String = text.chars().take(40).collect();
                ms.map(GoDuration).ok_or_else(|| E::custom(format!("time: invalid duration {shown:?}")))
            }
            fn visit_u64<E: de::Error>(self, ns: u64) -> Result<GoDuration, E> {
                Ok(GoDuration(ns / 1_000_000))
            }
            fn visit_i64<E: de::Error>(self, ns: i64) -> Result<GoDuration, E> {
                u64::try_from(ns)
                    .map_or_else(|_| Err(E::custom("time: negative duration")), |ns| self.visit_u64(ns))
            }
            fn visit_unit<E: de::Error>(self) -> Result<GoDuration, E> {
                Ok(GoDuration(0))
            }
        }
        deserializer.deserialize_any(Read)
    }
}
