//! The floors of an agent, each made of those below it and given what it needs; none looks for another by itself.

use std::path::PathBuf;
use std::sync::Arc;

use schema::name::ClusterName;

use super::DaemonError;
use super::place::Place;
use crate::api::listener::doors::Doors;
use crate::api::lxd::attempt::Failures;
use crate::api::{ApiParts, ApiState};
use crate::apply::{Apply, ApplyParts};
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
use crate::store::Store;
use crate::task::Tasks;
use crate::transfer::Transfers;
use crate::trust::acme::{Acme, AcmeParts};
use crate::trust::client_token::Clients;
use crate::trust::cluster_identity::ClusterIdentity;
use crate::trust::identity::Identities;
use crate::trust::server_identity::ServerIdentity;
use crate::tunnel::Sessions;

/// What every floor stands on.
pub(super) struct Ground {
    pub store: Arc<dyn Store>,
    pub identity: Arc<ClusterIdentity>,
    pub server: Arc<ServerIdentity>,
    pub name: ClusterName,
    pub doors: Arc<Doors>,
    pub addresses: Arc<Addresses>,
    pub settings: Arc<Settings>,
    pub audit: Arc<Audit>,
    pub tasks: Tasks,
}

/// Every floor that the surfaces work with, from the ground up.
pub(super) async fn build(
    place: &Place,
    ground: Ground,
    watched: Option<PathBuf>,
) -> Result<ApiState, DaemonError> {
    let Ground { store, identity, server, name, doors, addresses, settings, audit, tasks } = ground;
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
    let clients = Arc::new(Clients::new(store.clone(), identities.clone(), server.clone(), audit.clone()));
    let acme = Acme::new(AcmeParts {
        dir: place.path().to_owned(),
        server: server.clone(),
        audit: audit.clone(),
        tasks: tasks.clone(),
    });
    Ok(ApiState::from(ApiParts {
        failures: Failures::new(audit.clone()),
        clients,
        name,
        identity,
        server,
        acme,
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
