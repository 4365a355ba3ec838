//! Blocking queries: a client that tells the index it has seen is answered when there is something new, or when it has
//! waited long enough.
//!
//! A waiting query costs nothing while nothing changes: it sleeps until the thing that it looks at says that it has
//! changed, and is not answered when what it would be told is the same as before. It ends with its caller's rights and
//! with the agent.

use std::collections::HashMap;
use std::future::{Future, pending, ready};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::answer::{Answer, ConsulError, json};
use super::asked::Asked;
use crate::api::ApiState;
use crate::trust::Caller;
use crate::trust::policy::Policy;

/// Most queries that wait at a time.
const MOST: usize = 16_384;
/// Most that one caller may have waiting.
const MOST_OF_ONE: usize = 4096;
/// Shares of the wait that are added to it at most, so that clients that began together do not all come back together.
const JITTER: u32 = 16;

/// What a look at the state has found.
#[derive(Debug)]
pub struct Found<T> {
    /// Of the newest change to what was looked at: the revision of the store, or a `Clock`'s.
    pub index: u64,
    /// The answer, or why there is none yet: a query for something that is not there waits until it is.
    pub value: Result<T, ConsulError>,
    /// Whether the caller may not see all of it.
    pub filtered: bool,
}

impl<T> Found<T> {
    pub fn new(index: u64, value: T) -> Self {
        Self { index, value: Ok(value), filtered: false }
    }

    /// There is no such thing, as of `index`.
    pub fn absent(index: u64, error: ConsulError) -> Self {
        Self { index, value: Err(error), filtered: false }
    }

    /// Tells that the caller may not see all of it.
    #[must_use]
    pub fn filtered(self, filtered: bool) -> Self {
        Self { filtered, ..self }
    }
}

/// What tells that there may be something new. Must be had before the first look, so that no change falls between.
pub trait Changes: Send {
    /// Returns once there may be something new since this was last asked; never, if there will be nothing.
    fn next(&mut self) -> impl Future<Output = ()> + Send;
}

impl<T: Send + Sync> Changes for watch::Receiver<T> {
    async fn next(&mut self) {
        // The agent is ending then, and whoever waits for that hears of it elsewhere.
        if self.changed().await.is_err() {
            pending::<()>().await;
        }
    }
}

/// Either of the two.
impl<A: Changes, B: Changes> Changes for (A, B) {
    async fn next(&mut self) {
        tokio::select! {
            () = self.0.next() => {}
            () = self.1.next() => {}
        }
    }
}

/// The queries that wait.
#[derive(Debug, Clone, Default)]
pub struct Blocked(Arc<Mutex<HashMap<String, usize>>>);

/// A place among them.
#[derive(Debug)]
struct Place {
    of: String,
    among: Blocked,
}

impl Blocked {
    fn enter(&self, caller: &Caller) -> Result<Place, ConsulError> {
        let of = caller.identity();
        // The counts are whole between statements, so a panic elsewhere leaves nothing half done.
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = waiting.get(&of).copied().unwrap_or_default();
        if own >= MOST_OF_ONE || waiting.values().sum::<usize>() >= MOST {
            let message = format!(
                "rate limit exceeded, try again later or against a different server: at most {MOST_OF_ONE} blocking \
                 queries of one caller may wait, and {MOST} of all"
            );
            let error = ConsulError::new(StatusCode::TOO_MANY_REQUESTS, message);
            return Err(ConsulError { retry_after: Some(Duration::from_secs(1)), ..error });
        }
        *waiting.entry(of.clone()).or_default() += 1;
        Ok(Place { of, among: self.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.among.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = waiting.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(&self.of);
            }
        }
    }
}

/// Answers with what `look` finds, at once or when it has changed. `look` is asked anew each time, with whoever the
/// caller is by then: it is where permits are asked for.
pub async fn answer<T: Serialize + Send>(
    state: &ApiState,
    asked: &Asked,
    changes: impl Changes,
    look: impl Fn(&Caller) -> Result<Found<T>, ConsulError> + Send + Sync,
) -> Result<Answer, ConsulError> {
    answer_read(state, asked, changes, |caller| ready(look(&caller))).await
}

/// As `answer`, for what can be seen a moment before its index is told, as health can.
pub async fn answer_live<T: Serialize + Send>(
    state: &ApiState,
    asked: &Asked,
    changes: impl Changes,
    look: impl Fn(&Caller) -> Result<Found<T>, ConsulError> + Send + Sync,
) -> Result<Answer, ConsulError> {
    let seen = asked.index.map(Seen::Live);
    told(state, asked, seen, changes, |caller: Caller| ready(look(&caller))).await?.answer()
}

/// As `answer`, for what has to be read.
pub async fn answer_read<T: Serialize + Send, F>(
    state: &ApiState,
    asked: &Asked,
    changes: impl Changes,
    look: impl FnMut(Caller) -> F + Send,
) -> Result<Answer, ConsulError>
where
    F: Future<Output = Result<Found<T>, ConsulError>> + Send,
{
    let seen = asked.index.map(Seen::Index);
    told(state, asked, seen, changes, look).await?.answer()
}

