//! Permits that connections share.

use super::*;
use crate::mesh::admission::{Refused, Request};
use crate::mesh::grant::Wish;
use crate::wire::traffic::Way;
use schema::access::{Reason, Source};

fn wish(source: &str, destination: &str) -> Wish {
    Wish {
        request: Request {
            source: Source { peer: None, service: source.parse().unwrap() },
            destination: destination.parse().unwrap(),
        },
        peer: None,
        way: Way::Upstream,
    }
}

async fn declared(side: &Side, ops: Vec<Op>) {
    let before = side.mesh.parts.catalog.view().revision;
    side.declare(ops).await;
    let mut catalog = side.mesh.parts.catalog.subscribe();
    tokio::time::timeout(LIMIT, catalog.wait_for(|view| view.revision > before)).await.unwrap().unwrap();
}

#[tokio::test]
async fn connections_of_one_pair_share_a_permit_and_it_is_forgotten_with_the_last() {
    let side = Side::start().await;
    declared(
        &side,
        vec![put("service/b", instance(1)), put("service_intentions/b/@/*", intention(Action::Allow))],
    )
    .await;
    let grants = &side.mesh.grants;
    let first = grants.ask(&wish("a", "b")).unwrap();
    let second = grants.ask(&wish("a", "b")).unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    let other = grants.ask(&wish("c", "b")).unwrap();
    assert!(!Arc::ptr_eq(&first, &other));
    assert_eq!(grants.held(), 2);
    drop((first, other));
    assert_eq!(grants.held(), 1);
    drop(second);
    assert_eq!(grants.held(), 0);
    assert!(matches!(grants.ask(&wish("a", "absent")), Err(Refused::NotDeclared)));
    assert_eq!(grants.held(), 0, "a refusal is not kept");
    side.drain().await;
}

#[tokio::test]
async fn a_permit_falls_for_all_that_hold_it_and_only_theirs() {
    let side = Side::start().await;
    let rule = |source: &str, action| put(&format!("service_intentions/b/@/{source}"), intention(action));
    declared(&side, vec![put("service/b", instance(1)), rule("a", Action::Allow), rule("c", Action::Allow)])
        .await;
    let grants = &side.mesh.grants;
    let (held, kept) = (grants.ask(&wish("a", "b")).unwrap(), grants.ask(&wish("c", "b")).unwrap());
    declared(&side, vec![rule("a", Action::Deny)]).await;
    tokio::time::timeout(Duration::from_secs(1), held.cut().cancelled()).await.expect("not cut in time");
    assert!(matches!(held.why(), Some(Refused::Intention(Reason::Rule { .. }))), "{:?}", held.why());
    assert!(!kept.cut().is_cancelled());
    assert!(grants.ask(&wish("a", "b")).is_err());

    // Allowed again, it is another permit: the one that fell stays fallen.
    declared(&side, vec![rule("a", Action::Allow)]).await;
    let again = grants.ask(&wish("a", "b")).unwrap();
    assert!(held.cut().is_cancelled() && !again.cut().is_cancelled());
    drop(held);
    assert_eq!(grants.held(), 2, "what fell takes nothing with it");
    drop((again, kept));
    side.drain().await;
}

/// Whoever asks after a change has been published hears of it, whether or not the permit was judged again by then.
#[tokio::test]
async fn a_change_is_never_missed_however_it_falls_between_asking_and_judging() {
    let side = Side::start().await;
    let rule = |action| put("service_intentions/b/@/a", intention(action));
    declared(&side, vec![put("service/b", instance(1)), rule(Action::Allow)]).await;
    let grants = &side.mesh.grants;
    for round in 0..50 {
        let held = grants.ask(&wish("a", "b")).unwrap();
        side.declare(vec![rule(Action::Deny)]).await;
        // Asks again and again while the change comes through: what is let in is let in by a permit that falls.
        let mut let_in = vec![held];
        let denied = async {
            while let Ok(grant) = grants.ask(&wish("a", "b")) {
                let_in.push(grant);
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LIMIT, denied).await.expect("never denied");
        for grant in let_in {
            let fallen = tokio::time::timeout(Duration::from_secs(1), grant.cut().cancelled()).await;
            assert!(fallen.is_ok(), "round {round}: a permit outlived the change");
        }
        declared(&side, vec![rule(Action::Allow)]).await;
    }
    until(|| grants.held() == 0).await;
    side.drain().await;
}
