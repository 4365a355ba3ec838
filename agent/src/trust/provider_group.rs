//! What the groups of an identity provider are worth here (LXD: identity provider groups): each is mapped to groups of
//! ours, whose rights it gives to whoever the provider says is in it.

use std::sync::Arc;

use jiff::Timestamp;
use schema::name::GroupName;
use serde::{Deserialize, Serialize};

use super::entity::Entity;
use super::forget::{self, ForgetError};
use super::identity::Identities;
use super::{Groups, Permission};
use crate::audit::{Action, Audit, Record, Writes};
use crate::store::value::{ValueError, decode, encode};
use crate::store::{CommitError, Guard, Op, Revision, Store, StoreError, Txn, keys};

/// Longest name, bytes. It is the provider's to choose.
const MAX_NAME: usize = 255;
/// Most mappings at a time.
const MAX_GROUPS: usize = 10_000;

/// What `/identity_provider_group/NAME` holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderGroupRecord {
    pub groups: Groups,
}

/// Writes the mappings; `Policy` has them to read.
#[derive(Clone)]
pub struct ProviderGroups {
    store: Arc<dyn Store>,
    identities: Arc<Identities>,
    audit: Arc<Audit>,
}

/// Why a mapping was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ProviderGroupError {
    #[error("Identity provider group name cannot be {0}")]
    Name(&'static str),
    #[error("Identity provider group not found")]
    NotFound,
    #[error("An identity provider group of this name already exists")]
    Exists,
    #[error("One or more groups were not found: {}", quoted(.0))]
    NoSuchGroups(Vec<GroupName>),
    #[error("{MAX_GROUPS} identity provider groups are mapped already")]
    TooMany,
    #[error("it was changed by somebody else in the meantime; try again")]
    Moved,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Value(#[from] ValueError),
    #[error(transparent)]
    Forget(#[from] ForgetError),
    #[error(transparent)]
    Commit(CommitError),
}

fn quoted(groups: &[GroupName]) -> String {
    groups.iter().map(|group| format!("{:?}", group.as_str())).collect::<Vec<_>>().join(", ")
}

impl From<CommitError> for ProviderGroupError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict(_) => Self::Moved,
            other => Self::Commit(other),
        }
    }
}

impl ProviderGroups {
    pub fn new(store: Arc<dyn Store>, identities: Arc<Identities>, audit: Arc<Audit>) -> Self {
        Self { store, identities, audit }
    }

    /// What one is mapped to, and the revision that says so.
    pub async fn get(&self, name: &str) -> Result<(ProviderGroupRecord, Revision), ProviderGroupError> {
        let entry = self.store.get(&key(name)).await?.ok_or(ProviderGroupError::NotFound)?;
        Ok((decode(&entry)?, entry.modify_revision))
    }

    pub async fn create(
        &self,
        by: &impl Permission,
        name: &str,
        groups: Groups,
    ) -> Result<(), ProviderGroupError> {
        check_name(name)?;
        if self.identities.policy().provider_groups().len() >= MAX_GROUPS {
            return Err(ProviderGroupError::TooMany);
        }
        match self.put(by, name, groups, Revision(0)).await {
            Err(ProviderGroupError::Moved) => Err(ProviderGroupError::Exists),
            other => other,
        }
    }

    /// Maps one that is as of `base` to these groups instead.
    pub async fn update(
        &self,
        by: &impl Permission,
        name: &str,
        groups: Groups,
        base: Revision,
    ) -> Result<(), ProviderGroupError> {
        self.put(by, name, groups, base).await
    }

    pub async fn rename(&self, by: &impl Permission, name: &str, to: &str) -> Result<(), ProviderGroupError> {
        check_name(to)?;
        let (record, revision) = self.get(name).await?;
        if self.store.get(&key(to)).await?.is_some() {
            return Err(ProviderGroupError::Exists);
        }
        // What groups grant on the old name ends, so that another of that name does not come into it.
        let gone = [Entity::IdentityProviderGroup(name.to_owned())].into();
        let mut txn = forget::permissions_on(&*self.store, &gone, |_| false).await?;
        let (from, to) = (key(name), key(to));
        txn.guards.push(Guard { key: from.clone(), modify_revision: revision });
        txn.guards.push(Guard { key: to.clone(), modify_revision: Revision(0) });
        txn.ops.push(Op::Delete { key: from });
        txn.ops.push(Op::Put { key: to, value: encode(&record) });
        self.commit(by, txn, Action::IdentityProviderGroupRenamed).await
    }

