//! Who gains or loses access by a plan.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::access::{Intentions, Verdict, decide_match};
use crate::kind::Kind;
use crate::name::LinkName;
use crate::plan::{Change, Live, Plan};
use crate::record::{Record, RecordKey, ServiceMatch};

/// A pair of services for which a plan changes the answer; `*` stands for every service that no rule names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Effect {
    pub destination: ServiceMatch,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<LinkName>,
    pub source: ServiceMatch,
    /// The answer after the plan.
    pub becomes: Verdict,
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)?;
        if let Some(peer) = &self.peer {
            write!(f, "@{peer}")?;
        }
        let becomes = match self.becomes {
            Verdict::Allowed => "allowed",
            Verdict::Denied => "denied",
        };
        write!(f, " → {} becomes {becomes}", self.destination)
    }
}

/// Who gains or loses access by `plan`, in order of destination.
///
/// Only pairs that a changed rule can decide are looked at. A changed rule with an exact source and destination decides
/// its own pair. Where one with a `*` decides a pair, it decides the pair of patterns in the same way, so that this pair
/// stands for all, with one exception: when `* -> destination` comes or goes, a source that has a rule for all
/// destinations falls back to that one.
pub fn effects(live: &Live, plan: &Plan) -> Vec<Effect> {
    let touched: Vec<&Change> =
        plan.changes.iter().filter(|change| change.key.kind() == Kind::ServiceIntentions).collect();
    if touched.is_empty() {
        return Vec::new();
    }
    let before = Intentions::from_records(live.records.iter().map(|(key, live)| (key, &live.record)));
    let mut after = before.clone();
    for change in &touched {
        match &change.after {
            Some(Record::ServiceIntentions(rule)) => after.insert(&change.key, rule.clone()),
            _ => after.remove(&change.key),
        }
    }

    let mut effects = BTreeSet::new();
    for change in touched {
        let RecordKey::Intention { destination, peer, source } = &change.key else { continue };
        let mut look = |source: &ServiceMatch| {
            let verdict = |rules| decide_match(peer.as_ref(), source, destination, rules).verdict;
            let becomes = verdict(&after);
            if verdict(&before) != becomes {
                let (destination, peer, source) = (destination.clone(), peer.clone(), source.clone());
                effects.insert(Effect { destination, peer, source, becomes });
            }
        };
        look(source);
        if *source == ServiceMatch::Any && *destination != ServiceMatch::Any {
            for rules in [&before, &after] {
                for name in rules.sources_for_any(peer.as_ref()) {
                    look(&ServiceMatch::Named(name.clone()));
                }
            }
        }
    }
    effects.into_iter().collect()
}

#[cfg(test)]
mod tests;
