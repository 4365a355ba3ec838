//! Why an apply was refused. Each says whose move it is.

use schema::config::describe;
use schema::kind::service_defaults::Protocol;
use schema::name::{
    GroupName, InstanceId, LinkName, ManifestName, PoolName, SamenessGroupName, ServiceName, VolumeName,
};
use schema::record::{RecordKey, ServiceMatch};

use crate::dataset::PoolError;
use crate::observe::{Binding, ObserveError};
use crate::store::value::ValueError;
use crate::store::{CommitError, StoreError};
use crate::trust::forget::ForgetError;

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("this takes the right to edit the server")]
    NotPermitted,
    #[error(
        "the plan was made against another store than this one is now: it was restored or replaced since"
    )]
    OtherStore,
    #[error("changed since the plan was made: {}", .0.join(", "))]
    Moved(Vec<String>),
    #[error("manifest {manifest:?} belongs to {bound_to}, who first applied it{}", besides(.owners))]
    Bound { manifest: String, bound_to: Binding, owners: Vec<GroupName> },
    #[error("{} belongs to manifest {:?}", .0.address(), .1.as_str())]
    Owned(RecordKey, ManifestName),
    #[error("{} belongs to manifest {:?}", describe(.0), .1.as_str())]
    OwnedPart(RecordKey, ManifestName),
    /// Consul's words.
    #[error("Sources[{index}] defines {origin}\"{source_name}\" more than once")]
    SourceExists { index: usize, origin: String, source_name: ServiceMatch },
    #[error("there is no {}", describe(.0))]
    NoSuchPart(RecordKey),
    /// Consul's words.
    #[error("Meta must not be specified")]
    MetaGiven,
    /// Consul's words.
    #[error(
        "service \"{service}\" has protocol \"{protocol}\", which is incompatible with L7 intentions permissions"
    )]
    Protocol { service: ServiceName, protocol: Protocol },
    #[error("{0} cannot be changed like this: {1}")]
    Malformed(RecordKey, &'static str),
    #[error("the plan has {0} changes; at most {1} are taken at once")]
    TooLarge(usize, usize),
    #[error("cluster link {link} names the auth group {group}, which does not exist here")]
    NoSuchGroup { link: LinkName, group: GroupName },
    #[error("auth group {group} is still used by cluster link {link}")]
    GroupInUse { group: GroupName, link: LinkName },
    #[error("sameness group {group} is still named by {}{}", describe(.by), owned(.owner.as_ref()))]
    SamenessGroupInUse { group: SamenessGroupName, by: Box<RecordKey>, owner: Option<ManifestName> },
    #[error("instance id {:?} is taken: {} has it", .id.as_str(), .by.address())]
    IdTaken { id: InstanceId, by: RecordKey },
    #[error("there is no cluster link {0}")]
    NoSuchLink(LinkName),
    #[error("A cluster link with name {:?} already exists", .0.as_str())]
    LinkExists(LinkName),
    /// LXD's words for a name that is taken.
    #[error("An identity with name {:?} already exists", .0.as_str())]
    NameOfCaller(LinkName),
    /// LXD's words, and who.
    #[error("Cluster link is currently in use: {by} speaks of {link}")]
    LinkInUse { link: LinkName, by: String },
    #[error("auth group {0} is built in: it can be neither changed nor removed")]
    BuiltIn(GroupName),
    #[error("auth group {group} is named as an owner by manifest {manifest:?}")]
    GroupOwns { group: GroupName, manifest: String },
    #[error("{} exists already", .0.address())]
    Exists(RecordKey),
    #[error("volume {pool}/{volume} cannot be made: there is no storage pool {pool} here")]
    NoSuchPool { pool: PoolName, volume: VolumeName },
    #[error("the old data of volume {pool}/{volume} is still being destroyed")]
    StillGoing { pool: PoolName, volume: VolumeName },
    #[error("a volume {pool}/{volume} is just arriving by a copy")]
    Arriving { pool: PoolName, volume: VolumeName },
    #[error("there is no volume {0}/{1}")]
    NoSuchVolume(PoolName, VolumeName),
    /// LXD's words.
    #[error("Volume by that name already exists")]
    VolumeExists,
    #[error("data of a volume {0}/{1} that was forgotten is still there")]
    DataExists(PoolName, VolumeName),
    #[error("volume {pool}/{volume} is in use: {by} names it")]
    VolumeInUse { pool: PoolName, volume: VolumeName, by: String },
    #[error("the plan would destroy the data of volume {0}, but consent to that was not given")]
    NoConsent(String),
    #[error("the trust of a link could not be read: {0}")]
    Links(String),
    #[error("the agent is ending")]
    Ended,
    #[error(transparent)]
    Pool(PoolError),
    #[error(transparent)]
    Commit(CommitError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Value(#[from] ValueError),
    #[error(transparent)]
    Observe(#[from] ObserveError),
    #[error(transparent)]
    Forget(#[from] ForgetError),
}

impl ApplyError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::OtherStore | Self::Moved(_) => "Plan again, look at what it says now, and apply that.",
            Self::Bound { .. } => {
                "Apply as that identity or a member of its owners, or over the agent's unix socket; \
                 or give your manifest another name."
            }
            Self::Owned(..) | Self::OwnedPart(..) => {
                "Change it in that manifest's files, or remove it there first."
            }
            Self::Malformed(..) => "Plans are made by `comity plan` of the agent's own version.",
            Self::TooLarge(..) => "Divide the declarations among several manifests.",
            Self::SourceExists { .. } => "Change the source that is there, or remove it first.",
            Self::MetaGiven => {
                "It belongs to the whole entry: write that, with `comity config write`, to change it."
            }
            Self::Protocol { .. } => {
                "Say what the service speaks in its service-defaults first; on the way back, remove the permissions first."
            }
            Self::NoSuchGroup { .. } => {
                "Declare the group as an auth_group and apply it first, or in the same manifest."
            }
            Self::GroupInUse { .. } => {
                "Take the group off the link first, in the same apply or an earlier one."
            }
            Self::SamenessGroupInUse { .. } => {
                "Take the group out of that first, in the same apply or an earlier one."
            }
            Self::IdTaken { .. } => "Give the instance another id: ids are unique in a cluster.",
            Self::LinkExists(_) | Self::VolumeExists => "Give it another name.",
            Self::NameOfCaller(_) => {
                "A cluster that calls here over a one-way link of its own has this name, or a token for one. Give the \
                 link another name, or delete that identity first."
            }
            Self::LinkInUse { .. } => {
                "Take the link out of that first; afterwards name it there by its new name."
            }
            Self::BuiltIn(_) => "Put identities into it, or give the group another name.",
            Self::GroupOwns { .. } => "Change it in that manifest's files first.",
            Self::Exists(_) => "Choose another name.",
            Self::NoSuchPool { .. } => "Use a pool of `comity status`, such as \"default\".",
            Self::StillGoing { .. } => "Try again in a moment.",
            Self::Arriving { .. } => {
                "Choose another name, or plan again when it has arrived: `comity operation list` shows what runs."
            }
            Self::VolumeInUse { .. } => "Take the volume out of that first.",
            Self::DataExists(..) => "Choose another name, or declare that volume and delete it.",
            Self::NoConsent(_) => "Add --destroy-data, or leave the data and forget the volume.",
            Self::NotPermitted
            | Self::NoSuchPart(_)
            | Self::NoSuchLink(_)
            | Self::NoSuchVolume(..)
            | Self::Links(_)
            | Self::Ended
            | Self::Pool(_)
            | Self::Commit(_)
            | Self::Store(_)
            | Self::Value(_)
            | Self::Observe(_)
            | Self::Forget(_) => return None,
        })
    }

    /// Whether planning again against the state of now may help.
    pub fn is_stale(&self) -> bool {
        matches!(self, Self::OtherStore | Self::Moved(_) | Self::StillGoing { .. })
    }
}

fn owned(owner: Option<&ManifestName>) -> String {
    owner.map(|owner| format!(" (of manifest {:?})", owner.as_str())).unwrap_or_default()
}

fn besides(owners: &[GroupName]) -> String {
    if owners.is_empty() {
        return String::new();
    }
    let names: Vec<&str> = owners.iter().map(GroupName::as_str).collect();
    format!(", and to its owners: {}", names.join(", "))
}
