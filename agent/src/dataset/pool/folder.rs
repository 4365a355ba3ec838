//! Folders of ours: made private, made durable.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{PoolError, remove_tree};

/// Removes what is in `.removed` without anybody waiting for it. What is left when the agent ends goes at its next start.
pub(super) fn remove_later(bin: PathBuf) {
    let work = move || {
        if let Err(e) = remove_tree(&bin) {
            tracing::warn!(path = %bin.display(), reason = %e, "a tree on its way out could not be removed");
        }
    };
    if let Err(e) = std::thread::Builder::new().name("remove".to_owned()).spawn(work) {
        tracing::warn!(reason = %e, "a tree on its way out is removed at the next start");
    }
}

/// Moving a directory writes its `..`, which its owner, unless root, may do only with write permission on it. Gives
/// back the mode to restore, if it was changed.
pub(super) fn loosen(tree: &Path) -> Result<Option<u32>, PoolError> {
    let mode = fs::metadata(tree).map_err(|e| PoolError::io(tree, "read", e))?.mode() & 0o7777;
    if mode & 0o200 != 0 || rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    set_mode(tree, mode | 0o200)?;
    Ok(Some(mode))
}

pub(super) fn set_mode(path: &Path, mode: u32) -> Result<(), PoolError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(|e| PoolError::io(path, "changed", e))
}

/// Whether nobody but root and this agent's user can exchange what these have in a folder. In one like /tmp, where each
/// may remove what is their own, others cannot.
pub(super) fn is_guarded(folder: &Path) -> bool {
    let Ok(meta) = fs::metadata(folder) else { return false };
    let shared = meta.mode() & 0o002 != 0
        || (meta.mode() & 0o020 != 0 && ![0, rustix::process::getegid().as_raw()].contains(&meta.gid()));
    is_ours(folder) && (!shared || meta.mode() & 0o1000 != 0)
}

/// Whether a folder is root's or this agent's user's.
pub(super) fn is_ours(folder: &Path) -> bool {
    fs::metadata(folder).is_ok_and(|meta| [0, rustix::process::geteuid().as_raw()].contains(&meta.uid()))
}

/// Makes a private folder and those above it, where they are missing.
pub(super) fn make_dir(path: &Path) -> Result<(), PoolError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| PoolError::io(path, "created", e))
}

pub(super) fn sync_dir(path: &Path) -> Result<(), PoolError> {
    fs::File::open(path).and_then(|dir| dir.sync_all()).map_err(|e| PoolError::io(path, "made durable", e))
}

/// Makes everything durable that was written to the file system of `path`.
pub(super) fn sync_all(path: &Path) -> Result<(), PoolError> {
    let handle = fs::File::open(path).map_err(|e| PoolError::io(path, "opened", e))?;
    rustix::fs::syncfs(&handle).map_err(|e| PoolError::io(path, "made durable", e))
}

/// Writes a file in one durable step: a reader, or a crash, sees the old content or the new.
pub(super) fn replace_file(path: &Path, content: &[u8]) -> Result<(), PoolError> {
    let Some(folder) = path.parent() else { return Ok(()) };
    let failed = |e: io::Error| PoolError::io(path, "written", e);
    let mut new = tempfile::Builder::new().prefix(".new-").tempfile_in(folder).map_err(failed)?;
    io::Write::write_all(&mut new, content).and_then(|()| new.as_file().sync_all()).map_err(failed)?;
    new.persist(path).map_err(|e| failed(e.error))?;
    sync_dir(folder)
}

pub(super) fn entries_of(path: &Path) -> Result<Vec<PathBuf>, PoolError> {
    fs::read_dir(path)
        .and_then(|dir| dir.map(|entry| entry.map(|e| e.path())).collect())
        .map_err(|e| PoolError::io(path, "read", e))
}

/// The directories in `path` whose names are names, sorted.
pub(super) fn names_in<T: std::str::FromStr + Ord>(path: &Path) -> Result<Vec<T>, PoolError> {
    let mut names: Vec<T> = entries_of(path)?
        .iter()
        .filter(|path| path.is_dir())
        .filter_map(|path| path.file_name()?.to_str()?.parse().ok())
        .collect();
    names.sort();
    Ok(names)
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PoolError> + Send + 'static,
) -> Result<T, PoolError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(PoolError::io(Path::new("pool"), "reached", io::Error::other(e))),
    }
}
