//! Backups that wait to be fetched: one tar file each, and a note beside it. They are files and no records, so that what
//! lists them is what is there.
//!
//! ```text
//! DATA/backups/custom/POOL/VOLUME/NAME.tar, NAME.json
//! DATA/backups/instances/PROJECT/NAME/NAME.tar, NAME.json
//! ```
//!
//! A note is written when its tar is whole and durable; a tar without a note is one that is being made, or was.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use schema::name::{ContainerName, PoolName, ProjectName, SnapshotName, VolumeName};
use serde::{Deserialize, Serialize};

/// Most backups of one volume or instance.
const MOST: usize = 1000;

/// What a backup is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Of {
    Volume(PoolName, VolumeName),
    Instance(ProjectName, ContainerName),
}

/// What is noted of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    pub created_at: Timestamp,
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
    /// Whether its snapshots are left out.
    #[serde(default)]
    pub alone: bool,
    /// What is not in it that was there, in sentences.
    #[serde(default)]
    pub left_out: Vec<String>,
}

/// Why a backup was not read, made or changed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("Backup not found")]
    NotFound,
    #[error("Backup {:?} already exists", .0.as_str())]
    Exists(SnapshotName),
    #[error("There are {MOST} backups of it already")]
    TooMany,
    #[error("{path} could not be {doing}: {source}")]
    Io { path: PathBuf, doing: &'static str, source: io::Error },
}

/// The backups of this agent.
#[derive(Debug, Clone)]
pub struct Backups {
    root: PathBuf,
}

/// A backup that is being made. It goes again unless it is kept.
#[derive(Debug)]
pub struct Making {
    tar: PathBuf,
    note: PathBuf,
    kept: bool,
}

impl Backups {
    /// Opens `DATA/backups`, and removes what was not finished.
    pub fn open(data: &Path) -> Result<Self, BackupError> {
        let backups = Self { root: data.join("backups") };
        make_dir(&backups.root)?;
        for entry in walkdir::WalkDir::new(&backups.root).into_iter().flatten() {
            let path = entry.path();
            let unfinished =
                path.extension().is_some_and(|e| e == "tar") && !path.with_extension("json").exists();
            if unfinished {
                fs::remove_file(path).map_err(|e| failed(path, "removed", e))?;
            }
        }
        Ok(backups)
    }

    pub fn list(&self, of: &Of) -> Result<BTreeMap<SnapshotName, Backup>, BackupError> {
        let folder = self.folder(of);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(e) => return Err(failed(&folder, "read", e)),
        };
        let mut found = BTreeMap::new();
        for entry in entries {
            let path = entry.map_err(|e| failed(&folder, "read", e))?.path();
            let name = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".json")?.parse().ok());
            if let Some(name) = name
                && let Some(backup) = read_note(&path)
            {
                found.insert(name, backup);
            }
        }
        Ok(found)
    }

    pub fn get(&self, of: &Of, name: &SnapshotName) -> Result<Backup, BackupError> {
        read_note(&self.note(of, name)).ok_or(BackupError::NotFound)
    }

    /// The tar of a backup, and its size.
    pub fn open_tar(&self, of: &Of, name: &SnapshotName) -> Result<(File, u64), BackupError> {
        self.get(of, name)?;
        let path = self.tar(of, name);
        let file = File::open(&path).map_err(|e| failed(&path, "opened", e))?;
        let size = file.metadata().map_err(|e| failed(&path, "read", e))?.len();
        Ok((file, size))
    }

    /// Begins a backup: where its tar is to be written, which nobody else is to read.
    pub fn begin(&self, of: &Of, name: &SnapshotName) -> Result<(File, Making), BackupError> {
        let all = self.list(of)?;
        if all.contains_key(name) {
            return Err(BackupError::Exists(name.clone()));
        }
        if all.len() >= MOST {
            return Err(BackupError::TooMany);
        }
        make_dir(&self.folder(of))?;
        let (tar, note) = (self.tar(of, name), self.note(of, name));
        match File::options().write(true).create_new(true).mode(0o600).open(&tar) {
            Ok(file) => Ok((file, Making { tar, note, kept: false })),
            // Somebody is making it at this moment.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(BackupError::Exists(name.clone())),
            Err(e) => Err(failed(&tar, "created", e)),
        }
    }

    pub fn delete(&self, of: &Of, name: &SnapshotName) -> Result<(), BackupError> {
        self.get(of, name)?;
        for path in [self.note(of, name), self.tar(of, name)] {
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(&path, "removed", e)),
                _ => {}
            }
        }
        Ok(())
    }

    pub fn rename(&self, of: &Of, from: &SnapshotName, to: &SnapshotName) -> Result<(), BackupError> {
        self.get(of, from)?;
        if self.tar(of, to).exists() || self.note(of, to).exists() {
            return Err(BackupError::Exists(to.clone()));
        }
        // A crash in between leaves a note without a tar under the old name, and a tar without a note, which goes.
        for (old, new) in [(self.tar(of, from), self.tar(of, to)), (self.note(of, from), self.note(of, to))] {
            fs::rename(&old, &new).map_err(|e| failed(&old, "renamed", e))?;
        }
        Ok(())
    }

    /// Follows what they are of to another name.
    pub fn follow(&self, from: &Of, to: &Of) {
        let (old, new) = (self.folder(from), self.folder(to));
        let moved = new.parent().map_or(Ok(()), make_dir).and_then(|()| match fs::rename(&old, &new) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed(&old, "renamed", e)),
            _ => Ok(()),
        });
        if let Err(error) = moved {
            tracing::warn!(%error, "backups stay under an old name");
        }
    }

    /// Removes every backup of what is there no more.
    pub fn forget(&self, of: &Of) {
        let folder = self.folder(of);
        if let Err(error) = fs::remove_dir_all(&folder)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %folder.display(), %error, "backups of what was deleted stay");
        }
    }

    /// Removes what has expired.
    pub fn expire(&self, now: Timestamp) {
        for entry in walkdir::WalkDir::new(&self.root).into_iter().flatten() {
            let note = entry.path();
            let expired = note.extension().is_some_and(|e| e == "json")
                && read_note(note).and_then(|backup| backup.expires_at).is_some_and(|at| at <= now);
            if expired {
                let removed =
                    fs::remove_file(note).and_then(|()| fs::remove_file(note.with_extension("tar")));
                if let Err(error) = removed {
                    tracing::warn!(path = %note.display(), %error, "an expired backup could not be removed whole");
                }
            }
        }
    }

    fn folder(&self, of: &Of) -> PathBuf {
        match of {
            Of::Volume(pool, volume) => self.root.join("custom").join(pool.as_str()).join(volume.as_str()),
            Of::Instance(project, name) => {
                self.root.join("instances").join(project.as_str()).join(name.as_str())
            }
        }
    }

    fn tar(&self, of: &Of, name: &SnapshotName) -> PathBuf {
        self.folder(of).join(format!("{name}.tar"))
    }

    fn note(&self, of: &Of, name: &SnapshotName) -> PathBuf {
        self.folder(of).join(format!("{name}.json"))
    }
}

