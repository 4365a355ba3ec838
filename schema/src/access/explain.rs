//! A decision in words: which rule decided, which others matched, and what would change it.

use serde::{Deserialize, Serialize};

use crate::access::{Caller, Decision, Intentions, Reason, Source, Verdict, decide, matching, precedence};
use crate::kind::service_intentions::Action;
use crate::name::ServiceName;
use crate::origin::Origin;
use crate::record::{RecordKey, ServiceMatch};

/// Why a connection is allowed or denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    pub source: Source,
    pub destination: ServiceName,
    pub decision: Decision,
    /// Rules that match too, but are less exact than the one that decided; the strongest first.
    pub overruled: Vec<RecordKey>,
    /// The declaration that would turn the decision round.
    pub change: String,
}

/// Explains whether `source` may connect to `destination`.
pub fn explain(source: &Source, destination: &ServiceName, intentions: &Intentions) -> Explanation {
    let from = ServiceMatch::Named(source.service.clone());
    let to = ServiceMatch::Named(destination.clone());
    let origins: Vec<Origin> = Caller::of(source.peer.as_ref()).origins(intentions.groups()).collect();
    let overruled = matching(&origins, &from, &to, intentions).skip(1).map(|matched| matched.key()).collect();
    let decision = decide(source, destination, intentions);
    let wanted = match decision.verdict {
        Verdict::Allowed => Action::Deny,
        Verdict::Denied => Action::Allow,
    };
    Explanation {
        source: source.clone(),
        destination: destination.clone(),
        decision,
        overruled,
        change: block(source, destination, wanted),
    }
}

/// A rule about a destination, as lists show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    pub rule: RecordKey,
    pub precedence: u8,
    /// What it says to those whom it decides about.
    pub verdict: Verdict,
}

/// Every rule that can decide about `destination`, in the order in which they are asked.
pub fn rules_for(destination: &ServiceName, intentions: &Intentions) -> Vec<Listed> {
    let mut listed = Vec::new();
    for pattern in [ServiceMatch::Named(destination.clone()), ServiceMatch::Any] {
        for (origin, source) in intentions.sources_of(&pattern) {
            let origins = std::slice::from_ref(origin);
            let Some(matched) = matching(origins, &source, &pattern, intentions).next() else { continue };
            let (rule, precedence) = (matched.key(), precedence(&pattern, &source));
            listed.push(Listed { rule, precedence, verdict: matched.decision().verdict });
        }
    }
    listed.sort_by(|a, b| b.precedence.cmp(&a.precedence).then_with(|| a.rule.cmp(&b.rule)));
    listed
}

fn precedence_of(rule: &RecordKey) -> Option<u8> {
    match rule {
        RecordKey::Intention { destination, source, .. } => Some(precedence(destination, source)),
        _ => None,
    }
}

/// The most exact intention for the pair: it wins over every other.
fn block(source: &Source, destination: &ServiceName, action: Action) -> String {
    let peer = source.peer.as_ref().map(|peer| format!(", peer = \"{peer}\"")).unwrap_or_default();
    let action = match action {
        Action::Allow => "allow",
        Action::Deny => "deny",
    };
    format!(
        "service_intentions \"{destination}\" {{\n  sources = [{{ name = \"{}\"{peer}, action = \"{action}\" }}]\n}}\n",
        source.service
    )
}

impl Explanation {
    /// The explanation for people; `whose` says, after a rule, who declared it.
    pub fn text(&self, whose: impl Fn(&RecordKey) -> String) -> String {
        let other = match self.decision.verdict {
            Verdict::Allowed => "deny",
            Verdict::Denied => "allow",
        };
        format!("{}To {other} it, declare:\n\n{}", self.decided(whose), self.change)
    }

    /// The same, without what would change it.
    pub fn decided(&self, whose: impl Fn(&RecordKey) -> String) -> String {
        use std::fmt::Write;
        let verdict = match self.decision.verdict {
            Verdict::Allowed => "allowed",
            Verdict::Denied => "denied",
        };
        let mut text = format!("{} → {}: {verdict}\n", self.source, self.destination);
        // Writing to a String cannot fail.
        let _ = match &self.decision.reason {
            Reason::Rule { rule, precedence } => {
                writeln!(text, "  decided by {rule} (precedence {precedence}){}", whose(rule))
            }
            Reason::Permissions { rule, precedence } => writeln!(
                text,
                "  decided by {rule} (precedence {precedence}){}: it has HTTP permissions or asks for a JWT, which are not enforced yet, so nothing is allowed by it",
                whose(rule)
            ),
            Reason::NoRule => {
                writeln!(text, "  no intention matches, and what no intention allows is denied")
            }
        };
        for rule in &self.overruled {
            let precedence = precedence_of(rule).map_or(String::new(), |n| format!(" (precedence {n})"));
            let _ = writeln!(text, "  overruled: {rule}{precedence}{}", whose(rule));
        }
        text
    }
}
