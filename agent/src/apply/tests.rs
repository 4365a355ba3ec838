mod entries;

use std::collections::BTreeMap;
use std::path::Path;

use futures::future::BoxFuture;
use schema::diagnostic::Location;
use schema::kind::auth_group::AuthGroup;
use schema::kind::cluster_link::ClusterLink;
use schema::kind::manifest::Manifest;
use schema::kind::service::Service;
use schema::kind::service_intentions::{Action as Verdict, IntentionSource};
use schema::kind::volume::Volume;
use schema::name::LinkName;
use schema::plan::{self, Desired, LiveLink, Plan};

use super::*;
use crate::authorize::decide;
use crate::dataset::pool::Use;
use crate::observe::Observe;
use crate::store::Txn;
use crate::store::sqlite::SqliteStore;
use crate::trust::policy::Policy;
use crate::trust::{Access, Caller, Fingerprint, Who};

mod instances;

/// A peering whose trust lies in the store and nowhere else.
struct Trust(Arc<dyn Store>);

impl LinkTrust for Trust {
    fn live_links(&self) -> BoxFuture<'_, Result<BTreeMap<LinkName, LiveLink>, String>> {
        Box::pin(async { Ok(BTreeMap::new()) })
    }

    fn removal<'a>(&'a self, link: &'a LinkName) -> BoxFuture<'a, Result<Txn, String>> {
        Box::pin(async move {
            let key = keys::link(link);
            let found = self.0.get(&key).await.map_err(|error| error.to_string())?;
            Ok(found.map_or_else(Txn::default, |entry| Txn {
                guards: vec![Guard { key: key.clone(), modify_revision: entry.modify_revision }],
                ops: vec![Op::Delete { key }],
            }))
        })
    }

    fn renaming<'a>(&'a self, _: &'a LinkName, _: &'a LinkName) -> BoxFuture<'a, Result<Txn, String>> {
        Box::pin(async { Ok(Txn::default()) })
    }
}

struct Bench {
    store: Arc<dyn Store>,
    pools: Pools,
    apply: Arc<Apply>,
    observe: Observe,
    folder: tempfile::TempDir,
}

fn bench() -> Bench {
    let store = SqliteStore::scratch();
    let folder = tempfile::tempdir().unwrap();
    let pools = Pools::open(folder.path()).unwrap();
    let links: Arc<dyn LinkTrust> = Arc::new(Trust(Arc::clone(&store)));
    let apply = start(&store, &links, &pools, folder.path());
    let observe = Observe::new(
        Arc::clone(&store),
        links,
        "east".parse().unwrap(),
        crate::trust::cluster_identity::ClusterIdentity::scratch(),
    );
    Bench { store, pools, apply, observe, folder }
}

fn start(store: &Arc<dyn Store>, links: &Arc<dyn LinkTrust>, pools: &Pools, folder: &Path) -> Arc<Apply> {
    Apply::start(ApplyParts {
        store: Arc::clone(store),
        links: Arc::clone(links),
        pools: pools.clone(),
        audit: Audit::open(&folder.join("audit.log")).unwrap(),
        tasks: Tasks::new(),
    })
}

fn permit(caller: &Caller) -> Permit {
    decide(caller, Entitlement::CanEdit, Entity::Server, &Policy::default()).unwrap()
}

fn client(byte: u8, name: &str) -> Caller {
    let id = Fingerprint([byte; 32]).into();
    Who::Client { id, name: name.to_owned(), access: Access::Unrestricted }.into()
}

fn desired(name: &str, records: &[(&str, Record)]) -> Desired {
    let location = Location { file: "test.hcl".into(), span: 0..0 };
    Desired {
        name: name.parse().unwrap(),
        manifest: Manifest::default(),
        records: records
            .iter()
            .map(|(key, record)| {
                let declared = plan::Declared { record: record.clone(), location: location.clone() };
                (key.parse().unwrap(), declared)
            })
            .collect(),
        token_sources: BTreeMap::new(),
    }
}

fn service(port: u16) -> Record {
    Record::Service(Service { port: Some(port), ..Service::default() })
}

fn group() -> Record {
    Record::AuthGroup(AuthGroup::default())
}

fn link(groups: &[&str]) -> Record {
    let auth_groups = groups.iter().map(|group| group.parse().unwrap()).collect();
    Record::ClusterLink(ClusterLink { auth_groups, ..ClusterLink::default() })
}

fn intention(action: Verdict) -> Record {
    Record::ServiceIntentions(IntentionSource { action, description: String::new(), permissions: Vec::new() })
}

