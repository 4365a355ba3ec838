//! The sessions that are up, by link: filled by peering, read by whoever opens streams.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use schema::name::LinkName;
use tokio::sync::watch;

use super::Session;

/// `LinkName -> Session`. At most one session a link: `put` hands back the one it replaces.
#[derive(Default)]
pub struct Sessions {
    by_link: Mutex<BTreeMap<LinkName, Session>>,
    changed: watch::Sender<u64>,
}

impl Sessions {
    pub fn get(&self, link: &LinkName) -> Option<Session> {
        self.lock().get(link).cloned()
    }

    /// Every session that is up.
    pub fn all(&self) -> Vec<(LinkName, Session)> {
        self.lock().iter().map(|(link, session)| (link.clone(), session.clone())).collect()
    }

    pub fn put(&self, link: LinkName, session: Session) -> Option<Session> {
        let replaced = self.lock().insert(link, session);
        self.changed.send_modify(|generation| *generation += 1);
        replaced
    }

    /// Takes out `session` if it still is the link's: one that has been replaced takes nothing with it.
    pub fn remove(&self, link: &LinkName, session: &Session) {
        let mut sessions = self.lock();
        if sessions.get(link).is_some_and(|current| current.same(session)) {
            sessions.remove(link);
            drop(sessions);
            self.changed.send_modify(|generation| *generation += 1);
        }
    }

    /// Rises with every change.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<LinkName, Session>> {
        // The map is whole between statements, so a panic elsewhere leaves nothing half done.
        self.by_link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
