//! The one composition root: build, announce, spawn, wait, drain.
//!
//! Every floor is built here, from the ground up, and given what it needs; none looks for another by itself.

mod descriptors;
pub mod logging;
pub mod options;
mod place;
mod router;
mod signals;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use schema::name::ClusterName;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::api::listener::doors::Doors;
use crate::api::listener::network::{self, ListenError};
use crate::api::listener::socket::{self, SocketError};
use crate::api::listener::{Api, ListenerError};
use crate::api::lxd::attempt::Failures;
use crate::api::{ApiParts, ApiState};
use crate::apply::{Apply, ApplyParts};
use crate::audit::Audit;
use crate::catalog::{Catalog, CatalogError, Imports};
use crate::dataset::{PoolError, Pools};
use crate::health::Health;
use crate::mesh::{Mesh, MeshParts};
use crate::observe::Observe;
use crate::operation::Operations;
use crate::peering::rotation::{self, RotationError};
use crate::peering::{Peering, PeeringError, PeeringParts};
use crate::project::{ProjectError, Projects};
use crate::reconcile::{Reconcile, ReconcileParts};
use crate::settings::{Addresses, DEFAULT_PORT, Listen, Settings, SettingsError};
use crate::store::sqlite::SqliteStore;
use crate::store::value::{self, ValueError};
use crate::store::{CommitError, Guard, Op, Revision, Store, StoreError, Txn, keys};
use crate::task::{Drained, Tasks};
use crate::transfer::Transfers;
use crate::trust::certificate::CertificateError;
use crate::trust::client_token::Clients;
use crate::trust::cluster_identity::ClusterIdentity;
use crate::trust::identity::Identities;
use crate::tunnel::{Router, Sessions};
pub use options::{Given, Options};
use place::{Place, PlaceError};
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

/// Why an agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Value(#[from] ValueError),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    Peering(#[from] PeeringError),
    #[error(transparent)]
    Rotation(#[from] RotationError),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Project(#[from] ProjectError),
    #[error(transparent)]
    Pools(#[from] PoolError),
    #[error("{} could not be opened: {source}", path.display())]
    Audit { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Listener(#[from] ListenerError),
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error("this data folder is new, and its cluster has no name yet")]
    Nameless,
    #[error("this data folder belongs to cluster {own}, not to {asked}")]
    OtherName { own: ClusterName, asked: ClusterName },
    #[error("signals cannot be waited for: {0}")]
    Signals(std::io::Error),
}

impl DaemonError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            DaemonError::Place(PlaceError::InUse { .. }) => {
                Some("Each agent needs a folder of its own: give another --data-dir, or stop that agent.")
            }
            DaemonError::Place(PlaceError::Foreign { .. }) => {
                Some("Run the agent as that user, or give a --data-dir of its own.")
            }
            DaemonError::Place(PlaceError::Io { .. }) => {
                Some("Give a folder that this user may write with --data-dir.")
            }
            DaemonError::Listen(ListenError::InUse { .. }) => {
                Some("Stop it, or give another address with --listen.")
            }
            DaemonError::Listen(ListenError::Forbidden(_)) => {
                Some("Ports below 1024 need a privilege: give a higher one with --listen.")
            }
            DaemonError::Listen(_) => {
                Some("`ip address` shows this machine's; give one of them with --listen.")
            }
            DaemonError::Nameless => Some("Give one with --name. It cannot be changed later."),
            DaemonError::OtherName { .. } => {
                Some("Leave --name out, or give another --data-dir for the other cluster.")
            }
            _ => None,
        }
    }
}

/// What `/cluster` holds: written once, at the first start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ClusterRecord {
    name: ClusterName,
}

