//! The upstreams' local ports: which there should be, as the catalog says, and which there are.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use schema::kind::service::Upstream;
use schema::name::{LinkName, ServiceName};
use tokio::sync::watch;

use super::{Mesh, listener};
use crate::catalog::CatalogView;
use crate::wire::service::{PortState, UpstreamRow};

/// Where a local port leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    /// The service that the upstream is declared by: whoever connects here speaks as it.
    pub owner: ServiceName,
    pub destination: ServiceName,
    /// The link to go over; `None` for a service of this cluster.
    pub peer: Option<LinkName>,
}

/// The declared upstreams and the states of their ports, for whoever asks.
#[derive(Debug, Default)]
pub(super) struct Upstreams {
    board: Mutex<Board>,
}

#[derive(Debug, Default)]
struct Board {
    claims: Vec<Claim>,
    ports: BTreeMap<SocketAddr, PortState>,
}

/// One declared upstream, and what came of it.
#[derive(Debug)]
struct Claim {
    route: Route,
    local: String,
    /// The port it has, or why it has none.
    port: Result<SocketAddr, String>,
}

impl Upstreams {
    /// A listener tells the state of its port.
    pub(super) fn set(&self, address: SocketAddr, state: PortState) {
        self.lock().ports.insert(address, state);
    }

