//! Config entries as the store holds them: put together from the parts that their writers own.
//!
//! Heads are read before parts. What is read may then be newer than its revision says, never older: a guard on such a
//! revision fails where it need not, and nobody's change is written over unseen.

use std::collections::BTreeMap;

use schema::kind::Kind;
use schema::kind::entry::Entry as Rest;
use schema::name::{ManifestName, SamenessGroupName, ServiceName};
use schema::record::{Record, RecordKey, ServiceMatch};

use super::ObserveError;
use crate::store::value::{self, Declared};
use crate::store::{Entry, Revision, Store, keys};
use crate::trust::entity::Entity;

/// Names one config entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKey {
    ExportedServices,
    ServiceIntentions(ServiceMatch),
    SamenessGroup(SamenessGroupName),
    ServiceDefaults(ServiceName),
}

impl EntryKey {
    /// The kinds of config entries, with Consul's words for them.
    pub const KINDS: [(&str, Kind); 4] = [
        ("exported-services", Kind::ExportedServices),
        ("sameness-group", Kind::SamenessGroup),
        ("service-defaults", Kind::ServiceDefaults),
        ("service-intentions", Kind::ServiceIntentions),
    ];

    /// The entry of a kind and a name; `None` if there can be none such.
    pub fn new(kind: Kind, name: &str) -> Option<Self> {
        match kind {
            Kind::ExportedServices => (name == "default").then_some(Self::ExportedServices),
            Kind::ServiceIntentions => name.parse().ok().map(Self::ServiceIntentions),
            Kind::SamenessGroup => name.parse().ok().map(Self::SamenessGroup),
            Kind::ServiceDefaults => name.parse().ok().map(Self::ServiceDefaults),
            _ => None,
        }
    }

    /// The entry that a record is, or is part of.
    pub fn of(record: &RecordKey) -> Option<Self> {
        Some(match record {
            RecordKey::ExportEntry | RecordKey::Export(_) => Self::ExportedServices,
            RecordKey::IntentionEntry(destination) | RecordKey::Intention { destination, .. } => {
                Self::ServiceIntentions(destination.clone())
            }
            RecordKey::SamenessGroup(name) => Self::SamenessGroup(name.clone()),
            RecordKey::ServiceDefaults(name) => Self::ServiceDefaults(name.clone()),
            _ => return None,
        })
    }

    pub fn kind(&self) -> Kind {
        match self {
            Self::ExportedServices => Kind::ExportedServices,
            Self::ServiceIntentions(_) => Kind::ServiceIntentions,
            Self::SamenessGroup(_) => Kind::SamenessGroup,
            Self::ServiceDefaults(_) => Kind::ServiceDefaults,
        }
    }

    /// Consul's word for the kind.
    pub fn word(&self) -> &'static str {
        match self {
            Self::ExportedServices => "exported-services",
            Self::ServiceIntentions(_) => "service-intentions",
            Self::SamenessGroup(_) => "sameness-group",
            Self::ServiceDefaults(_) => "service-defaults",
        }
    }

    pub fn name(&self) -> String {
        self.own_record().entry_name()
    }

    /// What a right on the entry is about.
    pub fn entity(&self) -> Entity {
        Entity::of(&self.own_record())
    }

    /// The record that is no part: all there is of an entry without parts.
    pub fn own_record(&self) -> RecordKey {
        match self {
            Self::ExportedServices => RecordKey::ExportEntry,
            Self::ServiceIntentions(destination) => RecordKey::IntentionEntry(destination.clone()),
            Self::SamenessGroup(name) => RecordKey::SamenessGroup(name.clone()),
            Self::ServiceDefaults(name) => RecordKey::ServiceDefaults(name.clone()),
        }
    }
}

/// One part of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LivePart {
    pub owner: Option<ManifestName>,
    pub record: Record,
    pub created: Revision,
    pub modified: Revision,
}

