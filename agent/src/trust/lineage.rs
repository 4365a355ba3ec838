//! What is known of the succession of somebody else's certificates, and what a proof makes of it: pure.
//!
//! One certificate is pinned. A proof may move the pin along a chain to the certificate that the other side has just
//! shown in a handshake, and may announce one more that is awaited: it is accepted besides the pinned one, and becomes
//! the pin when it is first shown. Numbers go up by one. Two different successors of one certificate are an alarm:
//! whoever holds the key has signed twice, or somebody else holds it too. Then neither is taken, and a person decides.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Fingerprint;
use super::certificate::to_pem;
use super::succession::{Chain, ChainFault, Proven, Stale};

/// What is known besides the pinned certificate itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Lineage {
    /// The step by which the pin was last moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Taken>,
    /// What is to follow the pin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Awaited>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarm: Option<Alarm>,
}

/// A step that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    pub number: u64,
    pub from: Fingerprint,
    pub to: Fingerprint,
}

/// A successor that was announced and has not been shown yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Awaited {
    pub number: u64,
    pub fingerprint: Fingerprint,
    pub certificate_pem: String,
    pub deadline: Timestamp,
    /// The deadline passed before it was shown: remembered, but not accepted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lapsed: bool,
}

/// One certificate was signed two different successors for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    pub number: u64,
    pub from: Fingerprint,
    pub first: Fingerprint,
    pub second: Fingerprint,
    pub at: Timestamp,
}

impl std::fmt::Display for Alarm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { number, from, first, second, .. } = self;
        write!(
            f,
            "ALARM: two different successors of certificate {from} are signed for as number {number}: {first} and \
             {second}; neither is taken, for the key may be in other hands"
        )
    }
}

/// A pinned certificate with what is known of its succession.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    pub fingerprint: Fingerprint,
    /// PEM; empty where only the hash is known.
    pub certificate_pem: String,
    pub lineage: Lineage,
}

/// What a proof makes of a pin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It says nothing new.
    Known,
    /// To be written instead of what there was.
    Taken(Pinned),
    /// Nothing of it is taken, and this is to be written.
    Alarm(Pinned, Alarm),
}

/// Why a proof changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error(transparent)]
    Fault(#[from] ChainFault),
    #[error("the proof does not begin with the certificate that is pinned, {0}")]
    Unrelated(Fingerprint),
    #[error("the proof's number is {got} where {expected} is to follow")]
    Number { expected: u64, got: u64 },
    #[error("the proof does not lead to the certificate that is shown, {0}")]
    NotShown(Fingerprint),
    #[error("{0}")]
    Stale(Stale),
    #[error("{0}")]
    Alarmed(Alarm),
}

impl Refused {
    /// Whether the pinned key itself has said this: only then is it worth telling anybody.
    pub fn is_genuine(&self) -> bool {
        matches!(self, Self::Stale(_) | Self::Alarmed(_) | Self::Number { .. })
    }
}

impl Pinned {
    /// Every certificate that is the other side's now.
    pub fn accepted(&self) -> impl Iterator<Item = Fingerprint> {
        let next = self.lineage.next.iter().filter(|next| !next.lapsed).map(|next| next.fingerprint);
        std::iter::once(self.fingerprint).chain(next)
    }

