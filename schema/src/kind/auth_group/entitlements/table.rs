//! The table itself.

use super::Place::{Project, Same, Server};
use super::{Entitled, EntityType};

/// Every entity type that permissions can name: LXD's that are here, then ours.
pub const ENTITY_TYPES: &[EntityType] = &[
    EntityType { name: "server", entitlements: SERVER },
    EntityType { name: "project", entitlements: PROJECT },
    EntityType { name: "instance", entitlements: INSTANCE },
    EntityType { name: "storage_volume", entitlements: STORAGE_VOLUME },
    EntityType { name: "storage_pool", entitlements: STORAGE_POOL },
    EntityType { name: "group", entitlements: GROUP },
    EntityType { name: "identity", entitlements: IDENTITY },
    EntityType { name: "identity_provider_group", entitlements: IDENTITY_PROVIDER_GROUP },
    EntityType { name: "certificate", entitlements: CERTIFICATE },
    EntityType { name: "cluster_link", entitlements: CLUSTER_LINK },
    EntityType { name: "service", entitlements: SERVICE },
    EntityType { name: "exported_services", entitlements: EXPORTED_SERVICES },
    EntityType { name: "service_intentions", entitlements: SERVICE_INTENTIONS },
    EntityType { name: "manifest", entitlements: MANIFEST },
    EntityType { name: "transfer", entitlements: TRANSFER },
];

/// `"word" <- Place "other", …;` a line.
macro_rules! entitlements {
    ($($word:expr $(, $place:ident $other:expr)*;)*) => {
        &[$(Entitled { word: $word, also: &[$(($place, $other)),*] }),*]
    };
}

const SERVER: &[Entitled] = entitlements![
    "admin";
    "viewer";
    "can_edit", Same "admin";
    "permission_manager";
    "can_view_permissions", Same "permission_manager", Same "admin";
    "can_create_identities", Same "permission_manager", Same "admin";
    "can_view_identities", Same "permission_manager", Same "admin", Same "viewer";
    "can_edit_identities", Same "permission_manager", Same "admin";
    "can_delete_identities", Same "permission_manager", Same "admin";
    "can_create_groups", Same "permission_manager", Same "admin";
    "can_view_groups", Same "permission_manager", Same "admin", Same "viewer";
    "can_edit_groups", Same "permission_manager", Same "admin";
    "can_delete_groups", Same "permission_manager", Same "admin";
    "can_create_identity_provider_groups", Same "permission_manager", Same "admin";
    "can_view_identity_provider_groups", Same "permission_manager", Same "admin", Same "viewer";
    "can_edit_identity_provider_groups", Same "permission_manager", Same "admin";
    "can_delete_identity_provider_groups", Same "permission_manager", Same "admin";
    "storage_pool_manager";
    "can_create_storage_pools", Same "storage_pool_manager", Same "admin";
    "can_edit_storage_pools", Same "storage_pool_manager", Same "admin";
    "can_delete_storage_pools", Same "storage_pool_manager", Same "admin";
    "project_manager";
    "can_create_projects", Same "project_manager", Same "admin";
    "can_view_projects", Same "project_manager", Same "viewer", Same "admin";
    "can_edit_projects", Same "project_manager", Same "admin";
    "can_delete_projects", Same "project_manager", Same "admin";
    "can_override_cluster_target_restriction", Same "admin";
    "can_view_events", Same "admin", Same "viewer";
    "can_view_operations", Same "admin", Same "viewer";
    "can_view_resources", Same "admin", Same "viewer";
    "can_view_metrics", Same "admin", Same "viewer";
    "can_view_warnings", Same "admin", Same "viewer";
    "can_view_unmanaged_networks", Same "admin", Same "viewer";
    "can_create_cluster_links", Same "admin";
    "can_view_cluster_links", Same "admin", Same "viewer";
    "can_edit_cluster_links", Same "admin";
    "can_delete_cluster_links", Same "admin";
    // Ours.
    "can_create_services", Same "admin";
    "can_view_services", Same "admin", Same "viewer";
    "can_edit_services", Same "admin";
    "can_delete_services", Same "admin";
    "can_view_exported_services", Same "admin", Same "viewer";
    "can_edit_exported_services", Same "admin";
    "can_view_service_intentions", Same "admin", Same "viewer";
    "can_edit_service_intentions", Same "admin";
    "can_view_manifests", Same "admin", Same "viewer";
    "can_edit_manifests", Same "admin";
    "can_delete_manifests", Same "admin";
    "can_create_transfers", Same "admin";
    "can_view_transfers", Same "admin", Same "viewer";
    "can_edit_transfers", Same "admin";
    "can_delete_transfers", Same "admin";
];

