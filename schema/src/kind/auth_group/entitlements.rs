//! What permissions can name.

/// Every entity type that permissions can name, with its entitlements: LXD's table for the types that exist here,
/// then our own.
pub const ENTITLEMENTS: &[(&str, &[&str])] = &[
    (
        "server",
        &[
            "admin",
            "viewer",
            "can_edit",
            "permission_manager",
            "can_view_permissions",
            "can_create_identities",
            "can_view_identities",
            "can_edit_identities",
            "can_delete_identities",
            "can_create_groups",
            "can_view_groups",
            "can_edit_groups",
            "can_delete_groups",
            "can_create_identity_provider_groups",
            "can_view_identity_provider_groups",
            "can_edit_identity_provider_groups",
            "can_delete_identity_provider_groups",
            "storage_pool_manager",
            "can_create_storage_pools",
            "can_edit_storage_pools",
            "can_delete_storage_pools",
            "project_manager",
            "can_create_projects",
            "can_view_projects",
            "can_edit_projects",
            "can_delete_projects",
            "can_override_cluster_target_restriction",
            "can_view_events",
            "can_view_operations",
            "can_view_resources",
            "can_view_metrics",
            "can_view_warnings",
            "can_view_unmanaged_networks",
            "can_create_cluster_links",
            "can_view_cluster_links",
            "can_edit_cluster_links",
            "can_delete_cluster_links",
        ],
    ),
    (
        "project",
        &[
            "operator",
            "viewer",
            "can_view",
            "can_edit",
            "can_delete",
            "image_manager",
            "can_create_images",
            "can_view_images",
            "can_edit_images",
            "can_delete_images",
            "image_alias_manager",
            "can_create_image_aliases",
            "can_view_image_aliases",
            "can_edit_image_aliases",
            "can_delete_image_aliases",
            "instance_manager",
            "can_create_instances",
            "can_view_instances",
            "can_edit_instances",
            "can_delete_instances",
            "can_operate_instances",
            "network_manager",
            "can_create_networks",
            "can_view_networks",
            "can_edit_networks",
            "can_delete_networks",
            "network_acl_manager",
            "can_create_network_acls",
            "can_view_network_acls",
            "can_edit_network_acls",
            "can_delete_network_acls",
            "network_zone_manager",
            "can_create_network_zones",
            "can_view_network_zones",
            "can_edit_network_zones",
            "can_delete_network_zones",
            "profile_manager",
            "can_create_profiles",
            "can_view_profiles",
            "can_edit_profiles",
            "can_delete_profiles",
            "storage_volume_manager",
            "can_create_storage_volumes",
            "can_view_storage_volumes",
            "can_edit_storage_volumes",
            "can_delete_storage_volumes",
            "storage_bucket_manager",
            "can_create_storage_buckets",
            "can_view_storage_buckets",
            "can_edit_storage_buckets",
            "can_delete_storage_buckets",
            "placement_group_manager",
            "can_create_placement_groups",
            "can_view_placement_groups",
            "can_edit_placement_groups",
            "can_delete_placement_groups",
            "replicator_manager",
            "can_create_replicators",
            "can_view_replicators",
            "can_edit_replicators",
            "can_delete_replicators",
            "can_view_operations",
            "can_view_events",
            "can_view_metrics",
        ],
    ),
    (
        "instance",
        &[
            "user",
            "operator",
            "can_edit",
            "can_delete",
            "can_view",
            "can_update_state",
            "can_manage_snapshots",
            "can_manage_backups",
            "can_connect_sftp",
            "can_access_files",
            "can_access_console",
            "can_exec",
        ],
    ),
    ("storage_volume", &["can_edit", "can_delete", "can_view", "can_manage_snapshots", "can_manage_backups"]),
    ("storage_pool", &["can_edit", "can_delete"]),
    ("group", VIEW_EDIT_DELETE),
    ("identity", VIEW_EDIT_DELETE),
    ("certificate", VIEW_EDIT_DELETE),
    ("cluster_link", VIEW_EDIT_DELETE),
    ("service", VIEW_EDIT_DELETE),
    ("exported_services", VIEW_EDIT_DELETE),
    ("service_intentions", VIEW_EDIT_DELETE),
    ("manifest", VIEW_EDIT_DELETE),
    ("transfer", VIEW_EDIT_DELETE),
];

const VIEW_EDIT_DELETE: &[&str] = &["can_view", "can_edit", "can_delete"];

/// Entity types of LXD that no cluster has here, so that a message can say so.
pub const NOT_HERE: &[&str] = &[
    "image",
    "image_alias",
    "network",
    "network_acl",
    "network_zone",
    "profile",
    "storage_bucket",
    "placement_group",
    "replicator",
    "identity_provider_group",
    "instance_snapshot",
    "instance_backup",
    "storage_volume_snapshot",
    "storage_volume_backup",
];

/// What a permission on an entity type says besides type and entitlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    pub entity: bool,
    pub project: bool,
    pub pool: bool,
}

/// What a permission on `entity_type` needs: a server is the one there is, the rest are named.
pub fn needs(entity_type: &str) -> Needs {
    Needs {
        entity: entity_type != "server",
        project: matches!(entity_type, "instance" | "storage_volume"),
        pool: entity_type == "storage_volume",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_entitlement_stands_once() {
        for (entity_type, entitlements) in ENTITLEMENTS {
            let mut sorted = entitlements.to_vec();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), entitlements.len(), "{entity_type}");
        }
    }
}
