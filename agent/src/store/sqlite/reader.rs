//! The reading threads.

use std::path::Path;
use std::sync::{Mutex, PoisonError, mpsc};

use rusqlite::{Connection, OptionalExtension, Row};
use tokio::sync::oneshot;

use super::{StoreError, from_sql, io, prefix_end};
use crate::store::{Entry, Snapshot};

/// What can be asked of a reader.
pub enum Job {
    Get { key: String, reply: oneshot::Sender<Result<Option<Entry>, StoreError>> },
    Range { prefix: String, reply: oneshot::Sender<Result<Snapshot, StoreError>> },
}

/// Serves jobs until the store is dropped.
pub fn run(connection: &Connection, path: &Path, jobs: &Mutex<mpsc::Receiver<Job>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        // A reply that nobody waits for any more is dropped.
        match job {
            Ok(Job::Get { key, reply }) => {
                let _ = reply.send(get(connection, &key).map_err(|source| io(path, "read", source)));
            }
            Ok(Job::Range { prefix, reply }) => {
                if !reply.is_closed() {
                    let _ = reply.send(range(connection, &prefix).map_err(|source| io(path, "read", source)));
                }
            }
            Err(mpsc::RecvError) => return,
        }
    }
}

fn get(connection: &Connection, key: &str) -> rusqlite::Result<Option<Entry>> {
    connection
        .prepare_cached("SELECT key, value, create_revision, modify_revision FROM entry WHERE key = ?1")?
        .query_row([key], entry)
        .optional()
}

fn range(connection: &Connection, prefix: &str) -> rusqlite::Result<Snapshot> {
    // One deferred transaction: the revision and the rows are of one moment.
    let transaction = connection.unchecked_transaction()?;
    let revision =
        transaction.prepare_cached("SELECT revision FROM meta")?.query_row([], |row| row.get(0))?;
    let entries = match prefix_end(prefix) {
        Some(end) => transaction
            .prepare_cached(
                "SELECT key, value, create_revision, modify_revision FROM entry
                 WHERE key >= ?1 AND key < ?2 ORDER BY key",
            )?
            .query_map([prefix, &end], entry)?
            .collect::<rusqlite::Result<_>>()?,
        None => transaction
            .prepare_cached(
                "SELECT key, value, create_revision, modify_revision FROM entry WHERE key >= ?1 ORDER BY key",
            )?
            .query_map([prefix], entry)?
            .collect::<rusqlite::Result<_>>()?,
    };
    transaction.commit()?;
    Ok(Snapshot { revision: from_sql(revision), entries })
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        key: row.get(0)?,
        value: row.get_ref(1)?.as_blob()?.into(),
        create_revision: from_sql(row.get(2)?),
        modify_revision: from_sql(row.get(3)?),
    })
}
