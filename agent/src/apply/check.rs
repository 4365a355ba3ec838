//! What a plan must be to be believed: pure checks of it, and of it against the records as they are.

use std::collections::{BTreeMap, HashSet};

use schema::kind::cluster_link::ClusterLink;
use schema::name::{GroupName, LinkName};
use schema::plan::{Action, Change, Data, Ownership, Plan};
use schema::record::{LiveRecord, Record, RecordKey};

use super::draft::Write;
use super::{ApplyError, Edit, content};
use crate::store::Revision;
use crate::store::value::Declared;
use crate::trust::policy::admins;

/// Most changes in one commit.
pub const MAX_CHANGES: usize = 250_000;

/// Whether the plan makes sense by itself.
pub fn shape(plan: &Plan, destroy_data: bool) -> Result<(), ApplyError> {
    if plan.changes.len() > MAX_CHANGES {
        return Err(ApplyError::TooLarge(plan.changes.len(), MAX_CHANGES));
    }
    let mut seen = HashSet::with_capacity(plan.changes.len());
    for change in &plan.changes {
        let fault = |why| Err(ApplyError::Malformed(change.key.clone(), why));
        if !seen.insert(&change.key) {
            return fault("it is changed twice");
        }
        if change.after.as_ref().is_some_and(|record| !record.fits(&change.key)) {
            return fault("its content is of another kind");
        }
        if let Some(Err(why)) = change.after.as_ref().map(content::check) {
            return fault(why);
        }
        let is_volume = matches!(change.key, RecordKey::Volume { .. });
        match (change.action, &change.after, change.base_revision) {
            (Action::Delete, None, 1..) if is_volume && !destroy_data => {
                return Err(ApplyError::NoConsent(change.key.entry_name()));
            }
            (Action::Create, Some(_), 0) | (Action::Update, Some(_), 1..) | (Action::Delete, None, 1..) => {}
            (Action::Forget, None, 1..) if is_volume => {}
            _ => return fault("its action, content and base do not fit together"),
        }
    }
    Ok(())
}

/// What a change does to a volume's data.
pub fn data(change: &Change) -> Data {
    if change.action == Action::Delete { Data::Destroy } else { Data::Keep }
}

/// Whether the plan's records are still what it was made against, and its manifest's to change.
pub fn against(plan: &Plan, current: &BTreeMap<RecordKey, LiveRecord>) -> Result<(), ApplyError> {
    let mut moved = Vec::new();
    for change in &plan.changes {
        let have = current.get(&change.key);
        if let Some(LiveRecord { owner: Some(holder), .. }) = have
            && *holder != plan.manifest
        {
            return Err(ApplyError::Owned(change.key.clone(), holder.clone()));
        }
        if have.map_or(0, |have| have.modify_revision) != change.base_revision {
            moved.push(change.key.address());
            continue;
        }
        if retyped(have.map(|have| &have.record), change.after.as_ref()) {
            return Err(ApplyError::Malformed(change.key.clone(), RETYPED));
        }
        let unowned = have.is_some_and(|have| have.owner.is_none());
        if unowned && change.after.is_none() {
            return Err(ApplyError::Malformed(change.key.clone(), "no manifest owns it, so none prunes it"));
        }
        if unowned && change.ownership != Ownership::Adopted {
            return Err(ApplyError::Malformed(
                change.key.clone(),
                "it is adopted, and the plan does not say so",
            ));
        }
    }
    moved.dedup();
    if moved.is_empty() { Ok(()) } else { Err(ApplyError::Moved(moved)) }
}

/// Why the trust that was made for one type cannot become another's.
const RETYPED: &str = "a link's type cannot change: remove the link, apply that, and declare it anew";

/// Whether a link would become one of another type, or the other side of a one-way link.
fn retyped(before: Option<&Record>, after: Option<&Record>) -> bool {
    match (before, after) {
        (Some(Record::ClusterLink(before)), Some(Record::ClusterLink(after))) => {
            before.kind != after.kind || before.is_called() != after.is_called()
        }
        _ => false,
    }
}

