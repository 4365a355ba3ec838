//! Whether a record says what a declaration could say: normalised, so that the plan after it is empty, and within
//! the bounds that those who act on it count on.
//!
//! Plans come normalised from `schema`; this is for what comes past it. Rejected: rendering each record as a
//! declaration and reading that, which checks everything, but makes each apply pay for the parser.

use schema::kind::auth_group::{Permission, entitlements};
use schema::kind::service::{self, Service};
use schema::kind::service_intentions::Action;
use schema::record::Record;

/// Largest stored record, bytes.
pub const MAX_RECORD: usize = 512 * 1024;

/// Longest path of a declaring file that is kept, bytes.
const MAX_FILE: usize = 256;

/// The path of the file that declared a record, as it is kept: for people, so one that is too long loses its beginning.
pub fn file_name(path: &str) -> String {
    let shown: String = path.chars().filter(|c| !c.is_control()).collect();
    let from = shown.len().saturating_sub(MAX_FILE);
    let from = (from..=shown.len()).find(|at| shown.is_char_boundary(*at)).unwrap_or(shown.len());
    shown[from..].to_owned()
}

/// The first thing that is wrong with `record`.
pub fn check(record: &Record) -> Result<(), &'static str> {
    match record {
        Record::AuthGroup(group) => {
            rising(&group.permissions)?;
            let known = |p: &Permission| entitlements::is_known(&p.entity_type, &p.entitlement);
            if group.permissions.iter().all(known) { Ok(()) } else { Err("LXD knows no such permission") }
        }
        Record::ClusterLink(link) => rising(&link.auth_groups),
        Record::Service(service) => check_service(service),
        Record::ExportedServices(export) if export.consumers.is_empty() => Err("an export has consumers"),
        Record::ExportedServices(export) => rising(&export.consumers),
        Record::ServiceIntentions(rule) if !rule.permissions.is_empty() && rule.action == Action::Allow => {
            Err("an intention with permissions has no action")
        }
        Record::SamenessGroup(group) => {
            let mut seen = std::collections::BTreeSet::new();
            if group.members.iter().all(|member| seen.insert(member)) {
                Ok(())
            } else {
                Err("a member of it is named twice")
            }
        }
        Record::ServiceIntentions(_)
        | Record::ServiceDefaults(_)
        | Record::ExportEntry(_)
        | Record::IntentionEntry(_)
        | Record::Volume(_)
        | Record::Transfer(_) => Ok(()),
    }
}

/// Sorted and without duplicates.
fn rising<T: Ord>(list: &[T]) -> Result<(), &'static str> {
    if list.is_sorted_by(|a, b| a < b) { Ok(()) } else { Err("a list in it is not normalised") }
}

fn check_service(service: &Service) -> Result<(), &'static str> {
    let mut normal = service.clone();
    service::normalise(&mut normal);
    if normal != *service {
        return Err("a list in it is not normalised");
    }
    service::validate(service)
}

#[cfg(test)]
mod tests {
    use schema::kind::auth_group::AuthGroup;
    use schema::kind::exported_services::Export;

    use super::*;

    #[test]
    fn what_no_declaration_says_is_refused() {
        let permission = |entity_type: &str, entitlement: &str| Permission {
            entity_type: entity_type.to_owned(),
            entitlement: entitlement.to_owned(),
            entity: None,
            project: None,
            pool: None,
        };
        let group = |permissions| Record::AuthGroup(AuthGroup { permissions, ..AuthGroup::default() });
        let view = permission("server", "can_view_metrics");
        assert_eq!(check(&group(vec![view.clone()])), Ok(()));
        assert!(check(&group(vec![view.clone(), view])).is_err());
        assert!(check(&group(vec![permission("server", "can_do_anything")])).is_err());
        assert!(check(&Record::ExportedServices(Export::default())).is_err());

        let service = |text: &str| check(&Record::Service(serde_json::from_str(text).unwrap()));
        assert_eq!(service(r#"{"port":1,"tags":["a","b"]}"#), Ok(()));
        assert!(service(r#"{"port":1,"tags":["b","a"]}"#).is_err());
        assert!(service(r#"{"checks":[{"tcp":"a:1","interval_ms":0,"timeout_ms":100}]}"#).is_err());
        let upstream = |address: &str| {
            service(&format!(
                r#"{{"upstreams":[{{"destination_name":"b","local_bind_address":"{address}","local_bind_port":1}}]}}"#
            ))
        };
        assert_eq!(upstream("127.0.0.2"), Ok(()));
        assert!(upstream("0.0.0.0").is_err());
    }
}