fn volume() -> Record {
    Record::Volume(Volume::default())
}

impl Bench {
    async fn plan(&self, desired: &Desired, data: Data) -> Plan {
        plan::plan(desired, &self.observe.live().await.unwrap(), data).unwrap()
    }

    async fn send(&self, caller: &Caller, plan: Plan) -> Result<ApplyResponse, ApplyError> {
        self.apply.apply(&permit(caller), ApplyRequest { plan, destroy_data: false }).await
    }

    /// Plans and applies as the machine's administrator.
    async fn make(&self, name: &str, records: &[(&str, Record)]) -> Result<ApplyResponse, ApplyError> {
        let plan = self.plan(&desired(name, records), Data::Keep).await;
        self.send(&Caller::local(0), plan).await
    }

    async fn keys(&self) -> Vec<String> {
        self.observe.live().await.unwrap().records.keys().map(ToString::to_string).collect()
    }

    async fn edit(&self, edits: Vec<Edit>) -> Result<Edited, ApplyError> {
        self.apply.edit(&permit(&Caller::local(0)), edits).await
    }
}

#[tokio::test]
async fn an_applied_manifest_plans_to_nothing_and_prunes_what_it_owned() {
    let bench = bench();
    let all = [
        ("auth_group/clusters", group()),
        ("cluster_link/west", link(&["clusters"])),
        ("service/backend", service(1)),
        ("service_intentions/backend/west/frontend", intention(Verdict::Allow)),
        ("volume/default/orders", volume()),
    ];
    bench.edit(vec![Edit::put("service/by-hand".parse().unwrap(), service(2))]).await.unwrap();
    let answer = bench.make("shop", &all).await.unwrap();
    assert_eq!((answer.revision, answer.unfinished.len()), (2, 0), "one commit, its steps done");
    assert!(bench.folder.path().join("pools/default/custom/orders").is_dir());
    assert!(bench.store.range(keys::STEP).await.unwrap().entries.is_empty());
    let again = bench.plan(&desired("shop", &all), Data::Keep).await;
    assert_eq!(again.changes, []);

    // What an exchange has put beside the link goes with it.
    let key = keys::link(&"west".parse().unwrap());
    bench
        .store
        .commit(Txn { guards: vec![], ops: vec![Op::Put { key: key.clone(), value: vec![] }] })
        .await
        .unwrap();
    bench.make("shop", &all[2..3]).await.unwrap();
    assert_eq!(bench.keys().await, ["service/backend", "service/by-hand"]);
    assert_eq!(bench.store.get(&key).await.unwrap(), None);
    assert!(bench.folder.path().join("pools/default/custom/orders").is_dir(), "forgotten, not destroyed");

    let audit = std::fs::read_to_string(bench.folder.path().join("audit.log")).unwrap();
    assert!(
        audit.lines().any(|line| line.contains("\"manifest\":\"shop\"") && line.contains("service/backend"))
    );
}

#[tokio::test]
async fn a_plan_is_refused_only_where_something_has_moved() {
    let bench = bench();
    bench.make("shop", &[("service/a", service(1)), ("service/b", service(1))]).await.unwrap();
    let wanted = desired("shop", &[("service/a", service(2)), ("service/b", service(2))]);
    let stale = bench.plan(&wanted, Data::Keep).await;
    bench.make("shop", &[("service/a", service(3)), ("service/b", service(1))]).await.unwrap();
    let refused = bench.send(&Caller::local(0), stale).await.unwrap_err();
    assert_eq!(refused.to_string(), "changed since the plan was made: service.a");
    assert!(refused.is_stale());

    // Another manifest's commit in between is none of this plan's business.
    let plan = bench.plan(&wanted, Data::Keep).await;
    bench.make("other", &[("service/c", service(1))]).await.unwrap();
    bench.send(&Caller::local(0), plan.clone()).await.unwrap();
    let mut elsewhere = plan;
    elsewhere.base.epoch = "another".to_owned();
    assert!(matches!(bench.send(&Caller::local(0), elsewhere).await, Err(ApplyError::OtherStore)));
}

