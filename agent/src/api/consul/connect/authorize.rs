//! `POST /v1/agent/connect/authorize`: whether whoever shows a certificate may connect to one of this cluster's services.
//!
//! Whose service a certificate names is told by its trust domain: this cluster's, or that of a peer whose bundle has
//! arrived. (Consul's own endpoint does not look at it, and takes a peer's `web` for the local one.) Of an unknown domain
//! nobody may connect. Nothing is revoked: a leaf ends by itself within three days, so its serial number is not looked at.

use axum::extract::State;
use schema::access::{Reason, Source};
use schema::name::ServiceName;
use schema::origin::Origin;
use schema::record::{Record, RecordKey, ServiceMatch};

use crate::api::ApiState;
use crate::api::consul::answer::{Answer, ConsulError};
use crate::api::consul::asked::Asked;
use crate::api::consul::body::Strict;
use crate::store::keys;
use crate::store::value::{self, Declared};
use crate::trust::mesh::{ServiceId, SpiffeId};
use crate::wire::consul::connect::{Authorize, Authorized};

/// Where no intention says anything: Consul's words.
const DEFAULT_POLICY: &str = "Default intention policy";

pub async fn authorize(
    State(state): State<ApiState>,
    asked: Asked,
    Strict(body): Strict<Authorize>,
) -> Result<Answer, ConsulError> {
    if body.target.is_empty() {
        return Err(ConsulError::bad_request("Target service must be specified"));
    }
    let id: SpiffeId = body
        .client_cert_uri
        .parse()
        .map_err(|_| ConsulError::bad_request("ClientCertURI not a valid Connect identifier"))?;
    let SpiffeId::Service(id) = id else {
        return Err(ConsulError::bad_request("ClientCertURI not a valid Service identifier"));
    };
    let target: ServiceName = body
        .target
        .parse()
        .map_err(|error| ConsulError::bad_request(format!("Target is not a service's name: {error}")))?;
    super::permitted(&state, &asked.caller, &target)?;
    let answer = match source(&state, &id) {
        Ok(source) => decided(&state, &source, &target).await?,
        Err(reason) => Authorized { authorized: false, reason },
    };
    Answer::new(&asked, &answer)
}

/// Who it is, as intentions name it; or why nobody that they could name.
fn source(state: &ApiState, id: &ServiceId) -> Result<Source, String> {
    if !id.is_default() {
        return Err("The certificate is of another namespace or partition than default".to_owned());
    }
    let service = id.service.parse().map_err(|_| "The certificate names no service".to_owned())?;
    if id.domain == state.mesh_ca.roots().domain {
        return Ok(Source { peer: None, service });
    }
    match state.bundles.link_of(&id.domain) {
        Some(link) => Ok(Source { peer: Some(link), service }),
        None => Err("The certificate is of a trust domain that is neither this cluster's nor a known peer's"
            .to_owned()),
    }
}

async fn decided(state: &ApiState, source: &Source, target: &ServiceName) -> Result<Authorized, ConsulError> {
    let decision = state.catalog.view().intentions.decide(source, target);
    let reason = match &decision.reason {
        Reason::NoRule => DEFAULT_POLICY.to_owned(),
        Reason::Rule { rule, precedence } => {
            let action = if decision.is_allowed() { "ALLOW" } else { "DENY" };
            format!("Matched L4 intention: {}Precedence: {precedence}, Action: {action})", pair(rule))
        }
        Reason::Permissions { rule, precedence } => {
            let count = permissions(state, rule).await?;
            format!("Matched L7 intention: {}Precedence: {precedence}, Permissions: {count})", pair(rule))
        }
    };
    Ok(Authorized { authorized: decision.is_allowed(), reason })
}

/// `peer(west)/default/web => default/db (`
fn pair(rule: &RecordKey) -> String {
    let RecordKey::Intention { destination, origin, source } = rule else { return format!("{rule} (") };
    let from = match origin {
        Origin::Local => String::new(),
        Origin::Peer(peer) => format!("peer({peer})/"),
        Origin::Group(group) => format!("sameness-group({group})/"),
        Origin::AnyPeer => "peer(*)/".to_owned(),
    };
    format!("{from}default/{} => default/{} (", name(source), name(destination))
}

fn name(pattern: &ServiceMatch) -> &str {
    match pattern {
        ServiceMatch::Any => "*",
        ServiceMatch::Named(name) => name.as_str(),
    }
}

/// How many permissions a rule has; of one that is gone by now, none.
async fn permissions(state: &ApiState, rule: &RecordKey) -> Result<usize, ConsulError> {
    let Some(entry) = state.store.get(&keys::declared(rule)).await? else { return Ok(0) };
    match value::decode::<Declared>(&entry)?.record {
        Record::ServiceIntentions(source) => Ok(source.permissions.len()),
        _ => Ok(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_written_as_consul_writes_it() {
        for (key, text) in [
            ("service_intentions/db/@/web", "default/web => default/db ("),
            ("service_intentions/db/west/*", "peer(west)/default/* => default/db ("),
            ("service_intentions/*/@all/web", "sameness-group(all)/default/web => default/* ("),
            ("service_intentions/db/*/web", "peer(*)/default/web => default/db ("),
        ] {
            assert_eq!(pair(&key.parse().unwrap()), text, "{key}");
        }
    }
}
