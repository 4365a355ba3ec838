//! Links over which one side calls, and links that only pin; and dialling back.

use schema::kind::cluster_link::{ClusterLink, LinkType};
use schema::plan::LinkState;
use schema::record::Record;

use super::agents::{Agent, name, nobody, permit};
use super::{both_active, half};
use crate::peering::half::Half;
use crate::peering::{DialBack, MemberStatus, PeeringError, ledger};
use crate::store::{Op, Txn, keys, value};
use crate::trust::Access;
use crate::trust::identity::{Backing, IdentityKind, IdentityRecord};
use crate::wire::cluster_link::Dials;

/// East calls west: east's link is called `west`, west's `east`.
async fn declared() -> (Agent, Agent) {
    let (east, west) = (Agent::start("east").await, Agent::start("west").await);
    east.declare_as("west", LinkType::Unidirectional, None).await;
    west.declare_as("east", LinkType::Unidirectional, Some("callers")).await;
    (east, west)
}

async fn identity_of(at: &Agent, peer: &Agent) -> Option<IdentityRecord> {
    let key = keys::identity(&peer.key.fingerprint.to_string());
    at.store.get(&key).await.unwrap().map(|entry| value::decode(&entry).unwrap())
}

#[tokio::test]
async fn services_flow_one_way_and_so_does_trust() {
    let (east, west) = declared().await;
    west.export("backend", "east").await;
    east.export("secret", "west").await;
    let token = west.mint("east", Some(&east)).await;
    let report = east.redeem("west", &token).await.unwrap();
    assert_eq!(report.dials, Some(Dials::Here));
    both_active(&east, &west).await;
    east.imports("west", &["backend"]).await;
    assert!(west.imports.view().get(&name("east")).is_none_or(|imported| imported.services.is_empty()));
    assert!(identity_of(&west, &east).await.is_some() && identity_of(&east, &west).await.is_none());
    let Half::Established(on_east) = half(&east, "west").await else { panic!() };
    assert_eq!(
        (on_east.kind, on_east.peer.certificate_pem),
        (LinkType::Unidirectional, west.key.pem.clone())
    );

    // Which side mints and which redeems is the declarations' to say.
    let calls = east.peering.mint(&permit(), &name("west"), None).await;
    assert!(matches!(calls, Err(PeeringError::Calls(_))));
    let called = west.redeem("east", &token).await;
    assert!(matches!(called, Err(PeeringError::Itself | PeeringError::Called(_))));

    // The caller deletes it: the side that is called forgets the caller.
    east.delete("west").await;
    west.reaches("east", LinkState::Terminated).await;
    assert!(identity_of(&west, &east).await.is_none());
}

#[tokio::test]
async fn the_called_side_ends_it_too() {
    let (east, west) = declared().await;
    let token = west.mint("east", None).await;
    east.redeem("west", &token).await.unwrap();
    both_active(&east, &west).await;
    let east = east.again().await;
    both_active(&east, &west).await;
    west.delete("east").await;
    east.reaches("west", LinkState::Terminated).await;
    assert!(identity_of(&west, &east).await.is_none());
}

