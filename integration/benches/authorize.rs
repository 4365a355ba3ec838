//! One decision against 1,000 groups with 100 permissions each: `integration/bench authorize`.
//!
//! Callers in 1, 10 and all of the groups ask for what one of their groups grants, and for what none does. The hard case
//! is a grant that half of the groups give, asked for by a caller in the other half: nothing ends the search early.

use std::hint::black_box;
use std::time::Instant;

use agent::authorize::{Entitlement, Entity, decide};
use agent::trust::policy::Policy;
use agent::trust::{Access, Caller, Fingerprint, Groups, Who};
use schema::kind::auth_group::Permission;
use schema::name::GroupName;
use serde_json::json;

const GROUPS: usize = 1000;
const PERMISSIONS: usize = 100;
/// The goal for one decision, nanoseconds.
const GOAL: f64 = 2000.0;
/// Decisions in one sample, and samples of which the median counts.
const DECISIONS: u32 = 10_000;
const SAMPLES: usize = 9;

fn main() {
    let policy = policy();
    let mut figures = serde_json::Map::new();
    let mut worst: f64 = 0.0;
    for groups in [1, 10, GROUPS] {
        let caller = caller((0..groups).map(name));
        // The last group's last service, and a service that is nobody's.
        let allowed = service(groups - 1, PERMISSIONS / 2 - 1);
        let denied = Entity::Service("absent".parse().expect("a name"));
        for (ends, entity) in [("allow", allowed), ("deny", denied)] {
            let took = sample(&caller, &entity, &policy);
            assert_eq!(decide(&caller, Entitlement::CanEdit, entity, &policy).is_ok(), ends == "allow");
            figures.insert(format!("{groups}_groups_{ends}_ns"), json!(took.round()));
            worst = worst.max(took);
        }
    }
    let odd = caller((0..GROUPS).filter(|number| number % 2 == 1).map(name));
    let shared = Entity::Service("shared".parse().expect("a name"));
    assert!(decide(&odd, Entitlement::CanEdit, shared.clone(), &policy).is_err());
    let hard = sample(&odd, &shared, &policy);
    figures.insert("500_groups_of_which_none_of_500_ns".to_owned(), json!(hard.round()));
    worst = worst.max(hard);
    let report = json!({
        "bench": "authorize",
        "groups": GROUPS,
        "permissions_each": PERMISSIONS,
        "decisions": figures,
        "worst_ns": worst.round(),
        "goal_ns": GOAL,
        "met": worst < GOAL,
    });
    println!("{report:#}");
}

/// Nanoseconds for one decision, the median of some samples.
fn sample(caller: &Caller, entity: &Entity, policy: &Policy) -> f64 {
    let mut samples: Vec<f64> = (0..SAMPLES)
        .map(|_| {
            let began = Instant::now();
            for _ in 0..DECISIONS {
                let decided = decide(caller, Entitlement::CanEdit, entity.clone(), black_box(policy));
                drop(black_box(decided));
            }
            began.elapsed().as_secs_f64() * 1e9 / f64::from(DECISIONS)
        })
        .collect();
    samples.sort_by(f64::total_cmp);
    samples[SAMPLES / 2]
}

/// Half of each group's permissions are on services of its own; the rest on links, and on what half of the groups share.
fn policy() -> Policy {
    let mut policy = Policy::default();
    for group in 0..GROUPS {
        let mut permissions: Vec<Permission> =
            (0..PERMISSIONS / 2).map(|number| permission("service", &format!("s{group}-{number}"))).collect();
        permissions
            .extend((1..PERMISSIONS / 2).map(|number| permission("cluster_link", &format!("l{number}"))));
        permissions.extend((group % 2 == 0).then(|| permission("service", "shared")));
        policy.put(name(group), permissions);
    }
    policy
}

fn permission(entity_type: &str, entity: &str) -> Permission {
    Permission {
        entity_type: entity_type.to_owned(),
        entitlement: "can_edit".to_owned(),
        entity: Some(entity.to_owned()),
        project: None,
        pool: None,
    }
}

fn service(group: usize, number: usize) -> Entity {
    Entity::Service(format!("s{group}-{number}").parse().expect("a name"))
}

fn name(group: usize) -> GroupName {
    format!("group-{group:04}").parse().expect("a name")
}

fn caller(groups: impl Iterator<Item = GroupName>) -> Caller {
    let access = Access::Groups(groups.collect::<Groups>());
    Who::Client { id: Fingerprint([1; 32]).into(), name: "laptop".to_owned(), access }.into()
}
