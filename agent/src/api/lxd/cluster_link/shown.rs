//! A link as LXD shows it.

use std::collections::BTreeMap;

use schema::name::LinkName;
use schema::record::RecordKey;

use crate::api::ApiState;
use crate::api::lxd::answer::LxdError;
use crate::authorize::{Entitlement, Entity};
use crate::trust::Caller;
use crate::wire::cluster_link::{
    LinkPut, LinkReport, LxdLink, VOLATILE_ADDRESSES, VOLATILE_PENDING_ADDRESS, VOLATILE_PENDING_CERTIFICATE,
};

/// The link, with those of its users that `caller` may view.
pub async fn shown(state: &ApiState, caller: &Caller, report: &LinkReport) -> Result<LxdLink, LxdError> {
    let mut used_by: Vec<String> = state
        .apply
        .speaking_of(&report.name)
        .await?
        .iter()
        .filter(|user| state.permit(caller, Entitlement::CanView, Entity::of(user)).is_ok())
        .map(url)
        .collect();
    used_by.sort_unstable();
    used_by.dedup();
    Ok(LxdLink {
        name: report.name.to_string(),
        description: report.description.clone(),
        kind: report.kind,
        config: config(report),
        used_by,
    })
}

/// What of it can be changed, with what must be sent back beside that: what its ETag is made of.
pub fn editable(report: &LinkReport) -> LinkPut {
    LinkPut { description: Some(report.description.clone()), config: Some(config(report)) }
}

/// Free keys, and LXD's own. LXD's clients take a link without addresses for a pending one.
pub fn config(report: &LinkReport) -> BTreeMap<String, String> {
    let mut config = report.config.clone();
    if report.peer_fingerprint.is_some() && !report.addresses.is_empty() {
        config.insert(VOLATILE_ADDRESSES.to_owned(), report.addresses.join(","));
    }
    if let Some(peer) = &report.unconfirmed {
        config.insert(VOLATILE_PENDING_ADDRESS.to_owned(), peer.address.clone());
        config.insert(VOLATILE_PENDING_CERTIFICATE.to_owned(), peer.certificate.clone());
    }
    config
}

pub fn location(link: &LinkName) -> String {
    format!("/1.0/cluster/links/{link}")
}

/// A record, as a URL names the entry that it is part of: Consul's nouns where they are Consul's.
fn url(record: &RecordKey) -> String {
    match record {
        RecordKey::AuthGroup(name) => format!("/1.0/auth/groups/{name}"),
        RecordKey::ClusterLink(name) => location(name),
        RecordKey::Service(name) => format!("/v1/agent/service/{name}"),
        RecordKey::Instance { id, .. } => format!("/v1/agent/service/{id}"),
        RecordKey::SamenessGroup(name) => format!("/v1/config/sameness-group/{name}"),
        RecordKey::ServiceDefaults(name) => format!("/v1/config/service-defaults/{name}"),
        RecordKey::ExportEntry | RecordKey::Export(_) => "/v1/config/exported-services/default".to_owned(),
        RecordKey::IntentionEntry(destination) | RecordKey::Intention { destination, .. } => {
            format!("/v1/config/service-intentions/{destination}")
        }
        RecordKey::Volume { pool, volume } => format!("/1.0/storage-pools/{pool}/volumes/custom/{volume}"),
        RecordKey::Transfer(name) => format!("/control/v1/transfers/{name}"),
    }
}