#[tokio::test]
async fn a_caller_may_be_known_by_its_identity_alone() {
    let (east, west) = (Agent::start("east").await, Agent::start("west").await);
    west.export("backend", "caller").await;
    // As `comity auth identity create cluster-link/caller` and its token leave them.
    let known = async || {
        let record = IdentityRecord {
            kind: IdentityKind::ClusterLink { link: name("caller"), backing: Backing::Itself },
            name: "caller".to_owned(),
            access: Access::Groups(Vec::new().into()),
            certificate_pem: east.key.pem.clone(),
        };
        let key = keys::identity(&east.key.fingerprint.to_string());
        let ops = vec![Op::Put { key, value: value::encode(&record) }];
        west.store.commit(Txn { guards: vec![], ops }).await.unwrap();
    };
    let link = async || {
        east.declare_as("west", LinkType::Unidirectional, None).await;
        let before = ledger::read(&*east.store, &name("west")).await.unwrap();
        let peer = super::super::half::Peer {
            fingerprint: west.key.fingerprint,
            certificate_pem: west.key.pem.clone(),
            addresses: vec![west.address.clone()],
            told: Vec::new(),
            lineage: Box::default(),
        };
        let Half::Established(made) = Half::pinned(peer) else { panic!() };
        let made = super::super::half::Established { kind: LinkType::Unidirectional, ..made };
        let txn = ledger::replace(&name("west"), &before, &Half::Established(made));
        east.store.commit(txn).await.unwrap();
    };
    known().await;
    link().await;
    east.reaches("west", LinkState::Active).await;
    east.imports("west", &["backend"]).await;

    // The issuer forgets the caller: it is told, at once.
    west.peering.dismiss(&permit(), &east.key.fingerprint).await.unwrap();
    east.reaches("west", LinkState::Terminated).await;
    let again = west.peering.dismiss(&permit(), &east.key.fingerprint).await;
    assert!(matches!(again, Err(PeeringError::UnknownPeer)));

    // The caller deletes its link: the issuer forgets it.
    known().await;
    link().await;
    east.reaches("west", LinkState::Active).await;
    east.delete("west").await;
    let mut changed = west.peering.parts.identities.changed();
    while identity_of(&west, &east).await.is_some() {
        tokio::time::timeout(std::time::Duration::from_secs(20), changed.changed()).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn each_types_token_is_for_its_own_endpoint() {
    let (east, west) = (Agent::start("east").await, Agent::start("west").await);
    west.declare("east").await;
    let token = west.mint("east", None).await;
    let refused = west.peering.admit(&nobody(), &token, &east.key.certificate).await;
    assert!(matches!(refused, Err(PeeringError::UnknownToken)));
    west.activate(&token, &east.key).await.unwrap();

    let other = Agent::start("other").await;
    other.declare_as("east", LinkType::Unidirectional, Some("callers")).await;
    let token = other.mint("east", None).await;
    assert!(matches!(other.activate(&token, &east.key).await, Err(PeeringError::UnknownToken)));
    other.peering.admit(&nobody(), &token, &east.key.certificate).await.unwrap();
    // Once more with the same certificate, as after an answer that was lost; and with another.
    other.peering.admit(&nobody(), &token, &east.key.certificate).await.unwrap();
    assert!(other.peering.admit(&nobody(), &token, &west.key.certificate).await.is_err());
}

#[tokio::test]
async fn a_public_link_pins_what_is_confirmed_or_declared() {
    let (east, west) = (Agent::start("east").await, Agent::start("west").await);
    east.declare_as("images", LinkType::Public, None).await;
    let peering = &east.peering;
    let offered = peering.offer(&permit(), &name("images"), &west.address).await.unwrap();
    assert_eq!(offered.certificate_pem, west.key.pem);
    assert_eq!(east.peering.report(&name("images")).await.unwrap().state, LinkState::Pending);
    let wrong = peering.confirm(&permit(), &name("images"), &east.key.pem).await;
    assert!(matches!(wrong, Err(PeeringError::OtherCertificate)));
    peering.confirm(&permit(), &name("images"), &west.key.pem).await.unwrap();
    east.reaches("images", LinkState::Active).await;
    let again = peering.confirm(&permit(), &name("images"), &west.key.pem).await;
    assert!(matches!(again, Err(PeeringError::AlreadyConfirmed(_))));
    let again = peering.offer(&permit(), &name("images"), &west.address).await;
    assert!(matches!(again, Err(PeeringError::AlreadyConfirmed(_))));
    let members = peering.members(&name("images")).await.unwrap();
    assert_eq!(members[0].status, MemberStatus::Unauthenticated);
    assert!(identity_of(&east, &west).await.is_none());

    let declare = async |fingerprint: String| {
        let record = ClusterLink {
            kind: LinkType::Public,
            address: Some(west.address.clone()),
            fingerprint: Some(fingerprint),
            ..ClusterLink::default()
        };
        east.put("cluster_link/declared", Record::ClusterLink(record)).await;
    };
    declare("ab".repeat(32)).await;
    let wrong = peering.pin(&permit(), &name("declared")).await.unwrap_err();
    assert!(wrong.to_string().contains("certificate does not match"), "{wrong}");
    declare(west.key.fingerprint.to_string()).await;
    peering.pin(&permit(), &name("declared")).await.unwrap();
    east.reaches("declared", LinkState::Active).await;
}

#[tokio::test]
async fn the_redeemer_is_dialled_back_and_the_link_works_without() {
    let (east, west) = super::linked().await;
    // West redeemed, and gave the address that it listens at.
    let report = east.settles("west", |report| report.dial_back.is_some()).await;
    assert!(matches!(report.dial_back, Some(DialBack::Reached { .. })), "{report:?}");
    assert_eq!(report.note, None);
    let members = east.peering.members(&name("west")).await.unwrap();
    assert_eq!(members[0].address, west.address);

    let (east, west) = super::declared().await;
    let token = east.mint("west", None).await;
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nowhere = deaf.local_addr().unwrap().to_string();
    drop(deaf);
    let request = crate::peering::ActivateRequest {
        token: token.clone(),
        attempt: None,
        presented: Some(west.key.certificate.clone()),
        cluster_certificate: None,
        addresses: vec![nowhere],
        way: crate::peering::Way::Loopback,
    };
    east.peering.activate(&nobody(), request).await.unwrap();
    let report = east.settles("west", |report| report.dial_back.is_some()).await;
    assert!(matches!(report.dial_back, Some(DialBack::Unreached { .. })), "{report:?}");
    assert!(report.note.unwrap().contains("its own connection"));
}

#[tokio::test]
async fn who_shows_no_certificate_must_answer_at_an_address_of_its_own() {
    let (east, west) = super::declared().await;
    let token = east.mint("west", None).await;
    let request = |pem: &str, address: &str, way| crate::peering::ActivateRequest {
        token: token.clone(),
        attempt: None,
        presented: None,
        cluster_certificate: Some(pem.to_owned()),
        addresses: vec![address.to_owned()],
        way,
    };
    let (loopback, network) = (crate::peering::Way::Loopback, crate::peering::Way::Network);
    let mut texts = std::collections::BTreeSet::new();
    for refused in [
        // Another's certificate; an address where nobody is; this machine's own, asked for from the network.
        request(&east.key.pem.replace('A', "B"), &west.address, loopback),
        request(&west.key.pem, &east.address, loopback),
        request(&west.key.pem, "127.0.0.1:1", loopback),
        request(&west.key.pem, &west.address, network),
    ] {
        let error = east.peering.activate(&nobody(), refused).await.unwrap_err();
        if !matches!(error, PeeringError::BadCertificate) {
            texts.insert(error.to_string());
        }
    }
    assert_eq!(texts.len(), 1, "one answer, whatever failed: {texts:?}");
    east.peering.activate(&nobody(), request(&west.key.pem, &west.address, loopback)).await.unwrap();
    assert_eq!(east.peering.report(&name("west")).await.unwrap().state, LinkState::Establishing);
}