#[tokio::test]
async fn a_manifest_belongs_to_who_first_applied_it() {
    let bench = bench();
    let plan = bench.plan(&desired("shop", &[("service/a", service(1))]), Data::Keep).await;
    bench.send(&client(1, "laptop"), plan).await.unwrap();
    let plan = bench.plan(&desired("shop", &[]), Data::Keep).await;
    let refused = bench.send(&client(2, "ci"), plan.clone()).await.unwrap_err();
    assert_eq!(refused.to_string(), "manifest \"shop\" belongs to client laptop, who first applied it");
    bench.send(&client(1, "laptop"), plan).await.unwrap();
    assert_eq!(bench.keys().await, [""; 0]);

    // Two plans that were both the first.
    let plan = bench.plan(&desired("new", &[("service/b", service(1))]), Data::Keep).await;
    bench.send(&Caller::local(0), plan.clone()).await.unwrap();
    let mut second = plan;
    second.changes.clear();
    let refused = bench.send(&Caller::local(0), second).await.unwrap_err();
    assert_eq!(refused.to_string(), "changed since the plan was made: manifest.new");
}

#[tokio::test]
async fn the_command_is_not_believed() {
    let bench = bench();
    bench.make("theirs", &[("service/a", service(1))]).await.unwrap();
    bench.edit(vec![Edit::put("service/hand".parse().unwrap(), service(1))]).await.unwrap();
    let good = bench.plan(&desired("mine", &[("service/b", service(1))]), Data::Keep).await;
    let forge = |key: &str, action, base_revision, after: Option<Record>| {
        let mut plan = good.clone();
        let change = &mut plan.changes[0];
        (change.key, change.action, change.base_revision, change.after) =
            (key.parse().unwrap(), action, base_revision, after);
        plan
    };
    let live = bench.observe.live().await.unwrap();
    let at = |key: &str| live.records[&key.parse().unwrap()].modify_revision;
    let (a, hand) = (at("service/a"), at("service/hand"));
    let mut twice = good.clone();
    twice.changes.push(twice.changes[0].clone());
    use schema::plan::Action;
    for (plan, why) in [
        (forge("service/a", Action::Update, a, Some(service(2))), "service.a belongs to manifest \"theirs\""),
        (forge("service/a", Action::Delete, a, None), "service.a belongs to manifest \"theirs\""),
        (forge("service/hand", Action::Delete, hand, None), "no manifest owns it"),
        (forge("service/hand", Action::Update, hand, Some(service(2))), "the plan does not say so"),
        (forge("service/b", Action::Create, 0, Some(volume())), "another kind"),
        (forge("service/b", Action::Create, 0, None), "do not fit together"),
        (forge("service/b", Action::Create, 5, Some(service(1))), "do not fit together"),
        (forge("service/b", Action::Forget, 5, None), "do not fit together"),
        (forge("service/b", Action::Delete, 5, None), "changed since the plan was made: service.b"),
        (forge("volume/default/v", Action::Delete, 5, None), "consent"),
        (forge("volume/nowhere/v", Action::Create, 0, Some(volume())), "no storage pool nowhere"),
        (forge("cluster_link/west", Action::Create, 0, Some(link(&["nobody"]))), "auth group nobody"),
        (twice, "changed twice"),
    ] {
        let refused = bench.send(&Caller::local(0), plan).await.unwrap_err().to_string();
        assert!(refused.contains(why), "{refused:?} does not say {why:?}");
    }
    let view = decide(&Caller::local(0), Entitlement::CanViewResources, Entity::Server, &Policy::default());
    let request = ApplyRequest { plan: good, destroy_data: false };
    let refused = bench.apply.apply(&view.unwrap(), request).await;
    assert!(matches!(refused, Err(ApplyError::NotPermitted)));
    assert_eq!(bench.store.range(keys::DECLARED).await.unwrap().entries.len(), 2, "nothing was written");
}

#[tokio::test]
async fn a_group_in_use_stays() {
    let bench = bench();
    bench.make("groups", &[("auth_group/clusters", group())]).await.unwrap();
    bench.make("links", &[("cluster_link/west", link(&["clusters"]))]).await.unwrap();
    let refused = bench.make("groups", &[]).await.unwrap_err();
    assert_eq!(refused.to_string(), "auth group clusters is still used by cluster link west");
    bench.make("links", &[]).await.unwrap();
    bench.make("groups", &[]).await.unwrap();
}

