//! `/v1/health/service/:service?peer=`: what a peer exports to this cluster, as it was last heard.
//!
//! The node is the peer's agent, through which its services are reached; an instance's port is the one it has there.

use schema::name::{LinkName, ServiceName};

use super::blocking::Found;
use super::catalog::unseen;
use crate::api::ApiState;
use crate::authorize::{Entitlement, Entity};
use crate::catalog::{Freshness, ImportedInstance, ImportedLink, ImportedStatus};
use crate::trust::Caller;
use crate::wire::consul::catalog::{CheckServiceNode, HealthCheck, Node, NodeService, WeightsTold};

/// What is said of instances while nothing is heard of their peer.
const STALE: &str = "the link is down: this is the last that was heard";

/// The instances of `service` of `link`, if there are such. Nobody's is nothing, as for Consul.
pub(super) fn look(
    state: &ApiState,
    caller: &Caller,
    link: Option<&LinkName>,
    service: Option<&ServiceName>,
    wanted: impl Fn(&CheckServiceNode) -> bool,
) -> Found<Vec<CheckServiceNode>> {
    let index = state.imports.index();
    let (Some(link), Some(service)) = (link, service) else { return Found::new(index, Vec::new()) };
    if state.permit(caller, Entitlement::CanView, Entity::ClusterLink(link.clone())).is_err() {
        return unseen();
    }
    let view = state.imports.view();
    let Some(imported) = view.get(link) else { return Found::new(index, Vec::new()) };
    let instances = imported.services.get(service).map(|service| service.instances.as_slice());
    let rows = instances.unwrap_or_default().iter().map(|one| row(link, imported, service, one));
    Found::new(index, rows.filter(wanted).collect())
}

/// The word for a status that a check may have.
fn status(imported: &ImportedLink, instance: &ImportedInstance) -> &'static str {
    match (imported.freshness, instance.status) {
        (Freshness::Current, ImportedStatus::Passing) => "passing",
        (Freshness::Current, ImportedStatus::Warning) => "warning",
        // Where nothing is heard, nothing is known to be well.
        (Freshness::Stale, _) | (_, ImportedStatus::Critical | ImportedStatus::Maintenance) => "critical",
    }
}

fn row(
    link: &LinkName,
    imported: &ImportedLink,
    service: &ServiceName,
    instance: &ImportedInstance,
) -> CheckServiceNode {
    let address = imported.addresses.first().map(String::as_str).unwrap_or_default();
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let node = Node {
        node: imported.cluster.to_string(),
        address: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
        datacenter: imported.cluster.to_string(),
        peer_name: link.to_string(),
        create_index: 1,
        modify_index: 1,
        ..Node::default()
    };
    let told = NodeService {
        id: instance.id.to_string(),
        service: service.to_string(),
        tags: instance.tags.clone(),
        meta: instance.meta.clone(),
        port: instance.port.unwrap_or_default(),
        weights: WeightsTold { passing: instance.weights.passing, warning: instance.weights.warning },
        peer_name: link.to_string(),
        create_index: 1,
        modify_index: 1,
        ..NodeService::default()
    };
    let output = match (imported.freshness, instance.status) {
        (Freshness::Stale, _) => STALE,
        (_, ImportedStatus::Maintenance) => "maintenance mode is enabled for this service",
        _ => "",
    };
    let check = HealthCheck {
        node: node.node.clone(),
        check_id: format!("{}:overall-check", instance.id),
        name: "overall-check".to_owned(),
        status: status(imported, instance).to_owned(),
        output: output.to_owned(),
        service_id: told.id.clone(),
        service_name: told.service.clone(),
        service_tags: told.tags.clone(),
        peer_name: link.to_string(),
        create_index: 1,
        modify_index: 1,
        ..HealthCheck::default()
    };
    CheckServiceNode { node, service: told, checks: vec![check] }
}
