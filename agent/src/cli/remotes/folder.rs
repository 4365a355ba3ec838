//! Where the command line keeps its state: `config.toml`, `client.crt`, `client.key`, `servercerts/NAME.crt` and, for
//! remotes that are logged in to, `oidctokens/NAME.json` and `jars/NAME`. An administrator may put `client.ca` there.
//!
//! The folder is 0700 and each file 0600. A file is written beside its place and renamed into it, so that a reader
//! never sees half of one; a change holds a lock from reading to writing, so that two commands do not undo each
//! other. `config.toml` comes last: a remote exists once it is named there.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use etcetera::BaseStrategy as _;
use rustix::fs::FlockOperation;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use schema::name::RemoteName;

use super::{AuthType, Local, LoginFiles, Remote, Remotes, RemotesError};
use crate::client::Moved;
use crate::client::login::Kept;
use crate::client::vouch::{Authorities, AuthorityError};
use crate::trust::certificate::{CertificateError, KeyPair, fingerprint};

/// Larger than any list of remotes; a wrong path may lead to anything.
const MOST_BYTES: u64 = 4 * 1024 * 1024;

/// The state folder, which need not exist yet.
#[derive(Debug, Clone)]
pub struct Folder {
    path: Option<PathBuf>,
}

/// Why the state could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("there is no home folder to keep remotes in")]
    NoHome,
    #[error("{} could not be {doing}: {source}", path.display())]
    Io { path: PathBuf, doing: &'static str, source: io::Error },
    #[error("{} is not a list of remotes: {reason}", path.display())]
    Malformed { path: PathBuf, reason: String },
    #[error("{} does not hold a certificate in PEM", .0.display())]
    NoCertificate(PathBuf),
    #[error("{} does not hold a login that can be read", .0.display())]
    NoLogin(PathBuf),
    #[error("{} may be read by others (mode {mode:03o}); run: chmod 600 {}", path.display(), path.display())]
    Exposed { path: PathBuf, mode: u32 },
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    Remotes(#[from] RemotesError),
    #[error(transparent)]
    Client(#[from] CertificateError),
}

impl Folder {
    /// `$COMITY_CONFIG_DIR`, or `comity` in the XDG configuration folder. Not having one is a fault only once it is
    /// needed: an agent started by an init system has no home.
    pub fn locate() -> Self {
        let given = std::env::var_os("COMITY_CONFIG_DIR").filter(|path| !path.is_empty());
        let home = || etcetera::base_strategy::Xdg::new().ok().map(|xdg| xdg.config_dir().join("comity"));
        Self { path: given.map(PathBuf::from).or_else(home) }
    }

    #[cfg(test)]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: Some(path.into()) }
    }

    /// The remotes as they are now; none if there is no file yet.
    pub fn load(&self) -> Result<Remotes, FolderError> {
        let Some(folder) = &self.path else { return Ok(Remotes::default()) };
        let path = folder.join("config.toml");
        let reading = |source| FolderError::Io { path: path.clone(), doing: "read", source };
        let text = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Remotes::default()),
            Err(error) => return Err(reading(error)),
            Ok(found) if found.len() > MOST_BYTES => {
                return Err(FolderError::Malformed { path, reason: "it is larger than 4 MiB".to_owned() });
            }
            Ok(_) => fs::read_to_string(&path).map_err(reading)?,
        };
        toml::from_str(&text).map_err(|error| FolderError::Malformed { path, reason: error.to_string() })
    }

    /// Reads, changes and writes the remotes while no other command does.
    pub fn change<T>(
        &self,
        change: impl FnOnce(&mut Remotes) -> Result<T, RemotesError>,
    ) -> Result<T, FolderError> {
        let _lock = self.lock()?;
        let mut remotes = self.load()?;
        let made = change(&mut remotes)?;
        self.save(&remotes)?;
        Ok(made)
    }

    /// Adds a remote with its certificate (PEM) and the login there, if it has one: these first, so that no remote is
    /// without.
    pub fn add(
        &self,
        name: &RemoteName,
        remote: Remote,
        certificate: &str,
        login: Option<&Kept>,
        local: &Local,
    ) -> Result<(), FolderError> {
        let _lock = self.lock()?;
        let mut remotes = self.load()?;
        remotes.add(name.clone(), remote, local)?;
        write(&self.certificate_path(name)?, certificate.as_bytes())?;
        if let Some(login) = login {
            LoginFiles::new(self, name).write(login)?;
        }
        self.save(&remotes)
    }

    pub fn rename(&self, from: &RemoteName, to: &RemoteName) -> Result<(), FolderError> {
        let login = LoginFiles::new(self, from);
        let _alone = self.has_login(from)?.then(|| login.lock()).transpose()?;
        let _lock = self.lock()?;
        let mut remotes = self.load()?;
        remotes.rename(from, to.clone())?;
        let (old, new) = (self.certificate_path(from)?, self.certificate_path(to)?);
        let certificate =
            fs::read(&old).map_err(|source| FolderError::Io { path: old.clone(), doing: "read", source })?;
        write(&new, &certificate)?;
        login.rename(to)?;
        self.save(&remotes)?;
        discard(&old)
    }

    pub fn remove(&self, name: &RemoteName) -> Result<(), FolderError> {
        let login = LoginFiles::new(self, name);
        let _alone = self.has_login(name)?.then(|| login.lock()).transpose()?;
        let _lock = self.lock()?;
        let mut remotes = self.load()?;
        remotes.remove(name)?;
        self.save(&remotes)?;
        login.remove()?;
        discard(&self.certificate_path(name)?)
    }

    fn has_login(&self, name: &RemoteName) -> Result<bool, FolderError> {
        Ok(self.load()?.get(name).is_ok_and(|remote| remote.auth_type == AuthType::Oidc))
    }

    /// Who vouches for certificates that are not known yet: `client.ca`, or else whom the system trusts.
    pub fn authorities(&self) -> Result<Authorities, FolderError> {
        let Some(folder) = &self.path else { return Ok(Authorities::of_the_system()) };
        let path = folder.join("client.ca");
        let reading = |source| FolderError::Io { path: path.clone(), doing: "read", source };
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Authorities::of_the_system()),
            opened => opened.map_err(reading)?,
        };
        let mut pem = Vec::new();
        file.take(MOST_BYTES).read_to_end(&mut pem).map_err(reading)?;
        Ok(Authorities::in_file(&path, &pem)?)
    }

    /// The certificate that is pinned for a remote.
    pub fn certificate(&self, name: &RemoteName) -> Result<CertificateDer<'static>, FolderError> {
        let path = self.certificate_path(name)?;
        let reading = |source| FolderError::Io { path: path.clone(), doing: "read", source };
        let text = fs::read(&path).map_err(reading)?;
        CertificateDer::from_pem_slice(&text).map_err(|_| FolderError::NoCertificate(path))
    }

    /// Pins the certificate that was proven to follow the pinned one. Where another command has done so already,
    /// nothing changes.
    pub fn repin(&self, name: &RemoteName, moved: &Moved) -> Result<(), FolderError> {
        let _lock = self.lock()?;
        if fingerprint(&self.certificate(name)?) == moved.from {
            write(&self.certificate_path(name)?, moved.certificate.as_bytes())?;
        }
        Ok(())
    }

    /// True once this command line has a certificate of its own.
    pub fn has_client(&self) -> bool {
        self.path.as_ref().is_some_and(|path| path.join("client.crt").exists())
    }

    /// The certificate that this command line shows, made on first use.
    pub fn client(&self) -> Result<Arc<KeyPair>, FolderError> {
        let _lock = self.lock()?;
        let user = std::env::var("USER").ok().filter(|user| schema::name::check(user).is_ok());
        let name = user.unwrap_or_else(|| "client".to_owned());
        Ok(KeyPair::load_or_create(self.path()?, "client", &name, std::slice::from_ref(&name))?)
    }

    fn certificate_path(&self, name: &RemoteName) -> Result<PathBuf, FolderError> {
        // A name holds no separator and does not begin with a dot, so it stays beneath the folder.
        Ok(self.path()?.join("servercerts").join(format!("{name}.crt")))
    }

    pub(super) fn path(&self) -> Result<&Path, FolderError> {
        self.path.as_deref().ok_or(FolderError::NoHome)
    }

    /// Held until the file is dropped.
    pub(super) fn lock(&self) -> Result<File, FolderError> {
        lock(&self.path()?.join(".lock"))
    }

    fn save(&self, remotes: &Remotes) -> Result<(), FolderError> {
        let path = self.path()?.join("config.toml");
        let text = toml::to_string(remotes)
            .map_err(|error| FolderError::Malformed { path: path.clone(), reason: error.to_string() })?;
        write(&path, text.as_bytes())
    }
}

