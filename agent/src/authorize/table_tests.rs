//! The table of entitlements against LXD's, as `testdata/entitlements/lxd.txt` restates it: each row of each type that
//! is here, and nothing besides but ours.

use std::collections::{BTreeMap, BTreeSet};

use schema::kind::auth_group::Permission as Granted;
use schema::kind::auth_group::entitlements::{DERIVED, ENTITY_TYPES, NOT_HERE, entity_type};

use super::*;
use crate::trust::Fingerprint;

/// (entity type, entitlement), and what else grants it: (place, entitlement).
type Rows = BTreeMap<(String, String), Vec<(String, String)>>;

/// Ours, of which LXD's table knows nothing.
const OURS: [&str; 5] = ["service", "exported_services", "service_intentions", "manifest", "transfer"];

fn lxd() -> Rows {
    let text = include_str!("../../../testdata/entitlements/lxd.txt");
    let rows = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    rows.map(|row| {
        let (left, right) = row.split_once(" <- ").unwrap_or((row, ""));
        let (entity_type, word) = left.split_once(' ').unwrap();
        let others = right.split(", ").filter(|other| !other.is_empty()).map(|other| {
            let (word, place) = other.split_once('@').unwrap_or((other, "same"));
            (place.to_owned(), word.to_owned())
        });
        ((entity_type.to_owned(), word.to_owned()), others.collect())
    })
    .collect()
}

/// Everything that grants a right by the rows, followed to its ends: (type it is held on, entitlement).
fn reached(rows: &Rows, entity_type: &str, word: &str) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::from([("server".to_owned(), "admin".to_owned())]);
    let mut open = vec![(entity_type.to_owned(), word.to_owned())];
    while let Some(held) = open.pop() {
        for (place, word) in rows.get(&held).into_iter().flatten() {
            let on = if place == "same" { held.0.clone() } else { place.clone() };
            open.push((on, word.clone()));
        }
        found.insert(held);
    }
    found
}

fn entity_of(entity_type: &str) -> Entity {
    let name = (!matches!(entity_type, "server")).then(|| match entity_type {
        "identity" | "certificate" => "ab".repeat(32),
        _ => "default".to_owned(),
    });
    Entity::meant_by(&permission(entity_type, "can_view", name)).unwrap()
}

fn permission(entity_type: &str, word: &str, entity: Option<String>) -> Granted {
    let pool = (entity_type == "storage_volume").then(|| "default".to_owned());
    Granted { entity_type: entity_type.to_owned(), entitlement: word.to_owned(), entity, project: None, pool }
}

/// Whether a member of a group with `word` on the entity of `held_on` holds `wanted` on the entity of `entity_type`.
fn holds(held_on: &str, word: &str, entity_type: &str, wanted: Entitlement) -> bool {
    let name = (held_on != "server").then(|| match held_on {
        "identity" | "certificate" => "ab".repeat(32),
        _ => "default".to_owned(),
    });
    let mut policy = Policy::default();
    policy.put("clusters".parse().unwrap(), vec![permission(held_on, word, name)]);
    let groups = vec!["clusters".parse().unwrap()].into();
    let caller: Caller =
        Who::Peer { link: "west".parse().unwrap(), fingerprint: Fingerprint([1; 32]), groups }.into();
    decide(&caller, wanted, entity_of(entity_type), &policy).is_ok()
}

#[test]
fn every_row_of_lxds_holds_and_there_are_no_others() {
    let rows = lxd();
    let mut asked = 0;
    for known in ENTITY_TYPES {
        if OURS.contains(&known.name) {
            continue;
        }
        let theirs: BTreeSet<&str> =
            rows.keys().filter(|(name, _)| name == known.name).map(|(_, word)| word.as_str()).collect();
        let here: BTreeSet<&str> = known.words().collect();
        assert!(theirs.is_subset(&here), "{}: {:?} is missing", known.name, theirs.difference(&here));
        for added in here.difference(&theirs) {
            let ours = ["services", "service_intentions", "manifests", "transfers"];
            assert!(
                known.name == "server" && ours.iter().any(|noun| added.ends_with(noun)),
                "{} {added} is neither LXD's nor ours",
                known.name
            );
        }
        for word in &theirs {
            let by_the_rows: BTreeSet<(String, String)> = reached(&rows, known.name, word)
                .into_iter()
                // Not a permission: the decision knows it by itself.
                .filter(|(_, word)| word != "member")
                .collect();
            let closure = rule::closure(known.name, word);
            let mut by_the_table = BTreeSet::new();
            for (on, words) in
                [(known.name, closure.same), ("project", closure.project), ("server", closure.server)]
            {
                for (at, word) in entity_type(on).unwrap().words().enumerate() {
                    if words & 1 << at != 0 {
                        by_the_table.insert((on.to_owned(), word.to_owned()));
                    }
                }
            }
            assert_eq!(by_the_table, by_the_rows, "{} {word}", known.name);
            // What is asked for is also decided so.
            let Some(wanted) = Entitlement::from_word(word) else { continue };
            for other in ENTITY_TYPES {
                for source in other.words() {
                    let expected = by_the_rows.contains(&(other.name.to_owned(), source.to_owned()));
                    assert_eq!(
                        holds(other.name, source, known.name, wanted),
                        expected,
                        "{source} on {} and {word} on {}",
                        other.name,
                        known.name
                    );
                    asked += 1;
                }
            }
        }
    }
    assert!(asked > 10_000, "{asked}");
}

#[test]
fn every_type_of_lxds_is_here_or_said_not_to_be() {
    for (name, _) in lxd().keys() {
        assert!(entity_type(name).is_some() || NOT_HERE.contains(&name.as_str()), "{name}");
        assert!(!DERIVED.contains(&name.as_str()), "{name}");
    }
}

#[test]
fn a_link_can_be_let_to_read_exports_and_nothing_else() {
    for known in ENTITY_TYPES {
        for word in known.words().filter_map(Entitlement::from_word) {
            let expected = known.name == "exported_services" && word == Entitlement::CanView;
            let granted = holds("exported_services", "can_view", known.name, word);
            assert_eq!(granted, expected, "{} on {}", word.as_str(), known.name);
        }
    }
    assert!(holds("server", "viewer", "exported_services", Entitlement::CanView));
    assert!(holds("server", "can_view_exported_services", "exported_services", Entitlement::CanView));
    assert!(!holds("server", "can_view_exported_services", "service", Entitlement::CanView));
    assert!(holds("server", "can_edit_service_intentions", "service_intentions", Entitlement::CanDelete));
}
