//! The suite that every store is put through. `run` takes a way of making empty stores and how many commits of
//! history they keep, so that an implementation's test is one call; `model` checks random histories against a map.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Batch, CommitError, Entry, Event, Guard, Op, Revision, Snapshot, Store, StoreError, Txn, Watch};

mod model;

pub use model::model;

/// Makes an empty store that keeps about the number of commits that `run` is told.
pub type Make<'a> = &'a dyn Fn() -> Arc<dyn Store>;

/// Puts an implementation through everything that a `Store` promises.
pub async fn run(make: Make<'_>, kept: u64) {
    revisions_and_recreation(&*make()).await;
    guards_hold_or_nothing_happens(&*make()).await;
    ranges_are_ordered_and_exact(&*make()).await;
    refuses_a_duplicate_key(&*make()).await;
    nothing_to_do_makes_no_revision(&*make()).await;
    watch_replays_the_past_in_whole_commits(&*make()).await;
    watch_has_no_gap_under_concurrent_writers(make()).await;
    watch_knows_neither_future_nor_forgotten(&*make(), kept).await;
    a_slow_watcher_is_told_to_read_again(&*make()).await;
    ranges_see_whole_commits(make()).await;
    values_are_bytes(&*make()).await;
}

pub fn put(key: &str, value: &str) -> Op {
    Op::Put { key: key.to_owned(), value: value.as_bytes().to_vec() }
}

pub fn delete(key: &str) -> Op {
    Op::Delete { key: key.to_owned() }
}

pub fn guard(key: &str, modify_revision: u64) -> Guard {
    Guard { key: key.to_owned(), modify_revision: Revision(modify_revision) }
}

pub async fn write(store: &dyn Store, ops: Vec<Op>) -> Revision {
    store.commit(Txn { guards: Vec::new(), ops }).await.expect("an unguarded commit")
}

/// The next batch, or a failure that says so instead of a test that hangs.
pub async fn next(watch: &mut Watch) -> Result<Batch, StoreError> {
    tokio::time::timeout(Duration::from_secs(20), watch.recv())
        .await
        .expect("a batch within 20 s")
        .expect("the watch goes on")
}

fn keys(snapshot: &Snapshot) -> Vec<&str> {
    snapshot.entries.iter().map(|entry| entry.key.as_str()).collect()
}

async fn get(store: &dyn Store, key: &str) -> Option<Entry> {
    store.get(key).await.expect("a read")
}

async fn revisions_and_recreation(store: &dyn Store) {
    assert_eq!(store.range("").await.unwrap().revision, Revision(0));
    let one = write(store, vec![put("/a", "1"), put("/b", "1")]).await;
    assert_eq!(one, Revision(1));
    let two = write(store, vec![put("/a", "2")]).await;
    assert_eq!(two, Revision(2));
    let a = get(store, "/a").await.unwrap();
    assert_eq!((a.create_revision, a.modify_revision, &*a.value), (one, two, b"2".as_slice()));
    let b = get(store, "/b").await.unwrap();
    assert_eq!((b.create_revision, b.modify_revision), (one, one));

    let three = write(store, vec![delete("/a")]).await;
    assert_eq!(get(store, "/a").await, None);
    let four = write(store, vec![put("/a", "3")]).await;
    let a = get(store, "/a").await.unwrap();
    assert_eq!((three, a.create_revision, a.modify_revision), (Revision(3), four, four));
    assert_eq!(get(store, "/never").await, None);
    assert!(!store.epoch().is_empty());
}

async fn guards_hold_or_nothing_happens(store: &dyn Store) {
    write(store, vec![put("/a", "1")]).await;
    write(store, vec![put("/b", "1")]).await;
    let refused = store
        .commit(Txn {
            guards: vec![guard("/a", 1), guard("/b", 1), guard("/c", 7)],
            ops: vec![put("/a", "2"), put("/d", "1"), delete("/b")],
        })
        .await;
    match refused {
        Err(CommitError::Conflict(keys)) => assert_eq!(keys, ["/b", "/c"]),
        other => panic!("expected both failed guards, got {other:?}"),
    }
    let all = store.range("/").await.unwrap();
    assert_eq!((all.revision, keys(&all)), (Revision(2), vec!["/a", "/b"]));

    let made = store
        .commit(Txn {
            guards: vec![guard("/a", 1), guard("/b", 2), guard("/c", 0)],
            ops: vec![put("/c", "1"), delete("/b")],
        })
        .await
        .unwrap();
    assert_eq!(made, Revision(3));
    // Guards alone are checked too, and a deleted key is an absent one.
    let checked = store.commit(Txn { guards: vec![guard("/b", 0)], ops: vec![] }).await;
    assert_eq!(checked.unwrap(), Revision(3));
    let refused = store.commit(Txn { guards: vec![guard("/b", 2)], ops: vec![] }).await;
    assert!(matches!(refused, Err(CommitError::Conflict(keys)) if keys == ["/b"]));
}

