//! How far the renewal of our own certificate is: what `/succession` holds, and its steps, without I/O.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schema::name::LinkName;
use serde::{Deserialize, Serialize};

use crate::trust::Fingerprint;
use crate::trust::succession::{Chain, MAX_STEPS, Succession};

/// Our own succession.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Own {
    /// Every step that somebody who was away may still need; the last may be announced only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<Chain>,
    /// The last rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Rotation>,
}

/// One rotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    pub number: u64,
    pub from: Fingerprint,
    pub to: Fingerprint,
    pub deadline: Timestamp,
    pub asked_by: String,
    pub asked_at: Timestamp,
    /// Peers that are away are not waited for.
    pub force: bool,
    pub cause: Cause,
    pub stage: Stage,
    /// The links whose peers know `to`, and the certificate of each that said so.
    pub heard: BTreeMap<LinkName, Fingerprint>,
}

/// Why the certificate is renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The old key vouches for the new one.
    Renewal,
    /// The old key may be in other hands: it vouches for nothing, and every link is made anew.
    Compromise,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Peers are being told.
    Announced,
    /// There is no way back: the next pair is to be put in place, or is.
    Decided,
}

/// Who asked for a rotation, and how.
#[derive(Debug, Clone)]
pub struct Asked {
    pub by: String,
    pub at: Timestamp,
    pub force: bool,
}

impl Own {
    /// The number of the next succession.
    pub fn next_number(&self) -> u64 {
        self.rotation.as_ref().map_or(1, |rotation| rotation.number.saturating_add(1))
    }

    /// A successor was signed for, in the name of the certificate `predecessor` (PEM).
    pub fn announced(self, step: Succession, to: Fingerprint, predecessor: &str, asked: Asked) -> Self {
        let rotation = Rotation {
            number: step.number,
            from: step.from,
            to,
            deadline: step.deadline,
            asked_by: asked.by,
            asked_at: asked.at,
            force: asked.force,
            cause: Cause::Renewal,
            stage: Stage::Announced,
            heard: BTreeMap::new(),
        };
        let mut chain = match self.chain {
            Some(mut chain) => {
                // The same step, signed for again with another deadline, takes its own place.
                chain.steps.retain(|known| known.from != step.from);
                chain
            }
            None => Chain { certificate: predecessor.to_owned(), steps: Vec::new() },
        };
        chain.steps.push(step);
        // Nobody can get past a step that is late, and nobody reads more than so many.
        while chain.steps.len() > MAX_STEPS
            || chain.steps.first().is_some_and(|step| step.deadline < asked.at)
        {
            chain.certificate = chain.steps.remove(0).certificate;
        }
        Self { chain: Some(chain), rotation: Some(rotation) }
    }

    /// The certificates before `current`, each with the time until which somebody may get from it to `current`.
    pub fn predecessors(&self, current: &Fingerprint) -> Vec<(Fingerprint, Timestamp)> {
        let steps = self.chain.iter().flat_map(|chain| &chain.steps).rev();
        let mut known: Vec<(Fingerprint, Timestamp)> = Vec::new();
        for step in steps.skip_while(|step| step.to() != Some(*current)) {
            let until = known.last().map_or(step.deadline, |(_, until)| step.deadline.min(*until));
            known.push((step.from, until));
        }
        known
    }

    /// The key is given up: nothing that it signed is handed out any more.
    pub fn given_up(self, from: Fingerprint, to: Fingerprint, asked: Asked) -> Self {
        let rotation = Rotation {
            number: self.next_number(),
            from,
            to,
            deadline: asked.at,
            asked_by: asked.by,
            asked_at: asked.at,
            force: asked.force,
            cause: Cause::Compromise,
            stage: Stage::Announced,
            heard: BTreeMap::new(),
        };
        Self { chain: None, rotation: Some(rotation) }
    }
}

impl Rotation {
    /// Which of `links` (each with its peer's certificate) have not said that they know the next certificate.
    pub fn missing(&self, links: &BTreeMap<LinkName, Fingerprint>) -> Vec<LinkName> {
        links
            .iter()
            .filter(|(link, peer)| self.heard.get(*link) != Some(peer))
            .map(|(link, _)| link.clone())
            .collect()
    }

    /// Whether peers are still to be told. Those who are linked after a key was given up never knew it; and what is late
    /// nobody takes.
    pub fn is_news(&self, now: Timestamp) -> bool {
        match self.cause {
            Cause::Renewal => now < self.deadline,
            Cause::Compromise => self.stage == Stage::Announced,
        }
    }

