//! What `GET /control/v1/status` tells of the certificate that clients are shown, and of how it is renewed.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A certificate that is not the cluster's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerCertificate {
    /// SHA-256.
    pub fingerprint: String,
    /// The DNS names that it is for.
    pub names: Vec<String>,
    pub issuer: String,
    pub valid_from: Timestamp,
    pub valid_until: Timestamp,
    pub origin: Origin,
    /// Whether it is within its time.
    #[serde(default)]
    pub standing: Standing,
}

/// A certificate's time, as it is now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    #[default]
    Valid,
    /// It begins later, or this machine's clock is behind.
    NotYetValid,
    Expired,
}

impl Standing {
    pub fn of(from: Timestamp, until: Timestamp, now: Timestamp) -> Self {
        if now < from {
            return Standing::NotYetValid;
        }
        if now > until { Standing::Expired } else { Standing::Valid }
    }
}

/// Where a certificate comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// An ACME server.
    Acme,
    /// The administrator, who has put it into the data folder.
    Folder,
    /// The administrator, who has named it when the agent was started.
    Given,
}

/// How certificates are had from an ACME server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcmeStatus {
    pub state: AcmeState,
    /// What `state` does not say: what is missing, in the way, or being done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// How the name is proved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<String>,
    /// When the next certificate is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt: Option<Timestamp>,
    /// Attempts that failed since the last that did not.
    #[serde(default)]
    pub failures: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<AcmeError>,
}

/// What becomes of the certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AcmeState {
    /// No name is set; a certificate that was had before is not renewed.
    Off,
    /// Settings are missing.
    Incomplete,
    /// There is another certificate, which is not written over.
    Blocked,
    /// There is a certificate, and time until it is renewed.
    Waiting,
    /// One is being asked for.
    Asking,
    /// The last attempt failed; it is made again.
    Failing,
}

/// Why the last attempt came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcmeError {
    pub at: Timestamp,
    pub message: String,
}
