//! `transfer "NAME" {}`: a copy of a volume from one cluster to another, run on demand.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::name::{PoolName, RemoteName, VolumeName};

/// A declared copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    pub source: VolumeAddress,
    pub target: VolumeAddress,
    #[serde(default)]
    pub mode: Mode,
}

/// What to do when the target exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Refuse.
    #[default]
    Copy,
    /// Bring the target to the source's state (LXD: `--refresh`).
    Refresh,
}

/// `REMOTE:POOL/VOLUME`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeAddress {
    /// `None` means the default remote, or the manifest's own cluster in a declaration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<RemoteName>,
    pub pool: PoolName,
    pub volume: VolumeName,
}

impl fmt::Display for VolumeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(remote) = &self.remote {
            write!(f, "{remote}:")?;
        }
        write!(f, "{}/{}", self.pool, self.volume)
    }
}
