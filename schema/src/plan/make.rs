//! Compares what a manifest declares with what a cluster holds: one walk over both, in order of key.

use crate::kind::Kind;
use crate::kind::cluster_link::{ClusterLink, LinkType};
use crate::name::{LinkName, ManifestName};
use crate::plan::{
    Action, Base, Change, Conflict, Data, Declared, Desired, LinkState, Live, LiveLink, Ownership, Plan,
};
use crate::record::{LiveRecord, Record, RecordKey};

/// What makes `live` say what `desired` declares, as far as the manifest owns it.
pub fn plan(desired: &Desired, live: &Live, data: Data) -> Result<Plan, Vec<Conflict>> {
    let mut changes = Vec::new();
    let mut removals = Vec::new();
    let mut conflicts = Vec::new();
    let owner = &desired.name;

    // Both maps are ordered by key, so that one walk sees each key once and no lookup is made.
    let mut declared = desired.records.iter().peekable();
    let mut held = live.records.iter().peekable();
    loop {
        let order = match (declared.peek(), held.peek()) {
            (Some((d, _)), Some((h, _))) => d.cmp(h),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (None, None) => break,
        };
        let wanted = if order.is_le() { declared.next() } else { None };
        let have = if order.is_ge() { held.next() } else { None };
        match (wanted, have) {
            (Some((key, wanted)), None) => changes.push(create(key, wanted)),
            (None, Some((key, have))) => removals.extend(remove(owner, key, have, data)),
            (Some((key, wanted)), Some((_, have))) => match update(owner, key, wanted, have) {
                Ok(change) => changes.extend(change),
                Err(conflict) => conflicts.push(*conflict),
            },
            (None, None) => {}
        }
    }
    if !conflicts.is_empty() {
        return Err(conflicts);
    }
    removals.reverse();
    changes.append(&mut removals);

    let known = live.manifests.get(owner);
    Ok(Plan {
        manifest: owner.clone(),
        declared: desired.manifest.clone(),
        base: Base {
            epoch: live.epoch.clone(),
            revision: live.revision,
            manifest_revision: known.map_or(0, |manifest| manifest.modify_revision),
        },
        owners_before: known
            .filter(|manifest| manifest.owners != desired.manifest.owners)
            .map(|manifest| manifest.owners.clone()),
        changes,
        exchanges: exchanges(desired, live),
    })
}

fn create(key: &RecordKey, wanted: &Declared) -> Change {
    Change {
        key: key.clone(),
        action: Action::Create,
        ownership: Ownership::Kept,
        base_revision: 0,
        before: None,
        after: Some(wanted.record.clone()),
        file: Some(wanted.location.file.to_string()),
    }
}

fn update(
    owner: &ManifestName,
    key: &RecordKey,
    wanted: &Declared,
    have: &LiveRecord,
) -> Result<Option<Change>, Box<Conflict>> {
    let ownership = match &have.owner {
        Some(holder) if holder == owner => Ownership::Kept,
        Some(holder) => {
            return Err(Box::new(Conflict {
                key: key.clone(),
                claimant: owner.clone(),
                holder: holder.clone(),
                location: wanted.location.clone(),
                held_in: have.file.clone(),
            }));
        }
        None => Ownership::Adopted,
    };
    if ownership == Ownership::Kept && wanted.record == have.record {
        return Ok(None);
    }
    Ok(Some(Change {
        key: key.clone(),
        action: Action::Update,
        ownership,
        base_revision: have.modify_revision,
        before: Some(have.record.clone()),
        after: Some(wanted.record.clone()),
        file: Some(wanted.location.file.to_string()),
    }))
}

fn remove(owner: &ManifestName, key: &RecordKey, have: &LiveRecord, data: Data) -> Option<Change> {
    if have.owner.as_ref() != Some(owner) {
        return None;
    }
    let action = match (key.kind(), data) {
        (Kind::Volume, Data::Keep) => Action::Forget,
        _ => Action::Delete,
    };
    Some(Change {
        key: key.clone(),
        action,
        ownership: Ownership::Kept,
        base_revision: have.modify_revision,
        before: Some(have.record.clone()),
        after: None,
        file: None,
    })
}

/// Declared links without trust: new, left half made, or given up by the peer; and public ones that pin something else
/// than is declared.
fn exchanges(desired: &Desired, live: &Live) -> Vec<LinkName> {
    let links = desired.records.iter().filter_map(|(key, declared)| match (key, &declared.record) {
        (RecordKey::ClusterLink(name), Record::ClusterLink(link)) => Some((name, link)),
        _ => None,
    });
    links
        .filter(|(name, link)| live.links.get(name).is_none_or(|live| !is_made(link, live)))
        .map(|(name, _)| name.clone())
        .collect()
}

fn is_made(link: &ClusterLink, live: &LiveLink) -> bool {
    let made = match live.state {
        LinkState::Pending | LinkState::Terminated => false,
        LinkState::Establishing | LinkState::Active | LinkState::Failing | LinkState::Deleting => true,
    };
    let pins = link.kind != LinkType::Public
        || (live.peer_fingerprint == link.fingerprint && live.addresses.iter().eq(&link.address));
    made && pins
}
