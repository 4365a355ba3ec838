//! A token that is issued for trust that is made: the trust stands until it is redeemed.

use jiff::Timestamp;

use super::{ActivateError, Attempt, Established, Half, Issued, Peer, Pending, Presented};
use crate::wire::cluster_link::Dials;

/// Why no further token is issued for a link whose trust is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this cluster redeemed the peer's token, so the peer is who issues them")]
pub struct Dialler;

impl Half {
    /// Issues a token as Consul does: an older one that was not redeemed dies, and trust that is made stands until the
    /// new one is redeemed.
    pub fn reissue(self, token: Issued) -> Result<Half, Dialler> {
        match self {
            Half::Established(Established { dials: Dials::Here, .. }) | Half::Redeeming(_) => Err(Dialler),
            Half::Established(established) => {
                Ok(Half::Established(Established { reissued: Some(token), ..established }))
            }
            Half::Pending(_) | Half::Unconfirmed(_) | Half::Terminated(_) => {
                Ok(Half::Pending(Pending { token: Some(token) }))
            }
        }
    }

    /// Whether this side's trust was made by `attempt`: whoever comes with that token again comes too late.
    pub fn was_redeemed_by(&self, attempt: &Attempt) -> bool {
        matches!(self, Half::Established(Established { redeemed: Some(redeemed), .. }) if redeemed == attempt)
    }
}

impl Established {
    /// By the token that was issued for it. Where the same peer redeems it, what is known of it stays.
    pub(super) fn made_anew(
        self,
        presented: Presented,
        now: Timestamp,
    ) -> Result<Established, ActivateError> {
        let token = self.reissued.filter(|token| token.digest.matches(&presented.secret));
        let made = token.ok_or(ActivateError::Used)?.redeem(presented, now)?;
        if !self.peer.accepts(&made.peer.fingerprint) {
            return Ok(made);
        }
        let peer = Peer { addresses: made.peer.addresses, ..self.peer };
        Ok(Established { peer, first_active: self.first_active, ..made })
    }
}
