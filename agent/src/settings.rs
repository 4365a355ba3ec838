//! What the administrator has set for this server (LXD: server configuration), followed in memory.
//!
//! All of it is one value of the store, so that a change is one guarded commit and a reader never sees half of one.
//! Who acts on a setting asks `current` each time, or waits on `changed`.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use crate::audit::{Action, Audit, Record, Writes};
use crate::store::value::{ValueError, decode, encode};
use crate::store::{CommitError, Entry, Event, Guard, Op, Revision, Store, StoreError, Txn, Watch, keys};
use crate::task::Tasks;
use crate::trust::Permission;

mod acme;
mod addresses;
mod config;
mod expiry;
mod listen;
mod login;
mod loopback;

pub use crate::trust::oidc::OidcConfig;
pub use acme::{Acme, AcmeConfig, ChallengeKind};
pub use addresses::Addresses;
pub use config::{Config, ConfigError};
pub use expiry::{DEFAULT_TOKEN_EXPIRY, ExpiryError, expiry};
pub use listen::{DEFAULT_PORT, Listen};
pub use login::is_secret;
pub use loopback::Loopback;

/// How long a broken watch is left before it is begun again.
const RETRY: Duration = Duration::from_millis(500);

/// The settings, and the revision that last changed them (0 if none ever did).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Current {
    pub config: Config,
    pub revision: Revision,
}

impl std::ops::Deref for Current {
    type Target = Config;
    fn deref(&self) -> &Config {
        &self.config
    }
}

/// The settings of the store, followed.
pub struct Settings {
    store: Arc<dyn Store>,
    audit: Arc<Audit>,
    current: watch::Sender<Arc<Current>>,
}

/// Why settings were not changed.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("the settings have been changed by others meanwhile")]
    Changed,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Value(#[from] ValueError),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Settings {
    /// Reads what is set, then follows it until `tasks` end.
    pub async fn start(
        store: Arc<dyn Store>,
        audit: Arc<Audit>,
        tasks: &Tasks,
    ) -> Result<Arc<Self>, SettingsError> {
        let settings = Arc::new(Self { store, audit, current: watch::Sender::default() });
        let watch = settings.read().await?;
        let follow = Arc::clone(&settings).follow(watch);
        let ending = tasks.ending();
        tasks.spawn("settings", async move {
            ending.run_until_cancelled(follow).await;
        });
        Ok(settings)
    }

    /// What is set at this moment.
    pub fn current(&self) -> Arc<Current> {
        self.current.borrow().clone()
    }

    /// Tells of each change.
    pub fn changed(&self) -> watch::Receiver<Arc<Current>> {
        self.current.subscribe()
    }

    /// Puts `config` in place of the settings as they were at `base`.
    pub async fn replace(
        &self,
        by: &impl Permission,
        base: &Current,
        config: Config,
        now: Timestamp,
    ) -> Result<(), SettingsError> {
        let changed = base.config.differing(&config);
        if changed.is_empty() {
            return Ok(());
        }
        let key = keys::SETTINGS.to_owned();
        let guards = vec![Guard { key: key.clone(), modify_revision: base.revision }];
        let ops = vec![Op::Put { key, value: encode(&config) }];
        let txn = Txn { guards, ops };
        let writes = Writes::of(&txn);
        let revision = match self.store.commit(txn).await {
            Err(CommitError::Conflict(_)) => return Err(SettingsError::Changed),
            committed => committed?,
        };
        self.take(Current { config, revision });
        // The values stay out of it: those of `user.*` may be anything.
        let record = Record::new(by.caller(), Action::SettingsUpdated, now)
            .on("/1.0")
            .committed(writes, revision)
            .with("keys", changed);
        self.audit.record(record);
        Ok(())
    }

    /// Reads what there is, and watches it from there.
    async fn read(&self) -> Result<Watch, SettingsError> {
        let snapshot = self.store.range(keys::SETTINGS).await?;
        let watch = self.store.watch(keys::SETTINGS, snapshot.revision).await?;
        let current = match snapshot.entries.first() {
            Some(entry) => read(entry)?,
            None => Current::default(),
        };
        self.take(current);
        Ok(watch)
    }

    async fn follow(self: Arc<Self>, mut watch: Watch) {
        loop {
            while let Some(Ok(batch)) = watch.recv().await {
                for event in batch.events {
                    match event {
                        Event::Put(entry) => match read(&entry) {
                            Ok(current) => self.take(current),
                            Err(error) => tracing::error!(%error, "the settings are left as they were"),
                        },
                        Event::Delete { .. } => {
                            self.take(Current { config: Config::default(), revision: batch.revision });
                        }
                    }
                }
            }
            watch = loop {
                tokio::time::sleep(RETRY).await;
                match self.read().await {
                    Ok(watch) => break watch,
                    Err(SettingsError::Store(StoreError::Closed)) => return,
                    Err(error) => tracing::error!(%error, "the settings cannot be followed; trying again"),
                }
            };
        }
    }

    /// Takes in what is newer than what is known.
    fn take(&self, new: Current) {
        self.current.send_if_modified(|current| {
            let newer = new.revision > current.revision;
            if newer {
                *current = Arc::new(new);
            }
            newer
        });
    }
}

fn read(entry: &Entry) -> Result<Current, ValueError> {
    Ok(Current { config: decode(entry)?, revision: entry.modify_revision })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::SqliteStore;
    use crate::trust::Caller;

    struct By(Caller);
    impl Permission for By {
        fn caller(&self) -> &Caller {
            &self.0
        }
    }

    #[tokio::test]
    async fn a_change_is_seen_at_once_and_by_the_next_agent_and_never_over_anothers() {
        let (store, tasks) = (SqliteStore::scratch(), Tasks::new());
        let settings = Settings::start(store.clone(), Audit::none(), &tasks).await.unwrap();
        let (base, by) = (settings.current(), By(Caller::local(0)));
        assert_eq!(base.token_expiry(), DEFAULT_TOKEN_EXPIRY);
        let mut config = Config::default();
        config.set("core.remote_token_expiry", "2H").unwrap();
        let mut changed = settings.changed();
        settings.replace(&by, &base, config.clone(), Timestamp::UNIX_EPOCH).await.unwrap();
        assert_eq!(settings.current().token_expiry(), jiff::SignedDuration::from_hours(2));
        assert!(changed.has_changed().unwrap() && changed.borrow_and_update().config == config);
        let again = Settings::start(store, Audit::none(), &tasks).await.unwrap();
        assert_eq!(again.current().config, config);
        let stale = settings.replace(&by, &base, Config::default(), Timestamp::UNIX_EPOCH).await;
        assert!(stale.is_ok(), "nothing to change");
        config.set("user.x", "1").unwrap();
        let stale = settings.replace(&by, &base, config, Timestamp::UNIX_EPOCH).await;
        assert!(matches!(stale, Err(SettingsError::Changed)));
    }
}