    pub async fn delete(&self, by: &impl Permission, name: &str) -> Result<(), ProviderGroupError> {
        let (_, revision) = self.get(name).await?;
        let key = key(name);
        // What groups grant on it goes with it, so that another of its name does not come into that.
        let gone = [Entity::IdentityProviderGroup(name.to_owned())].into();
        let mut txn = forget::permissions_on(&*self.store, &gone, |_| false).await?;
        txn.guards.push(Guard { key: key.clone(), modify_revision: revision });
        txn.ops.push(Op::Delete { key });
        self.commit(by, txn, Action::IdentityProviderGroupDeleted).await
    }

    async fn put(
        &self,
        by: &impl Permission,
        name: &str,
        groups: Groups,
        base: Revision,
    ) -> Result<(), ProviderGroupError> {
        let policy = self.identities.policy();
        let missing: Vec<GroupName> =
            groups.iter().filter(|group| !policy.contains(group)).cloned().collect();
        if !missing.is_empty() {
            return Err(ProviderGroupError::NoSuchGroups(missing));
        }
        let key = key(name);
        let guards = vec![Guard { key: key.clone(), modify_revision: base }];
        let value = encode(&ProviderGroupRecord { groups });
        let action = match base {
            Revision(0) => Action::IdentityProviderGroupCreated,
            _ => Action::IdentityProviderGroupUpdated,
        };
        self.commit(by, Txn { guards, ops: vec![Op::Put { key, value }] }, action).await
    }

    async fn commit(&self, by: &impl Permission, txn: Txn, action: Action) -> Result<(), ProviderGroupError> {
        let writes = Writes::of(&txn);
        let revision = self.store.commit(txn).await?;
        self.audit.record(Record::new(by.caller(), action, Timestamp::now()).committed(writes, revision));
        self.identities.provider_groups_seen(revision).await;
        tracing::info!(by = %by.caller(), %revision, "changed what an identity provider's groups are worth");
        Ok(())
    }
}

/// LXD takes nearly any name, since the provider chooses it.
pub fn check_name(name: &str) -> Result<(), ProviderGroupError> {
    match name {
        "" => Err(ProviderGroupError::Name("empty")),
        _ if name.len() > MAX_NAME => Err(ProviderGroupError::Name("longer than 255 bytes")),
        _ if name.chars().any(char::is_control) => {
            Err(ProviderGroupError::Name("made with control characters"))
        }
        _ => Ok(()),
    }
}

/// The store key of a mapping: the name holds no `/` in it.
pub fn key(name: &str) -> String {
    let part = name.replace('%', "%25").replace('/', "%2F");
    format!("{}{part}", keys::IDENTITY_PROVIDER_GROUP)
}

/// The name that a store key is of.
pub fn name(key: &str) -> Option<String> {
    let part = key.strip_prefix(keys::IDENTITY_PROVIDER_GROUP)?;
    Some(part.replace("%2F", "/").replace("%25", "%"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::SqliteStore;
    use crate::task::Tasks;
    use crate::trust::Caller;

    struct Anybody(Caller);

    impl Permission for Anybody {
        fn caller(&self) -> &Caller {
            &self.0
        }
    }

    #[tokio::test]
    async fn a_mapping_lives_and_is_followed() {
        let (store, tasks) = (SqliteStore::scratch(), Tasks::new());
        let identities = Identities::start(store.clone(), &tasks).await.unwrap();
        let mappings = ProviderGroups::new(store, identities.clone(), Audit::none());
        let by = Anybody(Caller::local(0));
        let worth = |claimed: &str| {
            let groups = identities.policy().groups_for_provider_groups(&[claimed.to_owned()]);
            groups.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        let groups = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<Groups>();
        let odd = "team/100%, \"a\"";
        assert_eq!(name(&key(odd)).as_deref(), Some(odd));
        mappings.create(&by, odd, groups(&["admins"])).await.unwrap();
        assert_eq!(worth(odd), "admins");
        let again = mappings.create(&by, odd, Groups::default()).await.unwrap_err();
        assert!(matches!(again, ProviderGroupError::Exists));
        let missing = mappings.create(&by, "b", groups(&["x", "admins", "y"])).await.unwrap_err();
        assert_eq!(missing.to_string(), "One or more groups were not found: \"x\", \"y\"");

        mappings.rename(&by, odd, "team").await.unwrap();
        assert_eq!((worth(odd), worth("team")), (String::new(), "admins".to_owned()));
        let (_, revision) = mappings.get("team").await.unwrap();
        mappings.update(&by, "team", Groups::default(), revision).await.unwrap();
        let stale = mappings.update(&by, "team", groups(&["admins"]), revision).await.unwrap_err();
        assert!(matches!(stale, ProviderGroupError::Moved));
        assert_eq!(worth("team"), "");
        mappings.delete(&by, "team").await.unwrap();
        assert!(matches!(mappings.delete(&by, "team").await, Err(ProviderGroupError::NotFound)));
        assert!(check_name("").is_err() && check_name("a\nb").is_err());
    }
}
