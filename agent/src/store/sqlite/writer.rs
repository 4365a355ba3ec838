//! The writing thread: commits, the log, and who is told.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, mpsc};

use rusqlite::{OptionalExtension, TransactionBehavior};
use tokio::sync::{mpsc as tokio_mpsc, oneshot};

use super::file::Opened;
use super::{Retention, StoreError, from_sql, io, prefix_end, to_sql};
use crate::store::{Batch, CommitError, Entry, Event, Op, Revision, Txn, Watch};

/// Batches that a watcher may fall behind before it is told to read again.
const WATCH_BACKLOG: usize = 256;
/// Events that a watch replays at most; with more than that, reading again is the cheaper way.
const REPLAY_LIMIT: usize = 50_000;
/// Commits between two looks at what can be dropped from the log.
const COMPACT_EVERY: u64 = 64;

/// What can be asked of the writer.
pub enum Job {
    Commit { txn: Txn, reply: oneshot::Sender<Result<Revision, CommitError>> },
    Watch { prefix: String, from: Revision, reply: oneshot::Sender<Result<Watch, StoreError>> },
}

/// The only connection that writes, and everyone who watches.
pub struct Writer {
    opened: Opened,
    path: Arc<Path>,
    retention: Retention,
    log_events: u64,
    watchers: Vec<Watcher>,
}

struct Watcher {
    prefix: String,
    batches: tokio_mpsc::Sender<Result<Batch, StoreError>>,
}

impl Writer {
    pub fn new(opened: Opened, path: Arc<Path>, retention: Retention) -> Result<Self, StoreError> {
        let log_events = opened
            .connection
            .query_row("SELECT count(*) FROM log", [], |row| row.get::<_, i64>(0))
            .map_err(|source| io(&path, "read", source))?;
        Ok(Self {
            opened,
            path,
            retention,
            log_events: u64::try_from(log_events).unwrap_or(0),
            watchers: Vec::new(),
        })
    }

    /// Serves jobs until the store is dropped.
    pub fn run(mut self, jobs: &mpsc::Receiver<Job>) {
        while let Ok(job) = jobs.recv() {
            match job {
                Job::Commit { txn, reply } => {
                    let made = self.commit(txn);
                    // Told before the committer is answered, so what it does next comes after its own commit.
                    let _ = reply.send(made.map(|(revision, events)| {
                        self.tell(revision, &events);
                        revision
                    }));
                }
                Job::Watch { prefix, from, reply } => {
                    let _ = reply.send(self.watch(prefix, from));
                }
            }
        }
    }

    fn commit(&mut self, txn: Txn) -> Result<(Revision, Vec<Event>), CommitError> {
        if let Some(twice) = duplicate(&txn.ops) {
            return Err(CommitError::DuplicateKey(twice.to_owned()));
        }
        let path = Arc::clone(&self.path);
        let made = self.transact(txn).map_err(|source| io(&path, "written", source))?;
        let (revision, events) = made.map_err(CommitError::Conflict)?;
        if revision > self.opened.revision {
            self.opened.revision = revision;
            self.log_events += events.len() as u64;
            if let Err(error) = self.opened.mark.note(revision) {
                tracing::warn!(%error, "the store's mark could not be written");
            }
            let due = revision.0.is_multiple_of(COMPACT_EVERY) || self.log_events > self.retention.events;
            if due && let Err(error) = self.compact() {
                tracing::warn!(%error, "old history could not be dropped; it is tried again");
            }
        }
        Ok((revision, events))
    }

    /// The inner result is the conflict: nothing went wrong with the file.
    #[expect(clippy::type_complexity, reason = "used once, two lines up")]
    fn transact(&mut self, txn: Txn) -> rusqlite::Result<Result<(Revision, Vec<Event>), Vec<String>>> {
        let current = self.opened.revision;
        let behaviour =
            if txn.ops.is_empty() { TransactionBehavior::Deferred } else { TransactionBehavior::Immediate };
        let transaction = self.opened.connection.transaction_with_behavior(behaviour)?;

        let mut failed = Vec::new();
        {
            let mut find = transaction.prepare_cached("SELECT modify_revision FROM entry WHERE key = ?1")?;
            for guard in txn.guards {
                let found: Option<i64> = find.query_row([&guard.key], |row| row.get(0)).optional()?;
                if found.map_or(Revision(0), from_sql) != guard.modify_revision {
                    failed.push(guard.key);
                }
            }
        }
        if !failed.is_empty() {
            return Ok(Err(failed));
        }
        if txn.ops.is_empty() {
            return Ok(Ok((current, Vec::new())));
        }

        let revision = Revision(current.0 + 1);
        let mut events = Vec::with_capacity(txn.ops.len());
        {
            let mut put = transaction.prepare_cached(
                "INSERT INTO entry VALUES (?1, ?2, ?3, ?3)
                 ON CONFLICT (key) DO UPDATE SET value = excluded.value, modify_revision = excluded.modify_revision
                 RETURNING create_revision",
            )?;
            let mut delete = transaction.prepare_cached("DELETE FROM entry WHERE key = ?1")?;
            let mut log = transaction.prepare_cached("INSERT INTO log VALUES (?1, ?2, ?3, ?4, ?5)")?;
            for op in txn.ops {
                let seq = i64::try_from(events.len()).unwrap_or(i64::MAX);
                match op {
                    Op::Put { key, value } => {
                        let created: i64 =
                            put.query_row((&key, &value, to_sql(revision)), |row| row.get(0))?;
                        log.execute((to_sql(revision), seq, &key, &value, created))?;
                        events.push(Event::Put(Entry {
                            key,
                            value: value.into(),
                            create_revision: from_sql(created),
                            modify_revision: revision,
                        }));
                    }
                    // Deleting what is not there is no event.
                    Op::Delete { key } => {
                        if delete.execute([&key])? > 0 {
                            log.execute((to_sql(revision), seq, &key, None::<&[u8]>, 0))?;
                            events.push(Event::Delete { key });
                        }
                    }
                }
            }
        }
        if events.is_empty() {
            return Ok(Ok((current, events)));
        }
        transaction.prepare_cached("UPDATE meta SET revision = ?1")?.execute([to_sql(revision)])?;
        transaction.commit()?;
        Ok(Ok((revision, events)))
    }

