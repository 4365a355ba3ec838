//! How often the same thing is told: a log that repeats itself hides what else happens.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time between two lines about one thing.
const BETWEEN: Duration = Duration::from_secs(10);

/// When one thing was told last.
#[derive(Debug, Default)]
pub(super) struct Pace(Mutex<Option<Instant>>);

impl Pace {
    /// Whether it may be told now; if so, not again for a while.
    pub(super) fn may(&self, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let may = last.is_none_or(|last| now.duration_since(last) >= BETWEEN);
        if may {
            *last = Some(now);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_is_told_at_once_and_then_once_in_a_while() {
        let (pace, now) = (Pace::default(), Instant::now());
        assert_eq!((pace.may(now), pace.may(now)), (true, false));
        let later = now + BETWEEN;
        assert_eq!((pace.may(later), pace.may(later)), (true, false));
    }
}
