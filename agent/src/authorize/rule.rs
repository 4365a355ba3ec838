//! The rights that handlers ask for, and for each what would do: `schema`'s table, followed to its ends once.

use std::sync::LazyLock;

use schema::kind::auth_group::entitlements::{ENTITY_TYPES, Place, entity_type};

macro_rules! entitlements {
    ($($name:ident $word:literal,)*) => {
        /// A right on an entity (LXD: entitlement). `as_str` is the word that permissions use.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Entitlement {
            $($name,)*
        }

        impl Entitlement {
            const ALL: &[Entitlement] = &[$(Entitlement::$name,)*];

            pub fn as_str(self) -> &'static str {
                match self {
                    $(Entitlement::$name => $word,)*
                }
            }

            /// The one that permissions call by this word; `None` for one that nothing here asks for.
            pub fn from_word(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Entitlement::$name),)*
                    _ => None,
                }
            }
        }
    };
}

entitlements! {
    Admin "admin",
    Viewer "viewer",
    CanView "can_view",
    CanEdit "can_edit",
    CanDelete "can_delete",
    CanCreateIdentities "can_create_identities",
    CanViewIdentities "can_view_identities",
    CanEditIdentities "can_edit_identities",
    CanDeleteIdentities "can_delete_identities",
    CanCreateGroups "can_create_groups",
    CanViewGroups "can_view_groups",
    CanEditGroups "can_edit_groups",
    CanDeleteGroups "can_delete_groups",
    CanCreateIdentityProviderGroups "can_create_identity_provider_groups",
    CanViewIdentityProviderGroups "can_view_identity_provider_groups",
    CanEditIdentityProviderGroups "can_edit_identity_provider_groups",
    CanDeleteIdentityProviderGroups "can_delete_identity_provider_groups",
    CanCreateClusterLinks "can_create_cluster_links",
    CanViewClusterLinks "can_view_cluster_links",
    CanEditClusterLinks "can_edit_cluster_links",
    CanDeleteClusterLinks "can_delete_cluster_links",
    CanViewPermissions "can_view_permissions",
    CanCreateStoragePools "can_create_storage_pools",
    CanEditStoragePools "can_edit_storage_pools",
    CanDeleteStoragePools "can_delete_storage_pools",
    CanCreateProjects "can_create_projects",
    CanViewProjects "can_view_projects",
    CanEditProjects "can_edit_projects",
    CanDeleteProjects "can_delete_projects",
    CanViewEvents "can_view_events",
    CanViewOperations "can_view_operations",
    CanViewResources "can_view_resources",
    CanViewMetrics "can_view_metrics",
    CanViewWarnings "can_view_warnings",
    CanCreateStorageVolumes "can_create_storage_volumes",
    CanViewStorageVolumes "can_view_storage_volumes",
    CanEditStorageVolumes "can_edit_storage_volumes",
    CanDeleteStorageVolumes "can_delete_storage_volumes",
    CanCreateInstances "can_create_instances",
    CanViewInstances "can_view_instances",
    CanEditInstances "can_edit_instances",
    CanDeleteInstances "can_delete_instances",
    CanOperateInstances "can_operate_instances",
    CanUpdateState "can_update_state",
    CanManageSnapshots "can_manage_snapshots",
    CanManageBackups "can_manage_backups",
    CanConnectSftp "can_connect_sftp",
    CanAccessFiles "can_access_files",
    CanAccessConsole "can_access_console",
    CanExec "can_exec",
    CanCreateServices "can_create_services",
    CanViewServices "can_view_services",
    CanEditServices "can_edit_services",
    CanDeleteServices "can_delete_services",
    CanIssueLeaf "can_issue_leaf",
    CanViewExportedServices "can_view_exported_services",
    CanEditExportedServices "can_edit_exported_services",
    CanViewServiceIntentions "can_view_service_intentions",
    CanEditServiceIntentions "can_edit_service_intentions",
    CanViewManifests "can_view_manifests",
    CanEditManifests "can_edit_manifests",
    CanDeleteManifests "can_delete_manifests",
    CanCreateTransfers "can_create_transfers",
    CanViewTransfers "can_view_transfers",
    CanEditTransfers "can_edit_transfers",
    CanDeleteTransfers "can_delete_transfers",
}

/// Types whose entities can be hidden. The others, the server and pools, can be known of by everyone who is trusted.
pub fn is_viewable(entity_type: &str) -> bool {
    !matches!(entity_type, "server" | "storage_pool")
}

/// Entitlements of one type, as bits in the order of its table.
pub type Words = u128;

/// What would do for a right: any of these, held where they stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sufficient {
    pub same: Words,
    pub project: Words,
    pub server: Words,
}

/// What would do for `entitlement` on a `entity_type`.
pub fn sufficient(entity_type: &str, entitlement: Entitlement) -> Sufficient {
    static TABLE: LazyLock<Vec<Vec<Sufficient>>> = LazyLock::new(|| {
        let row = |name| Entitlement::ALL.iter().map(|wanted| closure(name, wanted.as_str())).collect();
        ENTITY_TYPES.iter().map(|known| row(known.name)).collect()
    });
    let row = ENTITY_TYPES.iter().position(|known| known.name == entity_type).and_then(|at| TABLE.get(at));
    row.and_then(|row| row.get(entitlement as usize)).copied().unwrap_or_default()
}

/// The bit of one entitlement of a type.
fn bit(entity_type_name: &str, word: &str) -> Words {
    let known = entity_type(entity_type_name).and_then(|known| known.words().position(|known| known == word));
    known.map_or(0, |at| 1 << at)
}

/// Everything that grants `word` on a `name`, directly or by way of others. The server's `admin` grants all.
pub fn closure(name: &str, word: &str) -> Sufficient {
    let mut found = Sufficient { server: bit("server", "admin"), ..Sufficient::default() };
    let mut open = vec![(Place::Same, word)];
    while let Some((place, word)) = open.pop() {
        let (held_on, into) = match place {
            Place::Server => ("server", &mut found.server),
            Place::Project => ("project", &mut found.project),
            Place::Same => (name, &mut found.same),
        };
        let new = bit(held_on, word);
        if new == 0 || *into & new != 0 && word != "admin" {
            continue;
        }
        *into |= new;
        let Some(entitled) = entity_type(held_on).and_then(|known| known.entitlement(word)) else { continue };
        for (next, word) in entitled.also {
            // "The same" is where that one is held.
            let at = if *next == Place::Same { place } else { *next };
            open.push((at, *word));
        }
    }
    found
}