    fn tell(&mut self, revision: Revision, events: &[Event]) {
        if events.is_empty() {
            return;
        }
        self.watchers.retain(|watcher| {
            let events: Vec<Event> =
                events.iter().filter(|event| event.key().starts_with(&watcher.prefix)).cloned().collect();
            if events.is_empty() {
                return !watcher.batches.is_closed();
            }
            // The last slot is kept for saying why the watch ends.
            if watcher.batches.capacity() <= 1 {
                let _ = watcher.batches.try_send(Err(StoreError::Compacted(revision)));
                return false;
            }
            watcher.batches.try_send(Ok(Batch { revision, events })).is_ok()
        });
    }

    fn watch(&mut self, prefix: String, from: Revision) -> Result<Watch, StoreError> {
        let current = self.opened.revision;
        if from > current {
            return Err(StoreError::Future { asked: from, current });
        }
        if from < self.opened.compacted {
            return Err(StoreError::Compacted(from));
        }
        let replay = if from == current { Vec::new() } else { self.replay(&prefix, from)? };
        let (batches, watch) = tokio_mpsc::channel(replay.len() + WATCH_BACKLOG);
        for batch in replay {
            // Cannot be full: the channel is longer than the replay.
            let _ = batches.try_send(Ok(batch));
        }
        self.watchers.retain(|watcher| !watcher.batches.is_closed());
        self.watchers.push(Watcher { prefix, batches });
        Ok(watch)
    }

    fn replay(&self, prefix: &str, from: Revision) -> Result<Vec<Batch>, StoreError> {
        let mut events = 0;
        let mut batches: Vec<Batch> = Vec::new();
        let read = |source| io(&self.path, "read", source);
        let mut rows = self
            .opened
            .connection
            .prepare_cached(
                "SELECT revision, key, value, create_revision FROM log
                 WHERE revision > ?1 AND key >= ?2 AND (?3 IS NULL OR key < ?3) ORDER BY revision, seq",
            )
            .map_err(read)?;
        let mut rows = rows.query((to_sql(from), prefix, prefix_end(prefix))).map_err(read)?;
        while let Some(row) = rows.next().map_err(read)? {
            events += 1;
            if events > REPLAY_LIMIT {
                return Err(StoreError::Compacted(from));
            }
            let (revision, event) = logged(row).map_err(read)?;
            match batches.last_mut() {
                Some(batch) if batch.revision == revision => batch.events.push(event),
                _ => batches.push(Batch { revision, events: vec![event] }),
            }
        }
        Ok(batches)
    }

    /// Drops history beyond the retention. Watchers are not disturbed: they have been told already.
    fn compact(&mut self) -> rusqlite::Result<()> {
        let mut floor = Revision(self.opened.revision.0.saturating_sub(self.retention.revisions));
        if self.log_events > self.retention.events {
            // Down to half, so that the next commit does not bring us here again.
            let beyond: Option<i64> = self
                .opened
                .connection
                .query_row(
                    "SELECT revision FROM log ORDER BY revision DESC, seq DESC LIMIT 1 OFFSET ?1",
                    [i64::try_from(self.retention.events / 2).unwrap_or(i64::MAX)],
                    |row| row.get(0),
                )
                .optional()?;
            floor = floor.max(beyond.map_or(Revision(0), from_sql));
        }
        if floor <= self.opened.compacted {
            return Ok(());
        }
        let transaction = self.opened.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let dropped = transaction.execute("DELETE FROM log WHERE revision <= ?1", [to_sql(floor)])?;
        transaction.execute("UPDATE meta SET compacted = ?1", [to_sql(floor)])?;
        transaction.commit()?;
        self.opened.compacted = floor;
        self.log_events = self.log_events.saturating_sub(dropped as u64);
        Ok(())
    }
}

fn logged(row: &rusqlite::Row<'_>) -> rusqlite::Result<(Revision, Event)> {
    let revision = from_sql(row.get(0)?);
    let key = row.get(1)?;
    let event = match row.get_ref(2)?.as_blob_or_null()? {
        Some(value) => Event::Put(Entry {
            key,
            value: value.into(),
            create_revision: from_sql(row.get(3)?),
            modify_revision: revision,
        }),
        None => Event::Delete { key },
    };
    Ok((revision, event))
}

fn duplicate(ops: &[Op]) -> Option<&str> {
    let mut seen = HashSet::with_capacity(ops.len());
    ops.iter().map(Op::key).find(|key| !seen.insert(*key))
}