    pub(super) fn rows(&self) -> Vec<UpstreamRow> {
        let board = self.lock();
        let row = |claim: &Claim| UpstreamRow {
            service: claim.route.owner.clone(),
            destination: claim.route.destination.clone(),
            peer: claim.route.peer.clone(),
            local: claim.local.clone(),
            port: match &claim.port {
                Err(reason) => PortState::Refused { reason: reason.clone() },
                Ok(address) => board
                    .ports
                    .get(address)
                    .cloned()
                    .unwrap_or(PortState::Waiting { reason: "not opened yet".to_owned() }),
            },
        };
        board.claims.iter().map(row).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Board> {
        // Whole after every statement, so a panic elsewhere cannot have torn it.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Follows the catalog until the agent drains.
pub(super) async fn run(mesh: Arc<Mesh>) {
    let ending = mesh.parts.tasks.ending();
    let mut catalog = mesh.parts.catalog.subscribe();
    let mut known = Arc::<CatalogView>::default();
    let mut declared = BTreeMap::<ServiceName, Vec<Upstream>>::new();
    // A listener lives as long as the sender of its route.
    let mut listeners = BTreeMap::<SocketAddr, watch::Sender<Arc<Route>>>::new();
    loop {
        let now = catalog.borrow_and_update().clone();
        let mut changed = false;
        for name in now.services.changed_since(&known.services) {
            let upstreams = upstreams_of(&now, name);
            let before = if upstreams.is_empty() {
                declared.remove(name)
            } else {
                declared.insert(name.clone(), upstreams)
            };
            changed |= before.as_ref() != declared.get(name);
        }
        known = now;
        if changed {
            let (claims, routes) = claim(&declared);
            settle(&mesh, &mut listeners, claims, routes);
        }
        tokio::select! {
            () = ending.cancelled() => return,
            changed = catalog.changed() => if changed.is_err() { return },
        }
    }
}

/// The upstreams of every instance, each once: they call from one machine.
fn upstreams_of(view: &CatalogView, name: &ServiceName) -> Vec<Upstream> {
    let mut all = Vec::new();
    for upstream in view
        .instances(name)
        .into_iter()
        .flat_map(|instances| instances.iter())
        .flat_map(|instance| &instance.service.upstreams)
    {
        if !all.contains(upstream) {
            all.push(upstream.clone());
        }
    }
    all
}

/// Gives each port to the upstream that may have it: one port leads to one place, so of two upstreams that name the
/// same, the service first by name has it and the other is told.
fn claim(declared: &BTreeMap<ServiceName, Vec<Upstream>>) -> (Vec<Claim>, BTreeMap<SocketAddr, Route>) {
    let mut claims = Vec::new();
    let mut routes = BTreeMap::<SocketAddr, Route>::new();
    for (owner, upstreams) in declared {
        for upstream in upstreams {
            let route = Route {
                owner: owner.clone(),
                destination: upstream.destination_name.clone(),
                peer: upstream.destination_peer.clone(),
            };
            let port = address(upstream).and_then(|address| {
                if let Some(Route { owner, destination, .. }) = routes.get(&address) {
                    return Err(format!("the port is taken by the upstream {destination} of {owner}"));
                }
                routes.insert(address, route.clone());
                Ok(address)
            });
            let host = if upstream.local_bind_address.is_empty() {
                "127.0.0.1"
            } else {
                &upstream.local_bind_address
            };
            let local = format!("{host}:{}", upstream.local_bind_port);
            if let Err(reason) = &port {
                tracing::warn!(service = %owner, destination = %route.destination, %local, reason, "upstream refused");
            }
            claims.push(Claim { route, local, port });
        }
    }
    (claims, routes)
}

/// Anything but loopback would hand the service's permits to the whole network.
fn address(upstream: &Upstream) -> Result<SocketAddr, String> {
    let ip = match upstream.local_bind_address.as_str() {
        "" | "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        text => text.parse().map_err(|_| "the local bind address is not an IP address".to_owned())?,
    };
    if !ip.is_loopback() {
        return Err("the local bind address is not a loopback address".to_owned());
    }
    if upstream.local_bind_port == 0 {
        return Err("the local bind port is 0".to_owned());
    }
    Ok(SocketAddr::new(ip, upstream.local_bind_port))
}

/// Starts, turns and stops listeners. One whose route changes keeps its port; its connections are cut.
fn settle(
    mesh: &Arc<Mesh>,
    listeners: &mut BTreeMap<SocketAddr, watch::Sender<Arc<Route>>>,
    claims: Vec<Claim>,
    routes: BTreeMap<SocketAddr, Route>,
) {
    listeners.retain(|address, _| routes.contains_key(address));
    {
        let mut board = mesh.upstreams.lock();
        board.claims = claims;
        board.ports.retain(|address, _| routes.contains_key(address));
    }
    for (address, route) in routes {
        if let Some(listener) = listeners.get(&address) {
            listener.send_if_modified(|known| {
                let turned = **known != route;
                if turned {
                    *known = Arc::new(route);
                }
                turned
            });
            continue;
        }
        let (sender, receiver) = watch::channel(Arc::new(route));
        listeners.insert(address, sender);
        mesh.parts.tasks.spawn("upstream", listener::listen(mesh.clone(), address, receiver));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(address: &str, port: u16) -> Upstream {
        Upstream {
            local_bind_address: address.to_owned(),
            ..Upstream::to("backend".parse().unwrap(), None, port)
        }
    }

    #[test]
    fn a_port_has_one_owner_and_only_loopback_is_bound() {
        let declared = BTreeMap::from([
            ("a".parse().unwrap(), vec![upstream("", 1), upstream("0.0.0.0", 2), upstream("::1", 1)]),
            (
                "b".parse().unwrap(),
                vec![upstream("127.0.0.1", 1), upstream("10.0.0.1", 3), upstream("here", 4)],
            ),
        ]);
        let (claims, routes) = claim(&declared);
        assert_eq!(routes.len(), 2);
        assert_eq!(routes[&"127.0.0.1:1".parse().unwrap()].owner.as_str(), "a");
        let refused: Vec<_> = claims.iter().filter_map(|claim| claim.port.clone().err()).collect();
        assert_eq!(
            refused,
            [
                "the local bind address is not a loopback address",
                "the port is taken by the upstream backend of a",
                "the local bind address is not a loopback address",
                "the local bind address is not an IP address",
            ]
        );
    }
}
