//! The one composition root: build, announce, spawn, wait, drain.
//!
//! Every floor is built here, from the ground up, and given what it needs; none looks for another by itself.

mod authority_key;
mod descriptors;
mod fault;
mod floors;
pub mod logging;
mod login;
mod managed;
pub mod options;
mod place;
mod router;
mod signals;
mod wish;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use schema::name::ClusterName;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::api::listener::doors::Doors;
use crate::api::listener::{Api, network, socket};
use crate::audit::Audit;
use crate::peering::rotation;
use crate::settings::{Addresses, DEFAULT_PORT, Listen, Settings};
use crate::sockets::Sockets;
use crate::store::sqlite::SqliteStore;
use crate::store::{Guard, Op, Revision, Store, Txn, keys, value};
use crate::task::{Drained, Tasks};
use crate::trust::client_token::Clients;
use crate::trust::cluster_identity::ClusterIdentity;
use crate::trust::pki::Pki;
use crate::trust::server_identity::ServerIdentity;
use crate::tunnel::Router;
pub use fault::DaemonError;
use floors::{Ground, build, unknowns};
pub use options::{Given, Options};
use place::Place;
use router::Streams;
use signals::{Asked, Signals};

/// How often expired tokens are looked for.
const EXPIRY: Duration = Duration::from_secs(10);

/// How a running agent ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Everything under way was finished.
    Drained,
    /// Some of it was cut off: at the deadline, or by a second signal.
    Cut,
}

/// What `/cluster` holds: written once, at the first start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ClusterRecord {
    name: ClusterName,
}

/// Runs an agent until it is told to end. `sockets` are what an earlier run, or whoever manages this one, has left to it.
pub async fn run(options: Options, sockets: Arc<Sockets>) -> Result<Ended, DaemonError> {
    descriptors::raise();
    let mut signals = Signals::listen().map_err(DaemonError::Signals)?;
    authority_key::refuse(&options)?;
    let place = Place::take(&options.data_dir)?;
    let store = SqliteStore::open(&place.store())?;
    let name = settle_name(&*store, options.name.clone()).await?;
    let identity = ClusterIdentity::open(place.path(), name.as_str())?;
    rotation::settle(&*store, &identity).await?;
    let server = ServerIdentity::open(place.path(), options.server.as_ref(), identity.clone())?;
    let tasks = Tasks::new();
    let audit =
        Audit::open(&place.audit()).map_err(|source| DaemonError::Audit { path: place.audit(), source })?;
    let settings = Settings::start(store.clone(), audit.clone(), &tasks).await?;
    let (folder, cluster_ca) = (place.path(), options.cluster_ca.as_deref());
    let pki = Pki::open(folder, cluster_ca, unknowns(&settings), Timestamp::now())?;
    let usual = || settings.current().https_address().unwrap_or(Listen::Everywhere(DEFAULT_PORT));
    let listener = network::bind(&sockets, options.listen.unwrap_or_else(usual))?;
    let bound = listener.as_ref().and_then(|bound| bound.listener.local_addr().ok());
    let addresses = match bound {
        Some(bound) if options.advertise.is_empty() => network::reachable(bound),
        _ => options.advertise.clone(),
    };

    let consul = match options.consul_http {
        Some(loopback) => {
            network::bind(&sockets, Listen::At(loopback.address())).map_err(DaemonError::ConsulHttp)?
        }
        None => None,
    };
    let consul_http = consul.as_ref().and_then(|bound| bound.listener.local_addr().ok());
    let socket = socket::bind(&sockets, &place.socket())?;

    let reached = Addresses::new(addresses.clone());
    let wish = wish::follow(&settings, &tasks);
    let ground = Ground {
        store,
        identity: identity.clone(),
        server: server.clone(),
        pki,
        name: name.clone(),
        doors: Doors::new(
            options.listen.is_some(),
            options.advertise.clone(),
            reached.clone(),
            sockets.clone(),
        ),
        sockets: sockets.clone(),
        addresses: reached,
        settings,
        audit,
        tasks: tasks.clone(),
    };
    let state = build(&place, ground, options.watch.clone()).await?;
    let (peering, mesh) = (state.peering.clone(), state.mesh.clone());
    let (clients, acme) = (state.clients.clone(), state.acme.clone());
    let api = Api::new(state);
    let router: Arc<dyn Router> = Arc::new(Streams {
        peering: peering.clone(),
        mesh: mesh.clone(),
        api: api.clone(),
        open: Arc::default(),
    });
    peering.run(router.clone()).await?;
    tasks.spawn("mesh", mesh.run());
    // The doors open last: an answer means that everything behind them runs.
    api.serve_network(listener, router).await?;
    api.serve_socket(socket)?;
    if let Some(listener) = consul {
        api.serve_plain(listener)?;
    }
    tasks.spawn("expiry", expiry(clients, tasks.ending()));
    // Its server looks for the proof behind those doors.
    tasks.spawn("acme", acme.run(wish));
    tasks.spawn("sockets", managed::unclaimed(sockets.clone(), tasks.ending()));
    tasks.spawn("watchdog", managed::watchdog(sockets.clone(), tasks.ending()));
    tracing::info!(
        name = %name,
        fingerprint = %identity.fingerprint(),
        shown = server.own().map(|pair| tracing::field::display(pair.fingerprint)),
        listening = bound.map(tracing::field::display),
        consul_http = consul_http.map(tracing::field::display),
        addresses = addresses.join(" "),
        socket = %place.socket().display(),
        "ready"
    );
    sockets.manager().ready();
    let asked = signals.asked().await;
    // Before anything is closed: what is kept for the next run must not be given back.
    sockets.leave();
    sockets.manager().stopping(options.drain_timeout);
    Ok(drain(&tasks, &mut signals, asked, &options).await)
}