/// Runs an agent until it is told to end.
pub async fn run(options: Options) -> Result<Ended, DaemonError> {
    descriptors::raise();
    let mut signals = Signals::listen().map_err(DaemonError::Signals)?;
    let place = Place::take(&options.data_dir)?;
    let store = SqliteStore::open(&place.store())?;
    let name = settle_name(&*store, options.name.clone()).await?;
    let identity = ClusterIdentity::open(place.path(), name.as_str())?;
    rotation::settle(&*store, &identity).await?;
    let tasks = Tasks::new();
    let audit =
        Audit::open(&place.audit()).map_err(|source| DaemonError::Audit { path: place.audit(), source })?;
    let settings = Settings::start(store.clone(), audit.clone(), &tasks).await?;
    let usual = || settings.current().https_address().unwrap_or(Listen::Everywhere(DEFAULT_PORT));
    let listener = network::bind(options.listen.unwrap_or_else(usual))?;
    let bound = listener.as_ref().and_then(|listener| listener.local_addr().ok());
    let addresses = match bound {
        Some(bound) if options.advertise.is_empty() => network::reachable(bound),
        _ => options.advertise.clone(),
    };

    let socket = socket::bind(&place.socket())?;

    let reached = Addresses::new(addresses.clone());
    let ground = Ground {
        store,
        identity: identity.clone(),
        name: name.clone(),
        doors: Doors::new(options.listen.is_some(), options.advertise.clone(), reached.clone()),
        addresses: reached,
        settings,
        audit,
        tasks: tasks.clone(),
    };
    let state = build(&place, ground, options.watch.clone()).await?;
    let (peering, mesh) = (state.peering.clone(), state.mesh.clone());
    let clients = state.clients.clone();
    let api = Api::new(state);
    let router: Arc<dyn Router> =
        Arc::new(Streams { peering: peering.clone(), mesh: mesh.clone(), api: api.clone() });
    peering.run(router.clone()).await?;
    tasks.spawn("mesh", mesh.run());
    // The doors open last: an answer means that everything behind them runs.
    api.serve_network(listener, router).await?;
    api.serve_socket(socket)?;
    tasks.spawn("expiry", expiry(clients, tasks.ending()));
    tracing::info!(
        name = %name,
        fingerprint = %identity.fingerprint(),
        listening = bound.map(tracing::field::display),
        addresses = addresses.join(" "),
        socket = %place.socket().display(),
        "ready"
    );
    let asked = signals.asked().await;
    Ok(drain(&tasks, &mut signals, asked, &options).await)
}

/// What every floor stands on.
struct Ground {
    store: Arc<dyn Store>,
    identity: Arc<ClusterIdentity>,
    name: ClusterName,
    doors: Arc<Doors>,
    addresses: Arc<Addresses>,
    settings: Arc<Settings>,
    audit: Arc<Audit>,
    tasks: Tasks,
}

/// Every floor that the surfaces work with, from the ground up.
async fn build(place: &Place, ground: Ground, watched: Option<PathBuf>) -> Result<ApiState, DaemonError> {
    let Ground { store, identity, name, doors, addresses, settings, audit, tasks } = ground;
    let pools = Pools::open(place.path())?;
    let identities = Identities::start(store.clone(), &tasks).await?;
    let sessions = Arc::new(Sessions::default());
    let catalog = Catalog::start(store.clone(), &tasks).await?;
    let imports = Arc::new(Imports::new());
    let health = Health::start(catalog.clone(), &tasks);
    let peering = Peering::new(PeeringParts {
        store: store.clone(),
        identity: identity.clone(),
        identities: identities.clone(),
        sessions: sessions.clone(),
        catalog: catalog.clone(),
        imports: imports.clone(),
        health: health.clone(),
        addresses: addresses.clone(),
        settings: settings.clone(),
        audit: audit.clone(),
        cluster: name.clone(),
        tasks: tasks.clone(),
    });
    let mesh = Mesh::new(MeshParts {
        catalog: catalog.clone(),
        health: health.clone(),
        sessions: sessions.clone(),
        identities: identities.clone(),
        tasks: tasks.clone(),
    });
    let observe = Observe::new(store.clone(), peering.clone(), name.clone(), identity.clone());
    let apply = Apply::start(ApplyParts {
        store: store.clone(),
        links: peering.clone(),
        pools: pools.clone(),
        audit: audit.clone(),
        tasks: tasks.clone(),
    });
    let operations = Operations::new();
    let transfers = Transfers::new(pools.clone(), operations.clone(), identity.clone(), tasks.clone());
    let reconcile = watched.map(|folder| {
        Reconcile::start(ReconcileParts {
            folder,
            store: store.clone(),
            observe: observe.clone(),
            apply: apply.clone(),
            redeem: Arc::new(peering.clone()),
            identities: identities.clone(),
            tasks: tasks.clone(),
        })
    });
    let clients = Arc::new(Clients::new(store.clone(), identities.clone(), identity.clone(), audit.clone()));
    Ok(ApiState::from(ApiParts {
        failures: Failures::new(audit.clone()),
        clients,
        name,
        identity,
        addresses,
        settings,
        projects: Projects::start(store.clone(), audit.clone(), &tasks).await?,
        audit,
        doors,
        store,
        identities,
        sessions,
        catalog,
        imports,
        health,
        mesh,
        observe,
        apply,
        peering,
        pools,
        operations,
        transfers,
        reconcile,
        tasks,
    }))
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
