//! The catalog as of one commit.

use std::collections::BTreeSet;
use std::sync::Arc;

use schema::access::Groups;
use schema::kind::exported_services::{Consumer, Export};
use schema::kind::service::Service;
use schema::kind::service_defaults::{Protocol, ServiceDefaults};
use schema::name::{LinkName, ServiceName};
use schema::record::{RecordKey, ServiceMatch};

use super::Sharded;
use super::intentions::IntentionParts;
use crate::store::Revision;

/// Every service, export and intention declared in this cluster, as of `revision`. Never changes.
#[derive(Debug, Clone, Default)]
pub struct CatalogView {
    pub revision: Revision,
    pub services: Sharded<ServiceName, Arc<Service>>,
    pub exports: Sharded<ServiceMatch, Arc<Export>>,
    pub intentions: IntentionParts,
    pub defaults: Sharded<ServiceName, Arc<ServiceDefaults>>,
}

impl CatalogView {
    pub fn service(&self, name: &ServiceName) -> Option<&Arc<Service>> {
        self.services.get(name)
    }

    /// Whether `link` is offered `service`: by name or by `*`, and the service is declared here. A service without
    /// a port offers nothing, so `*` passes over it.
    pub fn is_exported(&self, service: &ServiceName, link: &LinkName) -> bool {
        let Some(declared) = self.services.get(service) else { return false };
        self.consumes(&ServiceMatch::Named(service.clone()), link)
            || (declared.port.is_some() && self.consumes(&ServiceMatch::Any, link))
    }

    /// The services that `link` is offered, by name.
    pub fn exported_to(&self, link: &LinkName) -> Vec<ServiceName> {
        let groups = self.intentions.groups();
        let named = self.exports.iter().filter(|(_, export)| is_for(export, link, groups));
        let mut names: Vec<&ServiceName> = named
            .filter_map(|(service, _)| match service {
                ServiceMatch::Named(name) if self.services.get(name).is_some() => Some(name),
                _ => None,
            })
            .collect();
        if self.consumes(&ServiceMatch::Any, link) {
            names.extend(
                self.services.iter().filter(|(_, service)| service.port.is_some()).map(|(name, _)| name),
            );
        }
        names.sort_unstable();
        names.dedup();
        names.into_iter().cloned().collect()
    }

    /// Every link that any service is exported to.
    pub fn consumers(&self) -> BTreeSet<LinkName> {
        let mut links = BTreeSet::new();
        for consumer in self.exports.iter().flat_map(|(_, export)| &export.consumers) {
            match consumer {
                Consumer::Peer(link) => _ = links.insert(link.clone()),
                Consumer::Group(group) => {
                    let members = self.intentions.groups().get(group).map(|group| &group.members);
                    links.extend(members.into_iter().flatten().cloned());
                }
            }
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

    pub(super) fn remove(&mut self, key: &RecordKey) {
        match key {
            RecordKey::Service(name) => {
                self.services.remove(name);
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

/// Whether `link` is one of the export's consumers, by its name or as a member of a group.
fn is_for(export: &Export, link: &LinkName, groups: &Groups) -> bool {
    export.consumers.iter().any(|consumer| match consumer {
        Consumer::Peer(peer) => peer == link,
        Consumer::Group(group) => groups.has(group, link),
    })
}
