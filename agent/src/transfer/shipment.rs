//! What goes over, whatever carries it: one dataset with its snapshots, and a header that says what they are.
//!
//! Both wire protocols (our chunk stream and LXD's migration) move a [`Outgoing`] into an [`Incoming`]. Neither knows of
//! records: whoever starts a transfer makes the header of its records, and writes records of it on the other side.

use futures::future::BoxFuture;
use schema::name::{SnapshotName, TransferName};
use serde_json::Value;

pub use crate::dataset::Consistency;
use crate::dataset::Dataset;
use crate::trust::{Access, Caller, Who};

/// One side's dataset, as it is offered.
#[derive(Debug, Clone)]
pub struct Outgoing {
    pub dataset: Dataset,
    /// The snapshots that go along, oldest first.
    pub snapshots: Vec<SnapshotName>,
    pub main: Main,
    pub consistency: Consistency,
    /// What the other side makes its records of: LXD's index header (`{"config": {"instance"|"volume", …}}`), which is
    /// also what its migration protocol sends.
    pub header: Value,
}

/// What arrives as the target's own tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Main {
    /// The tree as it is.
    Live,
    /// One of its snapshots.
    Snapshot(SnapshotName),
}

/// What is told of where it comes from, in the words of whoever asked for it: for people and the history, for nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    pub source: Option<String>,
    /// The declared transfer that it is a run of.
    pub transfer: Option<TransferName>,
}

/// Where it goes.
pub struct Incoming {
    pub dataset: Dataset,
    pub origin: Origin,
    pub mode: schema::kind::transfer::Mode,
    /// Whose trees may serve as a stock of chunks.
    pub kin: Kin,
    /// Most bytes of data that its tree may have (LXD: size).
    pub size: Option<u64>,
    /// What of the offer is taken. Called once, with the source's header and the names that it offers, oldest first;
    /// what it answers with is kept to. An error is told to both sides, and nothing is written.
    pub choose: Choose,
    /// Called when every tree is in its place and before the source is told: writes the records.
    pub record: Record,
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming")
            .field("dataset", &self.dataset)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

/// Whose trees a target takes chunks from. What a target asks for tells the source what it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kin {
    /// The dataset itself, and its snapshots.
    #[default]
    Own,
    /// Every tree here: whoever asked for the transfer may see all of them.
    All,
}

impl Kin {
    pub fn of(caller: &Caller) -> Self {
        match &**caller {
            Who::Local { .. } | Who::Signed { .. } | Who::Client { access: Access::Unrestricted, .. } => {
                Kin::All
            }
            _ => Kin::Own,
        }
    }
}

pub type Choose =
    Box<dyn FnOnce(Value, Vec<SnapshotName>) -> BoxFuture<'static, Result<Chosen, String>> + Send>;
pub type Record = Box<dyn FnOnce() -> BoxFuture<'static, Result<(), String>> + Send>;

/// What a target takes of an offer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chosen {
    /// The snapshots that are sent, oldest first.
    pub take: Vec<SnapshotName>,
    /// The target's own that go in the same switch: those it takes anew, and with `--prune` those the source lacks.
    pub drop: Vec<SnapshotName>,
}
