//! The listener and the surfaces: /1.0 in LXD's shapes, /v1 in Consul's, /control/v1 ours.

use std::sync::Arc;

use schema::name::ClusterName;

use crate::apply::Apply;
use crate::authorize::{Denied, Entitlement, Entity, Permit, decide};
use crate::catalog::{Catalog, Imports};
use crate::health::Health;
use crate::mesh::Mesh;
use crate::observe::Observe;
use crate::store::Store;
use crate::task::Tasks;
use crate::trust::Caller;
use crate::trust::certificate::KeyPair;
use crate::trust::identity::Identities;
use crate::tunnel::Sessions;

pub mod control;
pub mod lxd;
pub mod problem;

/// What handlers work with. Each surface adds what it needs.
#[derive(Clone)]
pub struct ApiState {
    pub name: ClusterName,
    pub identity: Arc<KeyPair>,
    /// Where this agent is reached, `host:port`, as tokens tell it.
    pub addresses: Arc<[String]>,
    pub store: Arc<dyn Store>,
    pub identities: Arc<Identities>,
    pub sessions: Arc<Sessions>,
    pub catalog: Arc<Catalog>,
    pub imports: Arc<Imports>,
    pub health: Arc<Health>,
    pub mesh: Arc<Mesh>,
    pub observe: Observe,
    pub apply: Arc<Apply>,
    pub tasks: Tasks,
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
}
