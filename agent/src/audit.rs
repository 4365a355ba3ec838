//! The append-only log of who did what: one JSON object a line, in a file that only the agent's user may read.
//!
//! It names what was changed and never says to what: values may be secret, and the store has them anyway. A line is
//! written in one call to a file opened for appending, so lines never mix and a tool that rotates by copying and
//! truncating does no harm. Lines are not synced one by one: after a power cut the last few may be missing.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde::Serialize;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// A manifest was applied.
    Apply,
    /// Records were changed by hand or through a compat surface.
    Edit,
    /// A follow-up step of an earlier commit was done.
    Step,
}

/// One line.
#[derive(Debug, Clone, Serialize)]
pub struct Line<'a> {
    pub time: Timestamp,
    pub request: &'a str,
    /// As logs name a caller.
    pub caller: &'a str,
    pub action: Action,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest: Option<&'a str>,
    /// Every record changed, by its key.
    pub changed: Vec<String>,
    pub revision: u64,
}

/// The open log.
pub struct Audit {
    // `None` where nothing is kept.
    file: Option<Mutex<File>>,
}

impl Audit {
    /// Opens the log at `path`, making it if need be.
    pub fn open(path: &Path) -> io::Result<Arc<Self>> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        Ok(Arc::new(Self { file: Some(Mutex::new(file)) }))
    }

    /// A log that keeps nothing, for tests of what writes to one.
    #[cfg(test)]
    pub fn none() -> Arc<Self> {
        Arc::new(Self { file: None })
    }

    /// Appends `line`. What was done is done: a log that cannot be written is reported, not an error of the caller.
    pub fn append(&self, line: &Line<'_>) {
        let Some(file) = &self.file else { return };
        let written = serde_json::to_vec(line).map_err(io::Error::from).and_then(|mut text| {
            text.push(b'\n');
            file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&text)
        });
        if let Err(error) = written {
            tracing::error!(%error, request = line.request, "the audit log could not be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn appends_lines_to_a_private_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let line = Line {
            time: Timestamp::UNIX_EPOCH,
            request: "r1",
            caller: "client laptop",
            action: Action::Apply,
            manifest: Some("shop"),
            changed: vec!["service/backend".to_owned()],
            revision: 7,
        };
        for _ in 0..2 {
            Audit::open(&path).unwrap().append(&line);
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let expected = "{\"time\":\"1970-01-01T00:00:00Z\",\"request\":\"r1\",\"caller\":\"client laptop\",\
                        \"action\":\"apply\",\"manifest\":\"shop\",\"changed\":[\"service/backend\"],\"revision\":7}\n";
        assert_eq!(text, expected.repeat(2));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
