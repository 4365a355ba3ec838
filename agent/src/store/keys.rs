//! Every key of the store, in one place: nothing else spells one out.
//!
//! Names hold no `/` (see `schema::name`), so no key can be made to look like another's.

use schema::kind::Kind;
use schema::name::{ContainerName, InstanceId, LinkName, ManifestName, PoolName, ProjectName, VolumeName};
use schema::record::RecordKey;

/// Declared records: `/declared/<record key>` holds a [`super::value::Declared`].
pub const DECLARED: &str = "/declared/";
/// Instances with an id of their own, by that id: which service each is of. An id is one instance's in the cluster.
pub const INSTANCE: &str = "/instance/";
/// Instances that are out of service, by id: why.
pub const MAINTENANCE: &str = "/maintenance/";
/// Entry heads: bumped with every change to one of the entry's records.
pub const HEAD: &str = "/head/";
/// Manifests: who they are bound to.
pub const MANIFEST: &str = "/manifest/";
/// Links' trust.
pub const LINK: &str = "/link/";
/// Identities, by what they are known by.
pub const IDENTITY: &str = "/identity/";
/// What an identity provider's groups are worth here.
pub const IDENTITY_PROVIDER_GROUP: &str = "/identity_provider_group/";
/// Sessions of those whom an identity provider vouches for.
pub const OIDC_SESSION: &str = "/oidc-session/";
/// Peers that are still to be told that their link was deleted here, by certificate fingerprint.
pub const TOMBSTONE: &str = "/tombstone/";
/// Trust tokens, as digests.
pub const TOKEN: &str = "/token/";
/// Which token a secret's digest is of.
pub const TOKEN_DIGEST: &str = "/token-digest/";
/// Volumes that exist here.
pub const VOLUME: &str = "/volume/";
/// Storage pools that were made: their configuration. `default` is always there.
pub const STORAGE_POOL: &str = "/storage-pool/";
/// Instances that are kept in a pool, by project and name, with their snapshots.
pub const CONTAINER: &str = "/container/";
/// What is being done on disk to an instance's tree, by pool, project and name: a crash is mended by it.
pub const CONTAINER_STEP: &str = "/container-step/";
/// Moves with every instance that comes into a project, by project.
pub const PROJECT_USE: &str = "/project-use/";
/// The snapshots of custom volumes, by pool and volume.
pub const VOLUME_SNAPSHOT: &str = "/volume-snapshot/";
/// What is being done on disk to a volume's tree or its snapshots, by pool, volume and who is at work.
pub const VOLUME_STEP: &str = "/volume-step/";
/// Transfers that ran, by the time they began.
pub const TRANSFER_RUN: &str = "/transfer-run/";
/// The cluster itself: its name.
pub const CLUSTER: &str = "/cluster";
/// The succession of the cluster's own certificates, and the rotation that is under way.
pub const SUCCESSION: &str = "/succession";
/// The mesh CA: its trust domain and its roots.
pub const MESH_CA: &str = "/mesh-ca";
/// What the administrator has set (LXD: server configuration).
pub const SETTINGS: &str = "/settings";
/// Projects besides `default`.
pub const PROJECT: &str = "/project/";
/// Follow-up steps still to be done.
pub const STEP: &str = "/step/";

pub fn declared(key: &RecordKey) -> String {
    format!("{DECLARED}{key}")
}

/// The prefix of every record of a kind.
pub fn declared_kind(kind: Kind) -> String {
    format!("{DECLARED}{kind}/")
}

/// The record key within a [`DECLARED`] key.
pub fn declared_record(key: &str) -> Option<RecordKey> {
    key.strip_prefix(DECLARED)?.parse().ok()
}

pub fn instance(id: &InstanceId) -> String {
    format!("{INSTANCE}{id}")
}

pub fn maintenance(id: &InstanceId) -> String {
    format!("{MAINTENANCE}{id}")
}

