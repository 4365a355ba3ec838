//! Changing an instance that is registered: as it is at that moment, and again if somebody else was quicker.

use std::time::Duration;

use schema::kind::service::Service;
use schema::name::{InstanceId, ServiceName};
use schema::record::{Record, RecordKey};

use super::seen;
use crate::api::ApiState;
use crate::api::consul::answer::ConsulError;
use crate::apply::{ApplyError, Edit};
use crate::authorize::Permit;

/// Others that may be quicker, one after the other, before a caller is told to come back.
const TRIES: usize = 8;
/// How long what somebody else committed may take to be seen.
const SEEN_WITHIN: Duration = Duration::from_secs(1);

/// Makes of the instance what `make` says, given what it is.
pub async fn change(
    state: &ApiState,
    permit: &Permit,
    name: &ServiceName,
    id: &InstanceId,
    make: impl Fn(Option<&Service>) -> Result<Service, ConsulError>,
) -> Result<(), ConsulError> {
    let mut views = state.catalog.subscribe();
    for _ in 0..TRIES {
        let view = views.borrow_and_update().clone();
        let known = view.instances(name).and_then(|instances| instances.get(id));
        let service = make(known.map(|known| &*known.service))?;
        let key = RecordKey::instance(name.clone(), id.clone());
        let edit = Edit::put(key, Record::Service(service.clone()));
        let edit = edit.only_at(known.map_or(0, |known| known.modified.0));
        match state.apply.edit(permit, vec![edit]).await {
            Ok(_) => {
                seen(state, name, id, Some(&service)).await;
                return Ok(());
            }
            Err(ApplyError::Moved(_)) => {
                // What moved it is on its way here.
                let _ = tokio::time::timeout(SEEN_WITHIN, views.changed()).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
    let message = format!("service ID {:?} is being changed by others: try again", id.as_str());
    Err(ConsulError::refused(message))
}
