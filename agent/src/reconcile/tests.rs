use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Mutex, PoisonError};

use schema::kind::cluster_link::LinkType;
use schema::plan::{Data, LinkState, LiveLink};
use schema::record::{Record, RecordKey};

use super::*;
use crate::apply::{ApplyParts, Edit};
use crate::audit::Audit;
use crate::authorize::{Entitlement, Entity, decide};
use crate::dataset::Pools;
use crate::observe::LinkTrust;
use crate::store::Txn;
use crate::store::sqlite::SqliteStore;
use crate::trust::Caller;

/// Links whose trust is made by any token but `refused`.
#[derive(Default)]
struct Links(Mutex<BTreeMap<LinkName, String>>);

impl LinkTrust for Links {
    fn live_links(&self) -> BoxFuture<'_, Result<BTreeMap<LinkName, LiveLink>, String>> {
        let made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let live = |link: &LinkName| {
            let live = LiveLink {
                kind: LinkType::Bidirectional,
                state: LinkState::Active,
                peer_fingerprint: None,
                addresses: Vec::new(),
                reason: None,
            };
            (link.clone(), live)
        };
        let links = made.keys().map(live).collect();
        Box::pin(async move { Ok(links) })
    }

    fn removal<'a>(&'a self, _: &'a LinkName) -> BoxFuture<'a, Result<Txn, String>> {
        Box::pin(async { Ok(Txn::default()) })
    }

    fn renaming<'a>(&'a self, _: &'a LinkName, _: &'a LinkName) -> BoxFuture<'a, Result<Txn, String>> {
        Box::pin(async { Ok(Txn::default()) })
    }
}

impl Redeem for Links {
    fn redeem<'a>(
        &'a self,
        _: &'a Permit,
        link: &'a LinkName,
        token: &'a str,
    ) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            if token == "refused" {
                return Err("the peer refused the token".to_owned());
            }
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(link.clone(), token.to_owned());
            Ok(())
        })
    }

    fn pin<'a>(&'a self, _: &'a Permit, link: &'a LinkName) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(link.clone(), "pinned".to_owned());
            Ok(())
        })
    }
}

struct Bench {
    root: tempfile::TempDir,
    store: Arc<dyn Store>,
    apply: Arc<Apply>,
    observe: Observe,
    links: Arc<Links>,
    identities: Arc<Identities>,
    tasks: Tasks,
}

const EAST: &str = "manifest \"shop\" {\n  cluster = \"east\"\n}\n";

