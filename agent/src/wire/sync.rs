//! What a Sync stream carries: length-prefixed JSON frames from the side that exports to the side that opened it.
//!
//! A snapshot (begin, items, end: what is not in it is swept), then changes, with heartbeats in between. Frames go
//! one way only; each side opens a stream of its own, so neither direction waits for the other.

use schema::name::{ClusterName, LinkName, ServiceName};
use schema::plan::LinkState;
use serde::{Deserialize, Serialize};

/// Largest frame, bytes. A batch of [`MAX_BATCH`] services stays well below it.
pub const MAX_FRAME: usize = super::link::MAX_FRAME;
/// Most services in one frame: a name has at most 63 bytes, so a row has less than 120.
pub const MAX_BATCH: usize = 400;
/// Most services that one peer may export to us.
pub const MAX_SERVICES: usize = 100_000;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SyncFrame {
    /// First on every stream.
    Hello { cluster: ClusterName, view: PeerView },
    /// A snapshot follows.
    Begin,
    /// Services of the snapshot.
    Items { services: Vec<Offered> },
    /// The snapshot is whole, as of `cursor`.
    End { cursor: u64 },
    /// What changed since the last cursor.
    Change { cursor: u64, services: Vec<Offered>, removed: Vec<ServiceName> },
    /// The link is alive; `view` is the sender's word about its half.
    Heartbeat { view: PeerView },
}

/// A service that the sender offers to the receiver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offered {
    pub name: ServiceName,
    pub instances: u32,
    /// Those of them whose checks pass.
    pub healthy: u32,
}

/// What one side says about its half of the link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerView {
    /// The link's name there.
    pub link: LinkName,
    pub state: LinkState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Services exported to, and imported from, the one who reads this.
    pub exported: u64,
    pub imported: u64,
}
