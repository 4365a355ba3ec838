//! The part of the store that says who is known, in memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use schema::name::LinkName;
use schema::record::{Record, RecordKey};

use super::{GROUPS, IdentityKind, IdentityRecord, LINKS};
use crate::store::value::{Declared, decode};
use crate::store::{Entry, Event, keys};
use crate::trust::oidc::session::{Sessions, session_id};
use crate::trust::policy::Policy;
use crate::trust::provider_group::{self, ProviderGroupRecord};
use crate::trust::{Groups, IdentityId};

#[derive(Default)]
pub(super) struct View {
    pub identities: BTreeMap<IdentityId, Arc<IdentityRecord>>,
    /// Bearers by the digest of their token.
    pub bearers: HashMap<String, IdentityId>,
    pub link_groups: BTreeMap<LinkName, Groups>,
    /// How many identities each link has: two while its peer's certificate is renewed.
    pub links: HashMap<LinkName, usize>,
    /// Logins of those whom an identity provider vouches for.
    pub sessions: Sessions,
    pub policy: Arc<Policy>,
}

impl View {
    /// Forgets everything under a prefix.
    pub fn clear(&mut self, prefix: &str) {
        match prefix {
            GROUPS => Arc::make_mut(&mut self.policy).clear_groups(),
            LINKS => self.link_groups.clear(),
            keys::IDENTITY_PROVIDER_GROUP => Arc::make_mut(&mut self.policy).clear_provider_groups(),
            keys::OIDC_SESSION => self.sessions.clear(),
            _ => {
                self.identities.clear();
                self.bearers.clear();
                self.links.clear();
            }
        }
    }

    /// Before its identity is replaced or goes.
    fn forget(&mut self, id: &IdentityId) {
        match self.identities.get(id).map(|known| &known.kind) {
            Some(IdentityKind::Bearer { token: Some(token) }) => {
                self.bearers.remove(token.digest.as_str());
            }
            Some(IdentityKind::ClusterLink { link, .. }) => {
                if let Some(count) = self.links.get_mut(link) {
                    *count -= 1;
                    if *count == 0 {
                        self.links.remove(link);
                    }
                }
            }
            _ => {}
        }
    }

    pub fn take(&mut self, event: &Event) {
        match event {
            Event::Put(entry) => self.put(entry),
            Event::Delete { key } => self.delete(key),
        }
    }

    pub fn put(&mut self, entry: &Entry) {
        if let Some(name) = provider_group::name(&entry.key) {
            match decode::<ProviderGroupRecord>(entry) {
                Ok(mapped) => Arc::make_mut(&mut self.policy).put_provider_group(name, mapped.groups),
                Err(error) => {
                    tracing::error!(%error, "what cannot be read is worth nothing");
                    self.delete(&entry.key);
                }
            }
            return;
        }
        if let Some(id) = session_id(&entry.key) {
            match decode(entry) {
                Ok(session) => self.sessions.put(id, session),
                Err(error) => {
                    tracing::error!(%error, "a session that cannot be read is over");
                    self.sessions.remove(&id);
                }
            }
            return;
        }
        let taken = match keys::declared_record(&entry.key) {
            Some(key) => decode(entry).map(|declared: Declared| match (key, declared.record) {
                (RecordKey::AuthGroup(name), Record::AuthGroup(group)) => {
                    Arc::make_mut(&mut self.policy).put(name, group.permissions);
                }
                (RecordKey::ClusterLink(name), Record::ClusterLink(link)) => {
                    self.link_groups.insert(name, link.auth_groups.into());
                }
                _ => {}
            }),
            None => decode(entry).map(|identity: IdentityRecord| {
                if let Ok(id) = IdentityId::from_key_part(keys::last_part(&entry.key)) {
                    self.forget(&id);
                    match &identity.kind {
                        IdentityKind::Bearer { token: Some(token) } => {
                            self.bearers.insert(token.digest.as_str().to_owned(), id.clone());
                        }
                        IdentityKind::ClusterLink { link, .. } => {
                            *self.links.entry(link.clone()).or_default() += 1;
                        }
                        _ => {}
                    }
                    self.identities.insert(id, Arc::new(identity));
                }
            }),
        };
        if let Err(error) = taken {
            tracing::error!(%error, "what cannot be read gives no right");
            self.delete(&entry.key);
        }
    }

    fn delete(&mut self, key: &str) {
        if let Some(name) = provider_group::name(key) {
            Arc::make_mut(&mut self.policy).remove_provider_group(&name);
            return;
        }
        if let Some(id) = session_id(key) {
            self.sessions.remove(&id);
            return;
        }
        match keys::declared_record(key) {
            Some(RecordKey::AuthGroup(name)) => {
                Arc::make_mut(&mut self.policy).remove(&name);
            }
            Some(RecordKey::ClusterLink(name)) => {
                self.link_groups.remove(&name);
            }
            Some(_) => {}
            None => {
                if let Ok(id) = IdentityId::from_key_part(keys::last_part(key)) {
                    self.forget(&id);
                    self.identities.remove(&id);
                }
            }
        }
    }
}
