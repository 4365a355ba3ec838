//! What exists here that permissions can be on.

use schema::record::RecordKey;

use super::identity;
use crate::api::ApiState;
use crate::api::lxd::answer::LxdError;
use crate::authorize::Entity;
use crate::store::keys;
use crate::trust::entity::DEFAULT_PROJECT;
use crate::trust::{IdentityId, provider_group};
use crate::wire::lxd::entity_url::Named;

/// Whether there is such an entity.
pub async fn exists(state: &ApiState, entity: &Entity) -> Result<bool, LxdError> {
    let stored = async |key: String| Ok::<_, LxdError>(state.store.get(&key).await?.is_some());
    let declared = async |record: RecordKey| stored(keys::declared(&record)).await;
    let policy = state.identities.policy();
    Ok(match entity {
        // Who may register a service, and who may write its intentions, is said before it is there.
        Entity::Server | Entity::ExportedServices | Entity::Service(_) | Entity::ServiceIntentions(_) => true,
        Entity::Project(name) => {
            name.as_str() == DEFAULT_PROJECT || stored(format!("/project/{name}")).await?
        }
        Entity::AuthGroup(name) => policy.contains(name),
        Entity::IdentityProviderGroup(name) => stored(provider_group::key(name)).await?,
        Entity::ClusterLink(name) => {
            declared(RecordKey::ClusterLink(name.clone())).await? || stored(keys::link(name)).await?
        }
        Entity::Identity(IdentityId::Token(id))
            if state.identities.get(&IdentityId::Token(*id)).is_none() =>
        {
            super::identity::is_waiting(state, *id).await?
        }
        Entity::Identity(id) => state.identities.get(id).is_some(),
        Entity::Certificate(fingerprint) => {
            state.identities.get(&(*fingerprint).into()).is_some_and(|identity| identity.is_legacy())
        }
        Entity::Manifest(name) => stored(keys::manifest(name)).await?,
        Entity::Pool(name) => state.pools.exists(name) || state.pools.is_away(name),
        Entity::Volume { pool, volume } => {
            declared(RecordKey::Volume { pool: pool.clone(), volume: volume.clone() }).await?
        }
        Entity::Instance { project, name } => match name.parse() {
            Ok(name) => stored(keys::container(project, &name)).await?,
            Err(_) => false,
        },
        Entity::Transfer(name) => declared(RecordKey::Transfer(name.clone())).await?,
    })
}

/// Every entity that there is, as permissions name them.
pub async fn every(state: &ApiState) -> Result<Vec<Named>, LxdError> {
    let mut found = vec![Named::server(), Named::simple("exported_services", "default")];
    found.push(Named::simple("project", DEFAULT_PROJECT));
    for entry in state.store.range("/project/").await?.entries {
        let name = keys::last_part(&entry.key);
        found.extend((name != DEFAULT_PROJECT).then(|| Named::simple("project", name)));
    }
    let policy = state.identities.policy();
    found.extend(policy.groups().map(|(name, _)| Named::simple("group", name.as_str())));
    let mapped = policy.provider_groups().keys();
    found.extend(mapped.map(|name| Named::simple("identity_provider_group", name.as_str())));
    for known in identity::known::every(state).await? {
        found.push(Named::simple("identity", format!("{}/{}", known.method(), known.identifier())));
    }
    for (id, _) in state.identities.all().iter().filter(|(_, identity)| identity.is_legacy()) {
        found.extend(
            id.fingerprint().map(|fingerprint| Named::simple("certificate", fingerprint.to_string())),
        );
    }
    for entry in state.store.range(keys::MANIFEST).await?.entries {
        found.push(Named::simple("manifest", keys::last_part(&entry.key)));
    }
    found.extend(state.pools.list()?.into_iter().map(|pool| Named::simple("storage_pool", pool.as_str())));
    for entry in state.store.range(keys::CONTAINER).await?.entries {
        let place = entry.key.strip_prefix(keys::CONTAINER).and_then(|place| place.split_once('/'));
        found.extend(place.map(|(project, name)| Named {
            entity_type: "instance",
            entity: Some(name.to_owned()),
            project: Some(project.to_owned()),
            pool: None,
        }));
    }
    // A service has several instances, and is one thing.
    let mut services = std::collections::BTreeSet::new();
    let mut destinations = std::collections::BTreeSet::from(["*".to_owned()]);
    for entry in state.store.range(keys::DECLARED).await?.entries {
        match keys::declared_record(&entry.key) {
            Some(RecordKey::ClusterLink(name)) => found.push(Named::simple("cluster_link", name.as_str())),
            Some(RecordKey::Service(name) | RecordKey::Instance { service: name, .. }) => {
                services.insert(name.to_string());
                destinations.insert(name.to_string());
            }
            Some(RecordKey::IntentionEntry(destination) | RecordKey::Intention { destination, .. }) => {
                destinations.insert(destination.to_string());
            }
            Some(RecordKey::Volume { pool, volume }) => found.push(Named {
                entity_type: "storage_volume",
                entity: Some(volume.to_string()),
                project: Some(DEFAULT_PROJECT.to_owned()),
                pool: Some(pool.to_string()),
            }),
            Some(RecordKey::Transfer(name)) => found.push(Named::simple("transfer", name.as_str())),
            Some(
                RecordKey::AuthGroup(_)
                | RecordKey::SamenessGroup(_)
                | RecordKey::ServiceDefaults(_)
                | RecordKey::ExportEntry
                | RecordKey::Export(_),
            )
            | None => {}
        }
    }
    found.extend(services.into_iter().map(|name| Named::simple("service", name)));
    found.extend(destinations.into_iter().map(|name| Named::simple("service_intentions", name)));
    Ok(found)
}
