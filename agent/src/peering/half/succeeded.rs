//! A peer whose certificate is renewed: the trust stays, what it is known by moves.

use std::collections::BTreeMap;

use super::{Established, Half, Peer};
use crate::trust::Fingerprint;
use crate::trust::lineage::{Lineage, Pinned};

impl Peer {
    /// A peer as an exchange has shown it.
    pub fn new(fingerprint: Fingerprint, certificate_pem: String, addresses: Vec<String>) -> Self {
        Self { fingerprint, certificate_pem, addresses, told: Vec::new(), lineage: Box::default() }
    }

    /// Everywhere that it may be found. What made the trust stays among it: that may be a way around what the peer
    /// knows of itself.
    pub fn reached_at(&self) -> Vec<String> {
        let told = self.told.iter().filter(|address| !self.addresses.contains(address));
        self.addresses.iter().chain(told).cloned().collect()
    }

    /// What is pinned of it, and what is known to follow.
    pub fn pinned(&self) -> Pinned {
        Pinned {
            fingerprint: self.fingerprint,
            certificate_pem: self.certificate_pem.clone(),
            lineage: (*self.lineage).clone(),
        }
    }

    /// Whether it may show the certificate with this hash.
    pub fn accepts(&self, shown: &Fingerprint) -> bool {
        self.pinned().accepted().any(|accepted| accepted == *shown)
    }

    /// Whether `now` is the same peer at the same place: at most its certificates have moved, as was announced.
    pub fn is_still(&self, now: &Peer) -> bool {
        self.addresses == now.addresses && self.accepts(&now.fingerprint)
    }

    /// What a person is to know of its succession, if there is anything.
    pub fn succession(&self) -> Option<String> {
        let Lineage { next, alarm, .. } = &*self.lineage;
        let awaited = next.as_ref().map(|next| {
            let (shown, deadline) = (next.fingerprint, next.deadline);
            if next.lapsed {
                format!("the peer announced certificate {shown} and did not show it by {deadline:.0}")
            } else {
                format!("the peer may show certificate {shown} until {deadline:.0}")
            }
        });
        alarm.as_ref().map(ToString::to_string).or(awaited)
    }

    /// Every certificate that it may show, PEM by hash: the pinned one, and one that was announced.
    pub fn certificates(&self) -> BTreeMap<Fingerprint, String> {
        let next = self.lineage.next.iter().filter(|next| !next.lapsed);
        next.map(|next| (next.fingerprint, next.certificate_pem.clone()))
            .chain([(self.fingerprint, self.certificate_pem.clone())])
            .collect()
    }
}

impl Half {
    /// The same trust, with what is now known of the peer's certificates.
    #[must_use]
    pub fn repinned(self, pinned: Pinned) -> Half {
        match self {
            Half::Established(established) => {
                let Pinned { fingerprint, certificate_pem, lineage } = pinned;
                let lineage = Box::new(lineage);
                let peer = Peer { fingerprint, certificate_pem, lineage, ..established.peer };
                Half::Established(Established { peer, ..established })
            }
            other => other,
        }
    }
}
