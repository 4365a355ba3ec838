//! A pin that moves with the server's certificate, where the server proves that one follows the other.
//!
//! Before anything else is sent, the server that shows another certificate than the pinned one is asked for its proof,
//! over a connection of its own. Without one, or with one that leads elsewhere, the mismatch stands.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use super::{Client, Target, succession};
use crate::trust::Fingerprint;
use crate::trust::lineage::{Lineage, Pinned, Verdict};
use crate::tunnel::{AttemptError, DialError};

/// Told of each move.
type Told = dyn Fn(&Moved) + Send + Sync;

/// A pin has moved, by proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    pub from: Fingerprint,
    pub to: Fingerprint,
    /// The certificate of `to`, PEM.
    pub certificate: String,
}

/// What a client follows the server's succession with.
pub(super) struct Following {
    moved: Mutex<Option<Fingerprint>>,
    told: Box<Told>,
}

impl Client {
    /// The same agent, whose certificate may follow the pinned one: `told` hears of it, to pin the newer one.
    #[must_use]
    pub fn following(mut self, told: impl Fn(&Moved) + Send + Sync + 'static) -> Self {
        if let Target::Pinned { following, .. } = &mut self.target {
            *following = Some(Arc::new(Following { moved: Mutex::new(None), told: Box::new(told) }));
        }
        self
    }

    /// The certificate that is pinned now, where one is.
    pub fn pin(&self) -> Option<Fingerprint> {
        match &self.target {
            Target::Unix(_) => None,
            Target::Pinned { pin, following, .. } => {
                Some(following.as_ref().and_then(|following| following.moved()).unwrap_or(*pin))
            }
        }
    }
}

impl Following {
    fn moved(&self) -> Option<Fingerprint> {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one of the servers that showed something else than `pin` has proved that it follows.
    pub(super) async fn follow(&self, pin: Fingerprint, error: &DialError) -> bool {
        for (address, why) in &error.attempts {
            let AttemptError::Mismatch { got, .. } = why else { continue };
            match prove(address, pin, *got).await {
                Ok(moved) => {
                    (self.told)(&moved);
                    *self.moved.lock().unwrap_or_else(PoisonError::into_inner) = Some(moved.to);
                    return true;
                }
                Err(reason) => tracing::debug!(address, reason, "no proof of succession"),
            }
        }
        false
    }
}

async fn prove(address: &str, pin: Fingerprint, shown: Fingerprint) -> Result<Moved, String> {
    let chain = succession(address, shown, pin).await.map_err(|error| error.to_string())?;
    let known = Pinned { fingerprint: pin, certificate_pem: String::new(), lineage: Lineage::default() };
    match known.consider(&chain, shown, Timestamp::now()) {
        Ok(Verdict::Taken(after)) if after.fingerprint == shown => {
            Ok(Moved { from: pin, to: shown, certificate: after.certificate_pem })
        }
        Ok(_) => Err("it does not lead to what is shown".to_owned()),
        Err(refused) => Err(refused.to_string()),
    }
}

impl fmt::Debug for Following {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Following({:?})", self.moved())
    }
}
