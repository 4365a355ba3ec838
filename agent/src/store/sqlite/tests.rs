//! SQLite-specific tests; what every store must do is in `conformance`.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::store::conformance::{self, guard, next, put, write};
use crate::store::{Guard, Op};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    let kept = 100;
    conformance::run(&|| SqliteStore::scratch_with(Retention { revisions: kept, events: 10_000 }), kept)
        .await;
}

#[test]
fn agrees_with_the_model() {
    conformance::model(&SqliteStore::scratch, 40);
}

#[tokio::test]
async fn reopening_keeps_everything_and_the_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = SqliteStore::open(&path).unwrap();
    let epoch = store.epoch().to_owned();
    write(&*store, vec![put("/a", "1"), put("/b", "1")]).await;
    write(&*store, vec![put("/a", "2")]).await;
    for file in ["store.db", "store.db-wal", "store.db-shm", "store.db-lock", "store.db-mark"] {
        let mode = std::fs::metadata(folder.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    assert!(matches!(SqliteStore::open(&path), Err(StoreError::InUse { .. })));
    let before = store.range("").await.unwrap();
    drop(store);

    let store = SqliteStore::open(&path).unwrap();
    assert_eq!(store.epoch(), epoch);
    let after = store.range("").await.unwrap();
    assert_eq!((after.revision, after.entries), (before.revision, before.entries));
    let mut watch = store.watch("/a", Revision(1)).await.unwrap();
    assert_eq!(next(&mut watch).await.unwrap().revision, Revision(2));
    assert_eq!(write(&*store, vec![put("/c", "1")]).await, Revision(3));
}

#[tokio::test]
async fn a_restored_or_copied_store_gets_another_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let open = || SqliteStore::open(&path).unwrap();
    let copy = |from: &Path, to: &Path| {
        // Over the same inode, as `cp` does it.
        std::fs::write(to, std::fs::read(from).unwrap()).unwrap();
    };
    let store = open();
    let first = store.epoch().to_owned();
    write(&*store, vec![put("/a", "1")]).await;
    drop(store);
    let backup = folder.path().join("backup.db");
    copy(&path, &backup);

    let store = open();
    assert_eq!(store.epoch(), first);
    write(&*store, vec![put("/a", "2")]).await;
    drop(store);

    // An older state, in the same file.
    copy(&backup, &path);
    let store = open();
    let second = store.epoch().to_owned();
    assert_ne!(second, first);
    assert_eq!(store.range("").await.unwrap().revision, Revision(1));
    drop(store);

    // The same state in another file, its mark beside it.
    std::fs::rename(&path, folder.path().join("away")).unwrap();
    copy(&folder.path().join("away"), &path);
    let store = open();
    let third = store.epoch().to_owned();
    assert_ne!(third, second);
    drop(store);

    // Without its mark.
    std::fs::remove_file(folder.path().join("store.db-mark")).unwrap();
    assert_ne!(open().epoch(), third);
}

#[test]
fn refuses_what_is_no_store_or_a_newer_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    std::fs::write(&path, "no database, but long enough to be looked at as if it were one").unwrap();
    assert!(matches!(SqliteStore::open(&path), Err(StoreError::Io { doing: "opened", .. })));

    let path = folder.path().join("newer.db");
    drop(SqliteStore::open(&path).unwrap());
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    assert!(matches!(SqliteStore::open(&path), Err(StoreError::Newer { .. })));
    assert!(matches!(SqliteStore::open(&folder.path().join("absent/store.db")), Err(StoreError::Io { .. })));
}

#[tokio::test]
async fn large_commits_bound_the_log_by_events() {
    let store = SqliteStore::scratch_with(Retention { revisions: 10_000, events: 100 });
    for _ in 0..6 {
        write(&*store, (0..30).map(|n| put(&format!("/{n}"), "x")).collect()).await;
    }
    assert!(matches!(store.watch("/", Revision(0)).await, Err(StoreError::Compacted(_))));
    let mut watch = store.watch("/", Revision(5)).await.unwrap();
    assert_eq!(next(&mut watch).await.unwrap().events.len(), 30);
}

/// Not a timing test: it holds that five thousand guarded writes are one commit and one batch.
#[tokio::test]
async fn thousands_of_operations_are_one_commit() {
    let store = SqliteStore::scratch();
    let mut watch = store.watch("/d/", Revision(0)).await.unwrap();
    let key = |n: usize| format!("/d/{n:05}");
    let ops: Vec<Op> = (0..5000).map(|n| Op::Put { key: key(n), value: vec![b'x'; 300] }).collect();
    let guards: Vec<Guard> = (0..5000).map(|n| guard(&key(n), 0)).collect();
    let began = std::time::Instant::now();
    assert_eq!(store.commit(Txn { guards, ops }).await.unwrap(), Revision(1));
    eprintln!("5,000 operations: {:?}", began.elapsed());
    assert_eq!(next(&mut watch).await.unwrap().events.len(), 5000);
    let began = std::time::Instant::now();
    assert_eq!(store.range("/d/").await.unwrap().entries.len(), 5000);
    eprintln!("5,000 entries read: {:?}", began.elapsed());
}

#[test]
fn the_end_of_a_prefix() {
    assert_eq!(prefix_end("/a/").as_deref(), Some("/a0"));
    assert_eq!(prefix_end("a\u{d7ff}").as_deref(), Some("a\u{e000}"));
    assert_eq!(prefix_end("a\u{10ffff}").as_deref(), Some("b"));
    assert_eq!(prefix_end(""), None);
    assert_eq!(prefix_end("\u{10ffff}"), None);
}
