//! `/control/v1`: our own surface. State, apply, and what the watched folder is doing.

use std::collections::BTreeMap;
use std::fmt;

use schema::name::{ClusterName, LinkName, ManifestName};
use schema::plan::Plan;
use schema::record::RecordKey;
use serde::{Deserialize, Serialize};

/// Largest body of `POST apply`, bytes: above 100,000 declarations of ordinary size.
pub const MAX_APPLY_BODY: usize = 64 * 1024 * 1024;

/// Body of `POST /control/v1/apply`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplyRequest {
    pub plan: Plan,
    /// Consent to the plan's deletions of volumes with their data; without it such a plan is refused.
    #[serde(default)]
    pub destroy_data: bool,
}

/// What an apply did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplyResponse {
    pub epoch: String,
    /// The commit's revision; the store's current one where there was nothing to write.
    pub revision: u64,
    /// Links whose trust is still to be made: mint and redeem a token for each.
    #[serde(default)]
    pub exchanges: Vec<LinkName>,
    /// Follow-up steps that could not be finished yet and will be tried again, one line each.
    #[serde(default)]
    pub unfinished: Vec<String>,
}

/// The body of every refusal on `/control/v1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// Stable machine-readable word, e.g. `conflict`.
    pub code: String,
    /// What is wrong, one line or a few.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The addresses at fault, where the code speaks of some.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
}

impl ErrorBody {
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), hint: None, addresses: Vec::new() }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for ErrorBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// One event of `GET /control/v1/watch`; its SSE id is [`WatchCursor`]'s text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchEvent {
    pub revision: u64,
    pub changes: Vec<WatchChange>,
}

/// One declared record that changed. What it says now is read from `state`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchChange {
    pub key: RecordKey,
    pub change: ChangeKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<ManifestName>,
}

/// What happened to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    Put,
    Delete,
}

/// Where a watch stands: the store's epoch and a revision, `EPOCH:REVISION`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchCursor {
    pub epoch: String,
    pub revision: u64,
}

impl fmt::Display for WatchCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.revision)
    }
}

impl WatchCursor {
    pub fn parse(text: &str) -> Option<Self> {
        let (epoch, revision) = text.rsplit_once(':')?;
        Some(Self { epoch: epoch.to_owned(), revision: revision.parse().ok()? })
    }
}

/// What `comity agent --watch DIR` is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchStatus {
    pub folder: String,
    pub state: WatchState,
    /// The faults that keep the folder from being applied, as text with file, line and column; empty when all is well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<WatchFault>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_applied: Option<LastApplied>,
}

/// The states of a watched folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WatchState {
    /// Not looked at yet.
    Starting,
    /// The cluster is what the folder says.
    Applied,
    /// The folder has faults; the last good state is kept.
    Faulty,
    /// The folder is well, but applying it failed; it is tried again.
    Failing,
    /// The folder is gone; nothing is pruned.
    Missing,
}

/// One reason why a watched folder is not applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchFault {
    /// `FILE:LINE:COLUMN`, where a file is at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    pub message: String,
}

/// When a watched folder was last applied, and as what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastApplied {
    pub at: jiff::Timestamp,
    pub revision: u64,
    pub cluster: ClusterName,
}

/// The body of `POST config`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SentEntries {
    /// Config entries in Consul's form.
    pub entries: Vec<serde_json::Value>,
}

/// What `POST config` did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenEntries {
    /// In the order in which they were sent.
    pub entries: Vec<WrittenEntry>,
}

/// What manifests own of a config entry: `GET config/KIND/NAME/owned`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OwnedParts {
    /// How many of its sources, or exported services, belong to each.
    pub manifests: BTreeMap<ManifestName, usize>,
}

/// One config entry of several that were written in one commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenEntry {
    /// Consul's word for it.
    pub kind: String,
    pub name: String,
    /// False if it said so already.
    pub changed: bool,
}