    /// Whether the next certificate may be put in use.
    pub fn is_due(
        &self,
        links: &BTreeMap<LinkName, Fingerprint>,
        now: Timestamp,
        patience: jiff::SignedDuration,
    ) -> bool {
        let told = self.force || self.missing(links).is_empty();
        self.stage == Stage::Announced
            && match self.cause {
                // What is announced to be void after its deadline is not to be used after it.
                Cause::Renewal => told && now < self.deadline,
                // A key in other hands is not kept for the sake of who does not answer.
                Cause::Compromise => told || now.duration_since(self.asked_at) > patience,
            }
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::trust::lineage::{Lineage, Pinned, Verdict};
    use crate::trust::succession::tests::{in_a_week, pair, step};

    fn asked(at: Timestamp) -> Asked {
        Asked { by: "local uid 0".to_owned(), at, force: false }
    }

    #[test]
    fn a_rotation_is_due_once_everybody_knows_or_by_force_and_never_late() {
        let (old, new) = (pair(), pair());
        let now = Timestamp::now();
        let own = Own::default().announced(step(1, &old, &new), new.fingerprint, &old.pem, asked(now));
        assert_eq!(own.next_number(), 2);
        let mut rotation = own.rotation.unwrap();
        let west: LinkName = "west".parse().unwrap();
        let peer = |byte| Fingerprint([byte; 32]);
        let links = BTreeMap::from([(west.clone(), peer(1))]);
        let patience = SignedDuration::from_secs(10);
        let due = |rotation: &Rotation, at| rotation.is_due(&links, at, patience);
        assert!(!due(&rotation, now) && rotation.is_due(&BTreeMap::new(), now, patience));
        rotation.heard.insert(west.clone(), peer(2));
        assert_eq!(
            rotation.missing(&links),
            std::slice::from_ref(&west),
            "another cluster is linked under the name now"
        );
        rotation.force = true;
        assert!(due(&rotation, now));
        rotation.force = false;
        rotation.heard.insert(west, peer(1));
        assert!(due(&rotation, now) && !due(&rotation, in_a_week()));
        assert!(!due(&Rotation { stage: Stage::Decided, ..rotation }, now));

        let given_up =
            Own::default().given_up(old.fingerprint, new.fingerprint, asked(now)).rotation.unwrap();
        assert!(!due(&given_up, now) && due(&given_up, now + patience * 2));
    }

    #[test]
    fn the_chain_leads_from_every_certificate_that_is_still_in_time() {
        let pairs: Vec<_> = (0..20).map(|_| pair()).collect();
        let mut own = Own::default();
        for (at, two) in pairs.windows(2).enumerate() {
            let step = step(u64::try_from(at).unwrap() + 1, &two[0], &two[1]);
            let again = step.clone();
            own = own.announced(step, two[1].fingerprint, &two[0].pem, asked(Timestamp::now()));
            own = own.announced(again, two[1].fingerprint, &two[0].pem, asked(Timestamp::now()));
        }
        let chain = own.chain.clone().unwrap();
        assert_eq!(own.predecessors(&pairs[18].fingerprint).len(), MAX_STEPS - 1);
        assert_eq!(own.predecessors(&pairs[19].fingerprint)[0].0, pairs[18].fingerprint);
        assert_eq!(chain.steps.len(), MAX_STEPS);
        let (first, last) = (&pairs[20 - 1 - MAX_STEPS], &pairs[19]);
        let pinned = Pinned {
            fingerprint: first.fingerprint,
            certificate_pem: String::new(),
            lineage: Lineage::default(),
        };
        let verdict = pinned.consider(&chain, last.fingerprint, Timestamp::now());
        assert!(matches!(verdict, Ok(Verdict::Taken(after)) if after.fingerprint == last.fingerprint));

        // Long after, only the newest is left.
        let next = pair();
        let later = in_a_week() + SignedDuration::from_hours(1);
        let step = Succession::sign(
            20,
            last,
            &next.certificate,
            later + SignedDuration::from_hours(1),
            Timestamp::now(),
        );
        let own = own.announced(step.unwrap(), next.fingerprint, &last.pem, asked(later));
        let chain = own.chain.unwrap();
        assert_eq!((chain.steps.len(), chain.certificate.as_str()), (1, last.pem.as_str()));
        assert!(chain.prove(Timestamp::now()).is_ok());
    }
}
