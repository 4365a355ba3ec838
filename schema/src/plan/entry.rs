//! A plan by entries: what a user wrote as one block, where the plan itself is by record.
//!
//! An export list and the intentions of a destination have many records, with owners of their own. An entry that keeps
//! any record is changed, not created or destroyed, whoever owns the one that stays.

use std::collections::BTreeMap;

use crate::kind::Kind;
use crate::origin::Origin;
use crate::plan::{Action, Change, Live, Ownership, Plan};
use crate::record::{Record, RecordKey, ServiceMatch};

/// What a plan does to one entry.
#[derive(Debug, Clone)]
pub struct EntryChange<'a> {
    pub kind: Kind,
    pub name: String,
    pub action: Action,
    /// Whether any record of it changes hands.
    pub ownership: Ownership,
    /// The records of the entry before and after, in order of key, whoever owns them.
    pub before: BTreeMap<&'a RecordKey, &'a Record>,
    pub after: BTreeMap<&'a RecordKey, &'a Record>,
}

/// How many entries a plan adds, changes, destroys and forgets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub add: usize,
    pub change: usize,
    pub destroy: usize,
    pub forget: usize,
}

impl Counts {
    /// Counts one entry.
    pub fn add(&mut self, action: Action) {
        match action {
            Action::Create => self.add += 1,
            Action::Update => self.change += 1,
            Action::Delete => self.destroy += 1,
            Action::Forget => self.forget += 1,
        }
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.add += other.add;
        self.change += other.change;
        self.destroy += other.destroy;
        self.forget += other.forget;
    }
}

/// The entries that `plan`, made against `live`, touches: in order of kind, then name.
pub fn entries<'a>(plan: &'a Plan, live: &'a Live) -> Vec<EntryChange<'a>> {
    let mut touched: BTreeMap<(Kind, String), Vec<&'a Change>> = BTreeMap::new();
    for change in &plan.changes {
        touched.entry((change.key.kind(), change.key.entry_name())).or_default().push(change);
    }
    touched.into_iter().map(|((kind, name), changes)| entry(kind, name, &changes, live)).collect()
}

fn entry<'a>(kind: Kind, name: String, changes: &[&'a Change], live: &'a Live) -> EntryChange<'a> {
    let mut before = changes.first().map(|change| parts(&change.key, live)).unwrap_or_default();
    let mut after = before.clone();
    for change in changes {
        // The plan's own word for what was there: it is what the guards hold to.
        if let Some(record) = &change.before {
            before.insert(&change.key, record);
        }
        match &change.after {
            Some(record) => after.insert(&change.key, record),
            None => after.remove(&change.key),
        };
    }
    let forgets = changes.iter().all(|change| change.action == Action::Forget);
    let action = match (before.is_empty(), after.is_empty()) {
        (true, _) => Action::Create,
        (false, true) if forgets => Action::Forget,
        (false, true) => Action::Delete,
        (false, false) => Action::Update,
    };
    let adopts = changes.iter().any(|change| change.ownership == Ownership::Adopted);
    let ownership = if adopts { Ownership::Adopted } else { Ownership::Kept };
    EntryChange { kind, name, action, ownership, before, after }
}

/// The live records of the entry that `key` is part of, for the kinds whose entries have several.
fn parts<'a>(key: &RecordKey, live: &'a Live) -> BTreeMap<&'a RecordKey, &'a Record> {
    let (own, first) = match key {
        RecordKey::ExportEntry | RecordKey::Export(_) => {
            (RecordKey::ExportEntry, RecordKey::Export(ServiceMatch::Any))
        }
        RecordKey::IntentionEntry(destination) | RecordKey::Intention { destination, .. } => {
            let (origin, source) = (Origin::Local, ServiceMatch::Any);
            let first = RecordKey::Intention { destination: destination.clone(), origin, source };
            (RecordKey::IntentionEntry(destination.clone()), first)
        }
        _ => return BTreeMap::new(),
    };
    let entry = live.records.get_key_value(&own);
    // The parts of one entry stand together, and `*` of this cluster is the first of them.
    entry
        .into_iter()
        .chain(live.records.range(first..).take_while(|(other, _)| same_entry(key, other)))
        .map(|(key, live)| (key, &live.record))
        .collect()
}

fn same_entry(one: &RecordKey, other: &RecordKey) -> bool {
    fn entry(key: &RecordKey) -> (Kind, Option<&ServiceMatch>) {
        match key {
            RecordKey::IntentionEntry(destination) | RecordKey::Intention { destination, .. } => {
                (key.kind(), Some(destination))
            }
            key => (key.kind(), None),
        }
    }
    match one {
        RecordKey::ExportEntry
        | RecordKey::Export(_)
        | RecordKey::IntentionEntry(_)
        | RecordKey::Intention { .. } => entry(one) == entry(other),
        _ => one == other,
    }
}
