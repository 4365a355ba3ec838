//! What was said of tokens, so that no token is judged twice within a while, and how often strangers may have the
//! provider called.
//!
//! Pure: time is an argument. Bounded: tokens that were refused cannot crowd out those that were taken.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::Refusal;
use crate::wire::token::SecretDigest;

/// How long a token that was taken is not judged again, at most.
pub const TAKEN_FOR: Duration = Duration::from_secs(300);
/// How long one that was refused is not.
const REFUSED_FOR: Duration = Duration::from_secs(15);
/// Most verdicts of each kind.
const MOST: usize = 10_000;

/// Verdicts on tokens, by their digests.
#[derive(Debug, Default)]
pub struct Verdicts {
    taken: HashMap<String, Instant>,
    refused: HashMap<String, (Instant, Refusal)>,
}

impl Verdicts {
    /// What was said of a token, if that still holds.
    pub fn get(&self, digest: &SecretDigest, now: Instant) -> Option<Result<(), Refusal>> {
        if self.taken.get(digest.as_str()).is_some_and(|until| *until > now) {
            return Some(Ok(()));
        }
        let (until, refusal) = self.refused.get(digest.as_str())?;
        (*until > now).then(|| Err(refusal.clone()))
    }

    pub fn taken(&mut self, digest: &SecretDigest, good_for: Duration, now: Instant) {
        self.refused.remove(digest.as_str());
        make_room(&mut self.taken, |until| *until > now);
        self.taken.insert(digest.as_str().to_owned(), now + good_for.min(TAKEN_FOR));
    }

    pub fn refused(&mut self, digest: &SecretDigest, refusal: Refusal, now: Instant) {
        self.taken.remove(digest.as_str());
        make_room(&mut self.refused, |(until, _)| *until > now);
        self.refused.insert(digest.as_str().to_owned(), (now + REFUSED_FOR, refusal));
    }

    /// Another provider is asked from now on, or the same for something else.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Sweeps out what holds no more; what is left of too many is judged anew.
fn make_room<T>(verdicts: &mut HashMap<String, T>, holds: impl Fn(&T) -> bool) {
    if verdicts.len() >= MOST {
        verdicts.retain(|_, verdict| holds(verdict));
    }
    if verdicts.len() >= MOST {
        verdicts.clear();
    }
}

/// Calls that tokens may cause in a row, and how much later there may be another.
const BURST: u32 = 100;
const INTERVAL: Duration = Duration::from_millis(200);

/// How often the provider is called because of tokens that nobody has seen before.
#[derive(Debug, Default)]
pub struct Pace {
    /// When all calls will be paid for.
    until: Option<Instant>,
}

impl Pace {
    /// Whether there may be a call at `now`, which then counts; else how long to wait.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let until = self.until.map_or(now, |until| until.max(now));
        let ahead = until.duration_since(now);
        let most = INTERVAL * (BURST - 1);
        if ahead > most {
            return Err(ahead.saturating_sub(most));
        }
        self.until = Some(until + INTERVAL);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::token::Secret;

    fn digest(number: usize) -> SecretDigest {
        Secret::new(number.to_string()).digest()
    }

    #[test]
    fn a_verdict_holds_for_a_while_and_no_longer_than_the_token() {
        let (mut verdicts, now) = (Verdicts::default(), Instant::now());
        let (one, two) = (digest(1), digest(2));
        verdicts.taken(&one, Duration::from_secs(30), now);
        verdicts.refused(&two, Refusal::NotGood("x".to_owned()), now);
        let later = |seconds| now + Duration::from_secs(seconds);
        assert!(matches!(verdicts.get(&one, later(29)), Some(Ok(()))));
        assert!(verdicts.get(&one, later(30)).is_none());
        assert!(matches!(verdicts.get(&two, later(14)), Some(Err(_))));
        assert!(verdicts.get(&two, later(15)).is_none());
        verdicts.taken(&one, Duration::from_secs(86400), now);
        assert!(verdicts.get(&one, later(301)).is_none());
        verdicts.clear();
        assert!(verdicts.get(&one, now).is_none());
    }

    #[test]
    fn what_is_refused_does_not_crowd_out_what_is_taken() {
        let (mut verdicts, now) = (Verdicts::default(), Instant::now());
        verdicts.taken(&digest(0), TAKEN_FOR, now);
        for number in 1..=2 * MOST {
            verdicts.refused(&digest(number), Refusal::NotGood(String::new()), now);
        }
        assert!(verdicts.refused.len() <= MOST);
        assert!(verdicts.get(&digest(0), now).is_some());
    }

    #[test]
    fn strangers_cannot_have_the_provider_called_without_end() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        assert_eq!((0..1000).filter(|_| pace.take(now).is_ok()).count(), 100);
        let wait = pace.take(now).unwrap_err();
        assert!(wait <= INTERVAL, "{wait:?}");
        assert!(pace.take(now + wait).is_ok() && pace.take(now + wait).is_err());
    }
}
