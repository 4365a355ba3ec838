//! What an operation waits for: connections of strangers, each with a secret of its own that is good once.
//!
//! Only the secrets' digests are kept, and only in memory: an offer that a restart forgets is asked for again. When the
//! other side's certificate is known, the offer is bound to it, so that a stolen secret is worthless. An offer ends with
//! the operation that put it up.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use uuid::Uuid;

use super::bridge::Stream;
use crate::trust::Fingerprint;
use crate::wire::token::{Secret, SecretDigest};

/// How long an offer waits to be taken up.
pub const UNCONNECTED_LIFE: Duration = Duration::from_secs(30);
/// Most connections of one offer, whatever they are for.
const MAX_DOORS: usize = 16;

/// A connection that came with the right secret.
pub struct Arrived {
    pub carrier: Carrier,
    pub stream: Box<dyn Stream>,
}

/// What the connection carries, by the path that it came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// Bytes: our chunk stream.
    Bytes,
    /// Websocket frames, of which the handshake is done: LXD's migration, or ours relayed by a client.
    Websocket,
}

/// The offers that wait.
#[derive(Default)]
pub struct Offers {
    waiting: Mutex<HashMap<Uuid, Offer>>,
}

struct Offer {
    bound_to: Option<Fingerprint>,
    doors: Vec<Door>,
}

struct Door {
    digest: SecretDigest,
    /// `None`: somebody came.
    taker: Option<oneshot::Sender<Arrived>>,
}

/// Why an offer was not given. The caller learns only that it was not; this is for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    #[error("no such offer: it was withdrawn, or has expired")]
    Unknown,
    #[error("wrong secret")]
    WrongSecret,
    #[error("offered to another certificate")]
    NotYou,
    #[error("the secret was used before")]
    Taken,
}

/// The right to one connection, to be used with the one that it is asked over.
pub struct Claim(oneshot::Sender<Arrived>);

impl std::fmt::Debug for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Claim")
    }
}

impl Claim {
    /// Hands the connection to the operation, if that still waits.
    pub fn serve(self, carrier: Carrier, stream: Box<dyn Stream>) {
        let _ = self.0.send(Arrived { carrier, stream });
    }
}

/// The operation's end of its offer. Dropped, the offer is withdrawn.
pub struct Doors {
    offers: Arc<Offers>,
    id: Uuid,
    arrivals: BTreeMap<&'static str, oneshot::Receiver<Arrived>>,
    /// How long each is waited for.
    life: Duration,
}

impl Offers {
    /// Puts up an offer with one connection for each name. The secrets are in this answer and nowhere else.
    pub fn put(
        self: &Arc<Self>,
        id: Uuid,
        secrets: &[(&'static str, Secret)],
        bound_to: Option<Fingerprint>,
    ) -> Doors {
        let mut offer = Offer { bound_to, doors: Vec::new() };
        let mut arrivals = BTreeMap::new();
        for (name, secret) in secrets {
            let (taker, arrival) = oneshot::channel();
            offer.doors.push(Door { digest: secret.digest(), taker: Some(taker) });
            arrivals.insert(*name, arrival);
        }
        self.lock().insert(id, offer);
        Doors { offers: self.clone(), id, arrivals, life: UNCONNECTED_LIFE }
    }

    /// Takes a connection up. A wrong secret leaves the offer for the one it was made to: ids cannot be guessed either.
    pub fn claim(
        &self,
        id: Uuid,
        secret: &Secret,
        certificate: Option<Fingerprint>,
    ) -> Result<Claim, ClaimError> {
        let mut waiting = self.lock();
        let offer = waiting.get_mut(&id).ok_or(ClaimError::Unknown)?;
        let bound_to = offer.bound_to;
        // Every digest is compared, each in constant time.
        let door = offer.doors.iter_mut().filter(|door| door.digest.matches(secret)).last();
        let door = door.ok_or(ClaimError::WrongSecret)?;
        if bound_to.is_some_and(|bound| certificate != Some(bound)) {
            return Err(ClaimError::NotYou);
        }
        door.taker.take().map(Claim).ok_or(ClaimError::Taken)
    }

    /// Whether the secret is one of the offer's, used or not.
    pub fn knows(&self, id: Uuid, secret: &Secret) -> bool {
        let waiting = self.lock();
        waiting
            .get(&id)
            .is_some_and(|offer| offer.doors.iter().filter(|d| d.digest.matches(secret)).count() > 0)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Uuid, Offer>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Doors {
    /// Waits for the connection of this name, once; `None` if it does not come in time.
    pub async fn arrival(&mut self, name: &str) -> Option<Arrived> {
        let arrival = self.arrivals.remove(name)?;
        tokio::time::timeout(self.life, arrival).await.ok()?.ok()
    }

    /// A secret for one more connection, and what waits for it; `None` when there are enough.
    pub fn more(&self) -> Option<(Secret, oneshot::Receiver<Arrived>)> {
        let mut waiting = self.offers.lock();
        let offer = waiting.get_mut(&self.id).filter(|offer| offer.doors.len() < MAX_DOORS)?;
        let (secret, (taker, arrival)) = (Secret::random(), oneshot::channel());
        offer.doors.push(Door { digest: secret.digest(), taker: Some(taker) });
        Some((secret, arrival))
    }
}

impl Drop for Doors {
    fn drop(&mut self) {
        self.offers.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_secret_serves_once_and_only_whom_it_was_made_to() {
        let offers = Arc::new(Offers::default());
        let (id, control, fs, other) = (Uuid::new_v4(), Secret::random(), Secret::random(), Secret::random());
        let (me, you) = (Fingerprint([1; 32]), Fingerprint([2; 32]));
        let doors = offers.put(id, &[("control", control.clone()), ("fs", fs.clone())], Some(me));
        let why = |id, secret: &Secret, who| offers.claim(id, secret, who).unwrap_err();
        assert_eq!(why(Uuid::new_v4(), &control, Some(me)), ClaimError::Unknown);
        assert_eq!(why(id, &other, Some(me)), ClaimError::WrongSecret);
        assert_eq!(why(id, &control, Some(you)), ClaimError::NotYou);
        assert_eq!(why(id, &control, None), ClaimError::NotYou);
        assert!(offers.claim(id, &control, Some(me)).is_ok());
        assert_eq!(why(id, &control, Some(me)), ClaimError::Taken);
        assert!(offers.claim(id, &fs, Some(me)).is_ok());
        let (more, _arrival) = doors.more().unwrap();
        assert!(offers.claim(id, &more, Some(me)).is_ok());
        assert_eq!(why(id, &more, Some(me)), ClaimError::Taken);
        while doors.more().is_some() {}
        assert_eq!(offers.lock()[&id].doors.len(), MAX_DOORS);
        drop(doors);
        assert_eq!(why(id, &control, None), ClaimError::Unknown);
    }

    #[tokio::test]
    async fn who_does_not_come_in_time_is_not_waited_for() {
        let offers = Arc::new(Offers::default());
        let (id, secret) = (Uuid::new_v4(), Secret::random());
        let mut doors = offers.put(id, &[("control", secret.clone())], None);
        doors.life = Duration::from_millis(10);
        assert!(doors.arrival("control").await.is_none());
        assert!(doors.arrival("control").await.is_none(), "it is asked for once");
        let claim = offers.claim(id, &secret, None).unwrap();
        claim.serve(Carrier::Bytes, Box::new(tokio::io::duplex(1).0));
    }
}
