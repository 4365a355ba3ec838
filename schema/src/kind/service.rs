//! `service "NAME" {}`: a service of this cluster, its health checks, and the upstreams it calls.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::name::{LinkName, ServiceName};

/// A service instance on the agent's machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Service {
    /// Where the instance listens; `None` for a service that only calls others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// IP address or host name of the instance; empty means 127.0.0.1.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub address: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
    /// Sorted by destination peer and name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upstreams: Vec<Upstream>,
}

/// A health check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    #[serde(flatten)]
    pub probe: Probe,
    /// Time between probes, milliseconds.
    pub interval_ms: u64,
    /// Time after which a probe has failed, milliseconds.
    pub timeout_ms: u64,
}

/// How health is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// `host:port` that must accept a connection.
    Tcp(String),
    /// `http://host:port/path` that must answer 2xx.
    Http(String),
}

/// A local port through which the service reaches another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    pub destination_name: ServiceName,
    /// The link to go over; `None` means a service of this cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_peer: Option<LinkName>,
    /// Loopback address to listen on; empty means 127.0.0.1.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub local_bind_address: String,
    pub local_bind_port: u16,
}
