//! Random histories against the simplest store there is: a map and a list.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::{Make, next};
use crate::store::{CommitError, Event, Guard, Op, Revision, Store, Txn};

#[derive(Debug, Clone)]
enum Step {
    /// Ops on keys, and guards on keys: with what the model holds, or off by this much.
    Commit {
        ops: Vec<(usize, Option<u8>)>,
        guards: Vec<(usize, u64)>,
    },
    Range(usize),
}

const KEYS: [&str; 6] = ["/a", "/a/b", "/a/c", "/ab", "/b/a", "/b/ab"];
const PREFIXES: [&str; 5] = ["", "/", "/a", "/a/", "/b/a"];

#[derive(Default)]
struct Model {
    revision: u64,
    /// Value, create and modify revision.
    entries: BTreeMap<&'static str, (u8, u64, u64)>,
    /// Revision, key, value.
    history: Vec<(u64, &'static str, Option<u8>)>,
}

impl Model {
    fn commit(&mut self, ops: &[(usize, Option<u8>)]) {
        let next = self.revision + 1;
        for &(key, value) in ops {
            let key = KEYS[key];
            match value {
                Some(value) => {
                    let created = self.entries.get(key).map_or(next, |entry| entry.1);
                    self.entries.insert(key, (value, created, next));
                }
                None if self.entries.remove(key).is_none() => continue,
                None => {}
            }
            self.history.push((next, key, value));
            self.revision = next;
        }
    }
}

/// Runs `cases` random histories, each on a store of its own.
pub fn model(make: Make<'_>, cases: u32) {
    let op = (0..KEYS.len(), proptest::option::weighted(0.7, any::<u8>()));
    let step = prop_oneof![
        3 => (
            proptest::collection::btree_map(0..KEYS.len(), op.1, 0..4),
            proptest::collection::vec((0..KEYS.len(), prop_oneof![9 => Just(0_u64), 1 => 1..3_u64]), 0..3),
        )
            .prop_map(|(ops, guards)| Step::Commit { ops: ops.into_iter().collect(), guards }),
        1 => (0..PREFIXES.len()).prop_map(Step::Range),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    runner
        .run(&proptest::collection::vec(step, 0..24), |steps| {
            let store = make();
            runtime.block_on(replay(&*store, &steps));
            Ok(())
        })
        .unwrap();
}

async fn replay(store: &dyn Store, steps: &[Step]) {
    let mut model = Model::default();
    let mut live = store.watch("/a", Revision(0)).await.unwrap();
    for step in steps {
        match step {
            Step::Commit { ops, guards } => commit(store, &mut model, ops, guards).await,
            Step::Range(prefix) => range(store, &model, PREFIXES[*prefix]).await,
        }
    }
    range(store, &model, "").await;

    let expected: Vec<_> = model.history.iter().filter(|event| event.1.starts_with("/a")).collect();
    let mut replayed = store.watch("/a", Revision(0)).await.unwrap();
    for watch in [&mut live, &mut replayed] {
        let mut seen = 0;
        while seen < expected.len() {
            let batch = next(watch).await.unwrap();
            for event in batch.events {
                let (revision, key, value) = expected[seen];
                assert_eq!((batch.revision.0, event.key()), (*revision, *key));
                match event {
                    Event::Put(entry) => assert_eq!(Some(entry.value[0]), *value),
                    Event::Delete { .. } => assert_eq!(*value, None),
                }
                seen += 1;
            }
        }
        assert!(watch.try_recv().is_err(), "more than happened");
    }
}

async fn commit(store: &dyn Store, model: &mut Model, ops: &[(usize, Option<u8>)], guards: &[(usize, u64)]) {
    let modified = |key: usize| model.entries.get(KEYS[key]).map_or(0, |entry| entry.2);
    let txn = Txn {
        guards: guards
            .iter()
            .map(|&(key, off)| Guard {
                key: KEYS[key].to_owned(),
                modify_revision: Revision(modified(key) + off),
            })
            .collect(),
        ops: ops
            .iter()
            .map(|&(key, value)| match value {
                Some(value) => Op::Put { key: KEYS[key].to_owned(), value: vec![value] },
                None => Op::Delete { key: KEYS[key].to_owned() },
            })
            .collect(),
    };
    let wrong: Vec<&str> = guards.iter().filter(|(_, off)| *off != 0).map(|&(key, _)| KEYS[key]).collect();
    let answer = store.commit(txn).await;
    if wrong.is_empty() {
        model.commit(ops);
        assert_eq!(answer.unwrap(), Revision(model.revision));
    } else {
        assert!(matches!(&answer, Err(CommitError::Conflict(keys)) if *keys == wrong), "{answer:?}");
    }
}

async fn range(store: &dyn Store, model: &Model, prefix: &str) {
    let snapshot = store.range(prefix).await.unwrap();
    assert_eq!(snapshot.revision, Revision(model.revision));
    let seen: Vec<_> = snapshot
        .entries
        .iter()
        .map(|e| (e.key.as_str(), (e.value[0], e.create_revision.0, e.modify_revision.0)))
        .collect();
    let expected: Vec<_> = model
        .entries
        .iter()
        .filter(|(key, _)| key.starts_with(prefix))
        .map(|(key, held)| (*key, *held))
        .collect();
    assert_eq!(seen, expected);
}
