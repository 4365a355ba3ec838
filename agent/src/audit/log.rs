//! The file of the audit log, and those that were put aside.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::Record;

/// A file of this many bytes is put aside.
pub const LARGE: u64 = 16 * 1024 * 1024;
/// Files put aside that are kept, beside the one that is written.
const KEPT: u32 = 7;
/// Longest line that is read; none that was written here is longer.
const MAX_LINE: usize = 8 * 1024 * 1024;

/// The file that is written.
pub struct Log {
    path: PathBuf,
    file: File,
    large: u64,
}

impl Log {
    pub fn open(path: &Path, large: u64) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: open(path)?, large })
    }

    /// Adds one line. Puts the file aside first if it has grown large.
    pub fn append(&mut self, record: &Record) -> io::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        if self.file.metadata()?.len() >= self.large {
            // One that cannot be put aside is still good to write.
            if let Err(error) = self.put_aside() {
                tracing::warn!(%error, path = %self.path.display(), "the audit log could not be put aside");
            }
        }
        self.file.write_all(&line)
    }

    /// What there is to read, oldest first.
    pub fn files(&self) -> Vec<PathBuf> {
        (1..=KEPT).rev().map(|n| self.aside(n)).chain([self.path.clone()]).collect()
    }

    fn put_aside(&mut self) -> io::Result<()> {
        for n in (1..KEPT).rev() {
            match fs::rename(self.aside(n), self.aside(n + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, self.aside(1))?;
        self.file = open(&self.path)?;
        Ok(())
    }

    fn aside(&self, n: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{n}"));
        name.into()
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// The last `limit` records that are `wanted` in `files`, which are given oldest first. A file that was last written
/// before `since` is not opened. What is no record, such as a line that was cut short, is passed over.
pub fn read(
    files: &[PathBuf],
    since: Option<Timestamp>,
    limit: usize,
    wanted: impl Fn(&Record) -> bool,
) -> io::Result<Vec<Record>> {
    let mut found = VecDeque::new();
    for path in files {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let written = file.metadata()?.modified().ok().and_then(|time| Timestamp::try_from(time).ok());
        if since.is_some_and(|since| written.is_some_and(|written| written < since)) {
            continue;
        }
        let mut lines = BufReader::new(file);
        let mut line = Vec::new();
        loop {
            line.clear();
            if io::Read::take(&mut lines, MAX_LINE as u64).read_until(b'\n', &mut line)? == 0 {
                break;
            }
            let Ok(record) = serde_json::from_slice::<Record>(&line) else { continue };
            if wanted(&record) {
                if found.len() == limit {
                    found.pop_front();
                }
                if limit > 0 {
                    found.push_back(record);
                }
            }
        }
    }
    Ok(found.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Action, Actor};

    #[test]
    fn a_large_file_is_put_aside_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(&folder.path().join("audit.log"), 1).unwrap();
        for second in 0..20 {
            let record =
                Record::new(Actor::agent(), Action::StepDone, Timestamp::from_second(second).unwrap());
            log.append(&record).unwrap();
        }
        let seconds: Vec<i64> = read(&log.files(), None, 100, |_| true)
            .unwrap()
            .iter()
            .map(|record| record.time.as_second())
            .collect();
        assert_eq!(seconds, [12, 13, 14, 15, 16, 17, 18, 19]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 8);
        fs::write(log.files().last().unwrap(), "{\"cut").unwrap();
        assert_eq!(read(&log.files(), None, 100, |_| true).unwrap().len(), 7);
    }
}
