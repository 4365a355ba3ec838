//! Which entitlement is also granted to holders of which other: LXD's table for the types that are here, then ours.

/// A right on an entity (LXD: entitlement). `as_str` is the word that permissions use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entitlement {
    Admin,
    CanView,
    CanEdit,
    CanDelete,
    CanCreateIdentities,
    CanViewIdentities,
    CanEditIdentities,
    CanDeleteIdentities,
    CanCreateGroups,
    CanViewGroups,
    CanEditGroups,
    CanDeleteGroups,
    CanCreateClusterLinks,
    CanViewClusterLinks,
    CanEditClusterLinks,
    CanDeleteClusterLinks,
    CanViewPermissions,
    CanCreateStoragePools,
    CanEditStoragePools,
    CanDeleteStoragePools,
    CanViewProjects,
    CanEditProjects,
    CanViewEvents,
    CanViewOperations,
    CanViewResources,
    CanViewMetrics,
    CanCreateStorageVolumes,
    CanViewStorageVolumes,
    CanEditStorageVolumes,
    CanDeleteStorageVolumes,
    CanManageSnapshots,
    CanManageBackups,
}

impl Entitlement {
    pub fn as_str(self) -> &'static str {
        match self {
            Entitlement::Admin => "admin",
            Entitlement::CanView => "can_view",
            Entitlement::CanEdit => "can_edit",
            Entitlement::CanDelete => "can_delete",
            Entitlement::CanCreateIdentities => "can_create_identities",
            Entitlement::CanViewIdentities => "can_view_identities",
            Entitlement::CanEditIdentities => "can_edit_identities",
            Entitlement::CanDeleteIdentities => "can_delete_identities",
            Entitlement::CanCreateGroups => "can_create_groups",
            Entitlement::CanViewGroups => "can_view_groups",
            Entitlement::CanEditGroups => "can_edit_groups",
            Entitlement::CanDeleteGroups => "can_delete_groups",
            Entitlement::CanCreateClusterLinks => "can_create_cluster_links",
            Entitlement::CanViewClusterLinks => "can_view_cluster_links",
            Entitlement::CanEditClusterLinks => "can_edit_cluster_links",
            Entitlement::CanDeleteClusterLinks => "can_delete_cluster_links",
            Entitlement::CanViewPermissions => "can_view_permissions",
            Entitlement::CanCreateStoragePools => "can_create_storage_pools",
            Entitlement::CanEditStoragePools => "can_edit_storage_pools",
            Entitlement::CanDeleteStoragePools => "can_delete_storage_pools",
            Entitlement::CanViewProjects => "can_view_projects",
            Entitlement::CanEditProjects => "can_edit_projects",
            Entitlement::CanViewEvents => "can_view_events",
            Entitlement::CanViewOperations => "can_view_operations",
            Entitlement::CanViewResources => "can_view_resources",
            Entitlement::CanViewMetrics => "can_view_metrics",
            Entitlement::CanCreateStorageVolumes => "can_create_storage_volumes",
            Entitlement::CanViewStorageVolumes => "can_view_storage_volumes",
            Entitlement::CanEditStorageVolumes => "can_edit_storage_volumes",
            Entitlement::CanDeleteStorageVolumes => "can_delete_storage_volumes",
            Entitlement::CanManageSnapshots => "can_manage_snapshots",
            Entitlement::CanManageBackups => "can_manage_backups",
        }
    }
}

/// Where the other entitlement must be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On the same entity.
    Same,
    /// On the project that the entity is in.
    Project,
    Server,
}

use Place::{Project, Same, Server};

type Sources = &'static [(Place, &'static str)];

/// Types whose entities can be hidden. The others, the server and pools, can be known of by everyone who is trusted.
pub fn is_viewable(entity_type: &str) -> bool {
    !matches!(entity_type, "server" | "storage_pool")
}

