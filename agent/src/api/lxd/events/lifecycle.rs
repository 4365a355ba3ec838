//! Lifecycle events, made of what the audit log is told.

use schema::record::RecordKey;

use crate::audit::{Action, Changed, Record};
use crate::store::keys;
use crate::trust::IdentityId;
use crate::trust::entity::DEFAULT_PROJECT;
use crate::wire::lxd::event::Lifecycle;
use crate::wire::lxd::operation::Requestor;

/// The events that a record is: one for each thing that was made, changed or removed, and one for the action itself
/// where that says more.
pub fn of(record: &Record) -> Vec<Lifecycle> {
    if record.action == Action::TokenRefused {
        return Vec::new();
    }
    let named = named(record.action);
    let told = named.as_deref().map(noun);
    let mut things: Vec<Thing> = Vec::new();
    for changed in &record.changed {
        if let Some(thing) = Thing::of(changed)
            && !things.iter().any(|other| other.source == thing.source && other.word == thing.word)
        {
            things.push(thing);
        }
    }
    let mut events = Vec::new();
    if let Some(action) = &named {
        let first = things.iter().find(|thing| Some(thing.noun) == told).or(things.first());
        let token = || record.context.get("token")?.as_str().map(|id| format!("/1.0/operations/{id}"));
        let source = record.entities.first().cloned().or_else(token);
        let source = source.or(first.map(|thing| thing.source.clone()));
        // What volumes' snapshots and backups are kept in is bookkeeping, so nothing else tells their project.
        let of_volume = source.as_deref().is_some_and(|source| source.contains("/volumes/custom/"));
        let project = first.and_then(|thing| thing.project.clone());
        events.push(Lifecycle {
            action: action.clone(),
            name: source.as_deref().map(last_name).map(str::to_owned),
            source: source.unwrap_or_else(|| "/1.0".to_owned()),
            context: record.context.clone(),
            requestor: Some(requestor(record)),
            project: project.or_else(|| of_volume.then(|| DEFAULT_PROJECT.to_owned())),
        });
    }
    // What the action has told already is not told again, a certificate being an identity, and a snapshot its instance's.
    let again = |thing: &Thing| {
        told.is_some_and(|told| {
            told == thing.noun
                || matches!(
                    (told, thing.noun),
                    ("certificate", "identity") | ("instance-snapshot", "instance")
                )
        })
    };
    events.extend(things.into_iter().filter(|thing| !again(thing)).map(|thing| Lifecycle {
        action: format!("{}-{}", thing.noun, thing.word),
        source: thing.source,
        context: record.context.clone(),
        requestor: Some(requestor(record)),
        name: Some(thing.name),
        project: thing.project,
    }));
    events
}

/// The action's own word, where it says what was done to what.
fn named(action: Action) -> Option<String> {
    (!matches!(action, Action::Applied | Action::Edited | Action::StepDone)).then(|| action.to_string())
}

/// The last segment of a path of the API, without its query.
fn last_name(path: &str) -> &str {
    let path = path.split('?').next().unwrap_or(path);
    path.rsplit('/').next().unwrap_or(path)
}

/// `auth-group` of `auth-group-created`.
fn noun(action: &str) -> &str {
    action.rsplit_once('-').map_or(action, |(noun, _)| noun)
}

fn requestor(record: &Record) -> Requestor {
    Requestor {
        username: if record.who.id.is_empty() { record.who.name.clone() } else { record.who.id.clone() },
        protocol: record.who.method.clone(),
        address: record.who.address.map(|address| address.to_string()).unwrap_or_default(),
    }
}

/// Something that a key of the store is about, and what became of it.
struct Thing {
    noun: &'static str,
    word: &'static str,
    source: String,
    name: String,
    project: Option<String>,
}

