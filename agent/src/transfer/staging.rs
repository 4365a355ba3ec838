//! The staging area of one dataset: the trees that are being built there, and what earlier attempts left.
//!
//! ```text
//! AREA/now/NAME/      a tree being built; the dataset's own is `.main`
//! AREA/was-N/NAME/    the same of interrupted attempts, the newest with the highest number
//! ```
//!
//! There is no journal: what is on disk is read and hashed before it counts, so neither a torn write nor a lost one does
//! harm.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use schema::name::SnapshotName;

use crate::dataset::PoolError;
use crate::dataset::pool::remove_tree;

/// Interrupted attempts that are gone on with. Each takes over what the ones before it have.
const MOST_ATTEMPTS: usize = 3;

/// A staging area in use.
#[derive(Debug)]
pub struct Staging {
    area: PathBuf,
    /// Newest first.
    was: Vec<PathBuf>,
}

impl Staging {
    /// Begins an attempt in `area`. What the last one was building becomes what it left.
    pub fn begin(area: &Path) -> Result<Self, PoolError> {
        let failed = |source: io::Error| PoolError::Io { path: area.to_owned(), doing: "used", source };
        let now = area.join("now");
        let mut was = Vec::new();
        for entry in fs::read_dir(area).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let number =
                entry.file_name().to_str().and_then(|name| name.strip_prefix("was-")?.parse::<u32>().ok());
            if let Some(number) = number {
                was.push((number, entry.path()));
            }
        }
        was.sort_unstable_by(|a, b| b.cmp(a));
        let empty = fs::read_dir(&now).map(|mut entries| entries.next().is_none());
        if matches!(empty, Ok(false)) {
            let number = was.first().map_or(1, |(number, _)| number.saturating_add(1));
            let path = area.join(format!("was-{number}"));
            fs::rename(&now, &path).map_err(failed)?;
            was.insert(0, (number, path));
        }
        for (_, old) in was.drain(MOST_ATTEMPTS.min(was.len())..) {
            remove_tree(&old)?;
        }
        if !matches!(empty, Ok(true)) {
            fs::create_dir(&now).map_err(failed)?;
        }
        Ok(Self { area: area.to_owned(), was: was.into_iter().map(|(_, path)| path).collect() })
    }

    /// Where a tree is built.
    pub fn tree(&self, snapshot: Option<&SnapshotName>) -> PathBuf {
        self.area.join("now").join(name(snapshot))
    }

    /// Where earlier attempts built the same tree, newest first.
    pub fn unfinished(&self, snapshot: Option<&SnapshotName>) -> Vec<PathBuf> {
        self.was.iter().map(|was| was.join(name(snapshot))).filter(|path| path.is_dir()).collect()
    }

    /// Whether there is nothing of earlier attempts.
    pub fn is_fresh(&self) -> bool {
        self.was.is_empty()
    }
}

fn name(snapshot: Option<&SnapshotName>) -> &str {
    // No snapshot's name begins with a dot.
    snapshot.map_or(".main", SnapshotName::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_follow_one_another() {
        let dir = tempfile::tempdir().unwrap();
        let begin = || Staging::begin(dir.path()).unwrap();
        assert!(begin().is_fresh());
        for attempt in 1..=5 {
            fs::create_dir(dir.path().join("now/.main")).unwrap();
            fs::write(dir.path().join("now/.main/n"), attempt.to_string()).unwrap();
            let staging = begin();
            let unfinished = staging.unfinished(None);
            assert_eq!(unfinished.len(), MOST_ATTEMPTS.min(attempt));
            assert_eq!(fs::read_to_string(unfinished[0].join("n")).unwrap(), attempt.to_string());
            assert!(
                !staging.tree(None).exists() && staging.unfinished(Some(&"s".parse().unwrap())).is_empty()
            );
        }
    }
}
