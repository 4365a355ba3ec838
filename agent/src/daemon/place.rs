//! The data folder: 0700, one agent at a time.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

/// A data folder that is this process's alone for as long as it lives.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    /// The kernel lets go of the lock when the process ends, however it ends.
    _lock: File,
}

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error("{} could not be {doing}: {source}", path.display())]
    Io { path: PathBuf, doing: &'static str, source: io::Error },
    #[error("{} is in use by another agent{}", path.display(), holder.as_ref().map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    InUse { path: PathBuf, holder: Option<String> },
    #[error("{} belongs to user {owner}, not to the one that runs the agent", path.display())]
    Foreign { path: PathBuf, owner: u32 },
}

impl Place {
    /// Makes the folder if it is not there, and takes it.
    pub fn take(path: &Path) -> Result<Self, PlaceError> {
        let fault = |doing| move |source| PlaceError::Io { path: path.to_owned(), doing, source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(fault("made"))?;
        let found = fs::metadata(path).map_err(fault("read"))?;
        if found.uid() != rustix::process::geteuid().as_raw() {
            return Err(PlaceError::Foreign { path: path.to_owned(), owner: found.uid() });
        }
        if found.mode() & 0o777 != 0o700 {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700))
                .map_err(fault("closed to others"))?;
        }
        let locked = path.join("lock");
        let mut lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&locked)
            .map_err(fault("locked"))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                let _ = lock.take(32).read_to_string(&mut holder);
                let holder = Some(holder.trim().to_owned()).filter(|pid| pid.parse::<u32>().is_ok());
                return Err(PlaceError::InUse { path: path.to_owned(), holder });
            }
            Err(error) => return Err(fault("locked")(error.into())),
        }
        // For the message above only: the lock is what counts.
        let _ = lock
            .set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()));
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn store(&self) -> PathBuf {
        self.path.join("store.sqlite")
    }

    pub fn socket(&self) -> PathBuf {
        self.path.join("unix.socket")
    }

    pub fn audit(&self) -> PathBuf {
        self.path.join("audit.log")
    }

    pub fn mesh_ca(&self) -> PathBuf {
        self.path.join("mesh-ca")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_one_agents_and_closed_to_others() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("east");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let place = Place::take(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        match Place::take(&path) {
            Err(PlaceError::InUse { holder, .. }) => assert_eq!(holder, Some(std::process::id().to_string())),
            other => panic!("{other:?}"),
        }
        drop(place);
        Place::take(&path).unwrap();
    }
}
