//! Config entries as Consul's clients write them: whole, or one source at a time, beside parts that manifests own.
//!
//! A whole entry replaces the parts that no manifest owns. A part that one owns stays: named with the content that it
//! has, it is passed over; with another, the write is refused; not named, it is no business of this writer's, who may
//! not even know of it. Only removing the whole entry would take it along, and so is refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use schema::kind::entry::Entry as Rest;
use schema::origin::Origin;
use schema::plan::Data;
use schema::record::{Record, RecordKey};

use super::draft::{Draft, Write};
use super::{Apply, ApplyError, check, content};
use crate::authorize::{Entitlement, Permit};
use crate::observe::entry::{self, EntryKey, LiveEntry, LivePart};
use crate::store::Revision;
use crate::store::value::Declared;

/// Up to so many entries are looked up one by one; for more, their kinds are read whole.
const LOOKED_UP: usize = 16;

/// A change to one config entry.
#[derive(Debug, Clone)]
pub struct EntryEdit {
    pub entry: EntryKey,
    pub change: EntryChange,
    /// The entry's revision that the caller has seen, 0 for none; `None` for a caller that did not look.
    pub only_at: Option<u64>,
}

#[derive(Debug, Clone)]
pub enum EntryChange {
    /// It says this, besides what manifests own of it.
    Whole(BTreeMap<RecordKey, Record>),
    /// It is gone.
    Gone,
    Part(Box<PartEdit>),
}

/// A change to one source of a destination.
#[derive(Debug, Clone)]
pub struct PartEdit {
    pub key: RecordKey,
    /// `None` removes it. The last source takes what else the entry has along.
    pub to: Option<Record>,
    pub presence: Presence,
    pub meta: GivenMeta,
}

/// What must be so for a part to be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    Either,
    Absent,
    Present,
}

/// What was said of the entry's `Meta` along with one of its sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GivenMeta {
    Nothing,
    /// It must be what the entry has.
    Same(BTreeMap<String, String>),
    /// The same, or what a new entry begins with.
    First(BTreeMap<String, String>),
}

/// What became of an edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryOutcome {
    Written(Revision),
    /// The entry says so already.
    Same,
    /// The entry is not at the revision that the caller has seen. Nothing was written, of none of the edits.
    Stale,
}

impl Apply {
    /// Makes all of `edits` in one commit, or none. Each comes with the permit to edit its entry.
    pub async fn edit_entries(
        self: &Arc<Self>,
        edits: Vec<(Permit, EntryEdit)>,
    ) -> Result<Vec<EntryOutcome>, ApplyError> {
        if edits.len() > check::MAX_CHANGES {
            return Err(ApplyError::TooLarge(edits.len(), check::MAX_CHANGES));
        }
        let fits = |(permit, edit): &(Permit, EntryEdit)| {
            permit.entitlement() == Entitlement::CanEdit && *permit.entity() == edit.entry.entity()
        };
        if !edits.iter().all(fits) {
            return Err(ApplyError::NotPermitted);
        }
        let Some((permit, _)) = edits.first() else { return Ok(Vec::new()) };
        let (this, permit) = (Arc::clone(self), permit.clone());
        let edits = edits.into_iter().map(|(_, edit)| edit).collect();
        self.whole("edit", async move { this.edit_entries_now(&permit, edits).await }).await?
    }

    async fn edit_entries_now(
        &self,
        permit: &Permit,
        edits: Vec<EntryEdit>,
    ) -> Result<Vec<EntryOutcome>, ApplyError> {
        let _turn = self.turn.lock().await;
        let mut live = self.live_entries(&edits).await?;
        let mut writes = Vec::new();
        let mut changed = Vec::with_capacity(edits.len());
        let mut seen = std::collections::HashSet::new();
        for EntryEdit { entry, change, only_at } in edits {
            if !seen.insert(entry.clone()) {
                return Err(ApplyError::Malformed(entry.own_record(), "it is changed twice"));
            }
            let live = live.remove(&entry).unwrap_or_default();
            let made = writes_of(&entry, &live, change);
            // What says so already needs no guard. What somebody else wrote meanwhile is his first.
            let is_same = made.as_ref().is_ok_and(Vec::is_empty);
            let at = if live.exists() { live.modified().0 } else { 0 };
            if !is_same && only_at.is_some_and(|seen| seen != at) {
                return Ok(vec![EntryOutcome::Stale; changed.len() + 1]);
            }
            writes.extend(made?);
            changed.push(!is_same);
        }
        for write in &writes {
            if let Some(Err(why)) = write.after.as_ref().map(|after| content::check(&after.record)) {
                return Err(ApplyError::Malformed(write.key.clone(), why));
            }
        }
        if writes.is_empty() {
            return Ok(vec![EntryOutcome::Same; changed.len()]);
        }
        let revision = self.commit(permit, Draft::default(), writes, None).await?;
        let outcome = |changed| if changed { EntryOutcome::Written(revision) } else { EntryOutcome::Same };
        Ok(changed.into_iter().map(outcome).collect())
    }

