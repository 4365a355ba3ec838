//! An issuer and several redeemers over a network that loses answers, with crashes anywhere.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::trust::certificate::KeyPair;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn key(number: u8) -> Fingerprint {
    Fingerprint([number; 32])
}

fn peer(number: u8) -> Peer {
    let addresses = vec!["a:1".to_owned()];
    Peer::new(key(number), String::new(), addresses)
}

fn secret(number: usize) -> Secret {
    Secret::new(format!("secret {number}"))
}

fn issued(number: usize, bound_to: Option<Fingerprint>) -> Issued {
    let expires_at = NOW.saturating_add(jiff::SignedDuration::from_secs(60)).unwrap();
    Issued { id: Uuid::nil(), digest: secret(number).digest(), expires_at, bound_to }
}

fn presented(token: usize, redeemer: u8) -> Presented {
    Presented {
        kind: LinkType::Bidirectional,
        dial_back: None,
        secret: secret(token),
        attempt: Some(Attempt::of(&secret(token), &key(redeemer))),
        peer: peer(redeemer),
    }
}

fn redeeming(token: usize, redeemer: u8) -> Redeeming {
    Redeeming {
        kind: LinkType::Bidirectional,
        attempt: Attempt::of(&secret(token), &key(redeemer)),
        key: key(redeemer),
        pinned: key(0),
        addresses: vec!["a:1".to_owned()],
        sealed: Sealed::seal(&secret(token), &KeyPair::generate("test", &[]).unwrap()),
        remote: None,
        before: None,
    }
}

fn pending(token: usize, bound_to: Option<Fingerprint>) -> Half {
    Half::default().mint(issued(token, bound_to)).unwrap()
}

#[test]
fn a_token_is_refused_for_what_is_wrong_with_it() {
    let later = NOW.saturating_add(jiff::SignedDuration::from_secs(60)).unwrap();
    assert_eq!(pending(1, None).activate(presented(1, 1), later), Err(ActivateError::Expired));
    assert_eq!(pending(1, Some(key(2))).activate(presented(1, 1), NOW), Err(ActivateError::Bound));
    assert!(!pending(1, None).issued(&secret(2)));
    // A newer token kills the older one.
    let half = pending(1, None).mint(issued(2, None)).unwrap();
    assert!(half.issued(&secret(2)) && !half.issued(&secret(1)));

    let Ok(Activation::Fresh(half)) = pending(1, None).activate(presented(1, 1), NOW) else { panic!() };
    assert_eq!(half.clone().activate(presented(1, 1), later), Ok(Activation::Repeated));
    assert_eq!(half.clone().activate(presented(1, 2), NOW), Err(ActivateError::Used));
    // LXD's own redeemers name no attempt, so theirs cannot be repeated.
    let nameless = Presented { attempt: None, ..presented(1, 1) };
    assert_eq!(half.clone().activate(nameless, NOW), Err(ActivateError::Used));
    let active = half.confirmed(NOW).unwrap();
    assert_eq!(active.clone().activate(presented(1, 1), NOW), Err(ActivateError::Used));
    assert_eq!(active.clone().mint(issued(3, None)), Err(LinkedError::Established(key(1))));
    assert_eq!(active.clone().confirmed(NOW), None);
    // Only the peer itself can end it.
    assert_eq!(active.clone().terminated(&key(2), Dials::Here, NOW), None);
    assert!(active.terminated(&key(1), Dials::Here, NOW).unwrap().mint(issued(3, None)).is_ok());
}

#[test]
fn a_link_that_the_other_side_lost_is_renewed_without_a_gap() {
    let Ok(Begun::Redeeming(half)) = Half::default().begin(redeeming(1, 1)) else { panic!() };
    let half = half.accepted(&redeeming(1, 1).attempt, String::new()).unwrap();
    let Ok(Begun::Renewing(renewed)) = half.clone().begin(redeeming(2, 1)) else { panic!() };
    assert_eq!(renewed.peer(), half.peer());
    let elsewhere = Redeeming { pinned: key(9), ..redeeming(2, 1) };
    assert_eq!(half.begin(elsewhere), Err(LinkedError::Established(key(0))));
    // An attempt that was overtaken changes nothing.
    let Ok(Begun::Redeeming(half)) = Half::default().begin(redeeming(2, 1)) else { panic!() };
    assert_eq!(half.clone().accepted(&redeeming(1, 1).attempt, String::new()), Err(Superseded));
    assert_eq!(half.clone().abandoned(&redeeming(1, 1).attempt), Err(Superseded));
    assert_eq!(half.abandoned(&redeeming(2, 1).attempt), Ok(Half::default()));
}

