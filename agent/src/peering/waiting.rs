//! Links that wait for their peer: each is, to LXD, an identity in waiting.

use jiff::Timestamp;
use schema::name::LinkName;
use uuid::Uuid;

use super::half::{Half, Issued, Pending};
use super::{Peering, PeeringError, ledger};

/// A link whose token nobody has redeemed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub link: LinkName,
    /// The token's id; no secret.
    pub id: Uuid,
    pub expires_at: Timestamp,
}

impl Peering {
    /// Every link whose token can still be redeemed at `now`.
    pub async fn waiting(&self, now: Timestamp) -> Result<Vec<Waiting>, PeeringError> {
        let (_, links) = ledger::all(&*self.parts.store).await?;
        let waiting = links.into_iter().filter_map(|(link, held)| match held.half {
            Half::Pending(Pending { token: Some(Issued { id, expires_at, .. }) }) if expires_at > now => {
                Some(Waiting { link, id, expires_at })
            }
            _ => None,
        });
        Ok(waiting.collect())
    }
}
