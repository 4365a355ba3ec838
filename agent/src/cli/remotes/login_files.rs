//! The login of one remote, in its files: `oidctokens/NAME.json` and `jars/NAME`, for their owner alone.
//!
//! Both are written whole under the folder's lock, and only while the remote is there and is one that is logged in to:
//! a command that still runs brings back nothing that another has removed. Renewing takes a lock of its own for each
//! remote, since it asks the provider meanwhile.

use std::any::Any;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use schema::name::RemoteName;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::AuthType;
use super::folder::{self, Folder, FolderError};
use crate::client::login::{Cookie, Kept, Shelf, Tokens};

/// Larger than two tokens of the longest.
const MOST_BYTES: u64 = 64 * 1024;

/// Where one remote's login is.
#[derive(Debug, Clone)]
pub struct LoginFiles {
    folder: Folder,
    name: RemoteName,
}

impl LoginFiles {
    pub fn new(folder: &Folder, name: &RemoteName) -> Self {
        Self { folder: folder.clone(), name: name.clone() }
    }

    /// Writes all of a login, with the folder's lock held by the caller.
    pub(super) fn write(&self, kept: &Kept) -> Result<(), FolderError> {
        if let Some(tokens) = &kept.tokens {
            put(&self.tokens()?, tokens)?;
        }
        match &kept.cookie {
            Some(cookie) => put(&self.jar()?, cookie),
            None => folder::discard(&self.jar()?),
        }
    }

    /// Moves the login to where that of a remote of another name is, with the folder's lock held by the caller.
    pub(super) fn rename(&self, to: &RemoteName) -> Result<(), FolderError> {
        let new = Self::new(&self.folder, to);
        for (old, new) in [(self.tokens()?, new.tokens()?), (self.jar()?, new.jar()?)] {
            match fs::rename(&old, &new) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(FolderError::Io { path: old, doing: "renamed", source });
                }
                _ => {}
            }
        }
        folder::discard(&self.lock_path()?)
    }

    /// Removes all of it, with the folder's lock held by the caller.
    pub(super) fn remove(&self) -> Result<(), FolderError> {
        for path in [self.tokens()?, self.jar()?, self.lock_path()?] {
            folder::discard(&path)?;
        }
        Ok(())
    }

    /// Waits until no command renews the login.
    pub(super) fn lock(&self) -> Result<File, FolderError> {
        folder::lock(&self.lock_path()?)
    }

    /// Changes what there is, if the remote still has a login.
    fn change(&self, change: impl FnOnce() -> Result<(), FolderError>) -> Result<(), String> {
        let changed = (|| {
            let _lock = self.folder.lock()?;
            match self.folder.load()?.get(&self.name) {
                Ok(remote) if remote.auth_type == AuthType::Oidc => change(),
                _ => Ok(()),
            }
        })();
        changed.map_err(|error| error.to_string())
    }

    fn tokens(&self) -> Result<PathBuf, FolderError> {
        // A name holds no separator and does not begin with a dot, so it stays beneath the folder.
        Ok(self.folder.path()?.join("oidctokens").join(format!("{}.json", self.name)))
    }

    fn jar(&self) -> Result<PathBuf, FolderError> {
        Ok(self.folder.path()?.join("jars").join(self.name.as_str()))
    }

    fn lock_path(&self) -> Result<PathBuf, FolderError> {
        // No name ends so: this one is of no remote.
        Ok(self.folder.path()?.join("oidctokens").join(format!("{}.lock-", self.name)))
    }
}

impl Shelf for LoginFiles {
    fn read(&self) -> Result<Kept, String> {
        let told = |error: FolderError| error.to_string();
        let (tokens, jar) = (self.tokens().map_err(told)?, self.jar().map_err(told)?);
        Ok(Kept { tokens: get(&tokens).map_err(told)?, cookie: get(&jar).map_err(told)? })
    }

    fn keep_tokens(&self, tokens: &Tokens) -> Result<(), String> {
        self.change(|| put(&self.tokens()?, tokens))
    }

    fn keep_cookie(&self, cookie: Option<&Cookie>) -> Result<(), String> {
        self.change(|| match cookie {
            Some(cookie) => put(&self.jar()?, cookie),
            None => folder::discard(&self.jar()?),
        })
    }

    fn alone(&self) -> Result<Box<dyn Any + Send>, String> {
        self.lock().map(|file| Box::new(file) as Box<dyn Any + Send>).map_err(|error| error.to_string())
    }
}

