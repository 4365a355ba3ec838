//! One half of a link's trust, as a state machine without I/O: what `/link/NAME` holds.
//!
//! A state holds only what is then known, and a transition consumes it. A link that was never touched has no record
//! and counts as [`Half::default`]. The two halves meet in one exchange: the issuer is `Pending` with a token, the
//! redeemer `Redeeming`; the issuer consumes its token and becomes `Established` in one commit, the redeemer follows
//! when it is told. A crash between the two commits is healed by redeeming again: until the link is first ACTIVE the
//! issuer answers the same attempt, made with the same key, as it did the first time. An attempt is named after its
//! token and key (see [`Attempt::of`]), so that a second run needs no memory of the first.

use jiff::Timestamp;
use schema::kind::cluster_link::LinkType;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::seal::Sealed;

mod reissued;
mod succeeded;

pub use reissued::Dialler;

use crate::trust::Fingerprint;
use crate::trust::lineage::Lineage;
pub use crate::wire::cluster_link::DialBack;
use crate::wire::cluster_link::Dials;
use crate::wire::token::{Secret, SecretDigest};

/// One side's part in a link's trust.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Half {
    Pending(Pending),
    /// A public link's peer was asked for its certificate, which nobody has confirmed yet.
    Unconfirmed(Unconfirmed),
    Redeeming(Redeeming),
    Established(Established),
    Terminated(Terminated),
}

/// No trust; perhaps a token is out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Pending {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Issued>,
}

/// A token that was minted here and not redeemed yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    pub id: Uuid,
    pub digest: SecretDigest,
    pub expires_at: Timestamp,
    /// The only certificate that may redeem it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound_to: Option<Fingerprint>,
}

/// What a public link's peer showed at the address that was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unconfirmed {
    pub peer: Peer,
}

/// A peer's token is being redeemed by this side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redeeming {
    #[serde(default, rename = "type")]
    pub kind: LinkType,
    pub attempt: Attempt,
    /// Our certificate that the attempt is made with.
    pub key: Fingerprint,
    /// The peer's certificate, from the token.
    pub pinned: Fingerprint,
    pub addresses: Vec<String>,
    pub sealed: Sealed,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<Remote>,
    /// What there was before, to be there again if this comes to nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Terminated>,
}

/// The trust is made: on both sides, or on this one alone where the link is a public one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Established {
    #[serde(default, rename = "type")]
    pub kind: LinkType,
    pub peer: Peer,
    pub dials: Dials,
    /// How the peer came to be accepted, where a token of ours was redeemed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redemption: Option<Redemption>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_active: Option<Timestamp>,
    /// Whether this side reached the redeemer at the addresses that it gave; `None` until that was tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dial_back: Option<DialBack>,
    /// What the dialling side redeemed, so that it knows the token again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redeemed: Option<Attempt>,
    /// A token that is out to make the trust anew; what there is stands until it is redeemed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reissued: Option<Issued>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<Remote>,
}

/// What the issuer said of itself in a token of Consul's form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remote {
    /// What the peering is called there by programs.
    pub peering: String,
    pub server_name: String,
    pub cluster: String,
}

/// The cluster at the other end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    pub fingerprint: Fingerprint,
    pub certificate_pem: String,
    /// From the exchange that made the trust.
    pub addresses: Vec<String>,
    /// Where it has said since that it is reached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub told: Vec<String>,
    /// What is known of the succession of its certificates.
    #[serde(default)]
    pub lineage: Box<Lineage>,
}

/// The one use of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redemption {
    pub digest: SecretDigest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Attempt>,
}

/// The peer deleted the link. Nothing of the trust is left; the declaration may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminated {
    pub peer: Fingerprint,
    pub at: Timestamp,
}

/// Names one attempt to redeem one token with one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Attempt(String);

impl Attempt {
    /// The same for the same token and key, and tells nothing of the token.
    pub fn of(secret: &Secret, key: &Fingerprint) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"comity link redemption attempt\0");
        hash.update(key.0);
        hash.update(secret.expose().as_bytes());
        Self(Fingerprint(hash.finalize().into()).to_string())
    }

    /// As a peer wrote it, if it is plausible.
    pub fn read(text: String) -> Option<Self> {
        (text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_graphic())).then_some(Self(text))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a redeemer shows to the issuer.
#[derive(Debug, Clone)]
pub struct Presented {
    pub secret: Secret,
    pub attempt: Option<Attempt>,
    /// The declared type of the link.
    pub kind: LinkType,
    /// With the certificate whose key a handshake proved.
    pub peer: Peer,
    /// Where dialling back had to be done first.
    pub dial_back: Option<DialBack>,
}

