//! What opens a stream between two linked agents: one length-prefixed JSON header, one length-prefixed JSON answer.

use std::net::SocketAddr;

use schema::name::ServiceName;
use serde::{Deserialize, Serialize};

use super::sync::Position;

/// Largest header or answer frame, bytes.
pub const MAX_FRAME: usize = 64 * 1024;

/// The first frame on a stream: what it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum StreamHeader {
    /// Replication of exports, instance health and trust; the opener receives.
    Sync {
        /// Of the frames that the opener speaks; before there were versions, none was named.
        #[serde(default)]
        version: u32,
        /// How far it came on an earlier stream.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resume: Option<Position>,
    },
    /// A service connection. The source service is the opener's cluster's word.
    Service {
        destination: ServiceName,
        source: ServiceName,
        /// Where the app connected from: the opener's cluster's word, passed on to instances that want to hear it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<SocketAddr>,
    },
    /// The opener has deleted the link; accepting means that this was noted. Nothing follows on the stream.
    Farewell,
    /// The opener's certificate is followed by another: one frame with the proof follows, and one answer frame.
    Succession,
    /// The opener's key may be in other hands: accepting means that nothing it signed counts here any more, and that
    /// the link's trust is given up. Nothing follows on the stream.
    Compromised,
    /// An HTTP/1.1 connection to the API, with the pinned peer as caller.
    Api,
}

/// The acceptor's one answer; after `Accepted` the stream carries what the header announced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum StreamAnswer {
    Accepted,
    Refused { code: Refusal, message: String },
}

/// Why a stream was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    Denied,
    NotFound,
    Unavailable,
    Malformed,
}