async fn ranges_are_ordered_and_exact(store: &dyn Store) {
    let ops = ["/b/2", "/a", "/b0", "/b/10", "/b", "/b/é", "/b/\u{d7ff}", "/c"].map(|key| put(key, "x"));
    write(store, ops.into()).await;
    let b = store.range("/b/").await.unwrap();
    assert_eq!(keys(&b), ["/b/10", "/b/2", "/b/é", "/b/\u{d7ff}"]);
    assert_eq!(keys(&store.range("/b/\u{d7ff}").await.unwrap()), ["/b/\u{d7ff}"]);
    assert_eq!(store.range("").await.unwrap().entries.len(), 8);
    assert_eq!(store.range("/nothing").await.unwrap().entries, []);
}

async fn refuses_a_duplicate_key(store: &dyn Store) {
    let twice = Txn { guards: vec![], ops: vec![put("/b", "1"), put("/a", "1"), delete("/a")] };
    assert!(matches!(store.commit(twice).await, Err(CommitError::DuplicateKey(key)) if key == "/a"));
    assert_eq!(store.range("").await.unwrap().revision, Revision(0));
}

async fn nothing_to_do_makes_no_revision(store: &dyn Store) {
    write(store, vec![put("/a", "1")]).await;
    let mut watch = store.watch("", Revision(1)).await.unwrap();
    assert_eq!(write(store, vec![]).await, Revision(1));
    assert_eq!(write(store, vec![delete("/absent")]).await, Revision(1));
    // The same value again is a change: a head is bumped by writing it.
    assert_eq!(write(store, vec![put("/a", "1"), delete("/absent")]).await, Revision(2));
    let batch = next(&mut watch).await.unwrap();
    assert_eq!((batch.revision, batch.events.len()), (Revision(2), 1));
}

async fn watch_replays_the_past_in_whole_commits(store: &dyn Store) {
    write(store, vec![put("/w/a", "1"), put("/other", "1"), put("/w/b", "1")]).await;
    write(store, vec![put("/other", "2")]).await;
    write(store, vec![delete("/w/a"), put("/w/b", "2")]).await;
    let mut watch = store.watch("/w/", Revision(0)).await.unwrap();
    write(store, vec![put("/w/a", "4")]).await;

    let first = next(&mut watch).await.unwrap();
    assert_eq!(first.revision, Revision(1));
    assert_eq!(first.events.iter().map(Event::key).collect::<Vec<_>>(), ["/w/a", "/w/b"]);
    let second = next(&mut watch).await.unwrap();
    assert_eq!(second.revision, Revision(3));
    assert_eq!(second.events[0], Event::Delete { key: "/w/a".to_owned() });
    match &second.events[1] {
        Event::Put(b) => assert_eq!(
            (b.create_revision, b.modify_revision, &*b.value),
            (Revision(1), Revision(3), b"2".as_slice())
        ),
        Event::Delete { .. } => panic!("expected a put"),
    }
    let third = next(&mut watch).await.unwrap();
    assert_eq!(third.revision, Revision(4));
    assert!(matches!(&third.events[..], [Event::Put(a)] if a.create_revision == Revision(4)));
}