    async fn live_entries(&self, edits: &[EntryEdit]) -> Result<BTreeMap<EntryKey, LiveEntry>, ApplyError> {
        let mut live = BTreeMap::new();
        if edits.len() <= LOOKED_UP {
            for edit in edits {
                live.insert(edit.entry.clone(), entry::entry(&*self.store, &edit.entry).await?);
            }
            return Ok(live);
        }
        for (_, kind) in EntryKey::KINDS {
            if edits.iter().any(|edit| edit.entry.kind() == kind) {
                live.append(&mut entry::entries(&*self.store, kind).await?.entries);
            }
        }
        Ok(live)
    }
}

/// What a change to `live` comes to.
fn writes_of(entry: &EntryKey, live: &LiveEntry, change: EntryChange) -> Result<Vec<Write>, ApplyError> {
    match change {
        EntryChange::Whole(desired) => {
            let gone =
                live.parts.iter().filter(|(key, part)| part.owner.is_none() && !desired.contains_key(key));
            let mut writes: Vec<Write> =
                gone.map(|(key, part)| write(key, Some(part), None)).collect::<Result<_, _>>()?;
            for (key, record) in desired {
                let part = live.parts.get(&key);
                if part.is_none_or(|part| part.record != record) {
                    writes.push(write(&key, part, Some(record))?);
                }
            }
            Ok(writes)
        }
        EntryChange::Gone => live.parts.iter().map(|(key, part)| write(key, Some(part), None)).collect(),
        EntryChange::Part(edit) => part_writes(entry, live, *edit),
    }
}

fn part_writes(entry: &EntryKey, live: &LiveEntry, edit: PartEdit) -> Result<Vec<Write>, ApplyError> {
    let PartEdit { key, to, presence, meta } = edit;
    let sources = || live.parts.keys().filter(|key| matches!(key, RecordKey::Intention { .. }));
    let part = live.parts.get(&key);
    match (presence, part) {
        (Presence::Absent, Some(_)) => return Err(exists(&key, sources().count())),
        (Presence::Present, None) => return Err(ApplyError::NoSuchPart(key)),
        _ => {}
    }
    let mut writes = Vec::new();
    let had = live.rest().map(|rest| rest.meta.clone()).unwrap_or_default();
    match meta {
        GivenMeta::First(meta) if !live.exists() && !meta.is_empty() && to.is_some() => {
            let rest = Record::IntentionEntry(Rest { meta, ..Rest::default() });
            writes.push(write(&entry.own_record(), None, Some(rest))?);
        }
        GivenMeta::Same(meta) | GivenMeta::First(meta) if meta != had => return Err(ApplyError::MetaGiven),
        _ => {}
    }
    if part.map(|part| &part.record) != to.as_ref() {
        let is_last = to.is_none() && sources().all(|other| *other == key);
        writes.push(write(&key, part, to)?);
        let rest = entry.own_record();
        if let Some(part) = live.parts.get(&rest).filter(|part| is_last && part.owner.is_none()) {
            writes.push(write(&rest, Some(part), None)?);
        }
    }
    Ok(writes)
}

fn write(key: &RecordKey, part: Option<&LivePart>, to: Option<Record>) -> Result<Write, ApplyError> {
    if let Some(LivePart { owner: Some(owner), .. }) = part {
        return Err(ApplyError::OwnedPart(key.clone(), owner.clone()));
    }
    let base = part.map_or(Revision(0), |part| part.modified);
    let after = to.map(Declared::by_hand);
    Ok(Write { key: key.clone(), base, after, data: Data::Keep })
}

fn exists(key: &RecordKey, index: usize) -> ApplyError {
    let RecordKey::Intention { origin, source, .. } = key else { return ApplyError::Exists(key.clone()) };
    let origin = match origin {
        Origin::Local => String::new(),
        Origin::Peer(peer) => format!("peer(\"{peer}\") "),
        Origin::Group(group) => format!("sameness-group(\"{group}\") "),
        Origin::AnyPeer => "peer(\"*\") ".to_owned(),
    };
    ApplyError::SourceExists { index, origin, source_name: source.clone() }
}
