//! Two agents over real TLS on loopback.

mod agents;
mod one_way;
mod reissued;

use std::sync::Arc;

use agents::{Agent, name};
use jiff::{SignedDuration, Timestamp};
use schema::plan::LinkState;
use tokio::net::TcpListener;

use super::half::{Half, Issued, Pending};
use super::{PeeringError, ledger};
use crate::catalog::Freshness;
use crate::store::{Op, Txn, keys, value};
use crate::trust::certificate::KeyPair;
use crate::wire::cluster_link::Dials;
use crate::wire::token::{Secret, TrustToken};

/// East's link is called `west` and west's `east`.
async fn declared() -> (Agent, Agent) {
    let (east, west) = (Agent::start("east").await, Agent::start("west").await);
    east.declare("west").await;
    west.declare("east").await;
    (east, west)
}

async fn linked() -> (Agent, Agent) {
    let (east, west) = declared().await;
    let token = east.mint("west", Some(&west)).await;
    west.redeem("east", &token).await.unwrap();
    both_active(&east, &west).await;
    (east, west)
}

async fn both_active(east: &Agent, west: &Agent) {
    east.reaches("west", LinkState::Active).await;
    west.reaches("east", LinkState::Active).await;
}

async fn half(agent: &Agent, link: &str) -> Half {
    ledger::read(&*agent.store, &name(link)).await.unwrap().half
}

fn edited(token: &str, edit: impl FnOnce(&mut TrustToken)) -> String {
    let mut token = TrustToken::decode(token).unwrap();
    edit(&mut token);
    token.encode().expose().to_owned()
}

#[tokio::test]
async fn a_token_makes_both_halves_active_and_each_knows_the_others() {
    let (east, west) = linked().await;
    let told = |report: &crate::wire::cluster_link::LinkReport| {
        report.peer.as_ref().is_some_and(|peer| peer.state == LinkState::Active)
    };
    let east_side = east.settles("west", told).await;
    let west_side = west.settles("east", told).await;
    assert_eq!(east_side.peer.unwrap().link, name("east"));
    assert_eq!((east_side.dials, west_side.dials), (Some(Dials::Peer), Some(Dials::Here)));
    assert_eq!(west_side.peer_fingerprint, Some(east.key.fingerprint.to_string()));
    let Half::Established(on_west) = half(&west, "east").await else { panic!() };
    assert_eq!(on_west.peer.certificate_pem, east.key.pem);
    // Active once, the link cannot be taken over by another token.
    let again = east.peering.mint(&agents::permit(), &name("west"), None).await;
    assert!(matches!(again, Err(PeeringError::AlreadyLinked { .. })));
}

#[tokio::test]
async fn exports_arrive_change_and_are_swept() {
    let (east, west) = declared().await;
    east.export("backend", "west").await;
    east.export("secret", "south").await;
    let token = east.mint("west", None).await;
    west.redeem("east", &token).await.unwrap();
    west.imports("east", &["backend"]).await;
    east.export("orders", "west").await;
    west.imports("east", &["backend", "orders"]).await;

    // What went while the peer was away is swept by the next snapshot; until then it is the last that was heard.
    east.tasks.drain(std::time::Duration::from_secs(5)).await;
    west.reaches("east", LinkState::Failing).await;
    assert_eq!(west.imports.view()[&name("east")].freshness, Freshness::Stale);
    west.imports("east", &["backend", "orders"]).await;
    let key = keys::declared(&"exported_services/default/backend".parse().unwrap());
    east.store.commit(Txn { guards: vec![], ops: vec![Op::Delete { key }] }).await.unwrap();
    let _east = east.again().await;
    west.imports("east", &["orders"]).await;
    assert_eq!(west.imports.view()[&name("east")].freshness, Freshness::Current);
}

#[tokio::test]
async fn either_agent_comes_back_by_itself() {
    let (east, west) = linked().await;
    let east = east.again().await;
    both_active(&east, &west).await;
    let west = west.again().await;
    both_active(&east, &west).await;
}

