//! The one place where every change is told: who did what to which records, as it happened.
//!
//! A record is appended as one JSON object a line to a file that only the agent's user may read, and told to whoever
//! listens at that moment; lifecycle events are made from that. It names what was changed, with the revision before and
//! after, and never says to what: values may be secret, and the store has them anyway. A line is written in one call to a
//! file opened for appending, so lines never mix. Lines are not synced one by one: after a power cut the last few may be
//! missing. A file that has grown large is put aside as `audit.log.1`, and so on; the oldest goes.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::broadcast;
use uuid::Uuid;

use crate::store::{Op, Revision, Txn, keys};

mod action;
mod log;

pub use action::Action;
use log::Log;

/// How many records a listener may be behind before it is told that it has missed some.
const BEHIND: usize = 1024;

/// Who did it. All of it is words by now, so that a record can be read when its identity is long gone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// As logs name a caller: `client laptop`.
    pub name: String,
    /// The identity: a fingerprint, a UUID, a mail address, a user id.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// How it proved to be that (LXD: protocol): `tls`, `unix`, `oidc`, `bearer`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub method: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// The request, as the log has it; nil for what the agent did by itself.
    #[serde(default)]
    pub request: Uuid,
}

impl Actor {
    /// The agent itself: what nobody asked for at that moment.
    pub fn agent() -> Self {
        Self { name: "agent".to_owned(), ..Self::default() }
    }
}

/// One key of the store, and the revisions that wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    pub key: String,
    /// 0: it was not there. `None` where the change was made whatever it was before.
    pub before: Option<u64>,
    /// 0: it is there no more.
    pub after: u64,
}

/// What a transaction writes, taken down before it is made.
#[derive(Debug, Clone, Default)]
pub struct Writes(Vec<(String, Option<u64>, bool)>);

impl Writes {
    /// Without the store's own bookkeeping: heads of entries, ids of instances, and steps, which are told when they are
    /// done (those of the trees of instances and volumes never).
    pub fn of(txn: &Txn) -> Self {
        let own = [
            keys::HEAD,
            keys::STEP,
            keys::INSTANCE,
            keys::CONTAINER_STEP,
            keys::VOLUME_STEP,
            keys::PROJECT_USE,
        ];
        let told = |op: &&Op| !own.iter().any(|prefix| op.key().starts_with(prefix));
        let before: HashMap<&str, u64> =
            txn.guards.iter().map(|guard| (guard.key.as_str(), guard.modify_revision.0)).collect();
        let written = txn.ops.iter().filter(told).map(|op| {
            let key = op.key().to_owned();
            (key, before.get(op.key()).copied(), matches!(op, Op::Put { .. }))
        });
        Self(written.collect())
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// One thing that was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub time: Timestamp,
    pub who: Actor,
    pub action: Action,
    /// What it was done to, as paths of the API, where the changed keys do not say so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entities: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<Changed>,
    /// The commit's revision, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// What else is worth knowing. Nothing secret.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub context: Map<String, Value>,
}

impl Record {
    pub fn new(who: impl Into<Actor>, action: Action, time: Timestamp) -> Self {
        Self {
            time,
            who: who.into(),
            action,
            entities: Vec::new(),
            changed: Vec::new(),
            revision: None,
            context: Map::new(),
        }
    }

    /// Names something that it was done to, as a path of the API.
    #[must_use]
    pub fn on(mut self, entity: impl Into<String>) -> Self {
        self.entities.push(entity.into());
        self
    }

    /// Names the commit that did it, and what that wrote.
    #[must_use]
    pub fn committed(mut self, writes: Writes, revision: Revision) -> Self {
        self.revision = Some(revision.0);
        self.changed.extend(writes.0.into_iter().map(|(key, before, is_put)| Changed {
            key,
            before,
            after: if is_put { revision.0 } else { 0 },
        }));
        self
    }

    /// Names the commit that did it, where what it wrote is nobody's business.
    #[must_use]
    pub fn at(mut self, revision: Revision) -> Self {
        self.revision = Some(revision.0);
        self
    }

    /// Adds what else is worth knowing. Nothing secret.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.context.insert(name.to_owned(), value.into());
        self
    }
}

/// The log, and who listens to it.
pub struct Audit {
    // `None` where nothing is kept.
    log: Option<Mutex<Log>>,
    told: broadcast::Sender<Arc<Record>>,
}

