//! The rows of Consul's lists, made from the catalog and the health of one moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use schema::kind::duration;
use schema::kind::service::Probe;
use schema::name::ServiceName;

use super::own::node_id;
use crate::api::ApiState;
use crate::authorize::{Entitlement, Entity};
use crate::catalog::{CatalogView, Instance};
use crate::health::{HealthView, InstanceHealth, Status};
use crate::trust::Caller;
use crate::wire::consul::catalog::{
    AgentService, CheckServiceNode, ConnectTold, HealthCheck, Node, NodeService, ServiceNode, TaggedAddress,
    WeightsTold,
};

pub mod shapes;

/// What Consul says of a node that answers.
const ALIVE: &str = "Agent alive and reachable";
/// What Consul says where nobody gave a reason.
const NO_REASON: &str = "Maintenance mode is enabled for this service, but no reason was provided. This is a \
                         default message.";

/// What is declared and how it is, as of one moment.
pub struct Moment {
    pub catalog: Arc<CatalogView>,
    health: Arc<HealthView>,
    node: Node,
}

/// Whether `caller` may know of `service`.
pub fn sees(state: &ApiState, caller: &Caller, service: &ServiceName) -> bool {
    state.permit(caller, Entitlement::CanView, Entity::Service(service.clone())).is_ok()
}

impl Moment {
    pub fn now(state: &ApiState) -> Self {
        Self { catalog: state.catalog.view(), health: state.health.view(), node: node(state) }
    }

    pub fn node(&self) -> Node {
        self.node.clone()
    }

    /// The rows of every instance that the caller may know of, by service, and whether there are others.
    pub fn seen<T, R: IntoIterator<Item = T>>(
        &self,
        state: &ApiState,
        caller: &Caller,
        rows: impl Fn(&ServiceName, &Instance) -> R,
    ) -> (Vec<T>, bool) {
        let (mut told, mut filtered) = (Vec::new(), false);
        for (name, instances) in self.catalog.services.sorted() {
            if sees(state, caller, name) {
                told.extend(instances.iter().flat_map(|one| rows(name, one)));
            } else {
                filtered = true;
            }
        }
        (told, filtered)
    }

    /// The health of an instance. One that has just been declared is as its checks begin.
    pub fn health(&self, service: &ServiceName, instance: &Instance) -> Option<&Arc<InstanceHealth>> {
        self.health.get(service)?.get(&instance.id)
    }

    /// The worst of the instance's checks.
    pub fn status(&self, service: &ServiceName, instance: &Instance) -> Status {
        if let Some(health) = self.health(service, instance) {
            return health.status;
        }
        let begin = instance.service.checks.iter().map(|check| Status::from(check.status)).max();
        begin.unwrap_or(Status::Passing)
    }

    /// The checks of an instance, and that it is out of service if it is.
    pub fn checks(&self, service: &ServiceName, instance: &Instance) -> Vec<HealthCheck> {
        let health = self.health(service, instance);
        let declared = &instance.service.checks;
        let row = |id: String, name: String| HealthCheck {
            node: self.node.node.clone(),
            check_id: id,
            name,
            service_id: instance.id.to_string(),
            service_name: service.to_string(),
            service_tags: instance.service.tags.clone(),
            create_index: instance.created.0,
            modify_index: instance.modified.0,
            ..HealthCheck::default()
        };
        let mut rows: Vec<HealthCheck> = Vec::with_capacity(declared.len() + 1);
        for (index, check) in declared.iter().enumerate() {
            let id = check.id_in(&instance.id, index, declared.len());
            let known = health.and_then(|health| health.checks.iter().find(|state| *state.id == id));
            let asks = !matches!(check.probe, Probe::Ttl(_));
            let time = |ms: u64| if asks { duration::text(ms) } else { String::new() };
            let status = known.map_or_else(|| check.status.into(), |known| known.status);
            rows.push(HealthCheck {
                status: status.as_str().to_owned(),
                notes: check.notes.clone(),
                output: known.map(|known| known.output.to_string()).unwrap_or_default(),
                r#type: check.word().to_owned(),
                interval: time(check.interval_ms),
                timeout: time(check.timeout_ms),
                ..row(id, check.name_in(service))
            });
        }
        if let Some(reason) = health.and_then(|health| health.maintenance.as_deref()) {
            let id = format!("_service_maintenance:{}", instance.id);
            rows.push(HealthCheck {
                status: Status::Critical.as_str().to_owned(),
                notes: if reason.is_empty() { NO_REASON.to_owned() } else { reason.to_owned() },
                r#type: "maintenance".to_owned(),
                ..row(id, "Service Maintenance Mode".to_owned())
            });
        }
        rows
    }

