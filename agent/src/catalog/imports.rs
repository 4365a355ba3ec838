//! What linked clusters export to this one: held in memory only, replaced by each snapshot that a link's stream
//! brings, and marked stale while that link carries nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use schema::name::{LinkName, ServiceName};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::Sharded;

/// A service that a peer offers to this cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct ImportedService {
    /// Instances that the peer has.
    pub instances: u32,
    /// Those of them whose checks pass.
    pub healthy: u32,
}

/// Whether the peer's word is current.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Freshness {
    Current,
    /// The link is down: this is the last that was heard.
    Stale,
}

/// What one peer offers.
#[derive(Debug, Clone)]
pub struct ImportedLink {
    pub services: Sharded<ServiceName, ImportedService>,
    pub freshness: Freshness,
}

/// What every peer offers.
pub type ImportsView = BTreeMap<LinkName, Arc<ImportedLink>>;

/// The imports of every link. Written by `peering` alone.
#[derive(Debug)]
pub struct Imports {
    view: watch::Sender<Arc<ImportsView>>,
}

impl Default for Imports {
    fn default() -> Self {
        Self { view: watch::Sender::new(Arc::default()) }
    }
}

impl Imports {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn view(&self) -> Arc<ImportsView> {
        self.view.borrow().clone()
    }

    pub fn subscribe(&self) -> watch::Receiver<Arc<ImportsView>> {
        self.view.subscribe()
    }

    /// The end of a snapshot: `services` is all that `link` offers; whatever else was known of it is swept.
    pub fn replace(&self, link: &LinkName, services: BTreeMap<ServiceName, ImportedService>) {
        let mut fresh = Sharded::default();
        if let Some(known) = self.view.borrow().get(link) {
            // Starting from what is known keeps unchanged shards shared with earlier views.
            fresh = known.services.clone();
            for (name, _) in known.services.iter() {
                if !services.contains_key(name) {
                    fresh.remove(name);
                }
            }
        }
        for (name, service) in services {
            if fresh.get(&name) != Some(&service) {
                fresh.insert(name, service);
            }
        }
        self.set(link, ImportedLink { services: fresh, freshness: Freshness::Current });
    }

    /// One change after a snapshot; `None` when the peer no longer offers the service.
    pub fn update(&self, link: &LinkName, name: &ServiceName, service: Option<ImportedService>) {
        let known = self.view.borrow().get(link).cloned();
        let mut services = known.map(|known| known.services.clone()).unwrap_or_default();
        let _ = match service {
            Some(service) => services.insert(name.clone(), service),
            None => services.remove(name),
        };
        self.set(link, ImportedLink { services, freshness: Freshness::Current });
    }

    /// The link went down: what is known stays, as last heard.
    pub fn mark_stale(&self, link: &LinkName) {
        self.set_freshness(link, Freshness::Stale);
    }

    /// Data arrived again that changed nothing (a heartbeat after a silence).
    pub fn mark_current(&self, link: &LinkName) {
        self.set_freshness(link, Freshness::Current);
    }

    /// The link is gone: nothing of it stays.
    pub fn withdraw(&self, link: &LinkName) {
        self.view
            .send_if_modified(|view| view.contains_key(link) && Arc::make_mut(view).remove(link).is_some());
    }

    fn set(&self, link: &LinkName, imported: ImportedLink) {
        self.view.send_if_modified(|view| {
            let same = view.get(link).is_some_and(|known| {
                known.freshness == imported.freshness && known.services == imported.services
            });
            if !same {
                Arc::make_mut(view).insert(link.clone(), Arc::new(imported));
            }
            !same
        });
    }

    fn set_freshness(&self, link: &LinkName, freshness: Freshness) {
        self.view.send_if_modified(|view| {
            let Some(known) = view.get(link).filter(|known| known.freshness != freshness) else {
                return false;
            };
            let imported = ImportedLink { services: known.services.clone(), freshness };
            Arc::make_mut(view).insert(link.clone(), Arc::new(imported));
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
        text.parse().unwrap()
    }

    fn offered(names: &[&str]) -> BTreeMap<ServiceName, ImportedService> {
        names.iter().map(|text| (name(text), ImportedService { instances: 1, healthy: 1 })).collect()
    }

    #[test]
    fn a_snapshot_sweeps_what_it_does_not_name_and_only_changes_are_told() {
        let imports = Imports::new();
        let (east, west) = (name::<LinkName>("east"), name::<LinkName>("west"));
        let mut changes = imports.subscribe();
        imports.replace(&east, offered(&["a", "b"]));
        imports.replace(&west, offered(&["z"]));
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();

        imports.replace(&east, offered(&["a", "b"]));
        imports.update(&west, &name("y"), None);
        assert!(!changes.has_changed().unwrap());

        imports.replace(&east, offered(&["b", "c"]));
        let view = imports.view();
        assert_eq!(
            view[&east].services.sorted().iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(),
            ["b", "c"]
        );
        assert_eq!(view[&west].services.len(), 1);

        imports.mark_stale(&east);
        assert_eq!(imports.view()[&east].freshness, Freshness::Stale);
        imports.update(&east, &name("b"), Some(ImportedService { instances: 2, healthy: 0 }));
        assert_eq!(imports.view()[&east].freshness, Freshness::Current);
        imports.withdraw(&east);
        assert!(!imports.view().contains_key(&east));
    }
}
