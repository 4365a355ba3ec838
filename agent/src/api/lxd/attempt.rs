//! Failed redemptions: counted by address, delayed, logged. A token that is right never comes here.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::StatusCode;
use jiff::Timestamp;

use super::answer::LxdError;
use crate::audit::{Action, Audit, Record};
use crate::trust::Caller;
use crate::trust::attempts::{Attempts, Verdict};

/// The failures of all endpoints where tokens are redeemed.
#[derive(Clone)]
pub struct Failures {
    attempts: Arc<Mutex<Attempts>>,
    audit: Arc<Audit>,
}

impl Failures {
    pub const TOO_MANY: &str = "Too many failed attempts to use a trust token; try again later";

    pub fn new(audit: Arc<Audit>) -> Self {
        Self { attempts: Arc::default(), audit }
    }

    /// The answer to a redemption that failed: `error` after a while, or that there were too many.
    pub async fn answer(&self, caller: &Caller, endpoint: &'static str, error: LxdError) -> LxdError {
        let address = caller.origin.address.map(|address| address.ip());
        match self.count(address) {
            Verdict::Answer { after } => {
                let from = address.map(|address| address.to_string()).unwrap_or_default();
                tracing::warn!(
                    endpoint,
                    from,
                    status = error.status.as_u16(),
                    reason = error.message,
                    "a token was refused"
                );
                let record = Record::new(caller, Action::TokenRefused, Timestamp::now());
                self.audit.record(record.with("endpoint", endpoint).with("reason", error.message.as_str()));
                tokio::time::sleep(after).await;
                error
            }
            Verdict::TooMany { retry_after, refused } => {
                // Whoever floods us is not to fill the log with it.
                if refused.is_power_of_two() {
                    tracing::warn!(endpoint, ?address, refused, "too many wrong tokens");
                }
                LxdError::new(StatusCode::TOO_MANY_REQUESTS, Self::TOO_MANY).retry_after(retry_after)
            }
        }
    }

    /// How long somebody who was wrong too often is to wait.
    pub fn must_wait(&self, address: Option<SocketAddr>) -> Option<Duration> {
        let attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        attempts.must_wait(address.map(|address| address.ip()), Instant::now())
    }

    fn count(&self, address: Option<IpAddr>) -> Verdict {
        // The counts are whole between statements, so a panic elsewhere leaves nothing half done.
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner).failed(address, Instant::now())
    }
}
