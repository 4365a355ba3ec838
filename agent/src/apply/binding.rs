//! Who a manifest belongs to.
//!
//! A manifest is bound on its first apply, so that nobody else takes its name over by using it, by intent or by
//! accident. Besides the identity it is bound to, the groups that it lists as owners may apply it: as stored, so
//! that nobody lets himself in with the very plan. The machine's own administrator always may: he can open the
//! store, and someone must be able to take over from a lost key.

use schema::name::ManifestName;

use super::ApplyError;
use crate::observe::{Binding, ManifestRecord};
use crate::trust::{Caller, Who};

/// What a manifest first applied by `caller` is bound to.
pub fn of(caller: &Caller) -> Option<Binding> {
    Some(match &caller.who {
        Who::Local { .. } => Binding::Local,
        Who::Client { id, name, .. } => Binding::Client { id: id.clone(), name: name.clone() },
        // Should it come into the store one day, it is the same client.
        Who::Signed { fingerprint, name } => {
            Binding::Client { id: (*fingerprint).into(), name: name.clone() }
        }
        Who::Peer { link, .. } => Binding::Link { link: link.clone() },
        Who::Metrics { .. } | Who::Node { .. } | Who::Anonymous { .. } => return None,
    })
}

/// Whether `caller` may apply the manifest that `record` is of.
pub fn check(name: &ManifestName, record: &ManifestRecord, caller: &Caller) -> Result<(), ApplyError> {
    if matches!(caller.who, Who::Local { .. }) {
        return Ok(());
    }
    let is_bound = match (&record.bound_to, &caller.who) {
        // The name is for messages; it can be given anew to someone else.
        (Binding::Client { id: bound, .. }, Who::Client { id, .. }) => bound == id,
        (Binding::Client { id: bound, .. }, Who::Signed { fingerprint, .. }) => {
            bound.fingerprint() == Some(*fingerprint)
        }
        (Binding::Link { link: bound }, Who::Peer { link, .. }) => bound == link,
        _ => false,
    };
    if is_bound || record.declared.owners.iter().any(|owner| caller.groups().contains(owner)) {
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
    use schema::name::GroupName;

    use crate::trust::{Access, Fingerprint};

    #[test]
    fn the_identity_its_owners_and_the_administrator_may() {
        let client = |byte, access| -> Caller {
            let id = Fingerprint([byte; 32]).into();
            Who::Client { id, name: "laptop".to_owned(), access }.into()
        };
        let group = |name: &str| -> GroupName { name.parse().unwrap() };
        let name = "shop".parse().unwrap();
        let record = ManifestRecord {
            declared: Manifest { owners: vec![group("ops")], ..Manifest::default() },
            bound_to: of(&client(1, Access::Unrestricted)).unwrap(),
        };
        let may = |caller: &Caller| check(&name, &record, caller).is_ok();
        assert!(may(&client(1, Access::Unrestricted)));
        assert!(may(&client(2, Access::Groups(vec![group("ops")].into()))));
        assert!(may(&Caller::local(0)));
        assert!(!may(&client(2, Access::Groups(vec![group("dev")].into()))));
        let error = check(&name, &record, &client(2, Access::Unrestricted)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "manifest \"shop\" belongs to client laptop, who first applied it, and to its owners: ops"
        );
        assert!(of(&Who::Anonymous { certificate: None }.into()).is_none());
    }
}
