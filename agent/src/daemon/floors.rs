//! The floors of an agent, each made of those below it and given what it needs; none looks for another by itself.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use schema::name::ClusterName;
use tokio_util::sync::CancellationToken;

use super::DaemonError;
use super::login;
use super::place::Place;
use crate::api::consul::blocking::Blocked;
use crate::api::listener::doors::Doors;
use crate::api::lxd::attempt::Failures;
use crate::api::{ApiParts, ApiState};
use crate::apply::{Apply, ApplyParts, maintenance, overdue};
use crate::audit::Audit;
use crate::catalog::{Catalog, Imports};
use crate::dataset::Pools;
use crate::health::Health;
use crate::mesh::{Mesh, MeshParts};
use crate::observe::Observe;
use crate::operation::Operations;
use crate::peering::{Peering, PeeringParts};
use crate::project::Projects;
use crate::reconcile::{Reconcile, ReconcileParts};
use crate::settings::{Addresses, Settings};
use crate::sockets::Sockets;
use crate::storage::expiry::{self, ExpiryParts};
use crate::storage::{Backups, Instances, StoragePools, VolumeSnapshots};
use crate::store::Store;
use crate::task::Tasks;
use crate::transfer::Transfers;
use crate::transfer::history::History;
use crate::trust::acme::{Acme, AcmeParts};
use crate::trust::client_token::Clients;
use crate::trust::cluster_identity::ClusterIdentity;
use crate::trust::identity::Identities;
use crate::trust::mesh::{MeshAuthority, PeerBundles};
use crate::trust::oidc::Logins;
use crate::trust::pki::{AskUnknowns, Pki, Unknowns};
use crate::trust::server_identity::ServerIdentity;
use crate::tunnel::Sessions;
use crate::web::Web;

/// What every floor stands on.
pub(super) struct Ground {
    pub store: Arc<dyn Store>,
    pub identity: Arc<ClusterIdentity>,
    pub server: Arc<ServerIdentity>,
    pub pki: Arc<Pki>,
    pub name: ClusterName,
    pub doors: Arc<Doors>,
    pub addresses: Arc<Addresses>,
    pub settings: Arc<Settings>,
    pub sockets: Arc<Sockets>,
    pub audit: Arc<Audit>,
    pub tasks: Tasks,
}

/// How often old staging is looked for.
const SWEPT_EVERY: Duration = Duration::from_secs(3600);

