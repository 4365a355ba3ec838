//! The listener and the surfaces: /1.0 in LXD's shapes, /v1 in Consul's, /control/v1 ours.
//!
//! A handler decodes, asks for a `Permit`, calls one function below, encodes. What every request has in common (its id,
//! its caller, its log line, the shape of its errors) is put round all routes here, so that no handler can leave it out.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::get;
use schema::name::{ClusterName, GroupName, ProjectName};

use self::consul::blocking::Blocked;
use self::lxd::attempt::Failures;
use crate::apply::Apply;
use crate::audit::Audit;
use crate::authorize::{Denied, Entitlement, Entity, Permit, decide};
use crate::catalog::{Catalog, Imports};
use crate::dataset::Pools;
use crate::health::Health;
use crate::mesh::Mesh;
use crate::observe::Observe;
use crate::operation::Operations;
use crate::peering::Peering;
use crate::project::Projects;
use crate::reconcile::Reconcile;
use crate::settings::{Addresses, Settings};
use crate::storage::{Backups, Instances, StoragePools, VolumeSnapshots};
use crate::store::{Store, StoreError};
use crate::task::Tasks;
use crate::transfer::Transfers;
use crate::transfer::history::History;
use crate::trust::acme::Acme;
use crate::trust::client_token::Clients;
use crate::trust::cluster_identity::ClusterIdentity;
use crate::trust::identity::Identities;
use crate::trust::mesh::{MeshAuthority, PeerBundles};
use crate::trust::oidc::Logins;
use crate::trust::server_identity::ServerIdentity;
use crate::trust::{Caller, Who};
use crate::tunnel::Sessions;

use listener::doors::Doors;

mod callers;
pub mod consul;
pub mod control;
mod credential;
mod entries;
pub mod listener;
pub mod lxd;
mod metrics;
mod pace;
pub mod problem;
pub mod request;
mod surface;

#[cfg(test)]
mod tests;
mod upgrade;
mod volume;
mod websocket;

/// What handlers work with: the parts, behind one pointer, since each request takes copies of it.
#[derive(Clone)]
pub struct ApiState(Arc<ApiParts>);

/// What the API is built of. Each surface adds what it needs.
pub struct ApiParts {
    pub name: ClusterName,
    pub identity: Arc<ClusterIdentity>,
    /// What clients are shown: another certificate than the cluster's, where there is one.
    pub server: Arc<ServerIdentity>,
    /// Certificates for clients to see, and proofs for the server that issues them.
    pub acme: Arc<Acme>,
    /// Where this agent is reached, `host:port`, as tokens tell it.
    pub addresses: Arc<Addresses>,
    pub settings: Arc<Settings>,
    pub audit: Arc<Audit>,
    pub doors: Arc<Doors>,
    pub projects: Arc<Projects>,
    pub store: Arc<dyn Store>,
    pub identities: Arc<Identities>,
    pub clients: Arc<Clients>,
    /// Those whom the identity provider vouches for.
    pub logins: Arc<Logins>,
    /// Redemptions that failed.
    pub failures: Failures,
    pub sessions: Arc<Sessions>,
    pub catalog: Arc<Catalog>,
    pub imports: Arc<Imports>,
    pub health: Arc<Health>,
    pub mesh: Arc<Mesh>,
    /// What gives services their certificates, and what linked clusters said of theirs.
    pub mesh_ca: Arc<MeshAuthority>,
    pub bundles: Arc<PeerBundles>,
    pub observe: Observe,
    pub apply: Arc<Apply>,
    pub peering: Arc<Peering>,
    pub pools: Pools,
    /// What is kept in the pools beside volumes.
    pub instances: Arc<Instances>,
    pub storage_pools: Arc<StoragePools>,
    pub volume_snapshots: Arc<VolumeSnapshots>,
    pub backups: Backups,
    pub operations: Operations,
    pub transfers: Transfers,
    /// Which transfers arrived here.
    pub history: History,
    /// The folder that `--watch` keeps applied.
    pub reconcile: Option<Arc<Reconcile>>,
    /// Queries of `/v1` that wait for a change.
    pub blocked: Blocked,
    pub tasks: Tasks,
}