#[test]
fn what_is_stored_reads_back_and_never_holds_a_secret() {
    let Ok(Activation::Fresh(established)) = pending(1, Some(key(1))).activate(presented(1, 1), NOW) else {
        panic!()
    };
    let terminated = established.clone().terminated(&key(1), Dials::Here, NOW).unwrap();
    for half in [pending(1, None), Half::Redeeming(redeeming(1, 1)), established, terminated] {
        let text = serde_json::to_string(&half).unwrap();
        assert!(!text.contains("secret 1"), "{text}");
        assert_eq!(serde_json::from_str::<Half>(&text).unwrap(), half);
    }
}

/// What may happen next.
#[derive(Debug, Clone)]
enum Step {
    Mint {
        bound_to: Option<u8>,
    },
    /// The redeemer writes down that it begins with the newest token, or an older one.
    Begin {
        redeemer: u8,
        back: usize,
    },
    /// Its request arrives, the issuer answers; the answer may be lost, and the redeemer may be killed before it
    /// writes the answer down.
    Ask {
        redeemer: u8,
        answer: Answer,
    },
    /// Data flows on an established pair; the two sides note it one after the other, or one of them only.
    Flow {
        redeemer: u8,
        issuer_notes: bool,
        redeemer_notes: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Answer {
    Arrives,
    /// Lost on the way, or the redeemer was killed before it wrote it down: it will ask again.
    Lost,
}

fn step() -> impl Strategy<Value = Step> {
    let redeemer = 1..4_u8;
    prop_oneof![
        2 => proptest::option::of(1..4_u8).prop_map(|bound_to| Step::Mint { bound_to }),
        3 => (redeemer.clone(), 0..3_usize).prop_map(|(redeemer, back)| Step::Begin { redeemer, back }),
        5 => (redeemer.clone(), any::<bool>()).prop_map(|(redeemer, arrives)| Step::Ask {
            redeemer,
            answer: if arrives { Answer::Arrives } else { Answer::Lost },
        }),
        2 => (redeemer, any::<bool>(), any::<bool>()).prop_map(|(redeemer, issuer_notes, redeemer_notes)| {
            Step::Flow { redeemer, issuer_notes, redeemer_notes }
        }),
    ]
}

#[derive(Default)]
struct World {
    issuer: Half,
    redeemers: BTreeMap<u8, Half>,
    /// Which token each redeemer holds.
    holds: BTreeMap<u8, usize>,
    minted: usize,
    /// Who was accepted with each token.
    accepted: BTreeMap<usize, Fingerprint>,
}

impl World {
    fn mint(&mut self, bound_to: Option<Fingerprint>) {
        if let Ok(half) = self.issuer.clone().mint(issued(self.minted + 1, bound_to)) {
            self.minted += 1;
            self.issuer = half;
        }
    }

    fn begin(&mut self, redeemer: u8, token: usize, sealed: &Sealed) {
        let redeeming = Redeeming {
            kind: LinkType::Bidirectional,
            attempt: Attempt::of(&secret(token), &key(redeemer)),
            key: key(redeemer),
            pinned: key(0),
            addresses: vec![],
            sealed: sealed.clone(),
            remote: None,
            before: None,
        };
        let half = self.redeemers.entry(redeemer).or_default();
        if let Ok(Begun::Redeeming(after) | Begun::Renewing(after)) = half.clone().begin(redeeming) {
            *half = after;
            self.holds.insert(redeemer, token);
        }
    }

    /// One request; gives what the issuer said.
    fn ask(&mut self, redeemer: u8, answer: Answer) {
        let Some(token) = self.holds.get(&redeemer).copied() else { return };
        let attempt = Attempt::of(&secret(token), &key(redeemer));
        let said = if self.issuer.issued(&secret(token)) {
            self.issuer.clone().activate(presented(token, redeemer), NOW)
        } else {
            Err(ActivateError::Used)
        };
        if let Ok(Activation::Fresh(half)) = &said {
            let before = self.accepted.insert(token, key(redeemer));
            assert_eq!(before, None, "token {token} was accepted twice");
            self.issuer = half.clone();
        }
        if answer == Answer::Lost {
            return;
        }
        let half = self.redeemers.entry(redeemer).or_default();
        let ended = match said {
            Ok(_) => half.clone().accepted(&attempt, String::new()),
            Err(_) => half.clone().abandoned(&attempt),
        };
        if let Ok(after) = ended {
            *half = after;
        }
        self.holds.remove(&redeemer);
    }

    fn linked(&self, redeemer: u8) -> bool {
        let issuer = self.issuer.peer().is_some_and(|peer| peer.fingerprint == key(redeemer));
        issuer && matches!(self.redeemers.get(&redeemer), Some(Half::Established(_)))
    }

    fn flow(&mut self, redeemer: u8, issuer_notes: bool, redeemer_notes: bool) {
        if !self.linked(redeemer) {
            return;
        }
        if issuer_notes && let Some(half) = self.issuer.clone().confirmed(NOW) {
            self.issuer = half;
        }
        let half = self.redeemers.entry(redeemer).or_default();
        if redeemer_notes && let Some(after) = half.clone().confirmed(NOW) {
            *half = after;
        }
    }
}

proptest! {
    #[test]
    fn a_token_never_makes_two_peers_and_a_calm_exchange_always_ends_linked(
        steps in proptest::collection::vec(step(), 0..60),
    ) {
        let sealed = Sealed::seal(&secret(0), &KeyPair::generate("test", &[]).unwrap());
        let mut world = World::default();
        for step in steps {
            match step {
                Step::Mint { bound_to } => world.mint(bound_to.map(key)),
                Step::Begin { redeemer, back } => {
                    if let Some(token) = world.minted.checked_sub(back).filter(|token| *token > 0) {
                        world.begin(redeemer, token, &sealed);
                    }
                }
                Step::Ask { redeemer, answer } => world.ask(redeemer, answer),
                Step::Flow { redeemer, issuer_notes, redeemer_notes } => {
                    world.flow(redeemer, issuer_notes, redeemer_notes);
                }
            }
        }
        // Then the same apply as ever, undisturbed: what an operator would run again. It ends with both sides
        // knowing each other, unless trust that has carried data is in the way, which only a deletion ends.
        let redeemer = 1;
        if matches!(&world.issuer, Half::Established(half)
            if half.first_active.is_some() && half.peer.fingerprint != key(redeemer))
        {
            return Ok(());
        }
        if !world.linked(redeemer) {
            world.mint(Some(key(redeemer)));
            let token = world.minted;
            world.begin(redeemer, token, &sealed);
            world.ask(redeemer, Answer::Arrives);
        }
        // The issuer may be linked from before, when only the redeemer's half was lost and data had flowed.
        let lost_after_data = matches!(&world.issuer, Half::Established(half) if half.first_active.is_some());
        prop_assert!(world.linked(redeemer) || lost_after_data);
    }
}

#[test]
fn a_token_issued_anew_leaves_the_trust_as_it_is_until_it_is_redeemed() {
    let Ok(Activation::Fresh(made)) = pending(1, None).activate(presented(1, 1), NOW) else { panic!() };
    let made = made.confirmed(NOW).unwrap();
    let out = made.clone().reissue(issued(2, None)).unwrap();
    assert_eq!(out.peer(), made.peer());
    assert!(out.issued(&secret(1)) && out.issued(&secret(2)));
    // The one before it dies, used or not.
    let out = out.reissue(issued(3, None)).unwrap();
    assert!(!out.issued(&secret(2)));
    assert_eq!(out.clone().activate(presented(2, 1), NOW), Err(ActivateError::Used));
    let Ok(Activation::Fresh(Half::Established(again))) = out.clone().activate(presented(3, 1), NOW) else {
        panic!()
    };
    assert_eq!((again.peer.fingerprint, again.first_active, again.reissued), (key(1), Some(NOW), None));
    // Another cluster takes the place, and nothing of the old one stays.
    let Ok(Activation::Fresh(Half::Established(other))) = out.activate(presented(3, 2), NOW) else {
        panic!()
    };
    assert_eq!((other.peer.fingerprint, other.first_active), (key(2), None));
}

#[test]
fn who_dials_issues_no_token_and_a_failed_redemption_leaves_what_there_was() {
    let Ok(Begun::Redeeming(begun)) = Half::default().begin(redeeming(1, 1)) else { panic!() };
    assert_eq!(begun.clone().reissue(issued(2, None)), Err(Dialler));
    let attempt = redeeming(1, 1).attempt;
    let made = begun.accepted(&attempt, String::new()).unwrap();
    assert_eq!(made.clone().reissue(issued(2, None)), Err(Dialler));
    let ended = made.terminated(&key(0), Dials::Here, NOW).unwrap();
    let Ok(Begun::Redeeming(begun)) = ended.clone().begin(redeeming(2, 1)) else { panic!() };
    assert_eq!(begun.abandoned(&redeeming(2, 1).attempt), Ok(ended.clone()));
    assert!(matches!(ended.reissue(issued(3, None)), Ok(Half::Pending(Pending { token: Some(_) }))));
}
