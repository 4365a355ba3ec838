//! The catalog as of one commit.

use std::sync::Arc;

use schema::kind::exported_services::Export;
use schema::kind::service::Service;
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
        let named = self.exports.iter().filter(|(_, export)| export.consumers.contains(link));
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

    fn consumes(&self, service: &ServiceMatch, link: &LinkName) -> bool {
        self.exports.get(service).is_some_and(|export| export.consumers.contains(link))
    }

    pub(super) fn remove(&mut self, key: &RecordKey) {
        match key {
            RecordKey::Service(name) => {
                self.services.remove(name);
            }
            RecordKey::Export(service) => {
                self.exports.remove(service);
            }
            RecordKey::Intention { .. } => self.intentions.remove(key),
            _ => {}
        }
    }
}
