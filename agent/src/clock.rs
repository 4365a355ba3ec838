//! An index for what is kept in memory only, such as health: it rises with every change, and begins above all that was
//! handed out before a restart, so that no client waits for an index that is long past or far ahead.

use jiff::Timestamp;
use tokio::sync::watch;

/// Counts the changes of one kind of thing.
#[derive(Debug)]
pub struct Clock {
    index: watch::Sender<u64>,
}

impl Clock {
    /// Begins at the milliseconds since 1970: an earlier run would have had to count a thousand changes a second, all
    /// its life, to be ahead of that.
    pub fn starting(now: Timestamp) -> Self {
        let index = u64::try_from(now.as_millisecond()).unwrap_or_default().max(1);
        Self { index: watch::Sender::new(index) }
    }

    /// The index of the newest change.
    pub fn now(&self) -> u64 {
        *self.index.borrow()
    }

    /// Counts a change, wakes who waits for one, and tells the change's index. To be called once the change can be
    /// seen, so that who is woken by it sees it.
    pub fn tick(&self) -> u64 {
        let mut told = 0;
        self.index.send_modify(|index| {
            *index += 1;
            told = *index;
        });
        told
    }

    /// Wakes with every change.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.index.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_with_every_change_and_over_a_restart() {
        let begun = Timestamp::now();
        let clock = Clock::starting(begun);
        let told = clock.subscribe();
        let first = clock.now();
        assert_eq!((clock.tick(), clock.tick(), clock.now()), (first + 1, first + 2, first + 2));
        assert!(told.has_changed().unwrap());
        let later = Clock::starting(begun + jiff::SignedDuration::from_secs(1));
        assert!(later.now() > clock.now());
    }
}
