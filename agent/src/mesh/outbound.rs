//! The upstreams' local ports and sockets: which there should be, as the catalog says, and which there are.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use schema::access::Groups;
use schema::kind::service::{SocketMode, Upstream};
use schema::name::ServiceName;
use tokio::sync::watch;

use super::bind::Local;
use super::targets::{Course, Route};
use super::{Mesh, listener};
use crate::catalog::CatalogView;
use crate::wire::service::{PortState, UpstreamRow};

/// The permission bits of an upstream's socket that declares none.
const SOCKET_MODE: u32 = 0o600;

/// The declared upstreams and the states of their ports, for whoever asks.
#[derive(Debug, Default)]
pub(super) struct Upstreams {
    board: Mutex<Board>,
}

#[derive(Debug, Default)]
struct Board {
    claims: Vec<Claim>,
    ports: BTreeMap<Local, PortState>,
    routes: BTreeMap<Local, Arc<Route>>,
}

/// One declared upstream, and what came of it.
#[derive(Debug)]
struct Claim {
    owner: ServiceName,
    upstream: Upstream,
    local: String,
    /// Where it listens, or why it does not.
    place: Result<Local, String>,
}

impl Upstreams {
    /// A listener tells how it is.
    pub(super) fn set(&self, local: &Local, state: PortState) {
        self.lock().ports.insert(local.clone(), state);
    }

    pub(super) fn rows(&self, mesh: &Mesh) -> Vec<UpstreamRow> {
        let board = self.lock();
        let row = |claim: &Claim| {
            let local = claim.place.as_ref().ok();
            let port = match &claim.place {
                Err(reason) => PortState::Refused { reason: reason.clone() },
                Ok(local) => board
                    .ports
                    .get(local)
                    .cloned()
                    .unwrap_or(PortState::Waiting { reason: "not opened yet".to_owned() }),
            };
            let row = UpstreamRow {
                service: claim.owner.clone(),
                destination: claim.upstream.destination_name.clone(),
                peer: claim.upstream.destination_peer.clone(),
                local: claim.local.clone(),
                port,
                targets: Vec::new(),
            };
            (row, local.and_then(|local| board.routes.get(local)).cloned())
        };
        let rows: Vec<_> = board.claims.iter().map(row).collect();
        drop(board);
        let look = |(row, route): (UpstreamRow, Option<Arc<Route>>)| UpstreamRow {
            targets: route.map(|route| route.rows(mesh)).unwrap_or_default(),
            ..row
        };
        rows.into_iter().map(look).collect()
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
    let mut listeners = BTreeMap::<Local, Listener>::new();
    loop {
        let now = catalog.borrow_and_update().clone();
        // What an upstream's group leads to is said elsewhere.
        let mut changed = !Arc::ptr_eq(now.intentions.groups(), known.intentions.groups());
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
            let (claims, courses) = claim(&declared, known.intentions.groups());
            settle(&mesh, &mut listeners, claims, courses);
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

/// Where an upstream listens, with which permissions, and where it leads.
#[derive(Debug, PartialEq, Eq)]
struct Declared {
    course: Course,
    mode: u32,
}

/// Gives each port to the upstream that may have it: one port leads to one place, so of two upstreams that name the
/// same, the service first by name has it and the other is told.
fn claim(
    declared: &BTreeMap<ServiceName, Vec<Upstream>>,
    groups: &Groups,
) -> (Vec<Claim>, BTreeMap<Local, Declared>) {
    let mut claims = Vec::new();
    let mut taken = BTreeMap::<Local, Declared>::new();
    for (owner, upstreams) in declared {
        for upstream in upstreams {
            let place = local(upstream).and_then(|local| {
                if let Some(Declared { course, .. }) = taken.get(&local) {
                    let first = course.destinations.first();
                    let leads = first.map_or_else(String::new, |first| format!(" {}", first.service));
                    let kind = match local {
                        Local::Port(_) => "port",
                        Local::Socket(_) => "socket",
                    };
                    return Err(format!("the {kind} is taken by the upstream{leads} of {}", course.owner));
                }
                let course = Course::of(owner, upstream, groups);
                if let ([], Some(group)) = (&course.destinations[..], &upstream.sameness_group) {
                    return Err(format!("the sameness group {group} is not declared, or has no members"));
                }
                let mode = upstream.local_bind_socket_mode.map_or(SOCKET_MODE, SocketMode::bits);
                taken.insert(local.clone(), Declared { course, mode });
                Ok(local)
            });
            let local = as_declared(upstream);
            if let Err(reason) = &place {
                tracing::warn!(service = %owner, destination = %upstream.destination_name, %local, reason, "upstream refused");
            }
            claims.push(Claim { owner: owner.clone(), upstream: upstream.clone(), local, place });
        }
    }
    (claims, taken)
}

fn as_declared(upstream: &Upstream) -> String {
    if !upstream.local_bind_socket_path.is_empty() {
        return upstream.local_bind_socket_path.clone();
    }
    let host =
        if upstream.local_bind_address.is_empty() { "127.0.0.1" } else { &upstream.local_bind_address };
    format!("{host}:{}", upstream.local_bind_port)
}

/// Anything but loopback would hand the service's permits to the whole network.
fn local(upstream: &Upstream) -> Result<Local, String> {
    if !upstream.local_bind_socket_path.is_empty() {
        return Ok(Local::Socket(PathBuf::from(&upstream.local_bind_socket_path)));
    }
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
    Ok(Local::Port(SocketAddr::new(ip, upstream.local_bind_port)))
}

/// What keeps one listener: it lives as long as the sender of its route.
struct Listener {
    route: watch::Sender<Arc<Route>>,
    mode: u32,
}

impl Listener {
    /// Cuts the connections that were made by the way there was.
    fn cut(&self) {
        self.route.borrow().cut.cancel();
    }
}

/// Starts, turns and stops listeners. One whose route changes stays bound; its connections are cut.
fn settle(
    mesh: &Arc<Mesh>,
    listeners: &mut BTreeMap<Local, Listener>,
    claims: Vec<Claim>,
    declared: BTreeMap<Local, Declared>,
) {
    listeners.retain(|local, listener| {
        // A socket's mode is given when it is made, so another mode is another socket.
        let stays = declared.get(local).is_some_and(|declared| declared.mode == listener.mode);
        if !stays {
            listener.cut();
        }
        stays
    });
    {
        let mut board = mesh.upstreams.lock();
        board.claims = claims;
        board.ports.retain(|local, _| listeners.contains_key(local));
    }
    for (local, Declared { course, mode }) in declared {
        let cut = mesh.parts.tasks.cutting().child_token();
        if let Some(listener) = listeners.get(&local) {
            if listener.route.borrow().course != course {
                listener.cut();
                listener.route.send_replace(Arc::new(Route::new(course, cut)));
            }
            continue;
        }
        let (route, receiver) = watch::channel(Arc::new(Route::new(course, cut)));
        listeners.insert(local.clone(), Listener { route, mode });
        mesh.parts.tasks.spawn("upstream", listener::listen(mesh.clone(), local, mode, receiver));
    }
    let route = |(local, listener): (&Local, &Listener)| (local.clone(), listener.route.borrow().clone());
    mesh.upstreams.lock().routes = listeners.iter().map(route).collect();
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
        let (claims, courses) = claim(&declared, &Groups::default());
        assert_eq!(courses.len(), 2);
        let first = Local::Port("127.0.0.1:1".parse().unwrap());
        assert_eq!(courses[&first].course.owner.as_str(), "a");
        let refused: Vec<_> = claims.iter().filter_map(|claim| claim.place.clone().err()).collect();
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
