//! The sessions that are up, by link: filled by peering, read by whoever opens streams.
//!
//! A link whose connection has just ended is expected back for a while: a peer that restarts is, and who wants to open
//! a stream meanwhile waits for it instead of being refused.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use schema::name::LinkName;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Session;

/// How long a link whose connection ended is expected back: a peer that restarts finishes what it does, then starts.
const RETURN: Duration = Duration::from_secs(15);

/// `LinkName -> Session`. At most one session a link: `put` hands back the one it replaces.
#[derive(Default)]
pub struct Sessions {
    by_link: Mutex<BTreeMap<LinkName, Place>>,
    changed: watch::Sender<u64>,
}

/// What a link has.
#[derive(Debug)]
enum Place {
    Session(Session),
    /// None now, and one is expected until then.
    Expected(Instant),
}

impl Sessions {
    /// The link's session, if it takes streams.
    pub fn get(&self, link: &LinkName) -> Option<Session> {
        self.lock().get(link).and_then(Place::usable).cloned()
    }

    /// The link's session, other than `stale`. Where there is none and one is expected, waits for it.
    pub async fn wait(&self, link: &LinkName, stale: Option<&Session>) -> Option<Session> {
        let mut changed = self.changed.subscribe();
        let mut patience = Instant::now() + RETURN;
        loop {
            changed.borrow_and_update();
            match self.lock().get(link)? {
                Place::Expected(until) => patience = *until,
                place @ Place::Session(_) => {
                    // One that has ended, or is about to, is taken out in a moment.
                    let fresh = |session: &&Session| !stale.is_some_and(|stale| stale.same(session));
                    if let Some(session) = place.usable().filter(fresh) {
                        return Some(session.clone());
                    }
                }
            }
            // The sender lives as long as this does.
            if tokio::time::timeout_at(patience, changed.changed()).await.is_err() {
                return None;
            }
        }
    }

    /// Every session that is up.
    pub fn all(&self) -> Vec<(LinkName, Session)> {
        let usable = |(link, place): (&LinkName, &Place)| Some((link.clone(), place.usable()?.clone()));
        self.lock().iter().filter_map(usable).collect()
    }

    pub fn put(&self, link: LinkName, session: Session) -> Option<Session> {
        let replaced = self.lock().insert(link, Place::Session(session));
        self.tell();
        match replaced? {
            Place::Session(session) => Some(session),
            Place::Expected(_) => None,
        }
    }

    /// A session is going to be made: the link's peer is there, as far as is known.
    pub fn expect(&self, link: &LinkName) {
        self.lock().entry(link.clone()).or_insert_with(|| Place::Expected(Instant::now() + RETURN));
        self.tell();
    }

    /// `session` has ended or takes no more streams, and the next is expected.
    pub fn lose(&self, link: &LinkName, session: &Session) {
        let mut sessions = self.lock();
        if let Some(place) = sessions.get_mut(link)
            && matches!(place, Place::Session(current) if current.same(session))
        {
            *place = Place::Expected(Instant::now() + RETURN);
            drop(sessions);
            self.tell();
        }
    }

    /// The link has no session and expects none any more. One that stands is `remove`'s.
    pub fn give_up(&self, link: &LinkName) {
        let mut sessions = self.lock();
        if matches!(sessions.get(link), Some(Place::Expected(_))) {
            sessions.remove(link);
            drop(sessions);
            self.tell();
        }
    }

    /// Takes out `session` if it still is the link's: one that has been replaced takes nothing with it.
    pub fn remove(&self, link: &LinkName, session: &Session) {
        let mut sessions = self.lock();
        if matches!(sessions.get(link), Some(Place::Session(current)) if current.same(session)) {
            sessions.remove(link);
            drop(sessions);
            self.tell();
        }
    }

    /// Rises with every change.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn tell(&self) {
        self.changed.send_modify(|generation| *generation += 1);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<LinkName, Place>> {
        // The map is whole between statements, so a panic elsewhere leaves nothing half done.
        self.by_link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    fn usable(&self) -> Option<&Session> {
        match self {
            Place::Session(session) => Some(session).filter(|s| !s.is_closed() && !s.is_leaving()),
            Place::Expected(_) => None,
        }
    }
}
