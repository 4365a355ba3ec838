//! What refers to a project by its name, rewritten in the commit that renames or deletes it.

use schema::kind::auth_group::Fate;
use schema::name::ProjectName;
use schema::record::Record;

use super::ProjectError;
use crate::store::value::{Declared, decode, encode};
use crate::store::{Entry, Guard, Op, Store, Txn, keys};
use crate::trust::Access;
use crate::trust::identity::IdentityRecord;

const GROUPS: &str = "/declared/auth_group/";

/// Adds to `txn` what makes permissions and restricted clients refer to `to` in place of `from`, or to nothing.
/// What cannot be read refers to nothing.
pub async fn rewrite(
    store: &dyn Store,
    txn: &mut Txn,
    from: &ProjectName,
    to: Option<&ProjectName>,
) -> Result<(), ProjectError> {
    for entry in store.range(GROUPS).await?.entries {
        if let Ok(group) = decode::<Declared>(&entry)
            && let Some(group) = of_group(group, from, to)
        {
            put(txn, entry, encode(&group));
        }
    }
    for entry in store.range(keys::IDENTITY).await?.entries {
        if let Ok(identity) = decode::<IdentityRecord>(&entry)
            && let Some(identity) = of_identity(identity, from, to)
        {
            put(txn, entry, encode(&identity));
        }
    }
    Ok(())
}

fn put(txn: &mut Txn, entry: Entry, value: Vec<u8>) {
    txn.guards.push(Guard { key: entry.key.clone(), modify_revision: entry.modify_revision });
    txn.ops.push(Op::Put { key: entry.key, value });
}

/// The group with its permissions rewritten; `None` if none of them refers to the project.
fn of_group(mut declared: Declared, from: &ProjectName, to: Option<&ProjectName>) -> Option<Declared> {
    // What a manifest says is its files' to change.
    let (None, Record::AuthGroup(group)) = (&declared.owner, &mut declared.record) else { return None };
    let found = group.rewrite(|permission| {
        let mut refers = false;
        if permission.project.as_deref() == Some(from.as_str()) {
            refers = true;
            permission.project = to.map(ToString::to_string);
        }
        if permission.entity_type == "project" && permission.entity.as_deref() == Some(from.as_str()) {
            refers = true;
            permission.entity = to.map(ToString::to_string);
        }
        match (refers, to) {
            (false, _) => Fate::Stays,
            (true, Some(_)) => Fate::Moves,
            (true, None) => Fate::Goes,
        }
    });
    found.then_some(declared)
}

fn of_identity(
    mut identity: IdentityRecord,
    from: &ProjectName,
    to: Option<&ProjectName>,
) -> Option<IdentityRecord> {
    let Access::Projects(projects) = &mut identity.access else { return None };
    let at = projects.iter().position(|project| project == from)?;
    match to {
        Some(to) => projects[at] = to.clone(),
        None => drop(projects.remove(at)),
    }
    Some(identity)
}

#[cfg(test)]
mod tests {
    use schema::kind::auth_group::{AuthGroup, Permission};

    use super::*;

    fn permission(entity_type: &str, entity: Option<&str>, project: Option<&str>) -> Permission {
        Permission {
            entity_type: entity_type.to_owned(),
            entitlement: "can_view".to_owned(),
            entity: entity.map(str::to_owned),
            project: project.map(str::to_owned),
            pool: None,
        }
    }

    #[test]
    fn permissions_on_a_project_follow_it_and_go_with_it() {
        let (blah, new): (ProjectName, ProjectName) = ("blah".parse().unwrap(), "new".parse().unwrap());
        let permissions = vec![
            permission("project", Some("blah"), None),
            permission("instance", Some("blah"), Some("blah")),
            permission("instance", Some("blah"), Some("default")),
            permission("server", None, None),
        ];
        let group = AuthGroup { permissions, ..AuthGroup::default() };
        let declared = Declared::by_hand(Record::AuthGroup(group));
        let permissions = |to| match of_group(declared.clone(), &blah, to).unwrap().record {
            Record::AuthGroup(group) => group.permissions,
            _ => Vec::new(),
        };
        assert_eq!(permissions(None).len(), 2);
        let renamed = permissions(Some(&new));
        assert_eq!(renamed.len(), 4);
        assert!(renamed.contains(&permission("project", Some("new"), None)));
        assert!(renamed.contains(&permission("instance", Some("blah"), Some("new"))));
        assert!(of_group(declared, &new, None).is_none());
    }
}