/// Which records are asked for.
#[derive(Debug, Clone, Default)]
pub struct Query {
    pub since: Option<Timestamp>,
    /// Part of the name or the beginning of the id of who did it.
    pub who: Option<String>,
    /// At most this many, the newest.
    pub limit: usize,
}

impl Query {
    /// Whether a record is among them, their number aside.
    pub fn wants(&self, record: &Record) -> bool {
        let who = self.who.as_deref().is_none_or(|who| {
            record.who.name.contains(who) || (!who.is_empty() && record.who.id.starts_with(who))
        });
        who && self.since.is_none_or(|since| record.time >= since)
    }
}

impl Audit {
    /// Opens the log at `path`, making it if need be.
    pub fn open(path: &Path) -> io::Result<Arc<Self>> {
        let log = Log::open(path, log::LARGE)?;
        Ok(Arc::new(Self { log: Some(Mutex::new(log)), told: broadcast::Sender::new(BEHIND) }))
    }

    /// A log that keeps nothing and tells all the same, for tests of what writes to one.
    pub fn none() -> Arc<Self> {
        Arc::new(Self { log: None, told: broadcast::Sender::new(BEHIND) })
    }

    /// Tells what was done, after its commit. A log that cannot be written is reported, not an error of the caller: what
    /// was done is done.
    pub fn record(&self, record: Record) {
        if let Some(log) = &self.log
            && let Err(error) = log.lock().unwrap_or_else(PoisonError::into_inner).append(&record)
        {
            tracing::error!(%error, request = %record.who.request, "the audit log could not be written");
        }
        // Nobody may be listening.
        let _ = self.told.send(Arc::new(record));
    }

    /// Every record from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Record>> {
        self.told.subscribe()
    }

    /// The newest records that `query` wants, oldest first. Reads files: not for a thread that must not wait.
    pub fn read(&self, query: &Query) -> io::Result<Vec<Record>> {
        let Some(log) = &self.log else { return Ok(Vec::new()) };
        let files = log.lock().unwrap_or_else(PoisonError::into_inner).files();
        log::read(&files, query.since, query.limit, |record| query.wants(record))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::store::Guard;

    fn record(name: &str, second: i64) -> Record {
        let key = "/declared/service/backend".to_owned();
        let guards = vec![Guard { key: key.clone(), modify_revision: Revision(3) }];
        let bookkeeping = Op::Put { key: "/head/x/y".to_owned(), value: Vec::new() };
        let writes = Writes::of(&Txn { guards, ops: vec![Op::Put { key, value: Vec::new() }, bookkeeping] });
        let who = Actor { name: name.to_owned(), id: "ab12".to_owned(), ..Actor::default() };
        Record::new(who, Action::Applied, Timestamp::from_second(second).unwrap())
            .committed(writes, Revision(7))
            .with("manifest", "shop")
    }

    #[tokio::test]
    async fn what_is_told_is_kept_in_a_private_file_and_heard() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let audit = Audit::open(&path).unwrap();
        let mut heard = audit.subscribe();
        audit.record(record("client laptop", 0));
        assert_eq!(*heard.recv().await.unwrap(), record("client laptop", 0));
        let text = std::fs::read_to_string(&path).unwrap();
        let expected = "{\"time\":\"1970-01-01T00:00:00Z\",\"who\":{\"name\":\"client laptop\",\"id\":\"ab12\",\
                        \"request\":\"00000000-0000-0000-0000-000000000000\"},\"action\":\"applied\",\
                        \"changed\":[{\"key\":\"/declared/service/backend\",\"before\":3,\"after\":7}],\
                        \"revision\":7,\"context\":{\"manifest\":\"shop\"}}\n";
        assert_eq!(text, expected);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn the_newest_that_are_wanted_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let audit = Audit::open(&folder.path().join("audit.log")).unwrap();
        for second in 0..10 {
            audit.record(record(if second % 2 == 0 { "client even" } else { "client odd" }, second));
        }
        let seconds = |query: Query| -> Vec<i64> {
            audit.read(&query).unwrap().iter().map(|record| record.time.as_second()).collect()
        };
        assert_eq!(seconds(Query { limit: 3, ..Query::default() }), [7, 8, 9]);
        let since = Timestamp::from_second(6).ok();
        assert_eq!(seconds(Query { since, limit: 100, ..Query::default() }), [6, 7, 8, 9]);
        let who = Some("odd".to_owned());
        assert_eq!(seconds(Query { who, limit: 2, ..Query::default() }), [7, 9]);
        assert_eq!(seconds(Query { who: Some("zz".to_owned()), limit: 2, ..Query::default() }).len(), 0);
    }
}