/// What an issuer's half makes of a redemption.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)] // made once a redemption and taken apart at once
pub enum Activation {
    /// The token was consumed; this is to be written.
    Fresh(Half),
    /// The very redemption that was accepted before: nothing to write, the same answer.
    Repeated,
}

/// Why a half does not accept a redemption of its own token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ActivateError {
    #[error("the token has expired")]
    Expired,
    #[error("the token has already been used")]
    Used,
    #[error("the token is bound to another certificate")]
    Bound,
}

/// Why a half cannot take part in a new exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkedError {
    #[error("the trust with cluster certificate {0} is already made")]
    Established(Fingerprint),
}

/// What beginning a redemption asks to be written first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    Redeeming(Half),
    /// Both sides know each other, but the peer lost its half or issued anew: the trust stays as it is meanwhile.
    Renewing(Half),
}

/// The attempt that is being ended is not the one that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("another exchange has been begun for this link")]
pub struct Superseded;

impl Default for Half {
    fn default() -> Self {
        Half::Pending(Pending::default())
    }
}

impl Half {
    /// The peer that the trust is made with.
    pub fn peer(&self) -> Option<&Peer> {
        match self {
            Half::Established(established) => Some(&established.peer),
            _ => None,
        }
    }

    /// The peer, where both sides know of the link: of a public one its peer knows nothing.
    pub fn linked(&self) -> Option<&Peer> {
        match self {
            Half::Established(established) if established.kind != LinkType::Public => Some(&established.peer),
            _ => None,
        }
    }

    /// The peer that may call here: known as an identity for as long as the half is.
    pub fn admitted(&self) -> Option<&Peer> {
        match self {
            Half::Established(established) if established.admits() => Some(&established.peer),
            _ => None,
        }
    }

    /// Issues a token; an older one that was not redeemed dies. Trust that never carried anything is given up for it
    /// (the other side lost its half); trust that did is not.
    pub fn mint(self, token: Issued) -> Result<Half, LinkedError> {
        match self {
            Half::Established(Established { first_active: Some(_), peer, .. }) => {
                Err(LinkedError::Established(peer.fingerprint))
            }
            _ => Ok(Half::Pending(Pending { token: Some(token) })),
        }
    }

    /// Whether `secret` is that of a token issued here: still out, or the one that made the trust.
    pub fn issued(&self, secret: &Secret) -> bool {
        match self {
            Half::Pending(Pending { token: Some(token) }) => token.digest.matches(secret),
            Half::Established(Established { redemption, reissued, .. }) => {
                let redeemed = redemption.as_ref().is_some_and(|done| done.digest.matches(secret));
                redeemed | reissued.as_ref().is_some_and(|token| token.digest.matches(secret))
            }
            _ => false,
        }
    }

    /// The issuer's side of a redemption. Call only where [`Half::issued`] holds.
    pub fn activate(self, presented: Presented, now: Timestamp) -> Result<Activation, ActivateError> {
        match self {
            Half::Pending(Pending { token: Some(token) }) if token.digest.matches(&presented.secret) => token
                .redeem(presented, now)
                .map(|established| Activation::Fresh(Half::Established(established))),
            Half::Established(established) if established.repeats(&presented) => Ok(Activation::Repeated),
            Half::Established(established) => {
                established.made_anew(presented, now).map(|made| Activation::Fresh(Half::Established(made)))
            }
            _ => Err(ActivateError::Used),
        }
    }

    /// Begins to redeem a peer's token. Whatever was pending or under way is given up.
    pub fn begin(self, redeeming: Redeeming) -> Result<Begun, LinkedError> {
        match self {
            Half::Terminated(terminated) => {
                Ok(Begun::Redeeming(Half::Redeeming(Redeeming { before: Some(terminated), ..redeeming })))
            }
            Half::Established(established) if established.peer.fingerprint == redeeming.pinned => {
                // The token's addresses are the newest there are, and the side that issued one knew none of the peer.
                Ok(Begun::Renewing(Half::Established(Established {
                    peer: Peer { addresses: redeeming.addresses, ..established.peer },
                    dials: Dials::Here,
                    redemption: None,
                    dial_back: None,
                    redeemed: Some(redeeming.attempt),
                    reissued: None,
                    remote: redeeming.remote,
                    ..established
                })))
            }
            Half::Established(established) => Err(LinkedError::Established(established.peer.fingerprint)),
            _ => Ok(Begun::Redeeming(Half::Redeeming(redeeming))),
        }
    }

    /// The issuer accepted `attempt`.
    pub fn accepted(self, attempt: &Attempt, certificate_pem: String) -> Result<Half, Superseded> {
        match self {
            Half::Redeeming(Redeeming { kind, attempt: current, pinned, addresses, remote, .. })
                if current == *attempt =>
            {
                Ok(Half::Established(Established {
                    kind,
                    peer: Peer::new(pinned, certificate_pem, addresses),
                    dials: Dials::Here,
                    redemption: None,
                    first_active: None,
                    dial_back: None,
                    redeemed: Some(current),
                    reissued: None,
                    remote,
                }))
            }
            _ => Err(Superseded),
        }
    }

