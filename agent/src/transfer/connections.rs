//! The connections of one transfer: the first, and a way to more of them.
//!
//! Whichever side dialled the first one dials the others. The side that was dialled gives it a ticket for each over the
//! connection that stands, so that nobody else can join: a ticket serves once, and ends with the transfer.

use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::bridge::Stream;
use super::frame::{FrameError, Kind};
use super::lane::Lane;
use super::offer::{Arrived, Doors};
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

/// Further lanes of a transfer, as its threads come by them.
pub struct Opener {
    pub more: More,
    pub stop: CancellationToken,
    pub runtime: Handle,
}

/// Connections that are expected, by the tickets given out for them.
pub type Pending = Vec<oneshot::Receiver<Arrived>>;

/// How long a connection that was announced may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(30);

impl Opener {
    /// Gives the other side tickets, if it is the one that dials.
    pub fn give_tickets(&self, first: &Lane) -> Result<Pending, FrameError> {
        let More::Accept(doors) = &self.more else { return Ok(Vec::new()) };
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        let mut pending = Vec::new();
        let mut writer = first.writer();
        for _ in 1..processors.min(MAX_CONNECTIONS) {
            let Some((ticket, arrival)) = doors.more() else { break };
            writer.send(Kind::Ticket, ticket.expose().as_bytes())?;
            pending.push(arrival);
        }
        Ok(pending)
    }

    /// Opens a connection for each ticket, as far as that succeeds, and says how many.
    pub fn dial(&self, first: &Lane, tickets: Vec<Secret>) -> Result<Vec<Lane>, FrameError> {
        let mut lanes = Vec::new();
        if tickets.is_empty() {
            return Ok(lanes);
        }
        if let More::Dial(dial) = &self.more {
            let dialled = self.runtime.block_on(async {
                let all = futures::future::join_all(
                    tickets.into_iter().take(MAX_CONNECTIONS - 1).map(|it| dial(it)),
                );
                tokio::time::timeout(ARRIVAL, all).await.unwrap_or_default()
            });
            let _within = self.runtime.enter();
            for stream in dialled {
                match stream {
                    Ok(stream) => lanes.push(Lane::new(stream, &self.stop)),
                    Err(reason) => tracing::info!(reason, "a transfer makes do with fewer connections"),
                }
            }
        }
        // There are at most MAX_CONNECTIONS of them.
        first.say(Kind::Join, &[u8::try_from(lanes.len()).unwrap_or(0)])?;
        Ok(lanes)
    }

    /// The connections that the other side opened with the tickets it was given.
    pub fn collect(&self, first: &Lane, pending: Pending) -> Result<Vec<Lane>, FrameError> {
        if pending.is_empty() {
            return Ok(Vec::new());
        }
        let announced = first.expect(Kind::Join)?.first().copied().unwrap_or(0);
        if usize::from(announced) > pending.len() {
            return Err(FrameError::Malformed("more connections than it had tickets"));
        }
        let arrived: Vec<Arrived> = self.runtime.block_on(async {
            let arrivals: FuturesUnordered<_> = pending.into_iter().collect();
            let first = arrivals.filter_map(|arrived| async { arrived.ok() }).take(announced.into());
            tokio::time::timeout(ARRIVAL, first.collect()).await.unwrap_or_default()
        });
        if arrived.len() != usize::from(announced) {
            return Err(FrameError::Malformed("a connection that was announced did not come"));
        }
        let _within = self.runtime.enter();
        Ok(arrived.into_iter().map(|arrived| Lane::new(arrived.stream, &self.stop)).collect())
    }
}

/// A ticket, as it was received.
pub fn ticket(payload: &[u8]) -> Result<Secret, FrameError> {
    match std::str::from_utf8(payload) {
        Ok(text) => Ok(Secret::new(text.to_owned())),
        Err(_) => Err(FrameError::Malformed("a ticket that is no text")),
    }
}