/// Holders of these hold `word` on a `entity_type` too. Holders of the server's `admin` hold everything, so that is
/// not in the table.
pub fn also_granted_to(entity_type: &str, word: &str) -> Sources {
    match entity_type {
        "server" => server(word),
        "project" => project(word),
        "group" => match word {
            "can_view" => &[(Server, "can_view_groups")],
            "can_edit" => &[(Server, "can_edit_groups")],
            "can_delete" => &[(Server, "can_delete_groups")],
            _ => &[],
        },
        "identity" => match word {
            "can_view" => &[(Server, "can_view_identities")],
            "can_edit" => &[(Server, "can_edit_identities")],
            "can_delete" => &[(Server, "can_delete_identities")],
            _ => &[],
        },
        "certificate" => match word {
            "can_view" => &[(Same, "can_edit"), (Same, "can_delete"), (Server, "can_view_identities")],
            "can_edit" => &[(Server, "can_edit_identities")],
            "can_delete" => &[(Server, "can_delete_identities")],
            _ => &[],
        },
        "cluster_link" => match word {
            "can_view" => &[(Same, "can_edit"), (Same, "can_delete"), (Server, "can_view_cluster_links")],
            "can_edit" => &[(Server, "can_edit_cluster_links")],
            "can_delete" => &[(Server, "can_delete_cluster_links")],
            _ => &[],
        },
        "storage_pool" => match word {
            "can_edit" => &[(Server, "can_edit_storage_pools")],
            "can_delete" => &[(Server, "can_delete_storage_pools")],
            _ => &[],
        },
        "storage_volume" => match word {
            "can_view" => &[(Same, "can_edit"), (Same, "can_delete"), (Project, "can_view_storage_volumes")],
            "can_edit" | "can_manage_snapshots" | "can_manage_backups" => {
                &[(Project, "can_edit_storage_volumes")]
            }
            "can_delete" => &[(Project, "can_delete_storage_volumes")],
            _ => &[],
        },
        // Ours: as LXD does it for its own.
        "service" | "exported_services" | "service_intentions" | "manifest" | "transfer" => match word {
            "can_view" => &[(Same, "can_edit"), (Same, "can_delete"), (Server, "viewer")],
            _ => &[],
        },
        _ => &[],
    }
}

fn server(word: &str) -> Sources {
    match word {
        "can_view_identities" | "can_view_groups" => &[(Server, "permission_manager"), (Server, "viewer")],
        "can_view_permissions"
        | "can_create_identities"
        | "can_edit_identities"
        | "can_delete_identities"
        | "can_create_groups"
        | "can_edit_groups"
        | "can_delete_groups" => &[(Server, "permission_manager")],
        "can_create_storage_pools" | "can_edit_storage_pools" | "can_delete_storage_pools" => {
            &[(Server, "storage_pool_manager")]
        }
        "can_view_projects" => &[(Server, "project_manager"), (Server, "viewer")],
        "can_create_projects" | "can_edit_projects" | "can_delete_projects" => &[(Server, "project_manager")],
        "can_view_cluster_links"
        | "can_view_events"
        | "can_view_operations"
        | "can_view_resources"
        | "can_view_metrics" => &[(Server, "viewer")],
        _ => &[],
    }
}

fn project(word: &str) -> Sources {
    match word {
        "can_view" => &[(Same, "viewer"), (Same, "operator"), (Server, "can_view_projects")],
        "can_edit" => &[(Server, "can_edit_projects")],
        "can_delete" => &[(Server, "can_delete_projects")],
        "can_create_storage_volumes" | "can_edit_storage_volumes" | "can_delete_storage_volumes" => {
            &[(Same, "operator"), (Same, "storage_volume_manager"), (Server, "can_edit_projects")]
        }
        "can_view_storage_volumes" => &[
            (Same, "operator"),
            (Same, "viewer"),
            (Same, "storage_volume_manager"),
            (Server, "can_view_projects"),
        ],
        "can_view_operations" | "can_view_events" | "can_view_metrics" => {
            &[(Same, "operator"), (Same, "viewer"), (Server, "can_view_projects")]
        }
        _ => &[],
    }
}
