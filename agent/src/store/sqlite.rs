//! The embedded store: one SQLite file, WAL, `synchronous=FULL`.
//!
//! One thread writes and two read, each with a connection of its own, behind channels: SQLite blocks, the runtime
//! must not. Everything that has an order goes through the writer: a watch is registered there, between two commits,
//! so its replay from the log and the live batches after it meet without a gap and without a duplicate.
//! A log row is an event, `(revision, seq)`; one commit is one revision, so watchers get whole commits, as from etcd.
//!
//! Rejected: one row a revision (kine's way), which tears commits apart; triggers and `data_version` polling, needed
//! only with several writing processes, and a lock file holds it to one; one shared connection behind a mutex, where
//! a long range read would hold up commits.
//!
//! A commit whose future is dropped is still made. Dropping the store closes it: the writer ends before `drop` returns.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::oneshot;

use super::{CommitError, Entry, Revision, Snapshot, Store, StoreError, Txn, Watch};

mod file;
mod lineage;
mod reader;
mod writer;

/// Threads that read; two, so that a long range does not hold up a lookup.
const READERS: usize = 2;

/// How much history watchers can be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Commits kept in the log.
    pub revisions: u64,
    /// Events kept in the log, and so the bound on its size when commits are large.
    pub events: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { revisions: 10_000, events: 400_000 }
    }
}

/// An open store file.
pub struct SqliteStore {
    epoch: String,
    // `None` only while dropping.
    writes: Option<mpsc::Sender<writer::Job>>,
    reads: Option<mpsc::Sender<reader::Job>>,
    readers: Vec<JoinHandle<()>>,
    writer: Option<JoinHandle<()>>,
    /// Goes with the store.
    #[cfg(test)]
    scratch: Option<tempfile::TempDir>,
}

impl SqliteStore {
    /// Opens the store at `path`, making it if it is not there. Blocks for as long as the file system takes.
    pub fn open(path: &Path) -> Result<Arc<dyn Store>, StoreError> {
        Ok(Arc::new(Self::open_with(path, Retention::default())?))
    }

    /// [`open`](Self::open), with another bound on history.
    pub fn open_with(path: &Path, retention: Retention) -> Result<Self, StoreError> {
        let opened = file::open(path)?;
        let epoch = opened.epoch.clone();
        let reader_connections =
            (0..READERS).map(|_| file::reader(path)).collect::<Result<Vec<_>, StoreError>>()?;
        let path: Arc<Path> = path.into();
        let mut readers = Vec::with_capacity(READERS);

        let (reads, read_jobs) = mpsc::channel();
        let read_jobs = Arc::new(Mutex::new(read_jobs));
        for connection in reader_connections {
            let (jobs, path) = (Arc::clone(&read_jobs), Arc::clone(&path));
            readers.push(spawn("store-read", &path.clone(), move || reader::run(&connection, &path, &jobs))?);
        }
        let (writes, write_jobs) = mpsc::channel();
        let writer = writer::Writer::new(opened, Arc::clone(&path), retention)?;
        let writer = spawn("store-write", &path, move || writer.run(&write_jobs))?;

        Ok(Self {
            epoch,
            writes: Some(writes),
            reads: Some(reads),
            readers,
            writer: Some(writer),
            #[cfg(test)]
            scratch: None,
        })
    }

    /// A store of its own in a temporary folder, which goes when the store goes.
    #[cfg(test)]
    pub fn scratch() -> Arc<dyn Store> {
        Self::scratch_with(Retention::default())
    }

    /// [`scratch`](Self::scratch), with another bound on history.
    #[cfg(test)]
    pub fn scratch_with(retention: Retention) -> Arc<dyn Store> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut store = Self::open_with(&folder.path().join("store.db"), retention).expect("a scratch store");
        store.scratch = Some(folder);
        Arc::new(store)
    }

    async fn write<T>(&self, job: impl FnOnce(oneshot::Sender<T>) -> writer::Job) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let writes = self.writes.as_ref().ok_or(StoreError::Closed)?;
        writes.send(job(reply)).map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)
    }

    async fn read<T>(&self, job: impl FnOnce(oneshot::Sender<T>) -> reader::Job) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let reads = self.reads.as_ref().ok_or(StoreError::Closed)?;
        reads.send(job(reply)).map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)
    }
}

impl Store for SqliteStore {
    fn epoch(&self) -> &str {
        &self.epoch
    }

    fn get(&self, key: &str) -> BoxFuture<'_, Result<Option<Entry>, StoreError>> {
        let key = key.to_owned();
        async move { self.read(|reply| reader::Job::Get { key, reply }).await? }.boxed()
    }

    fn range(&self, prefix: &str) -> BoxFuture<'_, Result<Snapshot, StoreError>> {
        let prefix = prefix.to_owned();
        async move { self.read(|reply| reader::Job::Range { prefix, reply }).await? }.boxed()
    }

    fn commit(&self, txn: Txn) -> BoxFuture<'_, Result<Revision, CommitError>> {
        async move { self.write(|reply| writer::Job::Commit { txn, reply }).await? }.boxed()
    }

    fn watch(&self, prefix: &str, from: Revision) -> BoxFuture<'_, Result<Watch, StoreError>> {
        let prefix = prefix.to_owned();
        async move { self.write(|reply| writer::Job::Watch { prefix, from, reply }).await? }.boxed()
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        // Readers first: the last connection to close folds the WAL into the file, which takes one that writes.
        self.reads = None;
        for reader in self.readers.drain(..) {
            // A thread that panicked has already said so; there is nothing left to undo.
            let _ = reader.join();
        }
        self.writes = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

fn spawn(
    name: &str,
    path: &Path,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, StoreError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|source| io(path, "given a thread", source))
}

fn io(
    path: &Path,
    doing: &'static str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> StoreError {
    StoreError::Io { path: path.display().to_string(), doing, source: source.into() }
}

/// The store's file and what lies beside it.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// SQLite's integers are signed. Revisions count commits, so they never come near the sign.
fn to_sql(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

fn from_sql(revision: i64) -> Revision {
    Revision(u64::try_from(revision).unwrap_or(0))
}

/// The first text after every text that begins with `prefix`; `None` when there is none.
fn prefix_end(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        // UTF-8 sorts by code point, so the next code point makes the next text. Surrogates are not code points.
        let next = if last == '\u{d7ff}' { Some('\u{e000}') } else { char::from_u32(u32::from(last) + 1) };
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
mod tests;
