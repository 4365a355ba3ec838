//! Taking an instance out of service: nothing that is declared, and yet kept, so that a restart of the agent sends
//! nobody to an instance that is being repaired.

use std::sync::Arc;

use schema::name::InstanceId;
use schema::record::RecordKey;
use serde::{Deserialize, Serialize};

use super::{Apply, ApplyError};
use crate::audit::{Action, Record as Told, Writes};
use crate::authorize::Permit;
use crate::catalog::Catalog;
use crate::health::Health;
use crate::store::{Guard, Op, Store, StoreError, Txn, keys, value};

/// What a `/maintenance/` key holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct OutOfService {
    reason: String,
}

impl Apply {
    /// Takes `instance` out of service for `reason`, or back into it. `permit` is to edit its service.
    pub async fn maintain(
        self: &Arc<Self>,
        permit: &Permit,
        instance: RecordKey,
        reason: Option<String>,
    ) -> Result<(), ApplyError> {
        let (this, permit) = (Arc::clone(self), permit.clone());
        let work = async move { this.maintain_now(&permit, &instance, reason).await };
        self.whole("maintain", work).await?
    }

    async fn maintain_now(
        &self,
        permit: &Permit,
        instance: &RecordKey,
        reason: Option<String>,
    ) -> Result<(), ApplyError> {
        let Some((_, id)) = instance.as_instance() else { return Err(ApplyError::NotPermitted) };
        let _turn = self.turn.lock().await;
        let declared = keys::declared(instance);
        let Some(entry) = self.store.get(&declared).await? else {
            return Err(ApplyError::Moved(vec![instance.address()]));
        };
        let key = keys::maintenance(&id);
        let known = self.store.get(&key).await?;
        let op = match reason {
            Some(reason) => Op::Put { key, value: value::encode(&OutOfService { reason }) },
            None if known.is_none() => return Ok(()),
            None => Op::Delete { key },
        };
        let guard = Guard { key: declared, modify_revision: entry.modify_revision };
        let txn = Txn { guards: vec![guard], ops: vec![op] };
        let written = Writes::of(&txn);
        let revision = self.store.commit(txn).await.map_err(ApplyError::Commit)?;
        let told = Told::new(permit.caller(), Action::Edited, jiff::Timestamp::now());
        self.audit.record(told.committed(written, revision).with("instance", id.as_str()));
        Ok(())
    }
}

/// Tells `health` who was out of service when the agent last ran.
pub async fn restore(store: &dyn Store, catalog: &Catalog, health: &Health) -> Result<(), StoreError> {
    for (id, reason) in out_of_service(store).await? {
        let service = catalog.view().instance(&id).map(|(service, _)| service);
        if let Some(service) = service {
            health.set_maintenance(&service, &id, Some(reason.into())).await;
        }
    }
    Ok(())
}

/// Every instance that is out of service, with the reason.
async fn out_of_service(store: &dyn Store) -> Result<Vec<(InstanceId, String)>, StoreError> {
    let mut found = Vec::new();
    for entry in store.range(keys::MAINTENANCE).await?.entries {
        let id = keys::last_part(&entry.key).parse::<InstanceId>();
        match (id, value::decode::<OutOfService>(&entry)) {
            (Ok(id), Ok(out)) => found.push((id, out.reason)),
            (Ok(id), Err(error)) => {
                // Why is lost; that it is out of service is not.
                tracing::error!(%error, "the reason of a maintenance cannot be read");
                found.push((id, String::new()));
            }
            (Err(_), _) => tracing::error!(key = entry.key, "not the id of an instance"),
        }
    }
    Ok(found)
}
