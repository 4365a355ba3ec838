//! HTTP permissions mean something only where HTTP is spoken: Consul's rule across entries, kept at each commit.

use std::collections::{BTreeMap, BTreeSet};

use schema::kind::service_defaults::Protocol;
use schema::name::ServiceName;
use schema::record::{Record, RecordKey, ServiceMatch};

use super::draft::Write;
use super::{Apply, ApplyError};
use crate::observe;
use crate::store::keys;

impl Apply {
    /// Whether every destination whose sources have permissions speaks HTTP or what is carried by it, once `writes`
    /// are made. Both ways: a source that is written, and a protocol that is.
    pub(super) async fn check_protocols(&self, writes: &[Write]) -> Result<(), ApplyError> {
        let spoken: BTreeMap<&ServiceName, Protocol> = writes
            .iter()
            .filter_map(|write| match &write.key {
                RecordKey::ServiceDefaults(service) => {
                    let record = write.after.as_ref().map(|after| &after.record);
                    Some((service, protocol(record)))
                }
                _ => None,
            })
            .collect();
        let mut asking: BTreeSet<&ServiceName> =
            writes.iter().filter(|write| asks(write)).filter_map(|write| destination(&write.key)).collect();
        for (service, protocol) in &spoken {
            if !protocol.is_http_like() && self.goes_on_asking(service, writes).await? {
                asking.insert(service);
            }
        }
        for service in asking {
            let protocol = if let Some(protocol) = spoken.get(service) {
                *protocol
            } else {
                let stored =
                    self.store.get(&keys::declared(&RecordKey::ServiceDefaults(service.clone()))).await?;
                let live = stored.as_ref().map(observe::record).transpose()?;
                protocol(live.as_ref().map(|(_, live)| &live.record))
            };
            if !protocol.is_http_like() {
                return Err(ApplyError::Protocol { service: service.clone(), protocol });
            }
        }
        Ok(())
    }

    /// Whether a source of `service` that `writes` leave as it is has permissions.
    async fn goes_on_asking(&self, service: &ServiceName, writes: &[Write]) -> Result<bool, ApplyError> {
        let entry = RecordKey::IntentionEntry(ServiceMatch::Named(service.clone()));
        for found in self.store.range(&keys::parts_of(&entry)).await?.entries {
            let (key, live) = observe::record(&found)?;
            if has_permissions(&live.record) && !writes.iter().any(|write| write.key == key) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn protocol(defaults: Option<&Record>) -> Protocol {
    match defaults {
        Some(Record::ServiceDefaults(defaults)) => defaults.protocol.unwrap_or_default(),
        _ => Protocol::default(),
    }
}

fn asks(write: &Write) -> bool {
    write.after.as_ref().is_some_and(|after| has_permissions(&after.record))
}

fn has_permissions(record: &Record) -> bool {
    matches!(record, Record::ServiceIntentions(source) if !source.permissions.is_empty())
}

/// A destination that has a protocol: `*` has none, and takes no permissions.
fn destination(key: &RecordKey) -> Option<&ServiceName> {
    match key {
        RecordKey::Intention { destination: ServiceMatch::Named(service), .. } => Some(service),
        _ => None,
    }
}