impl Thing {
    /// `None` for the agent's own bookkeeping.
    fn of(changed: &Changed) -> Option<Self> {
        let word = match (changed.before, changed.after) {
            (_, 0) => "deleted",
            (Some(0), _) => "created",
            _ => "updated",
        };
        let last = || keys::last_part(&changed.key).to_owned();
        let mut project = None;
        let (noun, source, name) = if let Some(record) = keys::declared_record(&changed.key) {
            match record {
                RecordKey::AuthGroup(name) => {
                    ("auth-group", format!("/1.0/auth/groups/{name}"), name.to_string())
                }
                RecordKey::ClusterLink(name) => {
                    ("cluster-link", format!("/1.0/cluster/links/{name}"), name.to_string())
                }
                RecordKey::Volume { pool, volume } => {
                    project = Some(DEFAULT_PROJECT.to_owned());
                    let source = format!("/1.0/storage-pools/{pool}/volumes/custom/{volume}");
                    ("storage-volume", source, volume.to_string())
                }
                RecordKey::Service(name) | RecordKey::Instance { service: name, .. } => {
                    ("service", format!("/control/v1/services/{name}"), name.to_string())
                }
                key @ (RecordKey::ExportEntry | RecordKey::Export(_)) => {
                    // Each service that is exported is a record; the list is one thing.
                    let name = key.entry_name();
                    return Some(Self {
                        noun: "exported-services",
                        word: "updated",
                        source: format!("/control/v1/exported-services/{name}"),
                        name,
                        project,
                    });
                }
                key @ (RecordKey::IntentionEntry(_) | RecordKey::Intention { .. }) => {
                    let name = key.entry_name();
                    return Some(Self {
                        noun: "service-intentions",
                        word: "updated",
                        source: format!("/control/v1/service-intentions/{name}"),
                        name,
                        project,
                    });
                }
                RecordKey::SamenessGroup(name) => {
                    ("sameness-group", format!("/v1/config/sameness-group/{name}"), name.to_string())
                }
                RecordKey::ServiceDefaults(name) => {
                    ("service-defaults", format!("/v1/config/service-defaults/{name}"), name.to_string())
                }
                RecordKey::Transfer(name) => {
                    ("transfer", format!("/control/v1/transfers/{name}"), name.to_string())
                }
            }
        } else if changed.key.starts_with(keys::IDENTITY) {
            let id = IdentityId::from_key_part(keys::last_part(&changed.key)).ok()?;
            let method = match id {
                IdentityId::Certificate(_) => "tls",
                IdentityId::Token(_) => "bearer",
                IdentityId::Email(_) => "oidc",
            };
            ("identity", format!("/1.0/auth/identities/{method}/{id}"), id.to_string())
        } else if changed.key.starts_with(keys::PROJECT) {
            project = Some(last());
            ("project", format!("/1.0/projects/{}", last()), last())
        } else if let Some((of, name)) =
            changed.key.strip_prefix(keys::CONTAINER).and_then(|at| at.split_once('/'))
        {
            project = Some(of.to_owned());
            let query = if of == DEFAULT_PROJECT { String::new() } else { format!("?project={of}") };
            ("instance", format!("/1.0/instances/{name}{query}"), name.to_owned())
        } else if changed.key.starts_with(keys::STORAGE_POOL) {
            ("storage-pool", format!("/1.0/storage-pools/{}", last()), last())
        } else if changed.key.starts_with(keys::MANIFEST) {
            ("manifest", format!("/control/v1/manifests/{}", last()), last())
        } else {
            return None;
        };
        Some(Self { noun, word, source, name, project })
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::audit::Actor;

    fn record(action: Action, changed: &[(&str, Option<u64>, u64)]) -> Record {
        let mut record = Record::new(Actor::agent(), action, Timestamp::UNIX_EPOCH);
        record.changed = changed
            .iter()
            .map(|(key, before, after)| Changed { key: (*key).to_owned(), before: *before, after: *after })
            .collect();
        record
    }

    fn told(record: &Record) -> Vec<(String, String)> {
        of(record).into_iter().map(|event| (event.action, event.source)).collect()
    }

    fn pair(action: &str, source: &str) -> (String, String) {
        (action.to_owned(), source.to_owned())
    }

    #[test]
    fn each_thing_that_changed_is_an_event_and_bookkeeping_is_none() {
        let applied = record(
            Action::Applied,
            &[
                ("/declared/auth_group/ops", Some(0), 7),
                ("/declared/cluster_link/west", Some(3), 7),
                ("/declared/volume/default/orders", Some(3), 0),
                ("/declared/service_intentions/backend/@/web", Some(0), 7),
                ("/declared/service_intentions/backend/@/app", Some(2), 0),
                ("/link/west", Some(3), 0),
            ],
        );
        assert_eq!(
            told(&applied),
            [
                pair("auth-group-created", "/1.0/auth/groups/ops"),
                pair("cluster-link-updated", "/1.0/cluster/links/west"),
                pair("storage-volume-deleted", "/1.0/storage-pools/default/volumes/custom/orders"),
                pair("service-intentions-updated", "/control/v1/service-intentions/backend"),
            ]
        );
        assert_eq!(of(&applied)[2].project.as_deref(), Some("default"));
    }

    #[test]
    fn an_action_that_says_what_it_did_is_told_once() {
        let id = "ab".repeat(32);
        let key = format!("/identity/{id}");
        let added = record(Action::CertificateCreated, &[(&key, Some(0), 4)]);
        assert_eq!(told(&added.clone()).len(), 1);
        assert_eq!(told(&added)[0].0, "certificate-created");
        let redeemed = record(Action::TokenRedeemed, &[(&key, Some(0), 4), ("/token/x", Some(2), 4)]);
        let actions: Vec<_> = told(&redeemed).into_iter().map(|(action, _)| action).collect();
        assert_eq!(actions, ["token-redeemed", "identity-created"]);
        let changes = [("/declared/auth_group/a", Some(2), 0), ("/declared/auth_group/b", Some(0), 5)];
        let renamed = record(Action::AuthGroupRenamed, &changes).on("/1.0/auth/groups/b");
        assert_eq!(told(&renamed), [pair("auth-group-renamed", "/1.0/auth/groups/b")]);
        let taken = record(Action::InstanceSnapshotCreated, &[("/container/blah/c1", Some(2), 5)])
            .on("/1.0/instances/c1/snapshots/snap0?project=blah");
        let events = of(&taken);
        assert_eq!((events.len(), events[0].action.as_str()), (1, "instance-snapshot-created"));
        assert_eq!((events[0].name.as_deref(), events[0].project.as_deref()), (Some("snap0"), Some("blah")));
        let taken =
            record(Action::StorageVolumeSnapshotCreated, &[("/volume-snapshot/default/v", Some(0), 4)]);
        let taken = of(&taken.on("/1.0/storage-pools/default/volumes/custom/v/snapshots/s0"));
        assert_eq!((taken.len(), taken[0].name.as_deref()), (1, Some("s0")));
        assert_eq!(taken[0].project.as_deref(), Some("default"));
        assert!(of(&record(Action::TokenRefused, &[])).is_empty());
        assert_eq!(
            told(&record(Action::SettingsUpdated, &[("/settings", Some(0), 1)]))[0],
            pair("config-updated", "/1.0")
        );
    }
}
