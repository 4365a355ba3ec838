use schema::kind::auth_group::{ENTITLEMENTS, Permission as Granted};

use super::*;
use crate::trust::Fingerprint;

fn policy(permissions: &[(&str, &str, Option<&str>)]) -> Policy {
    let permissions = permissions
        .iter()
        .map(|(entity_type, entitlement, entity)| Granted {
            entity_type: (*entity_type).to_owned(),
            entitlement: (*entitlement).to_owned(),
            entity: entity.map(str::to_owned),
            project: None,
            pool: Some("default".to_owned()),
        })
        .collect();
    let mut policy = Policy::default();
    policy.put("clusters".parse().unwrap(), permissions);
    policy
}

fn peer() -> Caller {
    Who::Peer {
        link: "west".parse().unwrap(),
        fingerprint: Fingerprint([1; 32]),
        groups: vec!["clusters".parse().unwrap(), "nowhere".parse().unwrap()].into(),
    }
    .into()
}

fn link(name: &str) -> Entity {
    Entity::ClusterLink(name.parse().unwrap())
}

fn volume(name: &str) -> Entity {
    Entity::Volume { pool: "default".parse().unwrap(), volume: name.parse().unwrap() }
}

#[test]
fn the_machines_administrator_may_all_and_a_stranger_nothing() {
    let nothing = Policy::default();
    assert!(decide(&Caller::local(0), Entitlement::CanDelete, link("a"), &nothing).is_ok());
    for certificate in [None, Some(Fingerprint([9; 32]))] {
        let stranger = Who::Anonymous { certificate }.into();
        assert!(matches!(
            decide(&stranger, Entitlement::CanView, link("a"), &policy(&[("server", "admin", None)])),
            Err(Denied::Untrusted(_))
        ));
    }
    assert!(decide(&peer(), Entitlement::CanView, link("a"), &nothing).is_err());
}

#[test]
fn rights_are_had_through_groups_and_through_what_those_imply() {
    use Entitlement::{CanCreateGroups, CanDelete, CanEdit, CanManageSnapshots, CanView, CanViewMetrics};
    type Case = (&'static [(&'static str, &'static str, Option<&'static str>)], Entitlement, Entity, bool);
    let cases: Vec<Case> = vec![
        (&[("server", "admin", None)], CanDelete, Entity::Service("b".parse().unwrap()), true),
        (&[("server", "can_view_metrics", None)], CanViewMetrics, Entity::Server, true),
        (&[("server", "viewer", None)], CanViewMetrics, Entity::Server, true),
        (&[("server", "viewer", None)], CanView, link("a"), true),
        (&[("server", "viewer", None)], CanEdit, link("a"), false),
        (&[("server", "permission_manager", None)], CanCreateGroups, Entity::Server, true),
        (&[("cluster_link", "can_edit", Some("a"))], CanView, link("a"), true),
        (&[("cluster_link", "can_edit", Some("a"))], CanView, link("b"), false),
        (&[("cluster_link", "can_edit", None)], CanEdit, link("a"), false),
        (&[("project", "operator", Some("default"))], CanManageSnapshots, volume("orders"), true),
        (&[("project", "operator", Some("other"))], CanManageSnapshots, volume("orders"), false),
        (&[("server", "project_manager", None)], CanEdit, volume("orders"), true),
        (&[("storage_volume", "can_edit", Some("orders"))], CanView, volume("orders"), true),
        (&[("storage_volume", "can_edit", Some("orders"))], CanDelete, volume("orders"), false),
        (
            &[("service_intentions", "can_edit", Some("b"))],
            CanEdit,
            Entity::Service("b".parse().unwrap()),
            false,
        ),
    ];
    for (permissions, entitlement, entity, expected) in cases {
        let decided = decide(&peer(), entitlement, entity.clone(), &policy(permissions));
        assert_eq!(decided.is_ok(), expected, "{permissions:?} {entitlement:?} {entity:?}");
    }
}

#[test]
fn a_refusal_hides_what_the_caller_may_not_see() {
    let seen = policy(&[("cluster_link", "can_view", Some("a"))]);
    let denied = |entitlement, entity| decide(&peer(), entitlement, entity, &seen).unwrap_err();
    assert!(matches!(denied(Entitlement::CanView, link("b")), Denied::NotFound(_)));
    assert!(matches!(denied(Entitlement::CanEdit, link("b")), Denied::NotFound(_)));
    assert!(matches!(denied(Entitlement::CanEdit, link("a")), Denied::Forbidden(_)));
    assert!(matches!(denied(Entitlement::CanEdit, Entity::Server), Denied::Forbidden(_)));
}

#[test]
fn anybody_may_see_and_give_up_its_own() {
    let nothing = Policy::default();
    let may = |entitlement, entity| decide(&peer(), entitlement, entity, &nothing).is_ok();
    assert!(may(Entitlement::CanDelete, Entity::Identity(Fingerprint([1; 32]).into())));
    assert!(!may(Entitlement::CanEdit, Entity::Identity(Fingerprint([1; 32]).into())));
    assert!(!may(Entitlement::CanView, Entity::Identity(Fingerprint([2; 32]).into())));
    assert!(may(Entitlement::CanView, Entity::AuthGroup("clusters".parse().unwrap())));
}

/// A word in the rules that no group can hold would be a right that nobody can be given.
#[test]
fn the_rules_speak_of_entitlements_that_exist() {
    for (entity_type, words) in ENTITLEMENTS {
        for word in *words {
            for (place, source) in rule::also_granted_to(entity_type, word) {
                let held_on = match place {
                    rule::Place::Same => entity_type,
                    rule::Place::Project => "project",
                    rule::Place::Server => "server",
                };
                let there =
                    ENTITLEMENTS.iter().any(|(kind, words)| *kind == held_on && words.contains(source));
                assert!(there, "{entity_type} {word} <- {source} on {held_on}");
            }
        }
    }
}