/// The project's own, then five for each noun that projects have, then what is to be seen of it.
macro_rules! project {
    ($($noun:literal $nouns:literal $(operate $operate:literal)?;)*) => {
        entitlements![
            "operator";
            "viewer";
            "can_view", Same "viewer", Same "operator", Server "can_view_projects";
            "can_edit", Server "can_edit_projects";
            "can_delete", Server "can_delete_projects";
            $(
                concat!($noun, "_manager");
                concat!("can_create_", $nouns),
                    Same "operator", Same concat!($noun, "_manager"), Server "can_edit_projects";
                concat!("can_view_", $nouns),
                    Same "operator", Same "viewer", Same concat!($noun, "_manager"), Server "can_view_projects";
                concat!("can_edit_", $nouns),
                    Same "operator", Same concat!($noun, "_manager"), Server "can_edit_projects";
                concat!("can_delete_", $nouns),
                    Same "operator", Same concat!($noun, "_manager"), Server "can_edit_projects";
                $($operate, Same "operator", Same concat!($noun, "_manager"), Server "can_edit_projects";)?
            )*
            "can_view_operations", Same "operator", Same "viewer", Server "can_view_projects";
            "can_view_events", Same "operator", Same "viewer", Server "can_view_projects";
            "can_view_metrics", Same "operator", Same "viewer", Server "can_view_metrics";
        ]
    };
}

const PROJECT: &[Entitled] = project![
    "image" "images";
    "image_alias" "image_aliases";
    "instance" "instances" operate "can_operate_instances";
    "network" "networks";
    "network_acl" "network_acls";
    "network_zone" "network_zones";
    "profile" "profiles";
    "storage_volume" "storage_volumes";
    "storage_bucket" "storage_buckets";
    "placement_group" "placement_groups";
    "replicator" "replicators";
];

const INSTANCE: &[Entitled] = entitlements![
    "user";
    "operator";
    "can_edit", Project "can_edit_instances";
    "can_delete", Project "can_delete_instances";
    "can_view", Same "user", Same "operator", Same "can_edit", Same "can_delete", Project "can_view_instances";
    "can_update_state", Same "operator", Project "can_operate_instances";
    "can_manage_snapshots", Same "operator", Project "can_operate_instances";
    "can_manage_backups", Same "operator", Project "can_operate_instances";
    "can_connect_sftp", Same "user", Same "operator", Project "can_operate_instances";
    "can_access_files", Same "user", Same "operator", Project "can_operate_instances";
    "can_access_console", Same "user", Same "operator", Project "can_operate_instances";
    "can_exec", Same "user", Same "operator", Project "can_operate_instances";
];

const STORAGE_VOLUME: &[Entitled] = entitlements![
    "can_edit", Project "can_edit_storage_volumes";
    "can_delete", Project "can_delete_storage_volumes";
    "can_view", Same "can_edit", Same "can_delete", Project "can_view_storage_volumes";
    "can_manage_snapshots", Project "can_edit_storage_volumes";
    "can_manage_backups", Project "can_edit_storage_volumes";
];

const STORAGE_POOL: &[Entitled] = entitlements![
    "can_edit", Server "can_edit_storage_pools";
    "can_delete", Server "can_delete_storage_pools";
];

/// Who is in a group may see it: that is not a permission, so the decision knows it by itself.
const GROUP: &[Entitled] = entitlements![
    "can_view", Server "can_view_groups";
    "can_edit", Server "can_edit_groups";
    "can_delete", Server "can_delete_groups";
];

const IDENTITY: &[Entitled] = entitlements![
    "can_view", Server "can_view_identities";
    "can_edit", Server "can_edit_identities";
    "can_delete", Server "can_delete_identities";
];

const IDENTITY_PROVIDER_GROUP: &[Entitled] = entitlements![
    "can_view", Server "can_view_identity_provider_groups";
    "can_edit", Server "can_edit_identity_provider_groups";
    "can_delete", Server "can_delete_identity_provider_groups";
];

const CERTIFICATE: &[Entitled] = entitlements![
    "can_view", Same "can_edit", Same "can_delete", Server "can_view_identities";
    "can_edit", Server "can_edit_identities";
    "can_delete", Server "can_delete_identities";
];

const CLUSTER_LINK: &[Entitled] = entitlements![
    "can_view", Same "can_edit", Same "can_delete", Server "can_view_cluster_links";
    "can_edit", Server "can_edit_cluster_links";
    "can_delete", Server "can_delete_cluster_links";
];

const SERVICE: &[Entitled] = entitlements![
    "can_view", Same "can_edit", Same "can_delete", Server "can_view_services";
    "can_edit", Server "can_edit_services";
    "can_delete", Server "can_delete_services";
    // To be given the service's certificate, that is, to be the service.
    "can_issue_leaf", Same "can_edit";
];

/// There is one such entry; what is deleted is what it lists, so that is editing too.
const EXPORTED_SERVICES: &[Entitled] = entitlements![
    "can_view", Same "can_edit", Same "can_delete", Server "can_view_exported_services";
    "can_edit", Server "can_edit_exported_services";
    "can_delete", Server "can_edit_exported_services";
];

/// All intentions towards one destination: adding and removing a source is editing them.
const SERVICE_INTENTIONS: &[Entitled] = entitlements![
    "can_view", Same "can_edit", Same "can_delete", Server "can_view_service_intentions";
    "can_edit", Server "can_edit_service_intentions";
    "can_delete", Server "can_edit_service_intentions";
];

const MANIFEST: &[Entitled] = entitlements![
    "can_view", Same "can_edit", Same "can_delete", Server "can_view_manifests";
    "can_edit", Server "can_edit_manifests";
    "can_delete", Server "can_delete_manifests";
];

const TRANSFER: &[Entitled] = entitlements![
    "can_view", Same "can_edit", Same "can_delete", Server "can_view_transfers";
    "can_edit", Server "can_edit_transfers";
    "can_delete", Server "can_delete_transfers";
];
