//! Whose tree it is: what a pool keeps under a name.

use std::fmt;

use schema::name::{ContainerName, PoolName, ProjectName, VolumeName};

/// The project whose instances bear their own names on disk.
const DEFAULT_PROJECT: &str = "default";

/// One tree of a pool, with its snapshots.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dataset {
    pub pool: PoolName,
    pub owner: Owner,
}

/// What the tree belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// A custom storage volume, in the default project.
    Volume(VolumeName),
    /// An instance: its root volume, laid out as LXD has it (`rootfs/` and what stands beside it).
    Instance { project: ProjectName, name: ContainerName },
}

impl Dataset {
    pub fn volume(pool: &PoolName, volume: &VolumeName) -> Self {
        Self { pool: pool.clone(), owner: Owner::Volume(volume.clone()) }
    }

    pub fn instance(pool: &PoolName, project: &ProjectName, name: &ContainerName) -> Self {
        Self { pool: pool.clone(), owner: Owner::Instance { project: project.clone(), name: name.clone() } }
    }
}

impl Owner {
    /// The folder of a pool that holds such trees (LXD's names).
    pub fn area(&self) -> &'static str {
        match self {
            Owner::Volume(_) => "custom",
            Owner::Instance { .. } => "containers",
        }
    }

    /// The tree's folder within its area. No two owners share one: an instance's name holds no `_`.
    pub fn folder(&self) -> String {
        match self {
            Owner::Volume(volume) => volume.to_string(),
            Owner::Instance { project, name } if project.as_str() == DEFAULT_PROJECT => name.to_string(),
            Owner::Instance { project, name } => format!("{project}_{name}"),
        }
    }
}

impl Owner {
    /// Whose tree a folder of an area is; `None` for a folder that is nobody's.
    pub fn in_folder(area: &str, folder: &str) -> Option<Self> {
        match area {
            "custom" => Some(Owner::Volume(folder.parse().ok()?)),
            "containers" => {
                // A project's name may hold `_`, an instance's does not.
                let (project, name) = folder.rsplit_once('_').unwrap_or((DEFAULT_PROJECT, folder));
                Some(Owner::Instance { project: project.parse().ok()?, name: name.parse().ok()? })
            }
            _ => None,
        }
    }
}

/// `volume default/orders`, `instance c1`: as messages name it.
impl fmt::Display for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.owner {
            Owner::Volume(volume) => write!(f, "volume {}/{volume}", self.pool),
            Owner::Instance { project, name } if project.as_str() == DEFAULT_PROJECT => {
                write!(f, "instance {name}")
            }
            Owner::Instance { project, name } => write!(f, "instance {name} of project {project}"),
        }
    }
}
