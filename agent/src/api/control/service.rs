//! `/control/v1/services`: what is here, what peers are offered, what they offer.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::routing::get;
use axum::{Extension, Json, Router};
use schema::kind::service::Service;
use schema::name::{LinkName, ServiceName};

use crate::api::ApiState;
use crate::api::problem::Problem;
use crate::authorize::{Entitlement, Entity, require_trust};
use crate::catalog::{CatalogView, Freshness, Instance};
use crate::health::Status;
use crate::trust::Caller;
use crate::wire::service::{ExportedRow, Health, ImportedRow, ServiceRow, UpstreamRow};

pub fn router() -> Router<ApiState> {
    Router::new()
        .route("/services", get(list))
        .route("/services/exported", get(exported))
        .route("/services/imported", get(imported))
}

/// Lists show what the caller may see and say nothing of the rest.
fn sees(state: &ApiState, caller: &Caller, entity: Entity) -> bool {
    state.permit(caller, Entitlement::CanView, entity).is_ok()
}

async fn list(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Vec<ServiceRow>>, Problem> {
    require_trust(&caller)?;
    let view = state.catalog.view();
    let mut upstreams = BTreeMap::<ServiceName, Vec<UpstreamRow>>::new();
    for row in state.mesh.upstreams() {
        upstreams.entry(row.service.clone()).or_default().push(row);
    }
    let rows = view
        .services
        .sorted()
        .into_iter()
        .filter(|(name, _)| sees(&state, &caller, Entity::Service((*name).clone())));
    let rows = rows.flat_map(|(name, instances)| {
        // Those of one service belong to all of its instances; they are shown once.
        let mut upstreams = upstreams.remove(name).unwrap_or_default();
        let row = |instance: &Instance| ServiceRow {
            service: name.clone(),
            id: instance.id.clone(),
            instance: place(&instance.service),
            status: state.health.instance(name, &instance.id).status.into(),
            upstreams: std::mem::take(&mut upstreams),
        };
        instances.iter().map(row).collect::<Vec<_>>()
    });
    Ok(Json(rows.collect()))
}

/// Where an instance takes connections, if it does.
fn place(service: &Service) -> Option<String> {
    if !service.socket_path.is_empty() {
        return Some(service.socket_path.clone());
    }
    service.port.map(|port| match service.address.as_str() {
        "" => format!("127.0.0.1:{port}"),
        // An IPv6 address needs its brackets beside a port.
        address if address.contains(':') => format!("[{address}]:{port}"),
        address => format!("{address}:{port}"),
    })
}

impl From<Status> for Health {
    fn from(status: Status) -> Self {
        match status {
            Status::Passing => Health::Passing,
            Status::Warning => Health::Warning,
            Status::Critical => Health::Critical,
            Status::Maintenance => Health::Maintenance,
        }
    }
}

async fn exported(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Vec<ExportedRow>>, Problem> {
    require_trust(&caller)?;
    let view = state.catalog.view();
    let mut rows = by_service(&view);
    // Who may see what is exported may see all of it; others, of what they may see, that it is exported.
    if !sees(&state, &caller, Entity::ExportedServices) {
        rows.retain(|row| sees(&state, &caller, Entity::Service(row.service.clone())));
    }
    Ok(Json(rows))
}

/// Each exported service with its consumers, resolved as the peers see it.
fn by_service(view: &CatalogView) -> Vec<ExportedRow> {
    let links = view.consumers();
    let mut peers = BTreeMap::<ServiceName, Vec<LinkName>>::new();
    for link in links {
        for service in view.exported_to(&link) {
            peers.entry(service).or_default().push(link.clone());
        }
    }
    peers.into_iter().map(|(service, peers)| ExportedRow { service, peers }).collect()
}

async fn imported(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Vec<ImportedRow>>, Problem> {
    require_trust(&caller)?;
    let mut rows = Vec::new();
    for (link, imported) in state.imports.view().iter() {
        if !sees(&state, &caller, Entity::ClusterLink(link.clone())) {
            continue;
        }
        rows.extend(imported.services.iter().map(|(service, known)| ImportedRow {
            service: service.clone(),
            peer: link.clone(),
            status: match (imported.freshness, known.healthy()) {
                (Freshness::Stale, _) => Health::Stale,
                (Freshness::Current, 0) => Health::Critical,
                (Freshness::Current, _) => Health::Passing,
            },
            instances: count(known.instances.len()),
            healthy: count(known.healthy()),
        }));
    }
    rows.sort_unstable_by(|a, b| (&a.service, &a.peer).cmp(&(&b.service, &b.peer)));
    Ok(Json(rows))
}

fn count(instances: usize) -> u32 {
    u32::try_from(instances).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use schema::kind::exported_services::Export;
    use std::sync::Arc;

    use crate::store::Revision;

    #[test]
    fn exports_are_listed_as_the_peers_see_them() {
        let mut view = CatalogView::default();
        for name in ["backend", "web"] {
            let name: ServiceName = name.parse().unwrap();
            let instance = Instance {
                id: (&name).into(),
                service: Arc::new(Service { port: Some(1), ..Service::default() }),
                created: Revision(1),
                modified: Revision(1),
            };
            view.services.insert(name, Arc::new([instance].into_iter().collect()));
        }
        for (service, consumer) in [("*", "west"), ("web", "south"), ("absent", "south")] {
            let export = Export { consumers: vec![consumer.parse().unwrap()] };
            view.exports.insert(service.parse().unwrap(), Arc::new(export));
        }
        let rows: Vec<String> = by_service(&view)
            .into_iter()
            .map(|row| {
                let peers: Vec<_> = row.peers.iter().map(LinkName::as_str).collect();
                format!("{}: {}", row.service, peers.join(" "))
            })
            .collect();
        assert_eq!(rows, ["absent: south", "backend: west", "web: south west"]);
    }
}
