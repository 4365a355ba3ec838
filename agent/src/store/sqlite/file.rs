//! The file: opening, locking, tables.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::lineage::{self, Mark};
use super::{StoreError, beside, from_sql, io};
use crate::store::Revision;

/// The form of the tables that this program reads and writes.
const FORMAT: i64 = 1;

/// An open file, its lock held.
pub struct Opened {
    pub connection: Connection,
    /// Held for as long as the store is open.
    _lock: File,
    pub mark: Mark,
    pub epoch: String,
    pub revision: Revision,
    /// History up to and including this revision is no longer kept.
    pub compacted: Revision,
}

/// Opens or makes the store, and takes the lock that keeps every other process out.
pub fn open(path: &Path) -> Result<Opened, StoreError> {
    // The lock is on a file beside the store: closing any descriptor of the store itself would drop SQLite's own.
    let lock = private(&beside(path, "-lock")).map_err(|source| io(path, "locked", source))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(StoreError::InUse { path: path.display().to_string() }),
        Err(TryLockError::Error(source)) => return Err(io(path, "locked", source)),
    }
    // Made here rather than by SQLite, for its mode; the WAL and its index take theirs from it.
    drop(private(path).map_err(|source| io(path, "opened", source))?);

    let opened = |source: rusqlite::Error| io(path, "opened", source);
    let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE, 2048).map_err(opened)?;
    let format: i64 =
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(opened)?;
    if format > FORMAT {
        return Err(StoreError::Newer { path: path.display().to_string() });
    }
    connection.pragma_update(None, "journal_mode", "WAL").map_err(opened)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(opened)?;
    connection.pragma_update(None, "journal_size_limit", 4 << 20).map_err(opened)?;
    create_tables(&mut connection).map_err(opened)?;

    let (stored, revision, compacted) = connection
        .query_row("SELECT epoch, revision, compacted FROM meta", [], |row| {
            Ok((row.get::<_, String>(0)?, from_sql(row.get(1)?), from_sql(row.get(2)?)))
        })
        .map_err(opened)?;
    let (mark, epoch) =
        lineage::settle(path, &stored, revision).map_err(|source| io(path, "marked", source))?;
    if epoch != stored {
        if revision > Revision(0) {
            tracing::warn!(path = %path.display(), "the store was restored or copied; it gets a new epoch");
        }
        connection.execute("UPDATE meta SET epoch = ?1", [&epoch]).map_err(opened)?;
    }
    Ok(Opened { connection, _lock: lock, mark, epoch, revision, compacted })
}

/// A connection that only reads.
pub fn reader(path: &Path) -> Result<Connection, StoreError> {
    connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY, 1024).map_err(|source| io(path, "opened", source))
}

fn connect(path: &Path, access: OpenFlags, cache_kib: i64) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.pragma_update(None, "cache_size", -cache_kib)?;
    connection.set_prepared_statement_cache_capacity(16);
    Ok(connection)
}

fn create_tables(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(
        "CREATE TABLE IF NOT EXISTS meta (
             id INTEGER PRIMARY KEY CHECK (id = 1),
             epoch TEXT NOT NULL, revision INTEGER NOT NULL, compacted INTEGER NOT NULL);
         INSERT OR IGNORE INTO meta VALUES (1, '', 0, 0);
         CREATE TABLE IF NOT EXISTS entry (
             key TEXT PRIMARY KEY, value BLOB NOT NULL,
             create_revision INTEGER NOT NULL, modify_revision INTEGER NOT NULL) WITHOUT ROWID;
         CREATE TABLE IF NOT EXISTS log (
             revision INTEGER NOT NULL, seq INTEGER NOT NULL,
             key TEXT NOT NULL, value BLOB, create_revision INTEGER NOT NULL,
             PRIMARY KEY (revision, seq)) WITHOUT ROWID;",
    )?;
    transaction.pragma_update(None, "user_version", FORMAT)?;
    transaction.commit()
}

/// Opens or makes a file that only its owner may read.
pub fn private(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}