#[tokio::test]
async fn a_bad_token_says_which_and_leaves_nothing() {
    let (east, west) = declared().await;
    let token = east.mint("west", None).await;
    let before = half(&east, "west").await;
    let other = Agent::start("other").await;
    other.declare("west").await;
    let foreign = edited(&other.mint("west", None).await, |token| {
        token.addresses = vec![east.address.clone()];
        token.fingerprint = east.key.fingerprint.to_string();
    });
    let mismatched = edited(&token, |token| token.fingerprint = other.key.fingerprint.to_string());
    let closed = edited(&token, |token| token.addresses = vec!["127.0.0.1:1".to_owned()]);
    let client = edited(&token, |token| token.kind = "Client certificate".to_owned());
    for (bad, says) in [
        (foreign, "No pending identities found with given secret"),
        (mismatched, "Certificate fingerprint mismatch for address"),
        (closed, "connection refused"),
        (client, "not for a cluster link"),
        (token[..token.len() / 2].to_owned(), "part of it may be missing"),
        (west.mint("east", None).await, "a link to itself"),
    ] {
        let error = west.redeem("east", &bad).await.unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
        assert!(
            !error.contains(&bad) && !error.contains(TrustToken::decode(&token).unwrap().secret.expose())
        );
        assert!(matches!(half(&west, "east").await, Half::Pending(_)));
    }
    assert_eq!(half(&east, "west").await, before);
    // The token itself is as good as before.
    west.redeem("east", &token).await.unwrap();
    both_active(&east, &west).await;
    assert!(west.store.range(keys::TOMBSTONE).await.unwrap().entries.is_empty());
}

#[tokio::test]
async fn expired_bound_and_used_tokens_are_refused() {
    let (east, west) = declared().await;
    let thief = KeyPair::generate("thief", &[]).unwrap();
    let bound = east.mint("west", Some(&west)).await;
    let error = east.activate(&bound, &thief).await.unwrap_err();
    assert_eq!(error.to_string(), "the token is bound to another certificate");

    east.activate(&bound, &west.key).await.unwrap();
    let error = east.activate(&bound, &thief).await.unwrap_err();
    assert_eq!(error.to_string(), "the token has already been used");

    let secret = Secret::random();
    let ended = Timestamp::now().saturating_sub(SignedDuration::from_secs(1)).unwrap();
    let issued = Issued { id: uuid::Uuid::nil(), digest: secret.digest(), expires_at: ended, bound_to: None };
    let pending = Half::Pending(Pending { token: Some(issued) });
    let op = Op::Put { key: keys::link(&name("south")), value: value::encode(&pending) };
    east.store.commit(Txn { guards: vec![], ops: vec![op] }).await.unwrap();
    east.declare("south").await;
    let expired = edited(&bound, |token| token.secret = secret);
    let error = east.activate(&expired, &thief).await.unwrap_err();
    assert_eq!(error.to_string(), "the token has expired");
}

#[tokio::test]
async fn of_many_who_race_with_one_token_one_wins() {
    let east = Arc::new(Agent::start("east").await);
    east.declare("west").await;
    let token = east.mint("west", None).await;
    let racers = (0..50).map(|number| {
        let (east, token) = (Arc::clone(&east), token.clone());
        tokio::spawn(async move {
            let key = KeyPair::generate(&format!("racer{number}"), &[]).unwrap();
            east.activate(&token, &key).await.map(|_| key.fingerprint)
        })
    });
    let ended: Vec<_> = futures::future::join_all(racers).await.into_iter().map(Result::unwrap).collect();
    let winners: Vec<_> = ended.iter().flatten().collect();
    assert_eq!(winners.len(), 1);
    assert!(
        ended
            .iter()
            .filter_map(|ended| ended.as_ref().err())
            .all(|error| { matches!(error, PeeringError::Activate(super::half::ActivateError::Used)) })
    );
    let identities = east.store.range(keys::IDENTITY).await.unwrap().entries;
    assert_eq!(identities.len(), 1);
    assert!(identities[0].key.ends_with(&winners[0].to_string()));
}

