//! The pair that is to follow `STEM.crt` and `STEM.key`, as `STEM.next.crt` and `STEM.next.key`: `cluster`, or `server`.
//!
//! Putting it in place takes two renames, the key first. Whoever finds the next certificate without its key has found
//! a change that was cut short between the two, and ends it: at no moment is either pair lost.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{CertificateError, KeyPair, exists, failed, place};
use crate::task::crash;

struct Paths {
    dir: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    next_certificate: PathBuf,
    next_key: PathBuf,
    next_new: PathBuf,
}

impl Paths {
    fn of(dir: &Path, stem: &str) -> Self {
        Self {
            dir: dir.to_owned(),
            certificate: dir.join(format!("{stem}.crt")),
            key: dir.join(format!("{stem}.key")),
            next_certificate: dir.join(format!("{stem}.next.crt")),
            next_key: dir.join(format!("{stem}.next.key")),
            next_new: dir.join(format!("{stem}.next.new")),
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
pub fn prepare(dir: &Path, stem: &str, common_name: &str) -> Result<Arc<KeyPair>, CertificateError> {
    KeyPair::load_or_create(dir, &format!("{stem}.next"), common_name, &[common_name.to_owned()])
}

/// Writes `pair` as the next one, in place of another that was prepared: the key first, as `install` expects.
pub fn put(dir: &Path, stem: &str, pair: &KeyPair) -> Result<(), CertificateError> {
    discard(dir, stem)?;
    let paths = Paths::of(dir, stem);
    place(&paths.next_key, 0o600, pair.key_pem().as_bytes())?;
    place(&paths.next_certificate, 0o644, pair.chain_pem().as_bytes())
}

/// The next pair, if one was prepared.
pub fn prepared(dir: &Path, stem: &str) -> Result<Option<KeyPair>, CertificateError> {
    let paths = Paths::of(dir, stem);
    if exists(&paths.next_certificate)? {
        KeyPair::load(&paths.next_certificate, &paths.next_key).map(Some)
    } else {
        Ok(None)
    }
}

/// The pair that is in force, if there is one. Half of one is a fault.
pub fn current(dir: &Path, stem: &str) -> Result<Option<KeyPair>, CertificateError> {
    let Paths { certificate, key, .. } = Paths::of(dir, stem);
    match (exists(&certificate)?, exists(&key)?) {
        (false, false) => Ok(None),
        (true, true) => KeyPair::load(&certificate, &key).map(Some),
        (true, false) => Err(CertificateError::Half { there: certificate, missing: key }),
        (false, true) => Err(CertificateError::Half { there: key, missing: certificate }),
    }
}

/// Puts the next pair in the place of the current one, for good: the old key is gone after this.
pub fn install(dir: &Path, stem: &str) -> Result<(), CertificateError> {
    let paths = Paths::of(dir, stem);
    paths.rename(&paths.next_key, &paths.key)?;
    crash::point("rotate-half-installed");
    paths.rename(&paths.next_certificate, &paths.certificate)
}

/// Ends an [`install`] that was cut short.
pub fn recover(dir: &Path, stem: &str) -> Result<(), CertificateError> {
    let paths = Paths::of(dir, stem);
    if exists(&paths.next_certificate)? && !exists(&paths.next_key)? {
        KeyPair::load(&paths.next_certificate, &paths.key)?;
        paths.rename(&paths.next_certificate, &paths.certificate)?;
    }
    Ok(())
}

/// Forgets the next pair: the certificate first, for one without its key would mean something else.
pub fn discard(dir: &Path, stem: &str) -> Result<(), CertificateError> {
    let paths = Paths::of(dir, stem);
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
        assert!(prepared(dir, "cluster").unwrap().is_none());
        let next = prepare(dir, "cluster", "east").unwrap();
        assert_eq!(prepare(dir, "cluster", "east").unwrap().fingerprint, next.fingerprint);
        recover(dir, "cluster").unwrap();
        assert_eq!(current(dir).fingerprint, old.fingerprint, "nothing was decided");

        fs::rename(dir.join("cluster.next.key"), dir.join("cluster.key")).unwrap();
        recover(dir, "cluster").unwrap();
        assert_eq!(current(dir).fingerprint, next.fingerprint);
        recover(dir, "cluster").unwrap();

        let third = prepare(dir, "cluster", "east").unwrap();
        install(dir, "cluster").unwrap();
        assert_eq!(current(dir).fingerprint, third.fingerprint);
        prepare(dir, "cluster", "east").unwrap();
        discard(dir, "cluster").unwrap();
        discard(dir, "cluster").unwrap();
        assert_eq!(current(dir).fingerprint, third.fingerprint);
        assert_eq!(fs::read_dir(dir).unwrap().count(), 2, "nothing is left behind");
    }
}
