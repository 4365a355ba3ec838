//! The catalog as of one commit.

use std::collections::BTreeSet;
use std::sync::Arc;

use schema::access::Groups;
use schema::kind::exported_services::{Consumer, Export};
use schema::kind::service_defaults::{Protocol, ServiceDefaults};
use schema::name::{InstanceId, LinkName, ServiceName};
use schema::record::{RecordKey, ServiceMatch};

use super::intentions::IntentionParts;
use super::{Instance, Instances, Sharded};
use crate::store::Revision;

/// Every service, export and intention declared in this cluster, as of `revision`. Never changes.
#[derive(Debug, Clone, Default)]
pub struct CatalogView {
    pub revision: Revision,
    pub services: Sharded<ServiceName, Arc<Instances>>,
    /// The service of each instance whose id is not its service's name.
    pub(super) ids: Sharded<InstanceId, ServiceName>,
    pub exports: Sharded<ServiceMatch, Arc<Export>>,
    pub intentions: IntentionParts,
    pub defaults: Sharded<ServiceName, Arc<ServiceDefaults>>,
}

impl CatalogView {
    pub fn instances(&self, service: &ServiceName) -> Option<&Arc<Instances>> {
        self.services.get(service)
    }

    /// The instance that calls name by `id` alone, with its service.
    pub fn instance(&self, id: &InstanceId) -> Option<(ServiceName, &Instance)> {
        let service = match self.ids.get(id) {
            Some(service) => service.clone(),
            None => id.as_str().parse().ok()?,
        };
        let instance = self.services.get(&service)?.get(id)?;
        Some((service, instance))
    }

    /// The links that are offered `service`: by its name, whether it is declared here or not, or by `*`. A service
    /// without a port offers nothing, so `*` passes over it.
    pub fn consumers_of(&self, service: &ServiceName) -> BTreeSet<LinkName> {
        let mut links = BTreeSet::new();
        if is_exportable(service) {
            self.add_consumers(&ServiceMatch::Named(service.clone()), &mut links);
            if self.has_port(service) {
                self.add_consumers(&ServiceMatch::Any, &mut links);
            }
        }
        links
    }

    /// Whether `link` is offered `service`.
    pub fn is_exported(&self, service: &ServiceName, link: &LinkName) -> bool {
        is_exportable(service)
            && (self.consumes(&ServiceMatch::Named(service.clone()), link)
                || (self.has_port(service) && self.consumes(&ServiceMatch::Any, link)))
    }

    fn has_port(&self, service: &ServiceName) -> bool {
        self.services.get(service).is_some_and(|instances| instances.listen())
    }

    fn add_consumers(&self, export: &ServiceMatch, links: &mut BTreeSet<LinkName>) {
        for consumer in self.exports.get(export).into_iter().flat_map(|export| &export.consumers) {
            match consumer {
                Consumer::Peer(link) => _ = links.insert(link.clone()),
                Consumer::Group(group) => {
                    let members = self.intentions.groups().get(group).map(|group| &group.members);
                    links.extend(members.into_iter().flatten().cloned());
                }
            }
        }
    }

    /// The services that `link` is offered, by name.
    pub fn exported_to(&self, link: &LinkName) -> Vec<ServiceName> {
        let groups = self.intentions.groups();
        let named = self.exports.iter().filter(|(_, export)| is_for(export, link, groups));
        let mut names: Vec<&ServiceName> = named
            .filter_map(|(service, _)| match service {
                ServiceMatch::Named(name) => Some(name),
                ServiceMatch::Any => None,
            })
            .collect();
        if self.consumes(&ServiceMatch::Any, link) {
            names.extend(
                self.services.iter().filter(|(_, instances)| instances.listen()).map(|(name, _)| name),
            );
        }
        names.retain(|name| is_exportable(name));
        names.sort_unstable();
        names.dedup();
        names.into_iter().cloned().collect()
    }

    /// Every link that any service is exported to.
    pub fn consumers(&self) -> BTreeSet<LinkName> {
        let mut links = BTreeSet::new();
        for (export, _) in self.exports.iter() {
            self.add_consumers(export, &mut links);
        }
        links
    }

    /// What the service is said to speak; TCP where nothing is said.
    pub fn protocol(&self, service: &ServiceName) -> Protocol {
        self.defaults.get(service).and_then(|defaults| defaults.protocol).unwrap_or_default()
    }

    fn consumes(&self, service: &ServiceMatch, link: &LinkName) -> bool {
        self.exports.get(service).is_some_and(|export| is_for(export, link, self.intentions.groups()))
    }

    /// Adds an instance, or changes it. A service's list is copied at most once for each view.
    pub(super) fn insert_instance(&mut self, service: &ServiceName, instance: Instance) {
        if instance.id.as_str() != service.as_str() {
            self.ids.insert(instance.id.clone(), service.clone());
        }
        let mut list = self.services.remove(service).unwrap_or_default();
        Arc::make_mut(&mut list).insert(instance);
        self.services.insert(service.clone(), list);
    }

    fn remove_instance(&mut self, service: &ServiceName, id: &InstanceId) {
        let Some(mut list) = self.services.remove(service) else { return };
        Arc::make_mut(&mut list).remove(id);
        if !list.is_empty() {
            self.services.insert(service.clone(), list);
        }
        // An id that went from one service to another in one commit is the other's already.
        if self.ids.get(id) == Some(service) {
            self.ids.remove(id);
        }
    }

    pub(super) fn remove(&mut self, key: &RecordKey) {
        match key {
            RecordKey::Service(_) | RecordKey::Instance { .. } => {
                if let Some((service, id)) = key.as_instance() {
                    self.remove_instance(service, &id);
                }
            }
            RecordKey::Export(service) => {
                self.exports.remove(service);
            }
            RecordKey::ServiceDefaults(name) => {
                self.defaults.remove(name);
            }
            RecordKey::Intention { .. } | RecordKey::IntentionEntry(_) | RecordKey::SamenessGroup(_) => {
                self.intentions.put(key, None);
            }
            _ => {}
        }
    }
}

/// Consul's own service is never exported, whoever names it.
fn is_exportable(service: &ServiceName) -> bool {
    service.as_str() != "consul"
}

/// Whether `link` is one of the export's consumers, by its name or as a member of a group.
fn is_for(export: &Export, link: &LinkName, groups: &Groups) -> bool {
    export.consumers.iter().any(|consumer| match consumer {
        Consumer::Peer(peer) => peer == link,
        Consumer::Group(group) => groups.has(group, link),
    })
}
