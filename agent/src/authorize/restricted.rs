//! What a restricted client certificate may do: the fixed rights that LXD gives it in its projects.
//!
//! LXD keeps these clients apart from groups (`lxd/auth/drivers/tls.go`): they see the server's resources and metrics,
//! themselves, and may make and change what is in their projects, but not the projects.

use schema::name::ProjectName;

use super::{Entitlement, Entity, is_callers};
use crate::trust::Caller;

/// Whether a client that is restricted to `projects` holds `entitlement` on `entity`.
pub(super) fn allows(
    caller: &Caller,
    projects: &[ProjectName],
    entitlement: Entitlement,
    entity: &Entity,
) -> bool {
    match entity {
        Entity::Server => {
            matches!(entitlement, Entitlement::CanViewResources | Entitlement::CanViewMetrics)
        }
        Entity::Identity(_) | Entity::Certificate(_) => {
            entitlement == Entitlement::CanView && is_callers(caller, entity)
        }
        Entity::Project(project) => {
            projects.contains(project)
                && matches!(
                    entitlement,
                    Entitlement::CanView
                        | Entitlement::CanCreateStorageVolumes
                        | Entitlement::CanViewStorageVolumes
                        | Entitlement::CanEditStorageVolumes
                        | Entitlement::CanDeleteStorageVolumes
                        | Entitlement::CanViewEvents
                        | Entitlement::CanViewOperations
                        | Entitlement::CanViewMetrics
                )
        }
        Entity::Volume { .. } | Entity::Instance { .. } => {
            entity.project().is_some_and(|project| projects.contains(&project))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::{Access, Fingerprint, Who};

    #[test]
    fn its_projects_and_itself_and_nothing_else() {
        let fingerprint = Fingerprint([1; 32]);
        let projects: Vec<ProjectName> = vec!["blah".parse().unwrap()];
        let access = Access::Projects(projects.clone());
        let caller: Caller = Who::Client { id: fingerprint.into(), name: "ci".to_owned(), access }.into();
        let may = |entitlement, entity: Entity| allows(&caller, &projects, entitlement, &entity);
        let project = |name: &str| Entity::Project(name.parse().unwrap());
        assert!(may(Entitlement::CanView, project("blah")) && !may(Entitlement::CanEdit, project("blah")));
        assert!(!may(Entitlement::CanView, project("default")));
        assert!(may(Entitlement::CanViewResources, Entity::Server));
        assert!(!may(Entitlement::CanCreateIdentities, Entity::Server));
        assert!(may(Entitlement::CanView, Entity::Certificate(fingerprint)));
        assert!(!may(Entitlement::CanDelete, Entity::Certificate(fingerprint)));
        assert!(!may(Entitlement::CanView, Entity::Identity(Fingerprint([2; 32]).into())));
    }
}
