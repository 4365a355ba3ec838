//! What was done, in words that LXD's lifecycle events use where it has one.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What was done. Written as one word: `identity-created`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// A manifest was applied.
    Applied,
    /// Declared records were changed by hand or through a compat surface.
    Edited,
    /// A follow-up step of an earlier commit was done.
    StepDone,
    /// The server's settings were changed (LXD: `config-updated`).
    #[serde(rename = "config-updated")]
    SettingsUpdated,
    CertificateCreated,
    CertificateUpdated,
    CertificateDeleted,
    IdentityCreated,
    IdentityUpdated,
    IdentityRenamed,
    IdentityDeleted,
    AuthGroupCreated,
    AuthGroupUpdated,
    AuthGroupRenamed,
    AuthGroupDeleted,
    IdentityProviderGroupCreated,
    IdentityProviderGroupUpdated,
    IdentityProviderGroupRenamed,
    IdentityProviderGroupDeleted,
    /// Somebody logged in by the identity provider.
    OidcSessionCreated,
    OidcSessionDeleted,
    /// A one-time token was made.
    TokenIssued,
    /// Somebody became trusted by one.
    TokenRedeemed,
    /// Somebody tried one that was not good.
    TokenRefused,
    TokenRevoked,
    TokenExpired,
    ClusterLinkCreated,
    ClusterLinkUpdated,
    ClusterLinkRenamed,
    ClusterLinkDeleted,
    /// Both sides hold the other's certificate.
    ClusterLinkActivated,
    /// The other side deleted it.
    ClusterLinkTerminated,
    /// A peer's next certificate was taken in place of the one that was pinned.
    ClusterLinkRepinned,
    /// This cluster shows another certificate from now on.
    ClusterCertificateRotated,
    /// Clients are shown another certificate from now on.
    ServerCertificateReplaced,
    ProjectCreated,
    ProjectUpdated,
    ProjectRenamed,
    ProjectDeleted,
    InstanceCreated,
    InstanceUpdated,
    InstanceRenamed,
    InstanceDeleted,
    /// It is again what it was when a snapshot of it was taken.
    InstanceRestored,
    InstanceSnapshotCreated,
    InstanceSnapshotUpdated,
    InstanceSnapshotRenamed,
    InstanceSnapshotDeleted,
    StoragePoolCreated,
    StoragePoolUpdated,
    StoragePoolDeleted,
    StorageVolumeCreated,
    StorageVolumeUpdated,
    StorageVolumeRenamed,
    StorageVolumeDeleted,
    StorageVolumeSnapshotCreated,
    StorageVolumeSnapshotDeleted,
    StorageVolumeSnapshotRenamed,
    StorageVolumeSnapshotUpdated,
    /// A volume's data is what a snapshot of it was.
    StorageVolumeRestored,
    InstanceBackupCreated,
    InstanceBackupRenamed,
    InstanceBackupRetrieved,
    InstanceBackupDeleted,
    StorageVolumeBackupCreated,
    StorageVolumeBackupRenamed,
    StorageVolumeBackupRetrieved,
    StorageVolumeBackupDeleted,
    /// Data of another cluster was taken in.
    TransferReceived,
}

/// The word itself.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_one_word_however_it_is_written() {
        assert_eq!(Action::SettingsUpdated.to_string(), "config-updated");
        assert_eq!(serde_json::to_string(&Action::AuthGroupCreated).unwrap(), "\"auth-group-created\"");
        assert_eq!(Action::IdentityProviderGroupDeleted.to_string(), "identity-provider-group-deleted");
    }
}