#[tokio::test]
async fn edits_pass_over_owned_records_and_never_change_them() {
    let bench = bench();
    let (owned, free): (RecordKey, RecordKey) =
        ("service/owned".parse().unwrap(), "service/free".parse().unwrap());
    bench.make("shop", &[("service/owned", service(1))]).await.unwrap();
    let put = |key: &RecordKey, port| Edit::put(key.clone(), service(port));
    bench.edit(vec![put(&owned, 1), put(&free, 1)]).await.unwrap();
    for edit in [put(&owned, 2), Edit::delete(owned.clone(), Data::Keep)] {
        let refused = bench.edit(vec![put(&free, 2), edit]).await.unwrap_err();
        assert_eq!(refused.to_string(), "service.owned belongs to manifest \"shop\"");
    }
    let live = bench.observe.live().await.unwrap();
    assert_eq!(live.records[&free].record, service(1), "all or nothing");

    let seen = live.records[&free].modify_revision;
    assert!(matches!(bench.edit(vec![put(&free, 2).only_at(0)]).await, Err(ApplyError::Moved(_))));
    bench.edit(vec![put(&free, 2).only_at(seen)]).await.unwrap();
    assert!(matches!(bench.edit(vec![put(&free, 3).only_at(seen)]).await, Err(ApplyError::Moved(_))));
    bench.edit(vec![Edit::delete(free.clone(), Data::Keep)]).await.unwrap();
    let before = bench.store.range("").await.unwrap().revision;
    let unchanged = bench.edit(vec![Edit::delete(free, Data::Keep), put(&owned, 1)]).await.unwrap();
    assert_eq!(unchanged.revision, before);
}

#[tokio::test]
async fn every_change_to_a_part_bumps_its_entrys_head() {
    let bench = bench();
    let (one, two) = ("service_intentions/backend/@/a", "service_intentions/backend/west/b");
    let head = keys::head(&one.parse().unwrap());
    let at = async || bench.store.get(&head).await.unwrap().unwrap().modify_revision.0;
    bench.make("a", &[(one, intention(Verdict::Allow))]).await.unwrap();
    let first = at().await;
    let answer = bench.make("b", &[(two, intention(Verdict::Deny))]).await.unwrap();
    assert!(at().await > first && at().await == answer.revision);
    bench.make("a", &[]).await.unwrap();
    let answer = bench.make("b", &[]).await.unwrap();
    assert_eq!(at().await, answer.revision, "the head outlives its parts");
}

#[tokio::test]
async fn a_step_that_fails_is_recorded_and_done_by_the_next_life() {
    let bench = bench();
    let dataset = crate::dataset::Dataset::volume(&"default".parse().unwrap(), &"orders".parse().unwrap());
    let key = || "volume/default/orders".parse().unwrap();
    bench.edit(vec![Edit::put(key(), volume())]).await.unwrap();
    let held = bench.pools.hold(&dataset, Use::Reading).unwrap();
    let edited = bench.edit(vec![Edit::delete(key(), Data::Destroy)]).await.unwrap();
    assert_eq!(edited.unfinished.len(), 1, "{:?}", edited.unfinished);
    // Until its data is gone it cannot be made anew: the destruction would meet the new data.
    let refused = bench.edit(vec![Edit::put(key(), volume())]).await.unwrap_err();
    assert!(matches!(refused, ApplyError::StillGoing { .. }), "{refused}");
    drop(held);

    let links: Arc<dyn LinkTrust> = Arc::new(Trust(Arc::clone(&bench.store)));
    let resumed = start(&bench.store, &links, &bench.pools, bench.folder.path());
    assert_eq!(resumed.steps.settle(STEPS_WITHIN).await, [""; 0]);
    assert!(!bench.pools.has(&dataset));
    bench.edit(vec![Edit::put(key(), volume())]).await.unwrap();
    assert!(bench.pools.has(&dataset));
}

#[tokio::test]
async fn thousands_of_declarations_are_one_commit() {
    let bench = bench();
    let records: Vec<(String, Record)> = (0..5000).map(|n| (format!("service/s{n}"), service(1))).collect();
    let records: Vec<(&str, Record)> = records.iter().map(|(key, record)| (&**key, record.clone())).collect();
    assert_eq!(bench.make("shop", &records).await.unwrap().revision, 1);
    let began = std::time::Instant::now();
    let again = bench.plan(&desired("shop", &records), Data::Keep).await;
    eprintln!("5,000 records observed and planned: {:?}", began.elapsed());
    assert!(again.changes.is_empty());

    // What is streamed to a command is what is decoded here.
    let reading = bench.observe.read().await.unwrap();
    let sent: schema::plan::Live = serde_json::from_slice(&serde_json::to_vec(&reading).unwrap()).unwrap();
    assert_eq!(sent.records, reading.decode().unwrap().records);
    assert_eq!((sent.revision, sent.records.len()), (1, 5000));
}