/// Forgets tokens that have expired, and says so.
async fn expiry(clients: Arc<Clients>, ending: CancellationToken) {
    let mut since = Timestamp::now();
    while ending.run_until_cancelled(tokio::time::sleep(EXPIRY)).await.is_some() {
        let now = Timestamp::now();
        let told = clients.tell_expired(since, now).await;
        if let Err(error) = told.and(clients.prune(now).await) {
            tracing::error!(%error, "expired tokens could not be looked for");
        }
        since = now;
    }
}

/// Lets what is under way finish, until the deadline or a second signal.
async fn drain(tasks: &Tasks, signals: &mut Signals, asked: Asked, options: &Options) -> Ended {
    tracing::info!(signal = asked.name(), deadline = ?options.drain_timeout, "ending");
    tokio::select! {
        drained = tasks.drain(options.drain_timeout) => match drained {
            Drained::Clean => {
                tracing::info!("ended");
                Ended::Drained
            }
            Drained::Deadline(tasks) => {
                tracing::warn!(tasks, "ended at the deadline; some work was cut off");
                Ended::Cut
            }
        },
        again = signals.asked() => {
            tracing::warn!(signal = again.name(), "told to end again; not waiting any longer");
            // Both ends of what is carried shall hear that it was cut.
            tasks.drain(Duration::ZERO).await;
            Ended::Cut
        }
    }
}

/// The cluster's name: what the store says, or `asked` at the first start.
async fn settle_name(store: &dyn Store, asked: Option<ClusterName>) -> Result<ClusterName, DaemonError> {
    if let Some(entry) = store.get(keys::CLUSTER).await? {
        let own = value::decode::<ClusterRecord>(&entry)?.name;
        return match asked {
            Some(asked) if asked != own => Err(DaemonError::OtherName { own, asked }),
            _ => Ok(own),
        };
    }
    let name = asked.ok_or(DaemonError::Nameless)?;
    let key = keys::CLUSTER.to_owned();
    let put = Op::Put { key: key.clone(), value: value::encode(&ClusterRecord { name: name.clone() }) };
    let guard = Guard { key, modify_revision: Revision(0) };
    store.commit(Txn { guards: vec![guard], ops: vec![put] }).await?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cluster_is_named_once() {
        let store = SqliteStore::scratch();
        let (east, west): (ClusterName, ClusterName) = ("east".parse().unwrap(), "west".parse().unwrap());
        assert!(matches!(settle_name(&*store, None).await, Err(DaemonError::Nameless)));
        assert_eq!(settle_name(&*store, Some(east.clone())).await.unwrap(), east);
        assert_eq!(settle_name(&*store, None).await.unwrap(), east);
        let refused = settle_name(&*store, Some(west)).await.unwrap_err();
        assert_eq!(refused.to_string(), "this data folder belongs to cluster east, not to west");
    }
}
