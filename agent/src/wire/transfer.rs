//! `/control/v1/transfers`: what this agent has received or is receiving, and what interrupted transfers have left.

use jiff::Timestamp;
use schema::name::TransferName;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// `GET /control/v1/transfers`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Transfers {
    /// The latest first.
    pub runs: Vec<Run>,
    pub left: Vec<Left>,
}

impl Transfers {
    /// The last run that was to arrive where something is left.
    pub fn run_of(&self, left: &Left) -> Option<&Run> {
        self.runs.iter().find(|run| run.target == left.target)
    }
}

/// A transfer into this agent, as the store keeps it too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The operation's.
    pub id: Uuid,
    /// What arrives, as a path of the API.
    pub target: String,
    /// What is copied, as whoever started it calls it.
    #[serde(default)]
    pub source: Option<String>,
    /// The declared transfer that it is a run of.
    #[serde(default)]
    pub transfer: Option<TransferName>,
    pub description: String,
    /// Who started it.
    pub by: String,
    pub began_at: Timestamp,
    #[serde(default)]
    pub ended_at: Option<Timestamp>,
    pub result: RunResult,
    /// Why it did not succeed.
    #[serde(default)]
    pub error: Option<String>,
    #[serde(default)]
    pub protocol: Option<String>,
    /// Bytes of data; those that had to be sent; those that were there already.
    #[serde(default)]
    pub total: Option<u64>,
    #[serde(default)]
    pub sent: Option<u64>,
    #[serde(default)]
    pub reused: Option<u64>,
}

/// How a transfer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunResult {
    Running,
    Success,
    Failure,
    Cancelled,
    /// The agent ended before it did.
    Interrupted,
}

impl RunResult {
    /// As lists show it.
    pub fn word(self) -> &'static str {
        match self {
            RunResult::Running => "RUNNING",
            RunResult::Success => "SUCCESS",
            RunResult::Failure => "FAILURE",
            RunResult::Cancelled => "CANCELLED",
            RunResult::Interrupted => "INTERRUPTED",
        }
    }
}

/// What has arrived of a transfer that was interrupted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// As commands name it: `POOL/VOLUME`, or an instance's name.
    pub name: String,
    /// The same as a path of the API.
    pub target: String,
    pub bytes: u64,
    #[serde(default)]
    pub last_written_at: Option<Timestamp>,
}

/// `DELETE /control/v1/transfers/left`: whose.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Whose {
    /// As [`Left::target`] tells it.
    pub target: String,
}