/// Waits for a file that one command holds at a time, until what is given back is dropped.
pub(super) fn lock(path: &Path) -> Result<File, FolderError> {
    make(path.parent().unwrap_or(Path::new(".")))?;
    let locking = |source| FolderError::Io { path: path.to_owned(), doing: "locked", source };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(locking)?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive).map_err(|error| locking(error.into()))?;
    Ok(file)
}

/// Writes a file whole or not at all, for its owner alone.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), FolderError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    make(folder)?;
    let written = tempfile::NamedTempFile::new_in(folder).and_then(|mut file| {
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        File::open(folder)?.sync_all()
    });
    written.map_err(|source| FolderError::Io { path: path.to_owned(), doing: "written", source })
}

fn make(folder: &Path) -> Result<(), FolderError> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|source| FolderError::Io {
        path: folder.to_owned(),
        doing: "made",
        source,
    })
}

pub(super) fn discard(path: &Path) -> Result<(), FolderError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(FolderError::Io { path: path.to_owned(), doing: "removed", source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_added_is_there_for_its_owner_alone_and_leaves_nothing_when_removed() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("comity");
        let folder = Folder::at(&root);
        let (east, orient): (RemoteName, RemoteName) = ("east".parse().unwrap(), "orient".parse().unwrap());
        let remote = || Remote { addresses: vec!["10.0.0.1:8443".to_owned()], ..Remote::default() };

        assert!(folder.load().unwrap().is_empty());
        let local = Local { url: "unix:///x".to_owned(), answers: false };
        folder.add(&east, remote(), "certificate", None, &local).unwrap();
        assert_eq!(mode(&root), 0o700);
        assert_eq!(mode(&root.join("config.toml")), 0o600);
        assert_eq!(mode(&root.join("servercerts/east.crt")), 0o600);
        assert!(matches!(
            folder.add(&east, remote(), "another", None, &local),
            Err(FolderError::Remotes(RemotesError::ExistsAs { .. }))
        ));
        assert_eq!(fs::read_to_string(root.join("servercerts/east.crt")).unwrap(), "certificate");

        folder.rename(&east, &orient).unwrap();
        assert_eq!(folder.load().unwrap().default_name(), "orient");
        folder.remove(&orient).unwrap();
        assert_eq!(fs::read_dir(root.join("servercerts")).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_is_no_list_is_named() {
        let scratch = tempfile::tempdir().unwrap();
        fs::write(scratch.path().join("config.toml"), "remotes = 5\n").unwrap();
        let message = Folder::at(scratch.path()).load().unwrap_err().to_string();
        assert!(message.contains("config.toml is not a list of remotes"), "{message}");
    }
}
