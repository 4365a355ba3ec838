//! What a Sync stream carries: length-prefixed JSON frames from the side that exports to the side that opened it, and
//! acknowledgements the other way.
//!
//! Frames are counted, the greeting being the first. After it comes a snapshot (begin, items, end: what is not in it
//! is swept), or, where the opener named a position that the sender still remembers, nothing; then changes, with
//! heartbeats in between. Exports go one way only: each side opens a stream of its own, so neither waits for the other.

use std::collections::BTreeMap;

use schema::kind::service::Weights;
use schema::name::{ClusterName, InstanceId, LinkName, ServiceName};
use schema::plan::LinkState;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::bundle::TrustBundle;

/// The version of these frames. A stream begins only if both sides speak the same one.
pub const VERSION: u32 = 2;

/// Largest frame, bytes.
pub const MAX_FRAME: usize = 256 * 1024;
/// A frame that has this much gets no more rows; what does not fit goes into the next one.
pub const FULL_FRAME: usize = 48 * 1024;
/// Largest answer, bytes.
pub const MAX_ANSWER: usize = 4 * 1024;
/// Largest row of one instance, bytes. An instance that would take more is told without its tags and meta.
pub const MAX_INSTANCE: usize = 64 * 1024;
/// Most that one service's instances may take, bytes.
pub const MAX_SERVICE: usize = 8 * 1024 * 1024;
/// Most names in one frame: the longest take 66 bytes each.
pub const MAX_REMOVED: usize = 500;

/// Most services, and instances of them, that one peer may export to us, and most bytes that these may take.
pub const MAX_SERVICES: usize = 100_000;
pub const MAX_INSTANCES: usize = 500_000;
pub const MAX_BYTES: usize = 256 * 1024 * 1024;
/// Most addresses that a peer may say it is reached at.
pub const MAX_ADDRESSES: usize = 8;
/// How far a stream has come. Epochs differ between processes and links, so a position is never taken for another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    pub epoch: Uuid,
    pub sequence: u64,
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SyncFrame {
    /// First on every stream.
    Hello {
        /// 0 from agents of a time without versions.
        #[serde(default)]
        version: u32,
        cluster: ClusterName,
        view: PeerView,
        #[serde(default)]
        news: News,
        /// The position that the opener asked for, if the sender goes on from there; else a snapshot follows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resumed: Option<Position>,
    },
    /// A snapshot follows.
    Begin,
    /// Services of the snapshot.
    Items { services: Vec<Offered> },
    /// The snapshot, of so many services, is whole.
    End { position: Position, services: u64 },
    /// What changed. With a position, everything that changed up to there has been told.
    Change {
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        services: Vec<Offered>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        removed: Vec<ServiceName>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        position: Option<Position>,
    },
    /// What the sender says about itself has changed.
    News { news: News },
    /// The link is alive; `view` is the sender's word about its half.
    Heartbeat { view: PeerView },
}

/// What the receiver of frames says to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum SyncAnswer {
    /// Every frame up to this one, counted from 1, was taken.
    Ack { frame: u64 },
    /// A frame was not taken, and none will be after it.
    Refused { reason: String },
}

/// What a cluster says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct News {
    /// What its services' certificates are checked by; `None` while it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<TrustBundle>,
    /// Where it is reached, `host:port`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
}

/// A service that the sender offers to the receiver, or a part of one whose instances do not fit one frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offered {
    pub name: ServiceName,
    /// What it speaks (`service-defaults`); empty where nothing is declared.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub protocol: String,
    #[serde(default, skip_serializing_if = "Part::is_whole")]
    pub part: Part,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instances: Vec<OfferedInstance>,
}

/// Which part of a service's instances a row has. The parts of one service follow each other at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    #[default]
    Whole,
    First,
    Middle,
    Last,
}

impl Part {
    // serde's `skip_serializing_if` hands over a reference.
    #[allow(clippy::trivially_copy_pass_by_ref)]
    fn is_whole(&self) -> bool {
        *self == Part::Whole
    }
}

/// An instance of an offered service. Its address is not told: it is reached through its cluster's agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferedInstance {
    pub id: InstanceId,
    /// Where it listens at its cluster; `None` for one that listens on a socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "is_even")]
    pub weights: Weights,
    pub status: OfferedStatus,
}

// serde's `skip_serializing_if` hands over a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_even(weights: &Weights) -> bool {
    *weights == Weights::default()
}

/// The health of an instance, all its checks in one word: the worst of them, and maintenance before any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OfferedStatus {
    Passing,
    Warning,
    Critical,
    Maintenance,
}

impl OfferedInstance {
    /// The memory that it takes where it is kept, about.
    pub fn weight_bytes(&self) -> usize {
        let meta = self.meta.iter().map(|(key, value)| key.len() + value.len() + 2 * size_of::<String>());
        let tags = self.tags.iter().map(|tag| tag.len() + size_of::<String>());
        size_of::<Self>() + self.id.as_str().len() + meta.sum::<usize>() + tags.sum::<usize>()
    }
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
