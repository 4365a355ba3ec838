//! The connections of one transfer: the first, and a way to more of them.
//!
//! Whichever side dialled the first one dials the others. The side that was dialled gives it a ticket for each over the
//! connection that stands, so that nobody else can join: a ticket serves once, and ends with the transfer.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::bridge::Stream;
use super::offer::Doors;
use crate::wire::token::Secret;

/// Most connections of one transfer, the first one included.
pub const MAX_CONNECTIONS: usize = 4;

/// What carries a transfer.
pub struct Connections {
    pub first: Box<dyn Stream>,
    pub more: More,
}

/// How further connections come to be.
pub enum More {
    /// There is only the first: a pipe within the process, or a relay.
    None,
    /// This side dials, and shows a ticket that the other side gave.
    Dial(Dial),
    /// The other side dials, with tickets that this side gives out.
    Accept(Doors),
}

/// Opens one more connection, which shows the ticket given.
pub type Dial = Arc<dyn Fn(Secret) -> BoxFuture<'static, Result<Box<dyn Stream>, String>> + Send + Sync>;

impl Connections {
    /// The one, and no more.
    pub fn single(first: Box<dyn Stream>) -> Self {
        Self { first, more: More::None }
    }
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let more = match self.more {
            More::None => "none",
            More::Dial(_) => "dial",
            More::Accept(_) => "accept",
        };
        f.debug_struct("Connections").field("more", &more).finish_non_exhaustive()
    }
}
