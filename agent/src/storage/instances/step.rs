//! What is being done to an instance's tree on disk, written down before it is done.
//!
//! A step is known by the pool, project and name of the tree that it is about. It goes in the commit that makes its tree
//! a record's; one that is still there when the agent starts was cut short, and is undone. A tree without a record and
//! without a step is nobody's to remove: it stays, and whoever wants its name is told so.

use schema::name::{ContainerName, PoolName, ProjectName, SnapshotName};
use serde::{Deserialize, Serialize};

use super::{InstanceError, Instances};
use crate::storage::InstanceSnapshot;
use crate::storage::refresh::Refresh;
use crate::store::value::{decode, encode};
use crate::store::{Op, Txn, keys};

/// What is to become of a tree that is worked on if the agent starts anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// It was being made, or was on its way out: it goes.
    Remove,
    /// It was that of another name in the same pool, and is so again unless the record has followed.
    Rename { project: ProjectName, name: ContainerName },
    /// Its instance's snapshot was being given another name: it has the old one again unless the record has followed.
    RenameSnapshot { from: SnapshotName, to: SnapshotName },
    /// Its instance was being restored: it is restored again, record and all.
    Restore { snapshot: SnapshotName },
    /// Its instance's snapshots were being brought to those of another: their records follow what is on disk.
    Refresh(Refresh<InstanceSnapshot>),
}

/// A step, with the tree that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    pub pool: PoolName,
    pub project: ProjectName,
    pub name: ContainerName,
    pub step: Step,
}

impl Instances {
    /// Writes down what is about to be done to a tree.
    pub async fn begin(
        &self,
        pool: &PoolName,
        project: &ProjectName,
        name: &ContainerName,
        step: &Step,
    ) -> Result<(), InstanceError> {
        let key = keys::container_step(pool, project, name);
        self.store.commit(Txn { guards: vec![], ops: vec![Op::Put { key, value: encode(step) }] }).await?;
        Ok(())
    }

    /// It is done, or undone.
    pub async fn end(
        &self,
        pool: &PoolName,
        project: &ProjectName,
        name: &ContainerName,
    ) -> Result<(), InstanceError> {
        let key = keys::container_step(pool, project, name);
        self.store.commit(Txn { guards: vec![], ops: vec![Op::Delete { key }] }).await?;
        Ok(())
    }

    /// The step that is under way on a tree, or was cut short.
    pub async fn begun(
        &self,
        pool: &PoolName,
        project: &ProjectName,
        name: &ContainerName,
    ) -> Result<Option<Step>, InstanceError> {
        let entry = self.store.get(&keys::container_step(pool, project, name)).await?;
        Ok(entry.as_ref().map(decode).transpose()?)
    }

    /// Every step that is there.
    pub async fn left(&self) -> Result<Vec<Left>, InstanceError> {
        let mut found = Vec::new();
        for entry in self.store.range(keys::CONTAINER_STEP).await?.entries {
            let parts: Vec<&str> = entry.key[keys::CONTAINER_STEP.len()..].split('/').collect();
            if let [pool, project, name] = parts[..]
                && let (Ok(pool), Ok(project), Ok(name)) = (pool.parse(), project.parse(), name.parse())
            {
                found.push(Left { pool, project, name, step: decode(&entry)? });
            }
        }
        Ok(found)
    }
}