/// An entry as it is. Without parts there is no such entry, though its head may tell when there last was one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LiveEntry {
    pub parts: BTreeMap<RecordKey, LivePart>,
    /// The head's revision; 0 if there never was such an entry.
    pub head: Revision,
}

impl LiveEntry {
    pub fn exists(&self) -> bool {
        !self.parts.is_empty()
    }

    /// When it last changed in any part (Consul: ModifyIndex). The head's word alone counts: it was read first, while
    /// the parts and what there is besides may be of two later moments, and the newer of these would vouch for the other.
    pub fn modified(&self) -> Revision {
        if self.head != Revision::default() {
            return self.head;
        }
        self.parts.values().map(|part| part.modified).max().unwrap_or_default()
    }

    /// When the oldest of its parts was made (Consul: CreateIndex).
    pub fn created(&self) -> Revision {
        self.parts.values().map(|part| part.created).min().unwrap_or_default()
    }

    /// What it has besides its parts.
    pub fn rest(&self) -> Option<&Rest> {
        // Its key is less than those of all parts, of which there may be many.
        match &self.parts.first_key_value()?.1.record {
            Record::ExportEntry(rest) | Record::IntentionEntry(rest) => Some(rest),
            _ => None,
        }
    }
}

/// Every entry of some kind, by name, with when the last of them changed, or was removed.
#[derive(Debug, Clone, Default)]
pub struct LiveEntries {
    pub entries: BTreeMap<EntryKey, LiveEntry>,
    pub modified: Revision,
}

/// One entry.
pub async fn entry(store: &dyn Store, key: &EntryKey) -> Result<LiveEntry, ObserveError> {
    let live = read(store, key).await?;
    if live.head == Revision::default() && live.exists() {
        // Made between the two looks. From now on it has a head.
        return read(store, key).await;
    }
    Ok(live)
}

async fn read(store: &dyn Store, key: &EntryKey) -> Result<LiveEntry, ObserveError> {
    let own = key.own_record();
    let head = store.get(&keys::head(&own)).await?;
    let mut live =
        LiveEntry { head: head.map(|head| head.modify_revision).unwrap_or_default(), ..LiveEntry::default() };
    if keys::has_parts(key.kind()) {
        for found in store.range(&keys::parts_of(&own)).await?.entries {
            live.parts.extend([part(&found)?]);
        }
    }
    if let Some(found) = store.get(&keys::declared(&own)).await? {
        live.parts.extend([part(&found)?]);
    }
    Ok(live)
}

/// Every entry of a kind.
pub async fn entries(store: &dyn Store, kind: Kind) -> Result<LiveEntries, ObserveError> {
    let heads = store.range(&keys::heads(kind)).await?;
    let mut all = LiveEntries::default();
    let mut revisions = BTreeMap::new();
    for head in &heads.entries {
        all.modified = all.modified.max(head.modify_revision);
        revisions.insert(keys::last_part(&head.key).to_owned(), head.modify_revision);
    }
    for found in store.range(&keys::declared_kind(kind)).await?.entries {
        let (key, part) = part(&found)?;
        let Some(entry) = EntryKey::of(&key) else { continue };
        let live = all.entries.entry(entry).or_insert_with_key(|entry| LiveEntry {
            head: revisions.get(&entry.name()).copied().unwrap_or_default(),
            ..LiveEntry::default()
        });
        all.modified = all.modified.max(part.modified);
        live.parts.insert(key, part);
    }
    Ok(all)
}

fn part(entry: &Entry) -> Result<(RecordKey, LivePart), ObserveError> {
    let key = keys::declared_record(&entry.key).ok_or_else(|| ObserveError::Key(entry.key.clone()))?;
    let Declared { owner, record, .. } = value::decode(entry)?;
    let (created, modified) = (entry.create_revision, entry.modify_revision);
    Ok((key, LivePart { owner, record, created, modified }))
}
