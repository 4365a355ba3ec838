//! What is still to be told to one peer, as a state machine without I/O: a snapshot or the changes since a position,
//! in steps, and no further ahead of the peer's acknowledgements than a window.
//!
//! All that it keeps is how far it has come; see [`Offers`] for what is the same for all peers.

use std::collections::VecDeque;

use schema::name::{LinkName, ServiceName};
use uuid::Uuid;

use super::offers::Offers;
use crate::wire::sync::{MAX_REMOVED, Position};

/// Most services that one step names.
const STEP: usize = 64;
/// Most changes that one step goes through.
const CHANGES: usize = 256;
/// Most bytes, and frames, that may be under way without an acknowledgement.
const WINDOW_BYTES: usize = 1024 * 1024;
const WINDOW_FRAMES: usize = 256;

/// One peer's place in what is offered.
#[derive(Debug)]
pub struct Outbox {
    link: LinkName,
    epoch: Uuid,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// A snapshot is due.
    Due,
    /// A snapshot is being sent, and has come to `after`.
    Snapshot { since: u64, after: Option<ServiceName>, told: u64 },
    /// Everything up to here was told.
    Current { sequence: u64 },
}

/// What is to be sent next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// A snapshot begins.
    Begin,
    /// More of the snapshot.
    Items(Vec<ServiceName>),
    /// The snapshot is whole.
    End { position: Position, services: u64 },
    /// These changed, and these are offered no more; then everything up to the position is told.
    Change { changed: Vec<ServiceName>, removed: Vec<ServiceName>, position: Position },
    /// Nothing, until something changes.
    Nothing,
}

impl Outbox {
    /// Begins to tell `link`. `epoch` is that of this process, and `asked` how far the peer says it has come.
    pub fn begin(link: LinkName, epoch: Uuid, asked: Option<Position>, offers: &Offers) -> Self {
        let known = asked.filter(|asked| asked.epoch == epoch && offers.remembers(asked.sequence));
        let stage = known.map_or(Stage::Due, |known| Stage::Current { sequence: known.sequence });
        Self { link, epoch, stage }
    }

    /// The position that the peer goes on from without a snapshot.
    pub fn resumed(&self) -> Option<Position> {
        match self.stage {
            Stage::Current { sequence } => Some(self.position(sequence)),
            Stage::Due | Stage::Snapshot { .. } => None,
        }
    }

    fn position(&self, sequence: u64) -> Position {
        Position { epoch: self.epoch, sequence }
    }

    /// The next thing to send. Who takes it sends it whole, or ends the stream.
    pub fn next(&mut self, offers: &Offers) -> Step {
        match &mut self.stage {
            Stage::Due => {
                self.stage = Stage::Snapshot { since: offers.sequence(), after: None, told: 0 };
                Step::Begin
            }
            Stage::Snapshot { since, after, told } => {
                let names = offers.offered(&self.link, after.as_ref(), STEP);
                if let Some(last) = names.last() {
                    *after = Some(last.clone());
                    *told += names.len() as u64;
                    return Step::Items(names);
                }
                // What changed meanwhile comes as changes.
                let (sequence, services) = (*since, *told);
                self.stage = Stage::Current { sequence };
                Step::End { position: self.position(sequence), services }
            }
            Stage::Current { sequence } => loop {
                if *sequence == offers.sequence() {
                    return Step::Nothing;
                }
                let Some(since) = offers.since(&self.link, *sequence, CHANGES) else {
                    self.stage = Stage::Due;
                    return self.next(offers);
                };
                debug_assert!(since.removed.len() <= MAX_REMOVED);
                *sequence = since.sequence;
                if since.changed.is_empty() && since.removed.is_empty() {
                    // All of it was others' business.
                    continue;
                }
                return Step::Change {
                    changed: since.changed.into_iter().collect(),
                    removed: since.removed.into_iter().collect(),
                    position: Position { epoch: self.epoch, sequence: since.sequence },
                };
            },
        }
    }
}

/// Frames that are under way.
#[derive(Debug, Default)]
pub struct Window {
    sizes: VecDeque<usize>,
    bytes: usize,
    /// Frames that were sent, all in all.
    sent: u64,
}

/// The peer acknowledges a frame that was not sent, or less than it did before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the peer acknowledged frame {acknowledged} of {sent} that were sent, of which {open} were open")]
pub struct BadAck {
    acknowledged: u64,
    sent: u64,
    open: u64,
}

impl Window {
    /// Whether another frame may be sent.
    pub fn has_room(&self) -> bool {
        self.bytes < WINDOW_BYTES && self.sizes.len() < WINDOW_FRAMES
    }

    /// What is not acknowledged yet.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn sent(&mut self, bytes: usize) {
        self.sizes.push_back(bytes);
        self.bytes += bytes;
        self.sent += 1;
    }

    /// Every frame up to this one has arrived.
    pub fn acknowledged(&mut self, frame: u64) -> Result<(), BadAck> {
        let open = self.sizes.len() as u64;
        let before = self.sent - open;
        if frame > self.sent || frame < before {
            return Err(BadAck { acknowledged: frame, sent: self.sent, open });
        }
        for _ in before..frame {
            self.bytes -= self.sizes.pop_front().unwrap_or_default();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_closes_and_opens_with_acknowledgements() {
        let mut window = Window::default();
        for _ in 0..4 {
            assert!(window.has_room());
            window.sent(WINDOW_BYTES / 4);
        }
        assert!(!window.has_room());
        window.acknowledged(2).unwrap();
        assert_eq!(window.bytes(), WINDOW_BYTES / 2);
        // The same word twice says nothing new; less than before, or more than there was, is a lie.
        window.acknowledged(2).unwrap();
        for bad in [1, 5, u64::MAX] {
            assert_eq!(window.acknowledged(bad).unwrap_err().acknowledged, bad);
        }
        window.acknowledged(4).unwrap();
        assert_eq!(window.bytes(), 0);
        for _ in 0..WINDOW_FRAMES {
            window.sent(1);
        }
        assert!(!window.has_room());
    }
}