impl Bench {
    async fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        folder(&root.path().join("east"));
        let store = SqliteStore::scratch();
        let (links, tasks) = (Arc::new(Links::default()), Tasks::new());
        let apply = Apply::start(ApplyParts {
            store: store.clone(),
            links: links.clone(),
            pools: Pools::open(root.path()).unwrap(),
            audit: Audit::none(),
            tasks: tasks.clone(),
        });
        let observe = Observe::new(
            store.clone(),
            links.clone(),
            "east".parse().unwrap(),
            crate::trust::cluster_identity::ClusterIdentity::scratch(),
        );
        let identities = Identities::start(store.clone(), &tasks).await.unwrap();
        Self { root, store, apply, observe, links, identities, tasks }
    }

    fn folder(&self) -> PathBuf {
        self.root.path().join("east")
    }

    fn write(&self, name: &str, text: &str) {
        write(&self.folder().join(name), text);
    }

    fn start(&self) -> watch::Receiver<WatchStatus> {
        Reconcile::start(ReconcileParts {
            folder: self.folder(),
            store: self.store.clone(),
            observe: self.observe.clone(),
            apply: self.apply.clone(),
            redeem: self.links.clone(),
            identities: self.identities.clone(),
            tasks: self.tasks.clone(),
        })
        .changed()
    }

    async fn keys(&self) -> Vec<String> {
        self.observe.live().await.unwrap().records.keys().map(ToString::to_string).collect()
    }

    /// Waits until what is declared is `keys`.
    async fn declares(&self, keys: &[&str]) {
        let within = Duration::from_secs(20);
        let declared = async {
            while self.keys().await != keys {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let reached = tokio::time::timeout(within, declared).await.is_ok();
        assert!(reached, "expected {keys:?}, found {:?}", self.keys().await);
    }
}

/// Whatever the umask, others may not write there.
fn folder(path: &std::path::Path) {
    fs::create_dir(path).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn write(path: &std::path::Path, text: &str) {
    if !path.exists() {
        fs::write(path, "").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    }
    fs::write(path, text).unwrap();
}

async fn reaches(status: &mut watch::Receiver<WatchStatus>, state: WatchState) -> WatchStatus {
    let reached = tokio::time::timeout(Duration::from_secs(20), status.wait_for(|s| s.state == state)).await;
    reached.unwrap_or_else(|_| panic!("not {state:?} within 20 s")).unwrap().clone()
}

fn service(port: u16) -> String {
    format!("service \"backend\" {{\n  port = {port}\n}}\n")
}

#[tokio::test]
async fn an_edit_is_applied_and_a_faulty_one_changes_nothing() {
    let bench = Bench::new().await;
    bench.write("manifest.hcl", EAST);
    bench.write("shop.hcl", &service(1));
    let mut status = bench.start();
    let first = reaches(&mut status, WatchState::Applied).await;
    assert_eq!(bench.keys().await, ["service/backend"]);
    assert_eq!(first.last_applied.unwrap().revision, 1);

    bench.write("shop.hcl", "service \"backend\" {\n  prot = 1\n}\n");
    let faulty = reaches(&mut status, WatchState::Faulty).await;
    let shop = bench.folder().join("shop.hcl");
    let place = format!("{}:2:3", shop.display());
    assert!(faulty.faults.iter().any(|fault| fault.at.as_deref() == Some(&place)), "{:?}", faulty.faults);
    assert_eq!(faulty.last_applied.unwrap().revision, 1, "the last good state is kept");
    assert_eq!(bench.keys().await, ["service/backend"]);

    bench.write("shop.hcl", "volume \"default/orders\" {}\n");
    bench.declares(&["volume/default/orders"]).await;
    let well = reaches(&mut status, WatchState::Applied).await;
    assert!(well.faults.is_empty() && well.last_applied.unwrap().revision > 1);
}

#[tokio::test]
async fn a_folder_that_vanishes_prunes_nothing_and_may_come_back() {
    let bench = Bench::new().await;
    bench.write("shop.hcl", &format!("{EAST}{}", service(1)));
    let mut status = bench.start();
    reaches(&mut status, WatchState::Applied).await;
    let away = bench.root.path().join("away");
    fs::rename(bench.folder(), &away).unwrap();
    reaches(&mut status, WatchState::Missing).await;
    assert_eq!(bench.keys().await, ["service/backend"]);
    write(&away.join("shop.hcl"), &format!("{EAST}volume \"default/orders\" {{}}\n"));
    fs::rename(&away, bench.folder()).unwrap();
    bench.declares(&["volume/default/orders"]).await;
}

#[tokio::test]
async fn what_others_change_is_put_right() {
    let bench = Bench::new().await;
    bench.write("shop.hcl", &format!("{EAST}{}", service(1)));
    let mut status = bench.start();
    reaches(&mut status, WatchState::Applied).await;
    let key: RecordKey = "service/backend".parse().unwrap();
    let before = bench.observe.live().await.unwrap().records[&key].clone();

    // Past `apply`, which would refuse it, as a restored copy of the store might bring it about.
    let txn = Txn { guards: vec![], ops: vec![store::Op::Delete { key: keys::declared(&key) }] };
    bench.store.commit(txn).await.unwrap();
    bench.declares(&["service/backend"]).await;
    let after = bench.observe.live().await.unwrap().records[&key].clone();
    assert!(after.record == before.record && after.modify_revision > before.modify_revision);
}

#[tokio::test]
async fn faults_of_the_folder_as_such_are_told() {
    let bench = Bench::new().await;
    let mut status = bench.start();
    let empty = reaches(&mut status, WatchState::Faulty).await;
    assert!(empty.faults[0].message.contains("no declaration files"), "{:?}", empty.faults);
    for (text, why) in [
        (
            "manifest \"shop\" {\n  cluster = \"west\"\n}\nvolume \"default/a\" {}\n",
            "this agent's is \"east\"",
        ),
        (&*format!("{EAST}volume \"default/a\" {{\n  description = env(\"PATH\")\n}}\n"), "watched folder"),
        (&*format!("{EAST}cluster_link \"west\" {{\n  auth_groups = [\"nobody\"]\n}}\n"), "nobody"),
        (&*format!("{EAST}volume \"nowhere/a\" {{}}\n"), "no storage pool nowhere"),
    ] {
        bench.write("shop.hcl", text);
        let told = status.wait_for(|s| s.faults.iter().any(|fault| fault.message.contains(why)));
        let told = tokio::time::timeout(Duration::from_secs(20), told).await.is_ok();
        assert!(told, "{why:?} was not told, but {:?}", status.borrow().faults);
    }
    assert_eq!(bench.keys().await, [""; 0]);
}

#[tokio::test]
async fn a_record_of_another_manifest_is_not_taken() {
    let bench = Bench::new().await;
    let permit = decide(&Caller::local(0), Entitlement::CanEdit, Entity::Server, &bench.identities.policy());
    let hand = Record::Service(schema::kind::service::Service::default());
    let edit = Edit::put("service/hand".parse().unwrap(), hand);
    bench
        .apply
        .edit(&permit.unwrap(), vec![edit, Edit::delete("service/x".parse().unwrap(), Data::Keep)])
        .await
        .unwrap();
    folder(&bench.folder().join("sub"));
    bench.write("shop.hcl", &format!("{EAST}{}", service(1)));
    bench.write("sub/other.hcl", &format!("manifest \"other\" {{}}\n{}", service(2)));
    let mut status = bench.start();
    let faulty = reaches(&mut status, WatchState::Faulty).await;
    assert!(faulty.faults.iter().any(|f| f.message.contains("by manifest")), "{:?}", faulty.faults);
    assert_eq!(bench.keys().await, ["service/hand"]);
}

#[tokio::test]
async fn tokens_in_the_folder_make_links() {
    let bench = Bench::new().await;
    let text = "auth_group \"clusters\" {}\n\
                cluster_link \"west\" {\n  auth_groups = [\"clusters\"]\n  token_file = \"west.token\"\n}\n";
    bench.write("shop.hcl", &format!("{EAST}{text}"));
    let mut status = bench.start();
    // Declared, but without a token there is no trust.
    let failing = reaches(&mut status, WatchState::Failing).await;
    assert!(failing.faults[0].message.contains("west.token"), "{:?}", failing.faults);
    assert_eq!(bench.keys().await, ["auth_group/clusters", "cluster_link/west"]);
    bench.write("west.token", "refused");
    status.wait_for(|s| s.faults.iter().any(|f| f.message.contains("refused the token"))).await.unwrap();
    bench.write("west.token", "good\n");
    reaches(&mut status, WatchState::Applied).await;
    assert_eq!(bench.links.0.lock().unwrap().values().next().map(String::as_str), Some("good"));
}