/// The head of the entry that `key` is part of: `/head/service_intentions/backend`.
pub fn head(key: &RecordKey) -> String {
    format!("{HEAD}{}/{}", key.kind(), key.entry_name())
}

/// The prefix of every head of a kind.
pub fn heads(kind: Kind) -> String {
    format!("{HEAD}{kind}/")
}

/// Whether a kind's entries have heads: those that Consul's clients read and guard whole.
pub fn has_head(kind: Kind) -> bool {
    has_parts(kind) || matches!(kind, Kind::SamenessGroup | Kind::ServiceDefaults)
}

/// Whether an entry of this kind is made of parts, which may have different owners.
pub fn has_parts(kind: Kind) -> bool {
    matches!(kind, Kind::ExportedServices | Kind::ServiceIntentions)
}

/// The prefix of the parts of the entry that `key` is part of: `/declared/service_intentions/backend/`.
pub fn parts_of(key: &RecordKey) -> String {
    format!("{DECLARED}{}/{}/", key.kind(), key.entry_name())
}

pub fn manifest(name: &ManifestName) -> String {
    format!("{MANIFEST}{name}")
}

pub fn link(name: &LinkName) -> String {
    format!("{LINK}{name}")
}

/// `fingerprint` is 64 hexadecimal digits.
pub fn identity(fingerprint: &str) -> String {
    format!("{IDENTITY}{fingerprint}")
}

/// `fingerprint` is 64 hexadecimal digits.
pub fn tombstone(fingerprint: &str) -> String {
    format!("{TOMBSTONE}{fingerprint}")
}

pub fn project(name: &ProjectName) -> String {
    format!("{PROJECT}{name}")
}

pub fn token(id: &str) -> String {
    format!("{TOKEN}{id}")
}

/// `digest` is 64 hexadecimal digits.
pub fn token_digest(digest: &str) -> String {
    format!("{TOKEN_DIGEST}{digest}")
}

pub fn oidc_session(id: &uuid::Uuid) -> String {
    format!("{OIDC_SESSION}{id}")
}

pub fn volume(pool: &PoolName, name: &VolumeName) -> String {
    format!("{VOLUME}{pool}/{name}")
}

pub fn storage_pool(pool: &PoolName) -> String {
    format!("{STORAGE_POOL}{pool}")
}

/// The prefix of the instances of a project.
pub fn containers(project: &ProjectName) -> String {
    format!("{CONTAINER}{project}/")
}

pub fn container(project: &ProjectName, name: &ContainerName) -> String {
    format!("{CONTAINER}{project}/{name}")
}

pub fn container_step(pool: &PoolName, project: &ProjectName, name: &ContainerName) -> String {
    format!("{CONTAINER_STEP}{pool}/{project}/{name}")
}

pub fn project_use(project: &ProjectName) -> String {
    format!("{PROJECT_USE}{project}")
}

pub fn volume_snapshots(pool: &PoolName, volume: &VolumeName) -> String {
    format!("{VOLUME_SNAPSHOT}{pool}/{volume}")
}

/// `part` tells apart what may be under way at the same time.
pub fn volume_step(pool: &PoolName, volume: &VolumeName, part: &str) -> String {
    format!("{VOLUME_STEP}{pool}/{volume}/{part}")
}

pub fn step(id: &uuid::Uuid) -> String {
    format!("{STEP}{id}")
}

/// The last part of a key: the name in `/link/west`.
pub fn last_part(key: &str) -> &str {
    key.rsplit('/').next().unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_key_survives_and_shares_its_entrys_head() {
        let one: RecordKey = "service_intentions/backend/west/frontend".parse().unwrap();
        let two: RecordKey = "service_intentions/backend/@/frontend".parse().unwrap();
        assert_eq!(declared_record(&declared(&one)), Some(one.clone()));
        assert_eq!(head(&one), "/head/service_intentions/backend");
        assert_eq!(head(&one), head(&two));
        assert_eq!(last_part("/link/west"), "west");
    }
}