impl std::ops::Deref for ApiState {
    type Target = ApiParts;
    fn deref(&self) -> &ApiParts {
        &self.0
    }
}

impl From<ApiParts> for ApiState {
    fn from(parts: ApiParts) -> Self {
        Self(Arc::new(parts))
    }
}

impl ApiState {
    /// Asks whether `caller` may, by the policy of this moment.
    pub fn permit(
        &self,
        caller: &Caller,
        entitlement: Entitlement,
        entity: Entity,
    ) -> Result<Permit, Denied> {
        decide(caller, entitlement, entity, &self.identities.policy())
    }

    /// Whether there is a project of this name.
    pub async fn has_project(&self, project: &ProjectName) -> Result<bool, StoreError> {
        let is_default = project.as_str() == crate::trust::entity::DEFAULT_PROJECT;
        Ok(is_default || self.store.get(&format!("/project/{project}")).await?.is_some())
    }

    /// Who `caller` is by now: for what outlives the request that it was looked up for.
    pub fn now(&self, caller: &Caller) -> Caller {
        let anonymous = || Who::Anonymous { certificate: caller.fingerprint() };
        let who = match (&caller.shown, caller.id(), &caller.who) {
            // Its rights are those of its session.
            _ if caller.origin.session.is_some() => {
                let session = caller.origin.session.as_ref();
                session
                    .and_then(|session| self.identities.caller_by_session(session))
                    .unwrap_or_else(anonymous)
            }
            // Known by its certificate, so what its authority says counts as well.
            (Some(shown), ..) if caller.fingerprint() == Some(shown.fingerprint) => {
                self.identities.caller_showing(shown)
            }
            (_, Some(id), _) => self.identities.caller_by_id(&id).unwrap_or_else(anonymous),
            (_, None, who) => who.clone(),
        };
        Caller { who, origin: caller.origin, shown: caller.shown.clone() }
    }

    /// Asks whether `caller` may read everything that is declared here: who views the server (LXD: `viewer`) or edits it.
    /// The right to see its resources, which every restricted client has, is less than that.
    pub fn permit_reading(&self, caller: &Caller) -> Result<Permit, Denied> {
        self.permit(caller, Entitlement::Viewer, Entity::Server)
            .or_else(|_| self.permit(caller, Entitlement::CanEdit, Entity::Server))
    }

    /// Asks whether `caller` may give others what `groups` may: who is in a group has it to give, and so has who may
    /// write the group. Otherwise the right to make identities would be every right there is.
    pub fn permit_groups(&self, caller: &Caller, groups: &[GroupName]) -> Result<(), Denied> {
        let own = caller.groups();
        for group in groups.iter().filter(|group| !own.contains(group)) {
            self.permit(caller, Entitlement::CanEdit, Entity::AuthGroup(group.clone()))?;
        }
        Ok(())
    }
}

/// Largest body of a request, unless its route says otherwise.
const MAX_BODY: usize = 1024 * 1024;

/// What is served in the clear, on this machine only.
pub fn plain_router(state: ApiState) -> Router {
    Router::new().nest("/v1", consul::router()).layer(DefaultBodyLimit::max(MAX_BODY)).with_state(state)
}

/// Every surface. What all requests have in common is put round it by `request::observe`.
pub fn router(state: ApiState) -> Router {
    Router::new()
        .route("/", get(lxd::versions))
        .nest("/1.0", lxd::router(&state))
        .nest("/v1", consul::router())
        .nest("/control/v1", control::router())
        .merge(metrics::router())
        .route("/healthz", get(|| async { "ok\n" }))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(state)
}
