//! What a source has agreed to give: one tree, to whoever comes in time with the secret, once.
//!
//! Only the secret's digest is kept, and only in memory: an offer that a restart forgets is asked for again. When the
//! target's certificate is known, the offer is bound to it, so that a stolen secret is worthless.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use uuid::Uuid;

use super::bridge::Stream;
use crate::trust::Fingerprint;
use crate::wire::token::{Secret, SecretDigest};

/// How long an offer waits to be taken up.
pub const UNCONNECTED_LIFE: Duration = Duration::from_secs(30);

/// The offers that wait.
#[derive(Default)]
pub struct Offers {
    waiting: Mutex<HashMap<Uuid, Waiting>>,
}

struct Waiting {
    digest: SecretDigest,
    bound_to: Option<Fingerprint>,
    taker: oneshot::Sender<Box<dyn Stream>>,
}

/// Why an offer was not given. The caller learns only that it was not; this is for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    #[error("no such offer: it was taken up, or has expired")]
    Unknown,
    #[error("wrong secret")]
    WrongSecret,
    #[error("offered to another certificate")]
    NotYou,
}

/// The right to one tree, to be used with the connection that it is sent over.
pub struct Claim(oneshot::Sender<Box<dyn Stream>>);

impl std::fmt::Debug for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Claim")
    }
}

impl Claim {
    /// Sends the tree over `stream`, if the source still waits.
    pub fn serve(self, stream: Box<dyn Stream>) {
        let _ = self.0.send(stream);
    }
}

impl Offers {
    /// Puts up an offer. What comes back waits for the connection.
    pub fn put(
        &self,
        id: Uuid,
        secret: &Secret,
        bound_to: Option<Fingerprint>,
    ) -> oneshot::Receiver<Box<dyn Stream>> {
        let (taker, taken) = oneshot::channel();
        let waiting = Waiting { digest: secret.digest(), bound_to, taker };
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id, waiting);
        taken
    }

    /// Takes an offer up. A wrong secret leaves it for the one it was made to: ids cannot be guessed either.
    pub fn claim(
        &self,
        id: Uuid,
        secret: &Secret,
        certificate: Option<Fingerprint>,
    ) -> Result<Claim, ClaimError> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let offer = waiting.get(&id).ok_or(ClaimError::Unknown)?;
        if !offer.digest.matches(secret) {
            return Err(ClaimError::WrongSecret);
        }
        if offer.bound_to.is_some_and(|bound| certificate != Some(bound)) {
            return Err(ClaimError::NotYou);
        }
        waiting.remove(&id).map(|offer| Claim(offer.taker)).ok_or(ClaimError::Unknown)
    }

    /// Takes an offer back.
    pub fn withdraw(&self, id: Uuid) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_serves_once_and_only_whom_it_was_made_to() {
        let offers = Offers::default();
        let (id, secret, other) = (Uuid::new_v4(), Secret::random(), Secret::random());
        let (me, you) = (Fingerprint([1; 32]), Fingerprint([2; 32]));
        let _taken = offers.put(id, &secret, Some(me));
        assert_eq!(offers.claim(Uuid::new_v4(), &secret, Some(me)).unwrap_err(), ClaimError::Unknown);
        assert_eq!(offers.claim(id, &other, Some(me)).unwrap_err(), ClaimError::WrongSecret);
        assert_eq!(offers.claim(id, &secret, Some(you)).unwrap_err(), ClaimError::NotYou);
        assert_eq!(offers.claim(id, &secret, None).unwrap_err(), ClaimError::NotYou);
        assert!(offers.claim(id, &secret, Some(me)).is_ok());
        assert_eq!(offers.claim(id, &secret, Some(me)).unwrap_err(), ClaimError::Unknown);
        offers.put(id, &secret, None);
        offers.withdraw(id);
        assert_eq!(offers.claim(id, &secret, None).unwrap_err(), ClaimError::Unknown);
    }
}
