//! `/control/v1/link-rotation`: renewing the cluster certificate.

use jiff::Timestamp;
use schema::name::LinkName;
use serde::{Deserialize, Serialize};

/// Body of `POST /control/v1/link-rotation`. An empty one asks for what is usual.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct RotateRequest {
    /// How long a peer that is away may take the next certificate on its return, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_seconds: Option<i64>,
    /// Do not wait for peers that are away.
    #[serde(default)]
    pub force: bool,
    /// The key may be in other hands: it is not to vouch for the next one.
    #[serde(default)]
    pub compromised: bool,
}

/// Answer of `GET` and `POST /control/v1/link-rotation`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotationReport {
    /// SHA-256 of the certificate in use, as hexadecimal digits.
    pub fingerprint: String,
    /// The last rotation, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Rotation>,
}

/// One rotation, under way or done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    pub state: RotationState,
    /// Which certificate of the succession it leads to; the first one of a cluster has number 0.
    pub number: u64,
    pub from: String,
    pub to: String,
    /// Until when a peer that was away may take the next certificate.
    pub deadline: Timestamp,
    pub asked_by: String,
    pub asked_at: Timestamp,
    pub force: bool,
    pub compromised: bool,
    /// The links that know the next certificate.
    pub heard: Vec<LinkName>,
    /// The links that do not: their peers are away.
    pub missing: Vec<LinkName>,
}

/// How far a rotation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RotationState {
    /// Peers are being told; the old certificate is in use.
    Announced,
    /// The next certificate is about to be put in place; there is no way back.
    Switching,
    /// The next certificate is in use.
    Done,
}
