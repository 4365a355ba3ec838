//! Accounts at ACME servers: a key and an address each, in one file that only the agent's user may read.
//!
//! An account belongs to one directory, so that a trial with another server does not lose the first.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use instant_acme::AccountCredentials;
use serde::{Deserialize, Serialize};

use super::fault::Fault;

const NAME: &str = "acme-account.json";
const MAX_FILE: u64 = 256 * 1024;
/// Most accounts that are kept; the oldest goes.
const MOST: usize = 8;

/// An account as it is kept. Holds its private key.
#[derive(Serialize, Deserialize)]
pub struct Kept {
    /// The address of the directory, as `acme.ca_url` had it.
    pub directory: String,
    /// Whom the server may write to.
    pub email: String,
    pub credentials: AccountCredentials,
}

#[derive(Default, Serialize, Deserialize)]
struct Accounts {
    accounts: Vec<Kept>,
}

/// The file of accounts.
pub struct AccountFile {
    path: PathBuf,
}

impl AccountFile {
    pub fn of(dir: &Path) -> Self {
        Self { path: dir.join(NAME) }
    }

    /// The account at `directory`, if there is one.
    pub fn find(&self, directory: &str) -> Result<Option<Kept>, Fault> {
        Ok(self.read()?.accounts.into_iter().find(|kept| kept.directory == directory))
    }

    /// Keeps `account`, in place of another at the same directory.
    pub fn keep(&self, account: Kept) -> Result<(), Fault> {
        let mut kept = self.read()?;
        kept.accounts.retain(|other| other.directory != account.directory);
        kept.accounts.push(account);
        let surplus = kept.accounts.len().saturating_sub(MOST);
        kept.accounts.drain(..surplus);
        self.write(&kept)
    }

    /// Forgets the account at `directory`, which the server has forgotten first.
    pub fn forget(&self, directory: &str) -> Result<(), Fault> {
        let mut kept = self.read()?;
        kept.accounts.retain(|other| other.directory != directory);
        self.write(&kept)
    }

    /// Notes whom the server at `directory` writes to from now on.
    pub fn rename(&self, directory: &str, email: &str) -> Result<(), Fault> {
        let mut kept = self.read()?;
        for account in kept.accounts.iter_mut().filter(|account| account.directory == directory) {
            email.clone_into(&mut account.email);
        }
        self.write(&kept)
    }

    fn read(&self) -> Result<Accounts, Fault> {
        let failed = |source| self.failed("read", source);
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Accounts::default()),
            Err(error) => return Err(failed(error)),
        };
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let shown = self.path.display();
            let reason = format!("it may be read by others (mode {mode:03o}); run: chmod 600 {shown}");
            return Err(failed(io::Error::other(reason)));
        }
        let mut text = Vec::new();
        file.take(MAX_FILE).read_to_end(&mut text).map_err(failed)?;
        // The message of the decoder's has no value in it, only what it expected and where.
        serde_json::from_slice(&text).map_err(|error| Fault::Account {
            path: self.path.clone(),
            reason: format!("line {}, column {}", error.line(), error.column()),
        })
    }

    fn write(&self, accounts: &Accounts) -> Result<(), Fault> {
        let text = serde_json::to_vec_pretty(accounts)
            .map_err(|error| self.failed("written", io::Error::other(error)))?;
        replace(&self.path, 0o600, &text).map_err(|source| self.failed("written", source))
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> Fault {
        Fault::File { path: self.path.clone(), doing, source }
    }
}

/// Puts `content` in the place of the file at `path`: whole, or the old one stays.
pub fn replace(path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let temporary = dir.join(format!(".{}.tmp", uuid::Uuid::new_v4()));
    let written = File::options()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        fs::remove_file(&temporary).ok();
        return Err(error);
    }
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(directory: &str, id: &str) -> Kept {
        let credentials = serde_json::json!({"id": id, "key_pkcs8": "AAAA", "directory": directory});
        Kept {
            directory: directory.to_owned(),
            email: "admin@east.example".to_owned(),
            credentials: serde_json::from_value(credentials).unwrap(),
        }
    }

    fn id(kept: &Kept) -> String {
        serde_json::to_value(&kept.credentials).unwrap()["id"].as_str().unwrap().to_owned()
    }

    #[test]
    fn each_directory_has_an_account_of_its_own_that_others_cannot_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = AccountFile::of(folder.path());
        assert!(file.find("https://a/dir").unwrap().is_none());
        file.keep(account("https://a/dir", "1")).unwrap();
        file.keep(account("https://b/dir", "2")).unwrap();
        file.keep(account("https://a/dir", "3")).unwrap();
        assert_eq!(id(&file.find("https://a/dir").unwrap().unwrap()), "3");
        assert_eq!(id(&file.find("https://b/dir").unwrap().unwrap()), "2");
        file.forget("https://a/dir").unwrap();
        assert!(file.find("https://a/dir").unwrap().is_none());
        let path = folder.path().join(NAME);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left behind");
        for number in 0..20 {
            file.keep(account(&format!("https://{number}/dir"), "x")).unwrap();
        }
        assert_eq!(file.read().unwrap().accounts.len(), MOST);

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let exposed = file.find("https://b/dir").err().unwrap().to_string();
        assert!(exposed.contains("chmod 600"), "{exposed}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, r#"{"accounts": [{"directory": "secret"#).unwrap();
        let cut = file.find("https://b/dir").err().unwrap().to_string();
        assert!(cut.contains("move it away") && !cut.contains("secret"), "{cut}");
        // What cannot be read is not written over.
        assert!(file.keep(account("https://a/dir", "4")).is_err());
    }
}
