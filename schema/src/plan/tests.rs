use std::sync::Arc;

use super::*;
use crate::kind::service::Service;
use crate::kind::volume::Volume;
use crate::record::LiveRecord;

/// What manifest `name` declares.
pub(crate) fn desired(name: &str, records: impl IntoIterator<Item = (RecordKey, Record)>) -> Desired {
    let location = Location { file: Arc::from("shop.hcl"), span: 0..0 };
    Desired {
        name: name.parse().unwrap(),
        manifest: Manifest::default(),
        records: records
            .into_iter()
            .map(|(key, record)| (key, Declared { record, location: location.clone() }))
            .collect(),
        token_sources: BTreeMap::new(),
    }
}

/// A cluster that holds `records`.
pub(crate) fn live(records: impl IntoIterator<Item = (RecordKey, LiveRecord)>) -> Live {
    Live {
        cluster: "east".parse().unwrap(),
        fingerprint: "ab".repeat(32),
        epoch: "first".to_owned(),
        revision: 7,
        records: records.into_iter().collect(),
        manifests: BTreeMap::new(),
        links: BTreeMap::new(),
    }
}

fn key(text: &str) -> RecordKey {
    text.parse().unwrap()
}

fn service(port: u16) -> Record {
    Record::Service(Service { port: Some(port), ..Service::default() })
}

fn held(owner: Option<&str>, modify_revision: u64, record: Record) -> LiveRecord {
    LiveRecord { owner: owner.map(|owner| owner.parse().unwrap()), file: None, modify_revision, record }
}

fn actions(plan: &Plan) -> Vec<(String, Action, u64)> {
    plan.changes.iter().map(|change| (change.key.to_string(), change.action, change.base_revision)).collect()
}

#[test]
fn creates_updates_and_prunes_only_its_own_with_guards() {
    let live = live([
        (key("service/changed"), held(Some("shop"), 3, service(1))),
        (key("service/gone"), held(Some("shop"), 4, service(1))),
        (key("service/others"), held(Some("billing"), 5, service(1))),
        (key("service/by-hand"), held(None, 6, service(1))),
        (key("service/same"), held(Some("shop"), 7, service(1))),
        (key("volume/default/orders"), held(Some("shop"), 8, Record::Volume(Volume::default()))),
    ]);
    let desired = desired(
        "shop",
        [
            (key("service/changed"), service(2)),
            (key("service/same"), service(1)),
            (key("service/new"), service(1)),
        ],
    );
    let kept = plan(&desired, &live, Data::Keep).unwrap();
    assert_eq!(
        actions(&kept),
        [
            ("service/changed".to_owned(), Action::Update, 3),
            ("service/new".to_owned(), Action::Create, 0),
            ("volume/default/orders".to_owned(), Action::Forget, 8),
            ("service/gone".to_owned(), Action::Delete, 4),
        ]
    );
    let destroyed = plan(&desired, &live, Data::Destroy).unwrap();
    assert_eq!(actions(&destroyed)[2], ("volume/default/orders".to_owned(), Action::Delete, 8));
}

#[test]
fn names_the_manifest_that_holds_a_record() {
    let live = live([(key("service/a"), held(Some("billing"), 5, service(1)))]);
    let conflicts = plan(&desired("shop", [(key("service/a"), service(1))]), &live, Data::Keep).unwrap_err();
    assert_eq!(
        conflicts[0].to_string(),
        "service/a is declared by manifest \"shop\" but owned by manifest \"billing\""
    );
}

#[test]
fn takes_over_what_was_made_by_hand_even_where_it_says_the_same() {
    let live = live([(key("service/a"), held(None, 5, service(1)))]);
    let plan = plan(&desired("shop", [(key("service/a"), service(1))]), &live, Data::Keep).unwrap();
    assert_eq!(actions(&plan), [("service/a".to_owned(), Action::Update, 5)]);
    assert_eq!(plan.changes[0].ownership, Ownership::Adopted);
}

#[test]
fn exchanges_for_links_without_trust_and_for_no_others() {
    let link = Record::ClusterLink(crate::kind::cluster_link::ClusterLink::default());
    let mut live = live([]);
    for (name, state) in [
        ("pending", LinkState::Pending),
        ("active", LinkState::Active),
        ("failing", LinkState::Failing),
        ("terminated", LinkState::Terminated),
    ] {
        let link = LiveLink {
            kind: LinkType::Bidirectional,
            state,
            peer_fingerprint: None,
            addresses: Vec::new(),
            reason: None,
        };
        live.links.insert(name.parse().unwrap(), link);
        live.records.insert(
            key(&format!("cluster_link/{name}")),
            held(Some("shop"), 1, Record::ClusterLink(crate::kind::cluster_link::ClusterLink::default())),
        );
    }
    let names = ["active", "failing", "new", "pending", "terminated"];
    let desired = desired("shop", names.map(|name| (key(&format!("cluster_link/{name}")), link.clone())));
    let plan = plan(&desired, &live, Data::Keep).unwrap();
    let exchanged: Vec<&str> = plan.exchanges.iter().map(LinkName::as_str).collect();
    assert_eq!(exchanged, ["new", "pending", "terminated"]);
    assert_eq!(plan.changes.len(), 1);
    assert!(!plan.is_empty());
}

#[test]
fn a_change_of_owners_alone_is_a_plan() {
    let mut live = live([]);
    live.manifests.insert(
        "shop".parse().unwrap(),
        LiveManifest { modify_revision: 4, bound_to: "laptop".to_owned(), owners: vec![] },
    );
    let mut desired = desired("shop", []);
    assert!(plan(&desired, &live, Data::Keep).unwrap().is_empty());
    desired.manifest.owners = vec!["ops".parse().unwrap()];
    let plan = plan(&desired, &live, Data::Keep).unwrap();
    assert!(!plan.is_empty());
    assert_eq!(plan.base.manifest_revision, 4);
}

#[test]
fn survives_its_json_form() {
    let live = live([(key("service/a"), held(None, 5, service(1)))]);
    let plan = plan(&desired("shop", [(key("service/a"), service(1))]), &live, Data::Keep).unwrap();
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
}