impl Making {
    /// Keeps the backup, whose tar is whole.
    pub fn keep(mut self, tar: &File, backup: &Backup) -> Result<(), BackupError> {
        tar.sync_all().map_err(|e| failed(&self.tar, "made durable", e))?;
        let text = serde_json::to_vec(backup).map_err(|e| failed(&self.note, "written", e.into()))?;
        let new = self.note.with_extension("new");
        let written = fs::write(&new, text)
            .and_then(|()| File::open(&new)?.sync_all())
            .and_then(|()| fs::rename(&new, &self.note));
        written.map_err(|e| failed(&self.note, "written", e))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = fs::remove_file(&self.tar)
        {
            tracing::warn!(path = %self.tar.display(), %error, "a backup that was not finished stays until the next start");
        }
    }
}

fn read_note(path: &Path) -> Option<Backup> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn make_dir(path: &Path) -> Result<(), BackupError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| failed(path, "created", e))
}

fn failed(path: &Path, doing: &'static str, source: io::Error) -> BackupError {
    BackupError::Io { path: path.to_owned(), doing, source }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_backup_is_there_when_it_is_whole_and_goes_when_it_expires() {
        let dir = tempfile::tempdir().unwrap();
        let backups = Backups::open(dir.path()).unwrap();
        let of = Of::Volume("default".parse().unwrap(), "v".parse().unwrap());
        let name: SnapshotName = "b0".parse().unwrap();
        drop(backups.begin(&of, &name).unwrap());
        assert!(backups.list(&of).unwrap().is_empty());
        let (mut tar, making) = backups.begin(&of, &name).unwrap();
        assert!(matches!(backups.begin(&of, &name), Err(BackupError::Exists(_))));
        assert!(matches!(backups.open_tar(&of, &name), Err(BackupError::NotFound)));
        tar.write_all(b"x").unwrap();
        let at = Timestamp::UNIX_EPOCH;
        let backup = Backup { created_at: at, expires_at: Some(at), alone: true, left_out: Vec::new() };
        making.keep(&tar, &backup).unwrap();
        assert_eq!(backups.get(&of, &name).unwrap(), backup);
        assert_eq!(backups.open_tar(&of, &name).unwrap().1, 1);
        let other = "b1".parse().unwrap();
        backups.rename(&of, &name, &other).unwrap();
        let moved = Of::Volume("default".parse().unwrap(), "w".parse().unwrap());
        backups.follow(&of, &moved);
        // What a crash left of another.
        std::mem::forget(backups.begin(&moved, &name).unwrap().1);
        let backups = Backups::open(dir.path()).unwrap();
        assert_eq!(backups.list(&moved).unwrap().into_keys().collect::<Vec<_>>(), [other]);
        assert!(backups.begin(&moved, &name).is_ok());
        backups.expire(at);
        assert!(backups.list(&moved).unwrap().is_empty());
    }
}