fn put(path: &Path, value: &impl Serialize) -> Result<(), FolderError> {
    // Structs of strings and times always serialise.
    folder::write(path, &serde_json::to_vec_pretty(value).unwrap_or_default())
}

/// What a file holds; `None` if there is none. What is wrong in it is not said: it may be part of a secret.
fn get<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, FolderError> {
    let reading = |source| FolderError::Io { path: path.to_owned(), doing: "read", source };
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(reading)?,
    };
    let mode = file.metadata().map_err(reading)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(FolderError::Exposed { path: path.to_owned(), mode });
    }
    let mut text = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut text).map_err(reading)?;
    serde_json::from_slice(&text).map(Some).map_err(|_| FolderError::NoLogin(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::super::Remote;
    use super::*;
    use crate::wire::token::Secret;

    fn tokens(access: &str) -> Tokens {
        Tokens {
            issuer: "https://idp".to_owned(),
            client_id: "cli".to_owned(),
            access_token: Secret::new(access.to_owned()),
            id_token: None,
            refresh_token: Some(Secret::new("refresh".to_owned())),
            expiry: None,
        }
    }

    fn access(files: &LoginFiles) -> Option<String> {
        files.read().unwrap().tokens.map(|tokens| tokens.access_token.expose().to_owned())
    }

    #[test]
    fn a_login_is_its_owners_alone_moves_and_goes_with_its_remote() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = Folder::at(scratch.path());
        let (east, orient): (RemoteName, RemoteName) = ("east".parse().unwrap(), "orient".parse().unwrap());
        let files = LoginFiles::new(&folder, &east);
        // Not before there is such a remote.
        files.keep_tokens(&tokens("early")).unwrap();
        assert_eq!(access(&files), None);

        let remote =
            Remote { addresses: vec!["a:1".to_owned()], auth_type: AuthType::Oidc, ..Remote::default() };
        let cookie = Cookie { session: Secret::new("s".to_owned()), expiry: None };
        let kept = Kept { tokens: Some(tokens("first")), cookie: Some(cookie) };
        let local = crate::cli::remotes::Local { url: "unix:///x".to_owned(), answers: false };
        folder.add(&east, remote, "certificate", Some(&kept), &local).unwrap();
        for path in ["oidctokens/east.json", "jars/east"] {
            let mode = fs::metadata(scratch.path().join(path)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{path}");
        }
        assert_eq!(access(&files).as_deref(), Some("first"));
        files.keep_tokens(&tokens("second")).unwrap();
        files.keep_cookie(None).unwrap();
        assert_eq!(access(&files).as_deref(), Some("second"));
        assert!(files.read().unwrap().cookie.is_none());

        folder.rename(&east, &orient).unwrap();
        // A command that began under the old name leaves nothing behind there.
        files.keep_tokens(&tokens("late")).unwrap();
        assert_eq!(access(&files), None);
        let renamed = LoginFiles::new(&folder, &orient);
        assert_eq!(access(&renamed).as_deref(), Some("second"));
        folder.remove(&orient).unwrap();
        renamed.keep_tokens(&tokens("late")).unwrap();
        for left in ["oidctokens", "jars", "servercerts"] {
            assert_eq!(fs::read_dir(scratch.path().join(left)).unwrap().count(), 0, "{left}");
        }
    }

    #[test]
    fn a_file_that_others_may_read_or_that_holds_no_login_is_named_and_not_repeated() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = Folder::at(scratch.path());
        let east: RemoteName = "east".parse().unwrap();
        let files = LoginFiles::new(&folder, &east);
        let path = scratch.path().join("oidctokens/east.json");
        folder::write(&path, b"{\"access_token\": \"hush\"").unwrap();
        let error = files.read().unwrap_err();
        assert!(error.contains("east.json does not hold a login") && !error.contains("hush"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = files.read().unwrap_err();
        assert!(error.contains("chmod 600 "), "{error}");
    }

    #[test]
    fn one_command_at_a_time_renews() {
        let scratch = tempfile::tempdir().unwrap();
        let files = LoginFiles::new(&Folder::at(scratch.path()), &"east".parse().unwrap());
        let first = files.alone().unwrap();
        let (told, hears) = std::sync::mpsc::channel();
        let other = files.clone();
        let waiting = std::thread::spawn(move || {
            let _second = other.alone().unwrap();
            told.send(()).unwrap();
        });
        assert!(hears.recv_timeout(std::time::Duration::from_millis(50)).is_err());
        drop(first);
        hears.recv_timeout(std::time::Duration::from_secs(10)).unwrap();
        waiting.join().unwrap();
    }
}
