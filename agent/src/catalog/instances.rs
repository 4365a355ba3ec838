//! The instances of one service.

use std::sync::Arc;

use schema::kind::service::Service;
use schema::name::InstanceId;

use crate::store::Revision;

/// One instance, as declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    pub id: InstanceId,
    pub service: Arc<Service>,
    pub created: Revision,
    pub modified: Revision,
}

impl Instance {
    /// Whether it takes connections, or only makes them.
    pub fn listens(&self) -> bool {
        self.service.port.is_some() || !self.service.socket_path.is_empty()
    }
}

/// Every instance of one service, by id. There is at least one: a service without any is not declared.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Instances(Vec<Instance>);

impl Instances {
    pub fn get(&self, id: &InstanceId) -> Option<&Instance> {
        self.place(id).ok().map(|at| &self.0[at])
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Instance> {
        self.0.iter()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether any of them takes connections.
    pub fn listen(&self) -> bool {
        self.0.iter().any(Instance::listens)
    }

    pub(super) fn insert(&mut self, instance: Instance) {
        match self.place(&instance.id) {
            Ok(at) => self.0[at] = instance,
            Err(at) => self.0.insert(at, instance),
        }
    }

    pub(super) fn remove(&mut self, id: &InstanceId) {
        if let Ok(at) = self.place(id) {
            self.0.remove(at);
        }
    }

    fn place(&self, id: &InstanceId) -> Result<usize, usize> {
        self.0.binary_search_by(|known| known.id.cmp(id))
    }
}

impl<'a> IntoIterator for &'a Instances {
    type Item = &'a Instance;
    type IntoIter = std::slice::Iter<'a, Instance>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl FromIterator<Instance> for Instances {
    fn from_iter<I: IntoIterator<Item = Instance>>(instances: I) -> Self {
        let mut all = Self::default();
        for instance in instances {
            all.insert(instance);
        }
        all
    }
}
