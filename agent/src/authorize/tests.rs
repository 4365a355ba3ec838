use proptest::strategy::Strategy;
use schema::kind::auth_group::Permission as Granted;
use schema::kind::auth_group::entitlements::ENTITY_TYPES;

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

/// A mixture of groups that are there and that are not, with a few permissions each.
fn policies() -> impl Strategy<Value = Policy> {
    let permission = (0..ENTITY_TYPES.len(), 0..64usize, 0..3usize).prop_map(|(kind, word, name)| {
        let known = &ENTITY_TYPES[kind];
        Granted {
            entity_type: known.name.to_owned(),
            entitlement: known.words().nth(word % known.entitlements.len()).unwrap().to_owned(),
            entity: Some(["default", "a", "b"][name].to_owned()),
            project: None,
            pool: Some("default".to_owned()),
        }
    });
    let group = (0..6usize, proptest::collection::vec(permission, 0..4));
    proptest::collection::vec(group, 0..8).prop_map(|groups| {
        let mut policy = Policy::default();
        for (name, permissions) in groups {
            policy.put(group_name(name), permissions);
        }
        policy
    })
}

fn group_name(number: usize) -> schema::name::GroupName {
    ["admins", "clusters", "dev", "ops", "web", "zoo"][number].parse().unwrap()
}

proptest::proptest! {
    /// The model only adds: being in one more group takes nothing away.
    #[test]
    fn one_more_group_takes_nothing_away(
        policy in policies(),
        mut groups in proptest::collection::vec(0..6usize, 0..4),
        more in 0..6usize,
        entity in 0..4usize,
    ) {
        let entity = [Entity::Server, link("a"), volume("b"), Entity::default_project()][entity].clone();
        let may = |groups: &[usize], wanted| {
            let groups = groups.iter().map(|number| group_name(*number)).collect();
            let fingerprint = Fingerprint([1; 32]);
            let caller: Caller = Who::Peer { link: "west".parse().unwrap(), fingerprint, groups }.into();
            decide(&caller, wanted, entity.clone(), &policy).is_ok()
        };
        let wanted = [Entitlement::CanView, Entitlement::CanEdit, Entitlement::CanViewMetrics];
        let before = wanted.map(|wanted| may(&groups, wanted));
        groups.push(more);
        for (had, wanted) in before.into_iter().zip(wanted) {
            proptest::prop_assert!(!had || may(&groups, wanted));
        }
    }
}
