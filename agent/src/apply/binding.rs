//! Who a manifest belongs to.
//!
//! A manifest is bound on its first apply, so that nobody else takes its name over by using it, by intent or by
//! accident. Besides the identity it is bound to, the groups that it lists as owners may apply it: as stored, so
//! that nobody lets himself in with the very plan. The machine's own administrator always may: he can open the
//! store, and someone must be able to take over from a lost key.

use schema::name::{GroupName, ManifestName};

use super::ApplyError;
use crate::observe::{Binding, ManifestRecord};
use crate::trust::{Access, Caller};

/// What a manifest first applied by `caller` is bound to.
pub fn of(caller: &Caller) -> Option<Binding> {
    Some(match caller {
        Caller::Local { .. } => Binding::Local,
        Caller::Client { fingerprint, name, .. } => {
            Binding::Client { fingerprint: *fingerprint, name: name.clone() }
        }
        Caller::Peer { link, .. } => Binding::Link { link: link.clone() },
        Caller::Anonymous { .. } => return None,
    })
}

/// Whether `caller` may apply the manifest that `record` is of.
pub fn check(name: &ManifestName, record: &ManifestRecord, caller: &Caller) -> Result<(), ApplyError> {
    let groups: &[GroupName] = match caller {
        Caller::Local { .. } => return Ok(()),
        Caller::Client { access: Access::Groups(groups), .. } | Caller::Peer { groups, .. } => groups,
        Caller::Client { access: Access::Unrestricted, .. } | Caller::Anonymous { .. } => &[],
    };
    let is_bound = match (&record.bound_to, caller) {
        // The name is for messages; it can be given anew to someone else.
        (Binding::Client { fingerprint: bound, .. }, Caller::Client { fingerprint, .. }) => {
            bound == fingerprint
        }
        (Binding::Link { link: bound }, Caller::Peer { link, .. }) => bound == link,
        _ => false,
    };
    if is_bound || record.declared.owners.iter().any(|owner| groups.contains(owner)) {
        return Ok(());
    }
    Err(ApplyError::Bound {
        manifest: name.to_string(),
        bound_to: record.bound_to.clone(),
        owners: record.declared.owners.clone(),
    })
}

#[cfg(test)]
mod tests {
    use schema::kind::manifest::Manifest;

    use super::*;
    use crate::trust::Fingerprint;

    #[test]
    fn the_identity_its_owners_and_the_administrator_may() {
        let client = |byte, access| Caller::Client {
            fingerprint: Fingerprint([byte; 32]),
            name: "laptop".to_owned(),
            access,
        };
        let group = |name: &str| -> GroupName { name.parse().unwrap() };
        let name = "shop".parse().unwrap();
        let record = ManifestRecord {
            declared: Manifest { owners: vec![group("ops")], ..Manifest::default() },
            bound_to: of(&client(1, Access::Unrestricted)).unwrap(),
        };
        let may = |caller: &Caller| check(&name, &record, caller).is_ok();
        assert!(may(&client(1, Access::Unrestricted)));
        assert!(may(&client(2, Access::Groups(vec![group("ops")]))));
        assert!(may(&Caller::Local { uid: 0 }));
        assert!(!may(&client(2, Access::Groups(vec![group("dev")]))));
        let error = check(&name, &record, &client(2, Access::Unrestricted)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "manifest \"shop\" belongs to client laptop, who first applied it, and to its owners: ops"
        );
        assert!(of(&Caller::Anonymous { certificate: None }).is_none());
    }
}