    /// What `chain` makes of it, given by somebody who has proved in a handshake to hold the key of `shown`.
    pub fn consider(&self, chain: &Chain, shown: Fingerprint, now: Timestamp) -> Result<Verdict, Refused> {
        let steps = chain.prove(now)?;
        if let Some(alarm) = steps.iter().find_map(|step| self.contradicted(step, now)) {
            if let Some(known) = self.lineage.alarm.filter(|known| known.from == alarm.from) {
                return Err(Refused::Alarmed(known));
            }
            let mut alarmed = self.clone();
            alarmed.lineage.alarm = Some(alarm);
            // A successor that is in use already was taken rightly, and stays.
            alarmed.lineage.next.take_if(|_| alarm.from == self.fingerprint);
            return Ok(Verdict::Alarm(alarmed, alarm));
        }
        let Some(at) = steps.iter().position(|step| step.from == self.fingerprint) else {
            return match steps.last() {
                Some(last) if last.to == self.fingerprint => Ok(Verdict::Known),
                _ => Err(Refused::Unrelated(self.fingerprint)),
            };
        };
        if let Some(alarm) = self.lineage.alarm.filter(|alarm| alarm.from == self.fingerprint) {
            return Err(Refused::Alarmed(alarm));
        }
        let ahead = &steps[at..];
        let expected = self.lineage.last.map(|last| last.number.saturating_add(1));
        if let (Some(expected), Some(first)) = (expected, ahead.first())
            && first.number != expected
        {
            return Err(Refused::Number { expected, got: first.number });
        }
        if let Some(stale) = ahead.iter().find_map(|step| step.stale) {
            return Err(Refused::Stale(stale));
        }
        // One step may lead on from what is shown, to what is to follow it.
        let (walked, rest) = match ahead.iter().position(|step| step.to == shown) {
            Some(end) => ahead.split_at(end + 1),
            None if shown == self.fingerprint => ahead.split_at(0),
            None => return Err(Refused::NotShown(shown)),
        };
        if rest.len() > 1 {
            return Err(Refused::NotShown(shown));
        }
        let mut after = self.clone();
        for step in walked {
            after = Self::moved(step.taken(), to_pem(&step.certificate));
        }
        if let [next] = rest {
            let deadline = match &after.lineage.next {
                Some(known) if known.fingerprint == next.to => known.deadline.max(next.deadline),
                _ => next.deadline,
            };
            after.lineage.next = Some(Awaited {
                number: next.number,
                fingerprint: next.to,
                certificate_pem: to_pem(&next.certificate),
                deadline,
                lapsed: false,
            });
        }
        Ok(if after == *self { Verdict::Known } else { Verdict::Taken(after) })
    }

    /// `shown` was shown in a handshake: the awaited certificate becomes the pin. `None` if that changes nothing.
    pub fn shown(&self, shown: &Fingerprint, now: Timestamp) -> Option<Self> {
        let next = self.lineage.next.clone()?;
        if next.fingerprint != *shown || next.lapsed || now > next.deadline {
            return None;
        }
        let step = Taken { number: next.number, from: self.fingerprint, to: next.fingerprint };
        Some(Self::moved(step, next.certificate_pem))
    }

    /// The deadline of what is awaited has passed. `None` if that changes nothing.
    pub fn lapsed(&self, now: Timestamp) -> Option<Self> {
        let next = self.lineage.next.as_ref().filter(|next| !next.lapsed && now > next.deadline)?;
        let next = Awaited { lapsed: true, ..next.clone() };
        Some(Self { lineage: Lineage { next: Some(next), ..self.lineage.clone() }, ..self.clone() })
    }

    fn moved(step: Taken, certificate_pem: String) -> Self {
        let lineage = Lineage { last: Some(step), next: None, alarm: None };
        Self { fingerprint: step.to, certificate_pem, lineage }
    }

    /// Whether `step` says otherwise than what was taken, or is awaited, from the same certificate.
    fn contradicted(&self, step: &Proven, now: Timestamp) -> Option<Alarm> {
        let taken = self.lineage.last.filter(|last| last.from == step.from).map(|last| last.to);
        let awaited =
            self.lineage.next.as_ref().filter(|_| step.from == self.fingerprint).map(|next| next.fingerprint);
        let first = taken.or(awaited).filter(|known| *known != step.to)?;
        Some(Alarm { number: step.number, from: step.from, first, second: step.to, at: now })
    }
}

impl Proven {
    fn taken(&self) -> Taken {
        Taken { number: self.number, from: self.from, to: self.to }
    }
}

#[cfg(test)]
mod tests;
