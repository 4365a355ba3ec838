//! Where `--token-out` puts a token: a file of its own, readable by its owner alone.
//!
//! It is made before anything is applied, so that a path that cannot be written stops the run in time, and removed
//! again if no token came.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use schema::plan::pairing::Exchange;

use crate::cli::CliError;

/// A file that waits for its token.
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
    file: File,
    kept: Kept,
}

#[derive(Debug, PartialEq, Eq)]
enum Kept {
    No,
    Yes,
}

impl TokenFile {
    /// Makes the file, if one was asked for and there will be a token to put into it.
    pub fn reserve(path: Option<PathBuf>, exchanges: &[Exchange]) -> Result<Option<Self>, CliError> {
        let Some(path) = path else { return Ok(None) };
        match exchanges.iter().filter(|exchange| matches!(exchange, Exchange::Mint { .. })).count() {
            0 => return Ok(None),
            1 => {}
            many => {
                return Err(CliError::failed(format!(
                    "{many} links need a token, but --token-out takes one"
                ))
                .code("token-out")
                .hint("Apply their manifests one at a time, each with a file of its own."));
            }
        }
        let file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(|error| {
                let failed = CliError::failed(format!("{} could not be made: {error}", path.display()))
                    .code("token-out");
                match error.kind() {
                    ErrorKind::AlreadyExists => {
                        failed.hint("An existing file is never overwritten: remove it, or name another.")
                    }
                    _ => failed,
                }
            })?;
        Ok(Some(Self { path, file, kept: Kept::No }))
    }

    /// Writes the token and keeps the file.
    pub fn keep(mut self, token: &str) -> Result<PathBuf, CliError> {
        let written =
            self.file.write_all(format!("{token}\n").as_bytes()).and_then(|()| self.file.sync_all());
        written.map_err(|error| {
            CliError::failed(format!("the token could not be written to {}: {error}", self.path.display()))
                .code("token-out")
                .hint("Run the same apply again: it makes a new token.")
        })?;
        self.kept = Kept::Yes;
        Ok(self.path.clone())
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        if self.kept == Kept::No {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use schema::plan::pairing::End;

    use super::*;

    fn minting() -> Exchange {
        Exchange::Mint { end: End { site: 0, link: "west".parse().unwrap() } }
    }

    #[test]
    fn is_private_never_overwrites_and_goes_without_a_token() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let unused = TokenFile::reserve(Some(path.clone()), &[minting()]).unwrap().unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        drop(unused);
        assert!(!path.exists());

        TokenFile::reserve(Some(path.clone()), &[minting()]).unwrap().unwrap().keep("secret").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "secret\n");
        let refused = TokenFile::reserve(Some(path), &[minting()]).unwrap_err();
        assert!(refused.hint.is_some());
    }

    #[test]
    fn is_made_only_for_one_token() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        assert!(TokenFile::reserve(Some(path.clone()), &[]).unwrap().is_none());
        assert!(TokenFile::reserve(Some(path.clone()), &[minting(), minting()]).is_err());
        assert!(!path.exists());
    }
}
