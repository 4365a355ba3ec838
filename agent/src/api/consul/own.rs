//! What an agent says of itself: `/v1/agent/self`, `/v1/agent/members`, `/v1/catalog/datacenters`. A cluster is one
//! datacenter of one node, which is called as it is.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use serde_json::{Value, json};
use uuid::Uuid;

use super::answer::{Answer, ConsulError};
use super::asked::Asked;
use crate::api::ApiState;
use crate::authorize::require_trust;

/// Consul's number for a member that is there.
const ALIVE: u8 = 1;

pub fn router() -> Router<ApiState> {
    Router::new()
        .route("/agent/self", get(own))
        .route("/agent/members", get(members))
        .route("/catalog/datacenters", get(datacenters))
}

/// The node's id: the store's, so that it stays over restarts and is another's where the store is.
pub fn node_id(state: &ApiState) -> Uuid {
    let hash = blake3::hash(format!("node of {}", state.store.epoch()).as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.as_bytes()[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

async fn own(State(state): State<ApiState>, asked: Asked) -> Result<Answer, ConsulError> {
    require_trust(&asked.caller)?;
    let name = state.name.as_str();
    let told = json!({
        "Config": {
            "Datacenter": name,
            "PrimaryDatacenter": name,
            "NodeName": name,
            "NodeID": node_id(&state),
            "Revision": "",
            "Server": true,
            "Version": env!("CARGO_PKG_VERSION"),
            "BuildDate": "",
        },
        "DebugConfig": {},
        "Coord": {},
        "Member": member(&state),
        "Stats": {},
        "Meta": {},
        // There is no xDS here: no proxy is configured over it, and so none is supported.
        "xDS": { "SupportedProxies": {}, "Port": -1, "Ports": { "Plaintext": -1, "TLS": -1 } },
    });
    Answer::new(&asked, &told)
}

async fn members(State(state): State<ApiState>, asked: Asked) -> Result<Answer, ConsulError> {
    require_trust(&asked.caller)?;
    Answer::new(&asked, &[member(&state)])
}

async fn datacenters(State(state): State<ApiState>, asked: Asked) -> Result<Answer, ConsulError> {
    require_trust(&asked.caller)?;
    Answer::new(&asked, &[state.name.as_str()])
}

fn member(state: &ApiState) -> Value {
    let address = state.addresses.current().first().cloned().unwrap_or_default();
    let (host, port) = match address.parse::<SocketAddr>() {
        Ok(address) => (address.ip().to_string(), address.port()),
        Err(_) => match address.rsplit_once(':') {
            Some((host, port)) => (host.to_owned(), port.parse().unwrap_or_default()),
            None => (address, 0),
        },
    };
    json!({
        "Name": state.name.as_str(),
        "Addr": host,
        "Port": port,
        "Tags": { "role": "consul", "dc": state.name.as_str(), "id": node_id(state), "build": env!("CARGO_PKG_VERSION") },
        "Status": ALIVE,
        "ProtocolMin": 1, "ProtocolMax": 5, "ProtocolCur": 2,
        "DelegateMin": 2, "DelegateMax": 5, "DelegateCur": 4,
    })
}