    /// The issuer refused `attempt`, or it cannot be reached: nothing of the exchange stays.
    pub fn abandoned(self, attempt: &Attempt) -> Result<Half, Superseded> {
        match self {
            Half::Redeeming(Redeeming { attempt: current, before, .. }) if current == *attempt => {
                Ok(before.map_or_else(Half::default, Half::Terminated))
            }
            _ => Err(Superseded),
        }
    }

    /// Data arrived from the peer for the first time; `None` if nothing changes by that.
    pub fn confirmed(self, now: Timestamp) -> Option<Half> {
        match self {
            Half::Established(established) if established.first_active.is_none() => {
                Some(Half::Established(Established { first_active: Some(now), ..established }))
            }
            _ => None,
        }
    }

    /// The peer says that it is reached at `addresses`; `None` if nothing changes by that.
    pub fn told(self, addresses: Vec<String>) -> Option<Half> {
        match self {
            Half::Established(established) if established.peer.told != addresses => {
                let peer = Peer { told: addresses, ..established.peer };
                Some(Half::Established(Established { peer, ..established }))
            }
            _ => None,
        }
    }

    /// A public link's peer showed this at the address that was given, for somebody to confirm. An answer that was
    /// not confirmed is replaced.
    pub fn offered(self, peer: Peer) -> Result<Half, LinkedError> {
        match self {
            Half::Established(established) => Err(LinkedError::Established(established.peer.fingerprint)),
            _ => Ok(Half::Unconfirmed(Unconfirmed { peer })),
        }
    }

    /// A public link pins `peer` from now on.
    pub fn pinned(peer: Peer) -> Half {
        Half::Established(Established {
            kind: LinkType::Public,
            peer,
            dials: Dials::Here,
            redemption: None,
            first_active: None,
            dial_back: None,
            redeemed: None,
            reissued: None,
            remote: None,
        })
    }

    /// What came of dialling the redeemer back; `None` if it is another one by now.
    pub fn dialled_back(self, peer: &Fingerprint, result: DialBack) -> Option<Half> {
        match self {
            Half::Established(established) if established.peer.accepts(peer) => {
                Some(Half::Established(Established { dial_back: Some(result), ..established }))
            }
            _ => None,
        }
    }

    /// The peer with this certificate has deleted the link, and said so over a connection that `dialled` opened;
    /// `None` if that is not about this half. Two clusters may call each other over a one-way link each: the deletion
    /// of either is told over its caller's connection.
    pub fn terminated(self, by: &Fingerprint, dialled: Dials, now: Timestamp) -> Option<Half> {
        match self {
            Half::Established(established)
                if established.peer.accepts(by) && established.lives_on(dialled) =>
            {
                Some(Half::Terminated(Terminated { peer: *by, at: now }))
            }
            _ => None,
        }
    }
}

impl Issued {
    fn redeem(self, presented: Presented, now: Timestamp) -> Result<Established, ActivateError> {
        if now >= self.expires_at {
            return Err(ActivateError::Expired);
        }
        if self.bound_to.is_some_and(|bound| bound != presented.peer.fingerprint) {
            return Err(ActivateError::Bound);
        }
        Ok(Established {
            kind: presented.kind,
            peer: presented.peer,
            dials: Dials::Peer,
            redemption: Some(Redemption { digest: self.digest, attempt: presented.attempt }),
            first_active: None,
            dial_back: presented.dial_back,
            redeemed: None,
            reissued: None,
            remote: None,
        })
    }
}

impl Established {
    /// Whether the peer may call here.
    pub fn admits(&self) -> bool {
        match self.kind {
            LinkType::Bidirectional => true,
            LinkType::Unidirectional => self.dials == Dials::Peer,
            LinkType::Public => false,
        }
    }

    /// Whether a connection that `dialled` opened is this link's.
    fn lives_on(&self, dialled: Dials) -> bool {
        match self.kind {
            LinkType::Bidirectional => true,
            LinkType::Unidirectional => self.dials == dialled,
            LinkType::Public => false,
        }
    }

    fn repeats(&self, presented: &Presented) -> bool {
        let same_attempt = self.redemption.as_ref().is_some_and(|done| {
            done.digest.matches(&presented.secret)
                && done.attempt.is_some()
                && done.attempt == presented.attempt
        });
        self.first_active.is_none() && same_attempt && self.peer.fingerprint == presented.peer.fingerprint
    }
}

#[cfg(test)]
mod tests;
