use proptest::prelude::*;

use super::*;
use crate::access::{Intentions, Source, decide};
use crate::kind::entry::Entry;
use crate::kind::exported_services::{Consumer, Export};
use crate::kind::sameness_group::SamenessGroup;
use crate::kind::service_intentions::permission::{Jwt, JwtProvider};
use crate::kind::service_intentions::{Action as Say, IntentionSource, Permission};
use crate::plan::tests::{desired, live};
use crate::plan::{Data, plan};
use crate::record::{LiveRecord, ServiceMatch};

/// Rules over few names, so that they meet: two services and `*`, each side, this cluster and one peer.
fn rules() -> impl Strategy<Value = Vec<(RecordKey, Record)>> {
    let name = prop::sample::select(vec!["*", "a", "b"]);
    let peer = prop::sample::select(vec!["@", "west", "@both", "*"]);
    let rule = (name.clone(), peer, name, any::<bool>(), prop::bool::weighted(0.1));
    let group = prop::collection::btree_set(prop::sample::select(vec!["@", "west", "east"]), 0..3);
    (prop::collection::vec(rule, 0..8), group, prop::bool::weighted(0.1)).prop_map(|(rules, members, jwt)| {
        let jwt = Jwt { providers: if jwt { vec![JwtProvider::default()] } else { Vec::new() } };
        let group = SamenessGroup {
            members: members.iter().filter(|name| **name != "@").map(|name| name.parse().unwrap()).collect(),
            include_local: members.contains("@"),
            ..SamenessGroup::default()
        };
        let consumers =
            members.iter().filter(|name| **name != "@").map(|name| name.parse().unwrap()).collect();
        let mut exports = vec![("a", vec!["@both".parse().unwrap(), "north".parse().unwrap()])];
        exports.push((if jwt.is_empty() { "*" } else { "b" }, consumers));
        let exports =
            exports.into_iter().filter(|(_, consumers)| !consumers.is_empty()).map(|(service, consumers)| {
                (RecordKey::Export(service.parse().unwrap()), Record::ExportedServices(Export { consumers }))
            });
        let exports: Vec<_> = exports.collect();
        let others = [
            ("sameness_group/both", Record::SamenessGroup(group)),
            ("service_intentions/a", Record::IntentionEntry(Entry { jwt, ..Entry::default() })),
        ];
        let others = others.into_iter().map(|(key, record)| (key.parse().unwrap(), record));
        rules
            .into_iter()
            .map(|(to, peer, from, allow, has_permissions)| {
                let key = format!("service_intentions/{to}/{peer}/{from}").parse().unwrap();
                let action = if allow { Say::Allow } else { Say::Deny };
                let permissions = if has_permissions { vec![Permission::default()] } else { Vec::new() };
                let rule = IntentionSource { action, description: String::new(), permissions };
                (key, Record::ServiceIntentions(rule))
            })
            .chain(others)
            .chain(exports)
            .collect()
    })
}

fn covers(effect: &Connection, source: &Source, destination: &str) -> bool {
    let matches = |pattern: &ServiceMatch, name: &str| match pattern {
        ServiceMatch::Any => true,
        ServiceMatch::Named(named) => named.as_str() == name,
    };
    effect.peer == source.peer
        && matches(&effect.source, source.service.as_str())
        && matches(&effect.destination, destination)
}

/// Whether the source's cluster is offered the destination.
fn offered(source: &Source, to: &str, rules: &Intentions, records: &BTreeMap<RecordKey, Record>) -> bool {
    let Some(peer) = &source.peer else { return true };
    [to, "*"].into_iter().any(|service| match records.get(&RecordKey::Export(service.parse().unwrap())) {
        Some(Record::ExportedServices(export)) => export.consumers.iter().any(|consumer| match consumer {
            Consumer::Peer(named) => named == peer,
            Consumer::Group(group) => rules.groups().has(group, peer),
        }),
        _ => false,
    })
}

proptest! {
    /// A pair whose answer changes is told of, directly or through a pattern; `c` is the service no rule names.
    #[test]
    fn tells_of_every_pair_that_changes(before in rules(), after in rules()) {
        let held = live(before.iter().cloned().map(|(key, record)| {
            (key, LiveRecord { owner: Some("shop".parse().unwrap()), file: None, modify_revision: 1, record })
        }));
        let wanted = desired("shop", after.iter().cloned());
        let told = connections(&held, &plan(&wanted, &held, Data::Keep).unwrap());
        let old = Intentions::from_records(held.records.iter().map(|(key, live)| (key, &live.record)));
        let new = Intentions::from_records(wanted.records.iter().map(|(key, declared)| (key, &declared.record)));
        let held_records: BTreeMap<_, _> = before.into_iter().collect();
        let wanted_records: BTreeMap<_, _> = after.into_iter().collect();
        for peer in [None, Some("west"), Some("east"), Some("north")] {
            for from in ["a", "b", "c"] {
                for to in ["a", "b", "c"] {
                    let source = Source {
                        peer: peer.map(|peer| peer.parse().unwrap()),
                        service: from.parse().unwrap(),
                    };
                    let destination = to.parse().unwrap();
                    let verdict = |rules: &Intentions, records: &BTreeMap<RecordKey, Record>| {
                        if offered(&source, to, rules, records) {
                            decide(&source, &destination, rules).verdict
                        } else {
                            Verdict::Denied
                        }
                    };
                    let now = verdict(&new, &wanted_records);
                    if verdict(&old, &held_records) != now {
                        prop_assert!(
                            told.iter().any(|effect| effect.becomes == now && covers(effect, &source, to)),
                            "{source} -> {to} becomes {now:?}, told: {told:?}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn reads_as_a_sentence() {
    let effect = Connection {
        destination: "backend".parse().unwrap(),
        peer: Some("west".parse().unwrap()),
        source: "frontend".parse().unwrap(),
        becomes: Verdict::Allowed,
    };
    assert_eq!(effect.to_string(), "granted: frontend@west → backend");
}

#[test]
fn a_peer_gains_and_loses_what_its_groups_do() {
    let record = |value: serde_json::Value| serde_json::from_value::<Record>(value).unwrap();
    let group = |entitlement: &str| {
        record(serde_json::json!({ "auth_group": {
            "permissions": [{ "entity_type": "instance", "entitlement": entitlement, "entity": "c1", "project": "web" }]
        }}))
    };
    let link = record(serde_json::json!({ "cluster_link": { "auth_groups": ["clusters"] } }));
    let held =
        |record| LiveRecord { owner: Some("shop".parse().unwrap()), file: None, modify_revision: 1, record };
    let live = live([
        ("auth_group/clusters".parse().unwrap(), held(group("can_view"))),
        ("cluster_link/west".parse().unwrap(), held(link.clone())),
    ]);
    let wanted = desired(
        "shop",
        [
            ("auth_group/clusters".parse().unwrap(), group("can_edit")),
            ("cluster_link/west".parse().unwrap(), link),
        ],
    );
    let told = effects(&live, &plan(&wanted, &live, Data::Keep).unwrap());
    let told: Vec<String> = told.iter().map(Effect::to_string).collect();
    assert_eq!(
        told,
        [
            "peer west gains can_edit on instance c1 in project web",
            "peer west loses can_view on instance c1 in project web"
        ]
    );
}
