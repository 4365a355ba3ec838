//! A sameness group stays while something names it: an export to it would end, and a source that it denies would not be
//! denied any more, without anybody having said so; an upstream to it would lead nowhere.

use std::collections::{BTreeMap, BTreeSet};

use schema::kind::Kind;
use schema::kind::exported_services::Consumer;
use schema::name::SamenessGroupName;
use schema::origin::Origin;
use schema::record::{Record, RecordKey};

use super::draft::Write;
use super::{Apply, ApplyError};
use crate::observe;
use crate::store::keys;

/// The kinds whose records may name a group.
const NAMING: [Kind; 3] = [Kind::Service, Kind::ExportedServices, Kind::ServiceIntentions];

impl Apply {
    /// Whether nothing names the groups that `writes` delete, once all of these are made.
    pub(super) async fn check_sameness_groups(&self, writes: &[Write]) -> Result<(), ApplyError> {
        let gone: BTreeSet<&SamenessGroupName> = writes
            .iter()
            .filter_map(|write| match (&write.key, &write.after) {
                (RecordKey::SamenessGroup(name), None) => Some(name),
                _ => None,
            })
            .collect();
        if gone.is_empty() {
            return Ok(());
        }
        let written: BTreeMap<&RecordKey, Option<&Record>> = writes
            .iter()
            .map(|write| (&write.key, write.after.as_ref().map(|after| &after.record)))
            .collect();
        let check = |key: &RecordKey, record: &Record, owner| match gone
            .iter()
            .find(|group| names(key, record, group))
        {
            Some(group) => Err(ApplyError::SamenessGroupInUse {
                group: (*group).clone(),
                by: Box::new(key.clone()),
                owner,
            }),
            None => Ok(()),
        };
        for (key, record) in &written {
            if let Some(record) = record {
                check(key, record, None)?;
            }
        }
        for kind in NAMING {
            for entry in self.store.range(&keys::declared_kind(kind)).await?.entries {
                let (key, live) = observe::record(&entry)?;
                if !written.contains_key(&key) {
                    check(&key, &live.record, live.owner)?;
                }
            }
        }
        Ok(())
    }
}

fn names(key: &RecordKey, record: &Record, group: &SamenessGroupName) -> bool {
    match (key, record) {
        (RecordKey::Intention { origin: Origin::Group(named), .. }, _) => named == group,
        (_, Record::ExportedServices(export)) => export
            .consumers
            .iter()
            .any(|consumer| matches!(consumer, Consumer::Group(named) if named == group)),
        (_, Record::Service(service)) => {
            service.upstreams.iter().any(|upstream| upstream.sameness_group.as_ref() == Some(group))
        }
        _ => false,
    }
}
