//! Who gains or loses access by a plan.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::access::Verdict;
use crate::name::LinkName;
use crate::plan::{Live, Plan};
use crate::record::ServiceMatch;

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
pub fn effects(live: &Live, plan: &Plan) -> Vec<Effect> {
    let _ = (live, plan);
    Vec::new()
}