    /// The check of the node itself: that it answers.
    pub fn node_check(&self) -> HealthCheck {
        HealthCheck {
            node: self.node.node.clone(),
            check_id: "serfHealth".to_owned(),
            name: "Serf Health Status".to_owned(),
            status: Status::Passing.as_str().to_owned(),
            output: ALIVE.to_owned(),
            create_index: self.node.create_index,
            modify_index: self.node.modify_index,
            ..HealthCheck::default()
        }
    }

    /// A row of `/v1/health/service`.
    pub fn with_checks(&self, service: &ServiceName, instance: &Instance) -> CheckServiceNode {
        let mut checks = vec![self.node_check()];
        checks.extend(self.checks(service, instance));
        CheckServiceNode { node: self.node(), service: node_service(service, instance), checks }
    }

    /// A row of `/v1/catalog/service`.
    pub fn service_node(&self, service: &ServiceName, instance: &Instance) -> ServiceNode {
        let told = node_service(service, instance);
        let node = self.node();
        ServiceNode {
            id: node.id,
            node: node.node,
            address: node.address,
            datacenter: node.datacenter,
            tagged_addresses: node.tagged_addresses,
            node_meta: node.meta,
            service_kind: String::new(),
            service_id: told.id,
            service_name: told.service,
            service_tags: told.tags,
            service_address: told.address,
            service_tagged_addresses: told.tagged_addresses,
            service_weights: told.weights,
            service_meta: told.meta,
            service_port: told.port,
            service_socket_path: told.socket_path,
            service_enable_tag_override: told.enable_tag_override,
            service_proxy: told.proxy,
            service_connect: told.connect,
            peer_name: String::new(),
            create_index: told.create_index,
            modify_index: told.modify_index,
        }
    }

    /// An instance as the agent tells of it.
    pub fn agent_service(&self, service: &ServiceName, instance: &Instance) -> AgentService {
        let told = node_service(service, instance);
        AgentService {
            id: told.id,
            service: told.service,
            tags: told.tags,
            meta: told.meta,
            port: told.port,
            address: told.address,
            socket_path: told.socket_path,
            tagged_addresses: told.tagged_addresses,
            weights: told.weights,
            enable_tag_override: told.enable_tag_override,
            create_index: told.create_index,
            modify_index: told.modify_index,
            content_hash: String::new(),
            connect: told.connect.native.then_some(told.connect),
            datacenter: self.node.datacenter.clone(),
        }
    }
}

/// The agent as a node. It was there before anything that it tells of, and does not change.
fn node(state: &ApiState) -> Node {
    let address = state.addresses.current().first().cloned().unwrap_or_default();
    let host = match address.rsplit_once(':') {
        Some((host, _)) => host.trim_start_matches('[').trim_end_matches(']').to_owned(),
        None if address.is_empty() => "127.0.0.1".to_owned(),
        None => address,
    };
    Node {
        id: node_id(state).to_string(),
        node: state.name.to_string(),
        tagged_addresses: BTreeMap::from([
            ("lan".to_owned(), host.clone()),
            ("wan".to_owned(), host.clone()),
        ]),
        address: host,
        datacenter: state.name.to_string(),
        create_index: 1,
        modify_index: 1,
        ..Node::default()
    }
}

fn node_service(service: &ServiceName, instance: &Instance) -> NodeService {
    let declared = &instance.service;
    let tagged = |address: &schema::kind::service::TaggedAddress| TaggedAddress {
        address: address.address.clone(),
        port: address.port,
    };
    NodeService {
        id: instance.id.to_string(),
        service: service.to_string(),
        tags: declared.tags.clone(),
        address: declared.address.clone(),
        tagged_addresses: declared
            .tagged_addresses
            .iter()
            .map(|(tag, at)| (tag.clone(), tagged(at)))
            .collect(),
        meta: declared.meta.clone(),
        port: declared.port.unwrap_or_default(),
        socket_path: declared.socket_path.clone(),
        weights: WeightsTold { passing: declared.weights.passing, warning: declared.weights.warning },
        enable_tag_override: declared.enable_tag_override,
        connect: ConnectTold { native: declared.connect_native },
        create_index: instance.created.0,
        modify_index: instance.modified.0,
        ..NodeService::default()
    }
}