#[tokio::test]
async fn a_crash_between_the_two_commits_is_healed_by_the_same_token_or_a_new_one() {
    let (east, west) = declared().await;
    // East has committed; west was killed before it heard so, and starts again with its half redeeming.
    let token = east.mint("west", Some(&west)).await;
    east.activate(&token, &west.key).await.unwrap();
    west.redeem("east", &token).await.unwrap();
    both_active(&east, &west).await;

    let (east, west) = declared().await;
    let token = east.mint("west", Some(&west)).await;
    east.activate(&token, &west.key).await.unwrap();
    // The next apply mints anew, on whichever side.
    let token = west.mint("east", Some(&east)).await;
    east.redeem("west", &token).await.unwrap();
    both_active(&east, &west).await;
    assert!(matches!(half(&east, "west").await, Half::Established(e) if e.dials == Dials::Here));
}

#[tokio::test]
async fn an_interrupted_redemption_goes_on_at_the_next_start() {
    let (east, west) = declared().await;
    let token = TrustToken::decode(&east.mint("west", Some(&west)).await).unwrap();
    let redeeming = Half::Redeeming(super::half::Redeeming {
        remote: None,
        before: None,
        kind: schema::kind::cluster_link::LinkType::Bidirectional,
        attempt: super::half::Attempt::of(&token.secret, &west.key.fingerprint),
        key: west.key.fingerprint,
        pinned: east.key.fingerprint,
        addresses: token.addresses.clone(),
        sealed: super::seal::Sealed::seal(&token.secret, &west.key),
    });
    let op = Op::Put { key: keys::link(&name("east")), value: value::encode(&redeeming) };
    west.store.commit(Txn { guards: vec![], ops: vec![op] }).await.unwrap();
    let west = west.again().await;
    both_active(&east, &west).await;
}

#[tokio::test]
async fn a_deleted_link_ends_on_both_sides_and_can_be_made_again() {
    let (east, west) = linked().await;
    west.export("frontend", "east").await;
    east.imports("west", &["frontend"]).await;
    west.delete("east").await;
    let report = east.reaches("west", LinkState::Terminated).await;
    assert!(report.reason.unwrap().contains("deleted by the peer"));
    east.imports("west", &[]).await;
    assert!(east.store.range(keys::IDENTITY).await.unwrap().entries.is_empty());

    west.declare("east").await;
    let token = west.mint("east", Some(&east)).await;
    east.redeem("west", &token).await.unwrap();
    both_active(&east, &west).await;
}

#[tokio::test]
async fn a_peer_that_was_away_is_told_when_it_returns() {
    // Once the one who deletes is to dial, once the one who was away is.
    for deleter_dials in [true, false] {
        let (mut east, mut west) = linked().await;
        if !deleter_dials {
            std::mem::swap(&mut east, &mut west);
        }
        let (theirs, ours) = if deleter_dials { ("west", "east") } else { ("east", "west") };
        east.tasks.drain(std::time::Duration::from_secs(5)).await;
        west.reaches(ours, LinkState::Failing).await;
        west.delete(ours).await;
        let west = west.again().await;
        let east = east.again().await;
        east.reaches(theirs, LinkState::Terminated).await;
        let tombstones = async {
            while !west.store.range(keys::TOMBSTONE).await.unwrap().entries.is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), tombstones).await.expect("it is told once");
    }
}

#[tokio::test]
async fn an_address_that_hangs_fails_within_seconds() {
    let (east, west) = declared().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hangs = silent.local_addr().unwrap().to_string();
    let token = east.mint("west", None).await;
    let alone = edited(&token, |token| token.addresses = vec![hangs.clone()]);
    let begun = std::time::Instant::now();
    let error = west.redeem("east", &alone).await.unwrap_err().to_string();
    assert!(begun.elapsed() < std::time::Duration::from_secs(6), "{:?}", begun.elapsed());
    assert!(error.contains(&hangs), "{error}");
    assert_eq!(half(&west, "east").await, Half::default());
    // Beside one that answers it costs a moment.
    let beside = edited(&token, |token| token.addresses.insert(0, hangs));
    west.redeem("east", &beside).await.unwrap();
    both_active(&east, &west).await;
}
