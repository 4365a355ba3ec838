//! Why an agent did not start, and what to do about it.

use std::path::PathBuf;

use schema::name::ClusterName;

use super::place::PlaceError;
use crate::api::listener::ListenerError;
use crate::api::listener::network::ListenError;
use crate::api::listener::socket::SocketError;
use crate::catalog::CatalogError;
use crate::dataset::PoolError;
use crate::peering::PeeringError;
use crate::peering::rotation::RotationError;
use crate::project::ProjectError;
use crate::settings::SettingsError;
use crate::storage::{BackupError, InstanceError};
use crate::store::value::ValueError;
use crate::store::{CommitError, StoreError};
use crate::transfer::history::HistoryError;
use crate::trust::certificate::CertificateError;
use crate::trust::mesh::MeshError;
use crate::trust::pki::AuthorityError;
use crate::web::WebError;

/// Why an agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error("{} holds the private key of the cluster's CA ({}), which must never be on an agent", key.display(), authority.display())]
    AuthorityKey { key: PathBuf, authority: PathBuf },
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
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    MeshCa(#[from] MeshError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("Consul's API over plain HTTP: {0}")]
    ConsulHttp(#[source] ListenError),
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
    History(#[from] HistoryError),
    #[error(transparent)]
    Instances(#[from] InstanceError),
    #[error(transparent)]
    Backups(#[from] BackupError),
    #[error(transparent)]
    Web(#[from] WebError),
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
            DaemonError::AuthorityKey { .. } => Some(
                "Take it away from this machine: it is kept by the administrator alone. An agent needs cluster.crt, and a certificate and key of its own.",
            ),
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
            DaemonError::ConsulHttp(_) => {
                Some("Stop what is there, or give another loopback address with --consul-http.")
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
