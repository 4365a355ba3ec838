//! The folder that a CA lies in, and what must not be in one folder with it.
//!
//! The key of the CA belongs to the administrator: it is never where an agent keeps its data, and an agent that finds
//! it there does not start. Keys are compared by what they are, not by what their files are called.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::PublicKeyData as _;
use rustix::fs::FlockOperation;

use super::file::{self, FileError, Item, Kind, folder};
use super::{Authority, AuthorityError, parsed};

/// What tells an agent's data folder from others.
const OF_AN_AGENT: &str = "store.sqlite";

/// Where a CA is, or is to be.
#[derive(Debug, Clone)]
pub struct CaFolder {
    path: PathBuf,
}

/// Why a folder does not serve.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("the CA in {}: {source}", path.display())]
    Authority { path: PathBuf, source: AuthorityError },
    #[error("{} is an agent's data folder, and the key of a cluster's CA is never on an agent", .0.display())]
    OfAnAgent(PathBuf),
    #[error("{} could not be locked: {source}", path.display())]
    Lock { path: PathBuf, source: io::Error },
}

/// Held while a CA's files are read and replaced, so that two commands lose nothing of each other's.
#[derive(Debug)]
pub struct Locked(#[allow(dead_code)] File); // the kernel lets go of the lock with it

impl CaFolder {
    /// The CA's own files here; an empty path is the current folder.
    pub fn at(path: &Path) -> Self {
        // So that what is here is called by its bare name.
        let here = path == Path::new(".");
        Self { path: if here { PathBuf::new() } else { path.to_owned() } }
    }

    pub fn certificate(&self) -> PathBuf {
        self.path.join("cluster.crt")
    }

    pub fn key(&self) -> PathBuf {
        self.path.join("cluster.key")
    }

    pub fn revocations(&self) -> PathBuf {
        self.path.join("ca.crl")
    }

    /// The CA, whatever is to be done with it.
    pub fn open(&self) -> Result<Authority, FolderError> {
        refuse_agents(&self.path)?;
        let found = |error: FileError| match error {
            FileError::Open { path, source, .. } => FileError::NoAuthority { path, source },
            other => other,
        };
        let certificate = file::certificate(&self.certificate()).map_err(found)?;
        let key = file::key(&self.key()).map_err(found)?;
        Authority::open(certificate, &key)
            .map_err(|source| FolderError::Authority { path: self.certificate(), source })
    }

    /// Waits until no other command is at it. The CA must be there: no lock is left in any other folder.
    pub fn lock_at_work(&self) -> Result<Locked, FolderError> {
        refuse_agents(&self.path)?;
        for path in [self.certificate(), self.key()] {
            if let Err(source) = fs::metadata(&path) {
                return Err(FileError::NoAuthority { path, source }.into());
            }
        }
        let path = self.path.join("ca.lock");
        let lock = |source| FolderError::Lock { path: path.clone(), source };
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(lock)?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive).map_err(|error| lock(error.into()))?;
        Ok(Locked(file))
    }
}

/// That no agent keeps its data in this folder, or in one that it is in.
pub fn refuse_agents(path: &Path) -> Result<(), FolderError> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    // A folder that is not there is nobody's; whoever writes into it says so.
    let Ok(whole) = fs::canonicalize(path) else { return Ok(()) };
    let agents = whole.ancestors().find(|folder| folder.join(OF_AN_AGENT).exists());
    agents.map_or(Ok(()), |found| Err(FolderError::OfAnAgent(found.to_owned())))
}

/// The first of these files, and of all in these folders, that holds the private key of the CA with this certificate.
pub fn key_of(certificate: &[u8], files: &[&Path], folders: &[&Path]) -> Option<PathBuf> {
    let read = parsed(certificate).ok()?;
    let public = read.public_key().raw;
    let inside = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flat_map(|entries| {
        let files = entries.filter_map(Result::ok).filter(|entry| !entry.path().is_dir());
        files.map(|entry| entry.path()).collect::<Vec<_>>()
    });
    let all = files.iter().map(|path| (*path).to_owned()).chain(inside);
    all.into_iter().find(|path| holds_key(path, public))
}

/// Whether a file holds the private half of this public key, readable by others or not.
fn holds_key(path: &Path, public: &[u8]) -> bool {
    let Ok((items, _)) = file::read(path, Kind::Key) else { return false };
    items.iter().any(|item| match item {
        Item::Key(key) => {
            rcgen::KeyPair::try_from(key).is_ok_and(|key| key.subject_public_key_info() == public)
        }
        _ => false,
    })
}

/// The folder of the CA that a file is to be looked at with: the one that is named, else the file's own if there is a
/// CA in it, else the current one.
pub fn beside(named: Option<&Path>, path: &Path) -> CaFolder {
    let own = folder(path);
    match named {
        Some(named) => CaFolder::at(named),
        None if own.join("cluster.crt").exists() => CaFolder::at(own),
        None => CaFolder::at(Path::new("")),
    }
}