/// What a client says that it has seen.
enum Seen {
    /// The index of content that is read together with it: the same content under a newer index is no news.
    Index(u64),
    /// The index of content that can be seen a moment before its index is told. What the first look finds may then be
    /// newer than what the client has, so that the same content under a newer index may be news.
    Live(u64),
}

async fn told<T: Serialize + Send, F>(
    state: &ApiState,
    asked: &Asked,
    seen: Option<Seen>,
    mut changes: impl Changes,
    mut look: impl FnMut(Caller) -> F + Send,
) -> Result<Told, ConsulError>
where
    F: Future<Output = Result<Found<T>, ConsulError>> + Send,
{
    let mut revoked = state.identities.changed();
    // Before the first look, so that no change of theirs falls between.
    let mut rights = Rights::of(state, &asked.caller);
    let told = Told::of(look(rights.caller.clone()).await?, asked)?;
    let Some(seen) = seen.filter(|seen| told.is(seen)) else { return Ok(told) };
    let _place = state.blocked.enter(&asked.caller)?;
    let deadline = Instant::now() + jittered(asked.wait, random());
    let before = told.digest();
    drop(told);
    let ending = state.tasks.ending();
    loop {
        let is_over = tokio::select! {
            () = changes.next() => false,
            changed = revoked.changed() => {
                if changed.is_ok() && Rights::of(state, &asked.caller).are(&rights) {
                    // It was somebody else's.
                    continue;
                }
                changed.is_err()
            }
            () = tokio::time::sleep_until(deadline) => true,
            () = ending.cancelled() => true,
        };
        rights = Rights::of(state, &asked.caller);
        let told = Told::of(look(rights.caller.clone()).await?, asked)?;
        let is_known = told.is(&seen) || (!matches!(seen, Seen::Live(_)) && told.digest() == before);
        if is_over || !is_known {
            return Ok(told);
        }
    }
}

/// What decides what a caller may see.
struct Rights {
    caller: Caller,
    policy: Arc<Policy>,
}

impl Rights {
    fn of(state: &ApiState, caller: &Caller) -> Self {
        Self { caller: state.now(caller), policy: state.identities.policy() }
    }

    fn are(&self, before: &Self) -> bool {
        self.caller == before.caller && Arc::ptr_eq(&self.policy, &before.policy)
    }
}

/// What a client is told. Kept no longer than it takes to tell: a thousand that wait would keep a thousand copies.
struct Told {
    index: u64,
    body: Result<Vec<u8>, ConsulError>,
    filtered: bool,
}

impl Told {
    fn of<T: Serialize>(found: Found<T>, asked: &Asked) -> Result<Self, ConsulError> {
        let body = match found.value {
            Ok(value) => Ok(json(&value, asked.pretty)?),
            Err(error) => Err(error),
        };
        Ok(Self { index: found.index.max(1), body, filtered: found.filtered })
    }

    fn digest(&self) -> blake3::Hash {
        match &self.body {
            Ok(body) => blake3::hash(body),
            Err(error) => blake3::hash(format!("{} {}", error.status, error.message).as_bytes()),
        }
    }

    /// Whether it is what the client has seen.
    fn is(&self, seen: &Seen) -> bool {
        match seen {
            Seen::Index(index) | Seen::Live(index) => self.index == *index,
        }
    }

    fn answer(self) -> Result<Answer, ConsulError> {
        let index = self.index;
        match self.body {
            Ok(body) => Ok(Answer::of(body).index(index).filtered(self.filtered)),
            Err(error) => Err(error.index(index)),
        }
    }
}

/// `wait` and up to a sixteenth of it more, by the lot that was drawn.
fn jittered(wait: Duration, lot: u32) -> Duration {
    wait + (wait / JITTER).mul_f64(f64::from(lot) / f64::from(u32::MAX))
}

fn random() -> u32 {
    let [a, b, c, d, ..] = *Uuid::new_v4().as_bytes();
    u32::from_le_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::Who;

    #[test]
    fn the_wait_is_stretched_by_a_sixteenth_at_most() {
        let wait = Duration::from_secs(160);
        assert_eq!(jittered(wait, 0), wait);
        assert_eq!(jittered(wait, u32::MAX), Duration::from_secs(170));
    }

    #[test]
    fn one_caller_cannot_take_all_places_and_they_are_given_back() {
        let blocked = Blocked::default();
        let [one, other] = [1, 2].map(|uid| Caller::from(Who::Local { uid }));
        let held: Vec<_> = (0..MOST_OF_ONE).map(|_| blocked.enter(&one).unwrap()).collect();
        let refused = blocked.enter(&one).unwrap_err();
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
        assert!(refused.message.starts_with("rate limit exceeded, try again later"), "{refused:?}");
        blocked.enter(&other).unwrap();
        drop(held);
        assert!(blocked.0.lock().unwrap().is_empty());
        blocked.enter(&one).unwrap();
    }
}
