//! `GET /v1/exported-services`: which service is offered to whom, wildcards and sameness groups resolved.

use std::collections::{BTreeMap, BTreeSet};

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use schema::kind::exported_services::Consumer;
use schema::name::{LinkName, ServiceName};
use schema::record::ServiceMatch;

use super::answer::{Answer, ConsulError};
use super::asked::Asked;
use super::blocking::{self, Found};
use super::filter::{self, Shape};
use crate::api::ApiState;
use crate::authorize::{Entitlement, Entity, require_trust};
use crate::catalog::CatalogView;
use crate::wire::consul::config::{ExportedConsumers, ResolvedService};

pub fn router() -> Router<ApiState> {
    Router::new().route("/exported-services", get(list))
}

/// What a filter may ask of a row. Consul's command filters by itself what it was answered.
const ROWS: Shape = Shape::Struct(&[
    ("Service", Shape::Text),
    ("Consumers", Shape::Struct(&[("Peers", Shape::List(&Shape::Text))])),
]);

async fn list(State(state): State<ApiState>, asked: Asked) -> Result<Answer, ConsulError> {
    require_trust(&asked.caller)?;
    let filter = asked.filter(&ROWS)?;
    blocking::answer(&state, &asked, state.catalog.subscribe(), |caller| {
        let view = state.catalog.view();
        let mut rows = resolved(&view);
        let all = rows.len();
        // Who may see the export list sees all of it; others, of what they may see, that it is exported.
        if state.permit(caller, Entitlement::CanView, Entity::ExportedServices).is_err() {
            rows.retain(|service, _| {
                state.permit(caller, Entitlement::CanView, Entity::Service(service.clone())).is_ok()
            });
        }
        let hidden = rows.len() < all;
        let mut rows: Vec<ResolvedService> = rows
            .into_iter()
            .map(|(service, peers)| ResolvedService {
                service: service.to_string(),
                consumers: ExportedConsumers { peers: peers.iter().map(LinkName::to_string).collect() },
            })
            .collect();
        filter::retain(filter.as_ref(), &mut rows)?;
        Ok(Found::new(view.revision.0, rows).filtered(hidden))
    })
    .await
}

/// Each service that somebody is offered. One that is named is listed before it has an instance, as Consul lists it and
/// its peers are told; `*` stands for those that are here and listen.
fn resolved(view: &CatalogView) -> BTreeMap<ServiceName, BTreeSet<LinkName>> {
    let groups = view.intentions.groups();
    let mut rows: BTreeMap<ServiceName, BTreeSet<LinkName>> = BTreeMap::new();
    for (service, export) in view.exports.iter() {
        let mut peers = BTreeSet::new();
        for consumer in &export.consumers {
            match consumer {
                Consumer::Peer(link) => drop(peers.insert(link.clone())),
                Consumer::Group(group) => {
                    peers.extend(
                        groups.get(group).into_iter().flat_map(|group| group.members.iter().cloned()),
                    );
                }
            }
        }
        match service {
            ServiceMatch::Named(name) => rows.entry(name.clone()).or_default().extend(peers),
            ServiceMatch::Any => {
                for (name, _) in view.services.iter().filter(|(_, instances)| instances.listen()) {
                    rows.entry(name.clone()).or_default().extend(peers.iter().cloned());
                }
            }
        }
    }
    rows.retain(|_, peers| !peers.is_empty());
    rows
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use schema::kind::exported_services::Export;

    use super::*;

    #[test]
    fn a_named_service_is_listed_before_it_is_here() {
        let mut view = CatalogView::default();
        for (service, consumers) in [("absent", ["west", "east"]), ("*", ["south", "south"])] {
            let consumers = consumers.map(|link| Consumer::Peer(link.parse().unwrap()));
            let export = Export { consumers: consumers.to_vec() };
            view.exports.insert(service.parse().unwrap(), Arc::new(export));
        }
        let rows: Vec<String> = resolved(&view)
            .iter()
            .map(|(service, peers)| {
                let peers: Vec<_> = peers.iter().map(LinkName::as_str).collect();
                format!("{service}: {}", peers.join(" "))
            })
            .collect();
        assert_eq!(rows, ["absent: east west"]);
    }
}
