//! What linked clusters export to this one: held in memory only, replaced by each snapshot that a link's stream
//! brings, and marked stale while that link carries nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use schema::name::{ClusterName, LinkName, ServiceName};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::Sharded;
use crate::clock::Clock;
pub use crate::wire::sync::{OfferedInstance as ImportedInstance, OfferedStatus as ImportedStatus};

/// A service that a peer offers to this cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImportedService {
    /// What it speaks there; empty where nothing is declared.
    pub protocol: String,
    /// By id.
    pub instances: Vec<ImportedInstance>,
}

impl ImportedService {
    /// Instances that calls may go to: those that pass, and those that only warn.
    pub fn healthy(&self) -> usize {
        self.instances.iter().filter(|instance| instance.status <= ImportedStatus::Warning).count()
    }
}

/// Whether the peer's word is current.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Freshness {
    Current,
    /// The link is down: this is the last that was heard.
    Stale,
}

/// The services of one peer. A clone shares almost everything.
pub type ImportedServices = Sharded<ServiceName, Arc<ImportedService>>;

/// What one peer offers, and says about itself.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportedLink {
    /// What the peer calls itself.
    pub cluster: ClusterName,
    pub services: ImportedServices,
    pub freshness: Freshness,
    /// Where its agent says that it is reached, `host:port`: calls of its services go there.
    pub addresses: Arc<[String]>,
}

/// What every peer offers.
pub type ImportsView = BTreeMap<LinkName, Arc<ImportedLink>>;

/// The imports of every link. Written by `peering` alone.
#[derive(Debug)]
pub struct Imports {
    view: watch::Sender<Arc<ImportsView>>,
    index: Clock,
}

impl Default for Imports {
    fn default() -> Self {
        Self { view: watch::Sender::new(Arc::default()), index: Clock::starting(Timestamp::now()) }
    }
}

impl Imports {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn view(&self) -> Arc<ImportsView> {
        self.view.borrow().clone()
    }

    /// Of the newest change, for clients that wait for the next. To be read before the view.
    pub fn index(&self) -> u64 {
        self.index.now()
    }

    /// A new view whenever something in it changed.
    pub fn subscribe(&self) -> watch::Receiver<Arc<ImportsView>> {
        self.view.subscribe()
    }

    /// Changes the view, unless `write` says that it is as it was.
    fn change(&self, write: impl FnOnce(&mut Arc<ImportsView>) -> bool) {
        self.view.send_if_modified(|view| {
            let changed = write(view);
            if changed {
                self.index.tick();
            }
            changed
        });
    }

    /// Everything that a peer offers, as of now.
    pub fn publish(&self, link: &LinkName, imported: ImportedLink) {
        self.change(|view| {
            let same = view.get(link).is_some_and(|known| **known == imported);
            if !same {
                Arc::make_mut(view).insert(link.clone(), Arc::new(imported));
            }
            !same
        });
    }

    /// The link went down: what is known stays, as last heard.
    pub fn mark_stale(&self, link: &LinkName) {
        self.change(|view| {
            let Some(known) = view.get(link).filter(|known| known.freshness != Freshness::Stale) else {
                return false;
            };
            let stale = ImportedLink { freshness: Freshness::Stale, ..ImportedLink::clone(known) };
            Arc::make_mut(view).insert(link.clone(), Arc::new(stale));
            true
        });
    }

    /// The link is gone: nothing of it stays.
    pub fn withdraw(&self, link: &LinkName) {
        self.change(|view| view.contains_key(link) && Arc::make_mut(view).remove(link).is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
        text.parse().unwrap()
    }

    fn offers(names: &[&str]) -> ImportedLink {
        ImportedLink {
            cluster: name("there"),
            services: names.iter().map(|text| (name(text), Arc::default())).collect(),
            freshness: Freshness::Current,
            addresses: Arc::new([]),
        }
    }

    #[test]
    fn only_changes_are_told_and_what_a_link_brought_goes_with_it() {
        let imports = Imports::new();
        let (east, west) = (name::<LinkName>("east"), name::<LinkName>("west"));
        let mut changes = imports.subscribe();
        imports.publish(&east, offers(&["a", "b"]));
        imports.publish(&west, offers(&["z"]));
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        imports.publish(&east, offers(&["a", "b"]));
        assert!(!changes.has_changed().unwrap());

        imports.mark_stale(&east);
        assert_eq!(imports.view()[&east].freshness, Freshness::Stale);
        assert_eq!(imports.view()[&east].services.len(), 2);
        imports.publish(&east, offers(&["b"]));
        assert_eq!(imports.view()[&east].freshness, Freshness::Current);
        imports.withdraw(&east);
        assert!(!imports.view().contains_key(&east));
    }
}