/// Every floor that the surfaces work with, from the ground up.
pub(super) async fn build(
    place: &Place,
    ground: Ground,
    watched: Option<PathBuf>,
) -> Result<ApiState, DaemonError> {
    let Ground { store, identity, server, pki, name, doors, addresses, settings, sockets, audit, tasks } =
        ground;
    let pools = Pools::open(place.path())?;
    tasks.spawn("staging sweep", sweep(pools.clone(), tasks.ending()));
    let identities = Identities::start_with(store.clone(), pki.clone(), &tasks).await?;
    pki.start(&tasks);
    tasks.spawn("trusted unknowns", follow_unknowns(settings.clone(), identities.clone(), tasks.ending()));
    let sessions = Arc::new(Sessions::default());
    let catalog = Catalog::start(store.clone(), &tasks).await?;
    let imports = Arc::new(Imports::new());
    let (mesh_ca, bundles) =
        (open_mesh_ca(place, &store, &name, &tasks).await?, Arc::new(PeerBundles::default()));
    let health = Health::start(catalog.clone(), &tasks);
    let peering = Peering::new(PeeringParts {
        store: store.clone(),
        identity: identity.clone(),
        identities: identities.clone(),
        sessions: sessions.clone(),
        catalog: catalog.clone(),
        imports: imports.clone(),
        mesh_ca: mesh_ca.clone(),
        bundles: bundles.clone(),
        health: health.clone(),
        addresses: addresses.clone(),
        settings: settings.clone(),
        audit: audit.clone(),
        cluster: name.clone(),
        tasks: tasks.clone(),
    });
    let mesh = Mesh::new(MeshParts {
        catalog: catalog.clone(),
        imports: imports.clone(),
        health: health.clone(),
        sessions: sessions.clone(),
        identities: identities.clone(),
        mesh_ca: mesh_ca.clone(),
        bundles: bundles.clone(),
        tasks: tasks.clone(),
        sockets,
    });
    let observe = Observe::new(store.clone(), peering.clone(), name.clone(), identity.clone());
    let apply = Apply::start(ApplyParts {
        store: store.clone(),
        links: peering.clone(),
        pools: pools.clone(),
        audit: audit.clone(),
        tasks: tasks.clone(),
    });
    maintenance::restore(&*store, &catalog, &health).await?;
    overdue::start(&apply, &health, &identities, &tasks);
    let instances = Instances::new(store.clone(), pools.clone(), audit.clone());
    instances.mend(Timestamp::now()).await?;
    let volume_snapshots = VolumeSnapshots::new(store.clone(), pools.clone(), audit.clone(), &tasks);
    if let Err(error) = volume_snapshots.mend(Timestamp::now()).await {
        tracing::error!(%error, "what a crash may have left of volumes could not be looked for");
    }
    let backups = Backups::open(place.path())?;
    expiry::start(
        ExpiryParts {
            store: store.clone(),
            volumes: volume_snapshots.clone(),
            instances: instances.clone(),
            backups: backups.clone(),
            identities: identities.clone(),
            seen: place.path().join("schedules-seen"),
            clock: Timestamp::now,
        },
        &tasks,
    );
    let operations = Operations::new();
    let history = History::start(store.clone(), &operations, &tasks).await?;
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
    let clients = Arc::new(Clients::new(store.clone(), identities.clone(), server.clone(), audit.clone()));
    let acme = Acme::new(AcmeParts {
        dir: place.path().to_owned(),
        server: server.clone(),
        audit: audit.clone(),
        tasks: tasks.clone(),
    });
    let logins = Logins::new(Web::new()?, identities.clone(), clients.clone(), tasks.clone());
    login::follow(&logins, &settings, &tasks);
    Ok(ApiState::from(ApiParts {
        failures: Failures::new(audit.clone()),
        clients,
        logins,
        name,
        identity,
        server,
        acme,
        addresses,
        settings,
        projects: Projects::start(store.clone(), audit.clone(), &tasks).await?,
        instances,
        storage_pools: StoragePools::new(store.clone(), pools.clone(), audit.clone()),
        volume_snapshots,
        backups,
        audit,
        doors,
        store,
        identities,
        sessions,
        catalog,
        imports,
        health,
        mesh,
        mesh_ca,
        bundles,
        observe,
        apply,
        peering,
        pools,
        operations,
        history,
        transfers,
        reconcile,
        blocked: Blocked::default(),
        tasks,
    }))
}

/// The mesh CA, whose keys lie in a folder of their own.
async fn open_mesh_ca(
    place: &Place,
    store: &Arc<dyn Store>,
    cluster: &ClusterName,
    tasks: &Tasks,
) -> Result<Arc<MeshAuthority>, DaemonError> {
    let folder = place.mesh_ca();
    let opened = MeshAuthority::open(store.clone(), &folder, cluster.clone(), Timestamp::now());
    let authority = opened.await?;
    authority.start(tasks);
    Ok(authority)
}

/// Whom to trust of those that an authority signed and the store does not know, by the settings of the moment.
pub(super) fn unknowns(settings: &Arc<Settings>) -> AskUnknowns {
    let settings = Arc::clone(settings);
    Box::new(move || {
        let trusted = settings.current().trust_ca_certificates();
        if trusted { Unknowns::AreTrusted } else { Unknowns::AreNobody }
    })
}

/// Has connections looked at again when whom to trust is changed: those of callers who no longer are, are cut.
async fn follow_unknowns(settings: Arc<Settings>, identities: Arc<Identities>, ending: CancellationToken) {
    let mut changed = settings.changed();
    let mut before = settings.current().trust_ca_certificates();
    while ending.run_until_cancelled(changed.changed()).await.is_some_and(|changed| changed.is_ok()) {
        let now = changed.borrow_and_update().trust_ca_certificates();
        if now != before {
            before = now;
            identities.reconsider();
        }
    }
}

/// Throws away, from time to time, what transfers left that nobody goes on with.
async fn sweep(pools: Pools, ending: CancellationToken) {
    while ending.run_until_cancelled(tokio::time::sleep(SWEPT_EVERY)).await.is_some() {
        let pools = pools.clone();
        match tokio::task::spawn_blocking(move || pools.sweep()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "what old transfers left could not be looked through"),
            Err(_) => tracing::error!("what old transfers left could not be looked through"),
        }
    }
}