/// The writes that `edits` come to, given the records as they are.
pub fn edits(edits: Vec<Edit>, current: &BTreeMap<RecordKey, LiveRecord>) -> Result<Vec<Write>, ApplyError> {
    let mut seen = HashSet::new();
    let mut moved = Vec::new();
    let mut writes = Vec::new();
    for Edit { key, to, base, data } in edits {
        if !seen.insert(key.clone()) {
            return Err(ApplyError::Malformed(key, "it is changed twice"));
        }
        if to.as_ref().is_some_and(|record| !record.fits(&key)) {
            return Err(ApplyError::Malformed(key, "its content is of another kind"));
        }
        if let Some(Err(why)) = to.as_ref().map(content::check) {
            return Err(ApplyError::Malformed(key, why));
        }
        let have = current.get(&key);
        let revision = have.map_or(0, |have| have.modify_revision);
        if base.is_some_and(|base| base != revision) {
            moved.push(key.address());
            continue;
        }
        if have.map(|have| &have.record) == to.as_ref() {
            continue;
        }
        if let Some(LiveRecord { owner: Some(holder), .. }) = have {
            return Err(ApplyError::Owned(key, holder.clone()));
        }
        if retyped(have.map(|have| &have.record), to.as_ref()) {
            return Err(ApplyError::Malformed(key, RETYPED));
        }
        let after = to.map(Declared::by_hand);
        writes.push(Write { key, base: Revision(revision), after, data });
    }
    if moved.is_empty() { Ok(writes) } else { Err(ApplyError::Moved(moved)) }
}

/// Whether every link that is written has its groups afterwards, and every group that goes is free of links.
pub fn groups(
    writes: &[Write],
    groups: &BTreeMap<RecordKey, LiveRecord>,
    links: &BTreeMap<RecordKey, LiveRecord>,
) -> Result<(), ApplyError> {
    let admins = admins();
    let mut groups: HashSet<&GroupName> = groups
        .keys()
        .filter_map(|key| if let RecordKey::AuthGroup(name) = key { Some(name) } else { None })
        .chain([&admins])
        .collect();
    if writes.iter().any(|write| matches!(&write.key, RecordKey::AuthGroup(name) if *name == admins)) {
        return Err(ApplyError::BuiltIn(admins));
    }
    let mut links: BTreeMap<&LinkName, &ClusterLink> =
        links.iter().filter_map(|(key, live)| link(key, Some(&live.record))).collect();
    let (mut gone, mut written) = (HashSet::new(), Vec::new());
    for write in writes {
        let record = write.after.as_ref().map(|after| &after.record);
        match (&write.key, record) {
            (RecordKey::AuthGroup(name), Some(_)) => _ = groups.insert(name),
            (RecordKey::AuthGroup(name), None) => {
                groups.remove(name);
                gone.insert(name);
            }
            (RecordKey::ClusterLink(name), None) => _ = links.remove(name),
            (key, record) => {
                if let Some((name, link)) = link(key, record) {
                    links.insert(name, link);
                    written.push((name, link));
                }
            }
        }
    }
    for (name, link) in written {
        if let Some(group) = link.auth_groups.iter().find(|group| !groups.contains(group)) {
            return Err(ApplyError::NoSuchGroup { link: name.clone(), group: group.clone() });
        }
    }
    for (name, link) in links {
        if let Some(group) = link.auth_groups.iter().find(|group| gone.contains(group)) {
            return Err(ApplyError::GroupInUse { group: group.clone(), link: name.clone() });
        }
    }
    Ok(())
}

fn link<'a>(key: &'a RecordKey, record: Option<&'a Record>) -> Option<(&'a LinkName, &'a ClusterLink)> {
    match (key, record) {
        (RecordKey::ClusterLink(name), Some(Record::ClusterLink(link))) => Some((name, link)),
        _ => None,
    }
}
