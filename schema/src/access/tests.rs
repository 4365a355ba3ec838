use proptest::prelude::*;

use super::*;
use crate::kind::sameness_group::SamenessGroup;
use crate::kind::service_intentions::Permission;

fn key(text: &str) -> RecordKey {
    text.parse().unwrap()
}

fn rule(action: Action) -> IntentionSource {
    IntentionSource { action, description: String::new(), permissions: Vec::new() }
}

fn source(text: &str) -> Source {
    let (service, peer) = text.split_once('@').map_or((text, None), |(service, peer)| (service, Some(peer)));
    Source { peer: peer.map(|peer| peer.parse().unwrap()), service: service.parse().unwrap() }
}

fn intentions(rules: &[(&str, Action)]) -> Intentions {
    let mut intentions = Intentions::default();
    for (text, action) in rules {
        intentions.insert(&key(text), rule(*action));
    }
    intentions
}

#[test]
fn an_exact_destination_beats_an_exact_source() {
    let rules = intentions(&[
        ("service_intentions/*/@/web", Action::Allow),
        ("service_intentions/db/@/*", Action::Deny),
    ]);
    let decision = decide(&source("web"), &"db".parse().unwrap(), &rules);
    assert_eq!(decision.verdict, Verdict::Denied);
    assert_eq!(decision.reason, Reason::Rule { rule: key("service_intentions/db/@/*"), precedence: 8 });
    assert!(decide(&source("web"), &"cache".parse().unwrap(), &rules).is_allowed());
}

#[test]
fn a_rule_for_this_cluster_says_nothing_about_a_peer() {
    let rules = intentions(&[("service_intentions/*/@/*", Action::Allow)]);
    let decision = decide(&source("web@west"), &"db".parse().unwrap(), &rules);
    assert_eq!(decision, Decision { verdict: Verdict::Denied, reason: Reason::NoRule });
}

#[test]
fn permissions_that_cannot_be_enforced_deny() {
    let mut rules = Intentions::default();
    let key = key("service_intentions/db/@/web");
    rules.insert(&key, IntentionSource { permissions: vec![Permission::default()], ..rule(Action::Allow) });
    let decision = decide(&source("web"), &"db".parse().unwrap(), &rules);
    assert_eq!(decision.verdict, Verdict::Denied);
    assert_eq!(decision.reason, Reason::Permissions { rule: key, precedence: 9 });
}

#[test]
fn explains_what_decided_and_what_would_change_it() {
    let rules = intentions(&[
        ("service_intentions/backend/west/*", Action::Deny),
        ("service_intentions/*/west/*", Action::Allow),
    ]);
    let explanation = explain(&source("frontend@west"), &"backend".parse().unwrap(), &rules);
    assert_eq!(
        explanation.text(|_| String::new()),
        "frontend@west → backend: denied\n  \
           decided by service_intentions/backend/west/* (precedence 8)\n  \
           overruled: service_intentions/*/west/* (precedence 5)\n\
         To allow it, declare:\n\n\
         service_intentions \"backend\" {\n  \
           sources = [{ name = \"frontend\", peer = \"west\", action = \"allow\" }]\n\
         }\n"
    );
}

/// How exactly a rule's origin names a caller, if it does; `both` is `w` and this cluster.
fn called(origin: &str, caller: &str) -> Option<u8> {
    match origin {
        _ if origin == caller => Some(3),
        "@both" if ["@", "w"].contains(&caller) => Some(2),
        "*" if caller != "@" => Some(1),
        _ => None,
    }
}

proptest! {
    /// Deciding is picking, of all rules that match, the one with the largest precedence, and of equals the one that
    /// names the caller best; and an intention that was
    /// inserted and removed again leaves nothing behind.
    #[test]
    fn decides_by_the_largest_precedence(
        rules in prop::collection::btree_map(
            (prop::sample::select(vec!["*", "a", "b"]), prop::sample::select(vec!["@", "w", "x", "@both", "*"]), prop::sample::select(vec!["*", "a", "b"])),
            any::<bool>(),
            0..20,
        ),
        dropped in (prop::sample::select(vec!["*", "a"]), prop::sample::select(vec!["@", "w"])),
    ) {
        let mut built = Intentions::default();
        let both = SamenessGroup { members: vec!["w".parse().unwrap()], include_local: true, ..SamenessGroup::default() };
        built.put(&key("sameness_group/both"), Some(&Record::SamenessGroup(both)));
        for ((to, peer, from), allow) in &rules {
            let action = if *allow { Action::Allow } else { Action::Deny };
            built.insert(&key(&format!("service_intentions/{to}/{peer}/{from}")), rule(action));
        }
        for peer in ["@", "w", "x", "y"] {
            for from in ["a", "b", "c"] {
                for to in ["a", "b", "c"] {
                    let best = rules
                        .iter()
                        .filter(|((t, p, f), _)| {
                            called(p, peer).is_some() && (*t == "*" || *t == to) && (*f == "*" || *f == from)
                        })
                        .max_by_key(|((t, p, f), _)| {
                            (precedence(&t.parse().unwrap(), &f.parse().unwrap()), called(p, peer))
                        });
                    let name = if peer == "@" { from.to_owned() } else { format!("{from}@{peer}") };
                    let decision = decide(&source(&name), &to.parse().unwrap(), &built);
                    prop_assert_eq!(decision.is_allowed(), best.is_some_and(|(_, allow)| *allow));
                    let rule = best.map(|((t, p, f), _)| key(&format!("service_intentions/{t}/{p}/{f}")));
                    prop_assert_eq!(decision.reason.rule(), rule.as_ref());
                }
            }
        }
        let extra = key(&format!("service_intentions/{}/{}/extra", dropped.0, dropped.1));
        let mut changed = built.clone();
        changed.insert(&extra, rule(Action::Allow));
        changed.remove(&extra);
        prop_assert_eq!(changed, built);
    }
}