async fn watch_has_no_gap_under_concurrent_writers(store: Arc<dyn Store>) {
    const WRITERS: usize = 4;
    const COMMITS: usize = 25;
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for commit in 0..COMMITS {
                    write(&*store, vec![put(&format!("/w/{writer}"), &commit.to_string())]).await;
                    write(&*store, vec![put("/noise", "x")]).await;
                }
            })
        })
        .collect();
    // Watches that begin at any moment, from whatever a range says, must continue that range exactly.
    let watchers: Vec<_> = (0..6)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let start = store.range("/w/").await.unwrap();
                let mut state: BTreeMap<String, Arc<[u8]>> =
                    start.entries.into_iter().map(|entry| (entry.key, entry.value)).collect();
                let mut watch = store.watch("/w/", start.revision).await.unwrap();
                let mut last = start.revision;
                let done = (COMMITS - 1).to_string().into_bytes();
                while state.len() < WRITERS || state.values().any(|value| **value != *done) {
                    let batch = next(&mut watch).await.unwrap();
                    assert!(batch.revision > last, "{} after {last}", batch.revision);
                    last = batch.revision;
                    for event in batch.events {
                        let Event::Put(entry) = event else { panic!("nothing is deleted here") };
                        let new: usize = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
                        let expected = state
                            .get(&entry.key)
                            .map_or(0, |old| std::str::from_utf8(old).unwrap().parse::<usize>().unwrap() + 1);
                        assert_eq!(new, expected, "a commit of {} was missed or repeated", entry.key);
                        state.insert(entry.key, entry.value);
                    }
                }
            })
        })
        .collect();
    for task in writers.into_iter().chain(watchers) {
        task.await.unwrap();
    }
}

async fn watch_knows_neither_future_nor_forgotten(store: &dyn Store, kept: u64) {
    let refused = store.watch("/", Revision(1)).await.unwrap_err();
    assert!(matches!(refused, StoreError::Future { asked: Revision(1), current: Revision(0) }));
    let mut early = store.watch("/", Revision(0)).await.unwrap();
    let mut forgotten = None;
    for commit in 0..kept * 4 + 1000 {
        write(store, vec![put("/a", &commit.to_string())]).await;
        // A watcher that keeps up is not disturbed by compaction.
        assert_eq!(next(&mut early).await.unwrap().revision, Revision(commit + 1));
        if let Err(error) = store.watch("/", Revision(0)).await {
            forgotten = Some((commit, error));
            break;
        }
    }
    let (commit, error) = forgotten.expect("history is bounded");
    assert!(matches!(error, StoreError::Compacted(Revision(0))), "{error}");
    assert!(commit + 1 >= kept, "only {commit} commits were kept");
    let start = store.range("/").await.unwrap();
    let mut watch = store.watch("/", start.revision).await.unwrap();
    let revision = write(store, vec![put("/a", "last")]).await;
    assert_eq!(next(&mut watch).await.unwrap().revision, revision);
}

async fn a_slow_watcher_is_told_to_read_again(store: &dyn Store) {
    let mut slow = store.watch("/", Revision(0)).await.unwrap();
    let mut commits = 0;
    // Falls behind until it is cut off: from then on the receiver gets nothing new.
    while commits < 5000 && !slow.is_closed() {
        write(store, vec![put("/a", "x")]).await;
        commits += 1;
    }
    assert!(slow.is_closed(), "a watcher may not fall behind for ever");
    let mut expected = Revision(1);
    loop {
        match next(&mut slow).await {
            Ok(batch) => {
                assert_eq!(batch.revision, expected);
                expected.0 += 1;
            }
            Err(error) => {
                assert!(matches!(error, StoreError::Compacted(_)), "{error}");
                break;
            }
        }
    }
    assert!(slow.recv().await.is_none());
}

async fn ranges_see_whole_commits(store: Arc<dyn Store>) {
    let writer = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for commit in 0..100 {
                let ops = (0..10).map(|n| put(&format!("/r/{n}"), &commit.to_string())).collect();
                write(&*store, ops).await;
            }
        })
    };
    while !writer.is_finished() {
        let seen = store.range("/r/").await.unwrap();
        assert!(seen.entries.iter().all(|entry| entry.modify_revision == seen.revision), "a torn commit");
    }
    writer.await.unwrap();
}

async fn values_are_bytes(store: &dyn Store) {
    let odd: Vec<u8> = (0..=255).collect();
    let large = vec![7; 1 << 20];
    let ops = vec![
        Op::Put { key: "/empty".to_owned(), value: Vec::new() },
        Op::Put { key: "/large".to_owned(), value: large.clone() },
        Op::Put { key: "/odd".to_owned(), value: odd.clone() },
    ];
    write(store, ops).await;
    assert_eq!(&*get(store, "/empty").await.unwrap().value, b"");
    assert_eq!(&*get(store, "/odd").await.unwrap().value, odd);
    assert_eq!(&*get(store, "/large").await.unwrap().value, large);
    let mut watch = store.watch("/empty", Revision(0)).await.unwrap();
    assert!(
        matches!(&next(&mut watch).await.unwrap().events[..], [Event::Put(entry)] if entry.value.is_empty())
    );
}
