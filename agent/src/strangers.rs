//! Connections of those who are not trusted, or not known yet: when there are too many, the oldest goes.
//!
//! Making newcomers wait instead would let whoever connects and says nothing shut out everybody else. What the owner
//! or a peer needs to become known takes milliseconds, so it is never the oldest for long, however many others hang.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// Everybody who is not known, by age.
pub struct Strangers {
    most: usize,
    here: Mutex<Here>,
}

#[derive(Default)]
struct Here {
    next: u64,
    by_age: BTreeMap<u64, CancellationToken>,
}

/// One of them. Dropped when it has become known, or is gone.
pub struct Stranger {
    strangers: Arc<Strangers>,
    age: u64,
    evicted: CancellationToken,
}

impl Strangers {
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, here: Mutex::default() })
    }

    /// Takes in a newcomer; the oldest goes if there is no room for it.
    pub fn enter(self: &Arc<Self>) -> Stranger {
        let evicted = CancellationToken::new();
        let mut here = self.lock();
        if here.by_age.len() >= self.most
            && let Some((_, oldest)) = here.by_age.pop_first()
        {
            oldest.cancel();
        }
        let age = here.next;
        here.next += 1;
        here.by_age.insert(age, evicted.clone());
        drop(here);
        Stranger { strangers: Arc::clone(self), age, evicted }
    }

    fn lock(&self) -> MutexGuard<'_, Here> {
        // The map is whole between statements, so a panic elsewhere leaves nothing half done.
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stranger {
    /// Resolves when it has to go.
    pub async fn evicted(&self) {
        self.evicted.cancelled().await;
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.strangers.lock().by_age.remove(&self.age);
    }
}

/// Resolves when `stranger` has to go: never for one who is known.
pub async fn evicted(stranger: Option<&Stranger>) {
    match stranger {
        Some(stranger) => stranger.evicted().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_that_is_still_a_stranger_goes() {
        let strangers = Strangers::new(2);
        let (first, second) = (strangers.enter(), strangers.enter());
        drop(first);
        let third = strangers.enter();
        assert!(!second.evicted.is_cancelled());
        let _fourth = strangers.enter();
        assert!(second.evicted.is_cancelled() && !third.evicted.is_cancelled());
        drop(second);
        assert_eq!(strangers.lock().by_age.len(), 2);
    }
}
