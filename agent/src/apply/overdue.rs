//! Deregistering instances that have been critical for as long as they declare that they may be.

use std::sync::Arc;

use schema::plan::Data;
use schema::record::RecordKey;

use super::{Apply, ApplyError, Edit};
use crate::authorize::{Entitlement, Entity, decide};
use crate::health::{CheckPlace, Health, Status};
use crate::task::Tasks;
use crate::trust::identity::Identities;
use crate::trust::{Caller, Origin, Who};

/// Deregisters what `health` names, until `tasks` end.
pub fn start(apply: &Arc<Apply>, health: &Arc<Health>, identities: &Arc<Identities>, tasks: &Tasks) {
    let Some(mut overdue) = health.take_overdue() else { return };
    let (apply, health, identities) = (Arc::clone(apply), Arc::clone(health), Arc::clone(identities));
    let ending = tasks.ending();
    tasks.spawn("overdue", async move {
        loop {
            let named = tokio::select! {
                () = ending.cancelled() => return,
                named = overdue.recv() => named,
            };
            let Some(place) = named else { return };
            deregister(&apply, &health, &identities, place).await;
        }
    });
}

/// Whoever registered it has asked for it, so this is done by nobody else's right than the agent's own.
pub(super) async fn deregister(
    apply: &Arc<Apply>,
    health: &Health,
    identities: &Identities,
    place: CheckPlace,
) {
    let CheckPlace { service, instance, check } = place;
    // It may have come round while this waited.
    if health.instance(&service, &instance).status < Status::Critical {
        return;
    }
    let uid = rustix::process::geteuid().as_raw();
    let origin = Origin { request: uuid::Uuid::new_v4(), address: None, session: None };
    let agent = Caller { who: Who::Local { uid }, origin, shown: None };
    let entity = Entity::Service(service.clone());
    let permit = match decide(&agent, Entitlement::CanDelete, entity, &identities.policy()) {
        Ok(permit) => permit,
        Err(denied) => return tracing::error!(%denied, "an overdue instance cannot be deregistered"),
    };
    let key = RecordKey::instance(service.clone(), instance.clone());
    match apply.edit(&permit, vec![Edit::delete(key, Data::Keep)]).await {
        Ok(_) => {
            tracing::warn!(%service, %instance, check = &*check, "deregistered: its check was critical for too long");
        }
        Err(ApplyError::Owned(_, manifest)) => tracing::warn!(
            %service, %instance, check = &*check, manifest = manifest.as_str(),
            "critical for too long, but a manifest declares it: it stays"
        ),
        Err(error) => {
            tracing::error!(%service, %instance, %error, "an overdue instance could not be deregistered");
        }
    }
}
