//! What the log says of connections that were not made: the first of each kind at once, the rest as a number every
//! [`INTERVAL`]. A flood of denials then costs a few lines, and hides nothing that others did.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use schema::name::LinkName;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{Pair, Rule};
use crate::wire::traffic::{Cause, Denial, Way};

/// How often what was not told at once is summed up.
pub(super) const INTERVAL: Duration = Duration::from_secs(10);

/// Kinds of one link that are told apart in one interval: names of sources are a peer's word. Those beyond are one
/// number.
const MAX_KINDS: usize = 32;

/// What became of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Fate {
    Denied(Denial),
    Failed(Cause),
    /// It was open, and what allowed it has ended.
    Cut,
}

impl Fate {
    fn cause(self) -> Option<&'static str> {
        match self {
            Fate::Denied(denial) => Some(denial.as_str()),
            Fate::Failed(cause) => Some(cause.as_str()),
            Fate::Cut => None,
        }
    }

    fn first(self) -> &'static str {
        match self {
            Fate::Denied(_) => "connection denied",
            Fate::Failed(_) => "connection failed",
            Fate::Cut => "connection cut",
        }
    }

    fn more(self) -> &'static str {
        match self {
            Fate::Denied(_) => "more connections denied",
            Fate::Failed(_) => "more connections failed",
            Fate::Cut => "more connections cut",
        }
    }
}

/// Whether it is known who calls. Who is not takes no line from those who are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Known {
    Yes,
    No,
}

/// Whose share of the lines a notice takes.
type Scope = (Way, Option<LinkName>, Known);

/// What was told in this interval, and what was not.
#[derive(Debug, Default)]
struct Window {
    kinds: HashMap<(Pair, Fate), u64>,
    /// Of kinds that there was no room for.
    beyond: u64,
}

/// What the end of an interval has to tell.
#[derive(Debug, Default, PartialEq, Eq)]
struct Summary {
    more: Vec<(Pair, Fate, u64)>,
    beyond: u64,
}

impl Window {
    /// Takes one in, and says whether it is told now.
    fn note(&mut self, pair: &Pair, fate: Fate) -> bool {
        let kind = (pair.clone(), fate);
        if let Some(untold) = self.kinds.get_mut(&kind) {
            *untold += 1;
            return false;
        }
        let room = self.kinds.len() < MAX_KINDS;
        if room {
            self.kinds.insert(kind, 0);
        } else {
            self.beyond += 1;
        }
        room
    }

    /// Ends the interval. A kind that went on is summed up again at the end of the next; one that did not is told at
    /// once when it comes again.
    fn close(&mut self) -> Summary {
        let mut summary = Summary { more: Vec::new(), beyond: std::mem::take(&mut self.beyond) };
        self.kinds.retain(|(pair, fate), untold| {
            let count = std::mem::take(untold);
            if count > 0 {
                summary.more.push((pair.clone(), *fate, count));
            }
            count > 0
        });
        summary
    }
}

/// The log of one agent's connections that were not made.
#[derive(Debug, Default)]
pub(super) struct Notices {
    windows: Mutex<BTreeMap<Scope, Window>>,
    begun: Notify,
}

impl Notices {
    pub(super) fn tell(&self, pair: &Pair, known: Known, fate: Fate, reason: &dyn Display) {
        let now = {
            let mut windows = self.lock();
            if windows.is_empty() {
                self.begun.notify_one();
            }
            windows.entry((pair.way, pair.peer().cloned(), known)).or_default().note(pair, fate)
        };
        if now {
            line(pair, fate, Some(reason), None);
        }
    }

    /// Sums up until the end, and then once more.
    pub(super) async fn run(&self, ending: CancellationToken) {
        loop {
            tokio::select! {
                () = ending.cancelled() => break,
                () = self.begun.notified() => {}
            }
            while !self.lock().is_empty() {
                tokio::select! {
                    () = ending.cancelled() => break,
                    () = tokio::time::sleep(INTERVAL) => {}
                }
                self.sum_up();
            }
        }
        self.sum_up();
    }

    fn sum_up(&self) {
        let mut summaries = Vec::new();
        self.lock().retain(|scope, window| {
            let summary = window.close();
            let keep = summary != Summary::default();
            summaries.push((scope.clone(), summary));
            keep
        });
        for ((way, link, _), summary) in summaries {
            for (pair, fate, count) in summary.more {
                line(&pair, fate, None, Some(count));
            }
            if summary.beyond > 0 {
                tracing::warn!(
                    way = way.as_str(),
                    link = link.as_ref().map(tracing::field::display),
                    count = summary.beyond,
                    seconds = INTERVAL.as_secs(),
                    "more connections of other pairs denied, failed or cut: too many pairs to name each"
                );
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Scope, Window>> {
        // Whole after every statement, so a panic elsewhere cannot have torn it.
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One line. Fields that there is nothing to say of are left out.
fn line(pair: &Pair, fate: Fate, reason: Option<&dyn Display>, count: Option<u64>) {
    let destination = pair.shown_destination();
    let (rule, precedence) = match &pair.rule {
        Some(Rule { key, precedence }) => (Some(tracing::field::display(key)), Some(precedence)),
        None => (None, None),
    };
    let (cause, reason) = (fate.cause(), reason.map(tracing::field::display));
    let seconds = count.map(|_| INTERVAL.as_secs());
    let message = if count.is_some() { fate.more() } else { fate.first() };
    tracing::warn!(
        source = %pair.source, %destination, way = pair.way.as_str(), rule, precedence, cause, reason, count, seconds,
        "{message}"
    );
}

#[cfg(test)]
mod tests {
    use schema::access::Source;

    use super::*;

    fn pair(source: &str) -> Pair {
        let source = Source { peer: Some("west".parse().unwrap()), service: source.parse().unwrap() };
        Pair::of_peer(source, "backend".parse().unwrap())
    }

    #[test]
    fn the_first_of_each_is_told_at_once_and_the_others_are_summed_up() {
        let (denied, failed) = (Fate::Denied(Denial::NoRule), Fate::Failed(Cause::NoInstance));
        let mut window = Window::default();
        assert!(window.note(&pair("a"), denied));
        assert!(window.note(&pair("a"), failed), "another fate is another kind");
        assert!(window.note(&pair("b"), denied));
        for _ in 0..1_000 {
            assert!(!window.note(&pair("a"), denied));
        }
        assert_eq!(window.close(), Summary { more: vec![(pair("a"), denied, 1_000)], beyond: 0 });

        // What went on is known still; what did not is new when it comes again.
        assert!(!window.note(&pair("a"), denied));
        assert!(window.note(&pair("b"), denied));
        assert_eq!(window.close(), Summary { more: vec![(pair("a"), denied, 1)], beyond: 0 });
        assert_eq!(window.close(), Summary::default(), "nothing came, so there is nothing to tell");
        assert!(window.note(&pair("a"), denied));
    }

    #[test]
    fn a_flood_of_names_is_a_bounded_number_of_lines_and_none_is_lost() {
        let mut window = Window::default();
        let denied = Fate::Denied(Denial::NotExported);
        let told = (0..10_000).filter(|number| window.note(&pair(&format!("s{number}")), denied)).count();
        assert_eq!(told, MAX_KINDS);
        assert_eq!(window.close(), Summary { more: Vec::new(), beyond: 10_000 - MAX_KINDS as u64 });
    }
}
