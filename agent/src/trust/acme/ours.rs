//! Which certificates in `server.crt` came from an ACME server, so that nobody else's is ever written over; and what was
//! asked for when, so that a server is not asked more often by an agent that is started again and again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::account::replace;
use super::fault::Fault;
use super::schedule::Past;
use crate::trust::Fingerprint;

const NAME: &str = "acme-certificate.json";
const PAST: &str = "acme-attempts.json";
/// A certificate that was issued to this agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    pub fingerprint: Fingerprint,
    pub domain: String,
    pub directory: String,
}

#[derive(Default, Serialize, Deserialize)]
struct Record {
    issued: Vec<Issued>,
}

/// The files that say so.
pub struct Ours {
    path: PathBuf,
    past: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Attempts {
    directory: String,
    past: Past,
}

impl Ours {
    pub fn of(dir: &Path) -> Self {
        Self { path: dir.join(NAME), past: dir.join(PAST) }
    }

    /// What is known of this certificate; nothing, if it is not from an ACME server.
    pub fn find(&self, fingerprint: &Fingerprint) -> Result<Option<Issued>, Fault> {
        Ok(self.read()?.issued.into_iter().find(|issued| issued.fingerprint == *fingerprint))
    }

    /// Notes a certificate before it is put in the place of the one that is `shown`: after a crash between the two,
    /// whichever is there is known.
    pub fn note(&self, new: Issued, shown: Option<Fingerprint>) -> Result<(), Fault> {
        let mut record = self.read()?;
        record
            .issued
            .retain(|issued| Some(issued.fingerprint) == shown && issued.fingerprint != new.fingerprint);
        record.issued.push(new);
        let written = serde_json::to_vec_pretty(&record).map_err(io::Error::other);
        written
            .and_then(|text| replace(&self.path, 0o600, &text))
            .map_err(|source| self.failed("written", source))
    }

    /// What counts of earlier attempts, where the next is made at `directory`.
    pub fn past(&self, directory: &str) -> Past {
        let kept = match fs::read(&self.past) {
            Ok(text) => serde_json::from_slice::<Attempts>(&text).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Past::default(),
            Err(error) => Err(error),
        };
        match kept {
            Ok(kept) if kept.directory == directory => kept.past,
            Ok(kept) => kept.past.elsewhere(),
            Err(error) => {
                tracing::warn!(%error, path = %self.past.display(), "earlier attempts at a certificate are not known");
                Past::default()
            }
        }
    }

    /// Keeps what counts of the attempts so far.
    pub fn keep_past(&self, directory: &str, past: &Past) {
        let attempts = Attempts { directory: directory.to_owned(), past: past.clone() };
        let written = serde_json::to_vec(&attempts).map_err(io::Error::from);
        if let Err(error) = written.and_then(|text| replace(&self.past, 0o600, &text)) {
            // It counts for nothing more than the next start.
            tracing::warn!(%error, path = %self.past.display(), "the attempts at a certificate cannot be kept");
        }
    }

    fn read(&self) -> Result<Record, Fault> {
        match fs::read(&self.path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| self.failed("read", error.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Record::default()),
            Err(error) => Err(self.failed("read", error)),
        }
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> Fault {
        Fault::File { path: self.path.clone(), doing, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_is_shown_and_the_one_to_come_are_known() {
        let folder = tempfile::tempdir().unwrap();
        let ours = Ours::of(folder.path());
        let name = |byte| Fingerprint([byte; 32]);
        let issued = |byte| Issued {
            fingerprint: name(byte),
            domain: "east.example".to_owned(),
            directory: "https://ca.example/dir".to_owned(),
        };
        assert_eq!(ours.find(&name(1)).unwrap(), None);
        ours.note(issued(1), None).unwrap();
        // The second and the third are never put in place.
        ours.note(issued(2), Some(name(1))).unwrap();
        ours.note(issued(3), Some(name(1))).unwrap();
        assert_eq!(ours.find(&name(1)).unwrap(), Some(issued(1)));
        assert_eq!(ours.find(&name(2)).unwrap(), None);
        assert_eq!(ours.find(&name(3)).unwrap(), Some(issued(3)));
    }
}
