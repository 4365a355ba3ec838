//! The pair that is to follow `cluster.crt` and `cluster.key`, as `cluster.next.crt` and `cluster.next.key`.
//!
//! Putting it in place takes two renames, the key first. Whoever finds the next certificate without its key has found
//! a change that was cut short between the two, and ends it: at no moment is either pair lost.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{CertificateError, KeyPair, exists, failed};
use crate::task::crash;

const STEM: &str = "cluster.next";

struct Paths {
    dir: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    next_certificate: PathBuf,
    next_key: PathBuf,
    next_new: PathBuf,
}

impl Paths {
    fn of(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            certificate: dir.join("cluster.crt"),
            key: dir.join("cluster.key"),
            next_certificate: dir.join(format!("{STEM}.crt")),
            next_key: dir.join(format!("{STEM}.key")),
            next_new: dir.join(format!("{STEM}.new")),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), CertificateError> {
        fs::rename(from, to).map_err(|source| failed(from, "moved into place", source))?;
        self.sync()
    }

    fn sync(&self) -> Result<(), CertificateError> {
        File::open(&self.dir)
            .and_then(|dir| dir.sync_all())
            .map_err(|source| failed(&self.dir, "written", source))
    }
}

/// The next pair, made if there is none yet: another call gives the same.
pub fn prepare(dir: &Path, common_name: &str) -> Result<Arc<KeyPair>, CertificateError> {
    KeyPair::load_or_create(dir, STEM, common_name, &[common_name.to_owned()])
}

/// The next pair, if one was prepared.
pub fn prepared(dir: &Path) -> Result<Option<KeyPair>, CertificateError> {
    let paths = Paths::of(dir);
    if exists(&paths.next_certificate)? {
        KeyPair::load(&paths.next_certificate, &paths.next_key).map(Some)
    } else {
        Ok(None)
    }
}

/// Puts the next pair in the place of the current one, for good: the old key is gone after this.
pub fn install(dir: &Path) -> Result<(), CertificateError> {
    let paths = Paths::of(dir);
    paths.rename(&paths.next_key, &paths.key)?;
    crash::point("rotate-half-installed");
    paths.rename(&paths.next_certificate, &paths.certificate)
}

/// Ends an [`install`] that was cut short.
pub fn recover(dir: &Path) -> Result<(), CertificateError> {
    let paths = Paths::of(dir);
    if exists(&paths.next_certificate)? && !exists(&paths.next_key)? {
        KeyPair::load(&paths.next_certificate, &paths.key)?;
        paths.rename(&paths.next_certificate, &paths.certificate)?;
    }
    Ok(())
}

/// Forgets the next pair: the certificate first, for one without its key would mean something else.
pub fn discard(dir: &Path) -> Result<(), CertificateError> {
    let paths = Paths::of(dir);
    for path in [&paths.next_new, &paths.next_certificate, &paths.next_key] {
        match fs::remove_file(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(failed(path, "removed", source));
            }
            _ => {}
        }
        paths.sync()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn current(dir: &Path) -> KeyPair {
        KeyPair::load(&dir.join("cluster.crt"), &dir.join("cluster.key")).unwrap()
    }

    #[test]
    fn the_next_pair_takes_the_place_of_the_current_one_wherever_it_is_cut_short() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        let old = KeyPair::load_or_create(dir, "cluster", "east", &[]).unwrap();
        assert!(prepared(dir).unwrap().is_none());
        let next = prepare(dir, "east").unwrap();
        assert_eq!(prepare(dir, "east").unwrap().fingerprint, next.fingerprint);
        recover(dir).unwrap();
        assert_eq!(current(dir).fingerprint, old.fingerprint, "nothing was decided");

        fs::rename(dir.join("cluster.next.key"), dir.join("cluster.key")).unwrap();
        recover(dir).unwrap();
        assert_eq!(current(dir).fingerprint, next.fingerprint);
        recover(dir).unwrap();

        let third = prepare(dir, "east").unwrap();
        install(dir).unwrap();
        assert_eq!(current(dir).fingerprint, third.fingerprint);
        prepare(dir, "east").unwrap();
        discard(dir).unwrap();
        discard(dir).unwrap();
        assert_eq!(current(dir).fingerprint, third.fingerprint);
        assert_eq!(fs::read_dir(dir).unwrap().count(), 2, "nothing is left behind");
    }
}
