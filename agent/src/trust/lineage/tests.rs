use jiff::SignedDuration;
use proptest::prelude::*;

use super::*;
use crate::trust::certificate::KeyPair;
use crate::trust::succession::Succession;
use crate::trust::succession::tests::{chain, in_a_week, pair, step};

fn pinned(pair: &KeyPair) -> Pinned {
    Pinned { fingerprint: pair.fingerprint, certificate_pem: pair.pem.clone(), lineage: Lineage::default() }
}

fn now() -> Timestamp {
    Timestamp::now()
}

fn taken(verdict: Result<Verdict, Refused>) -> Pinned {
    match verdict {
        Ok(Verdict::Taken(pinned)) => pinned,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_announced_successor_is_accepted_besides_and_takes_over_when_it_is_shown() {
    let pairs = [pair(), pair()];
    let (old, new) = (pairs[0].fingerprint, pairs[1].fingerprint);
    let announced = chain(7, &pairs);
    let before = pinned(&pairs[0]);
    let both = taken(before.consider(&announced, old, now()));
    assert_eq!(both.accepted().collect::<Vec<_>>(), [old, new]);
    assert_eq!(both.consider(&announced, old, now()), Ok(Verdict::Known));

    assert_eq!(both.shown(&old, now()), None);
    let after = both.shown(&new, now()).unwrap();
    assert_eq!(after.accepted().collect::<Vec<_>>(), [new]);
    assert_eq!(after.lineage.last, Some(Taken { number: 7, from: old, to: new }));
    assert_eq!(after.consider(&announced, new, now()), Ok(Verdict::Known), "a replay says nothing new");
}

#[test]
fn a_successor_that_was_not_shown_in_time_is_accepted_no_more_and_may_be_announced_again() {
    let pairs = [pair(), pair()];
    let both = taken(pinned(&pairs[0]).consider(&chain(1, &pairs), pairs[0].fingerprint, now()));
    let later = in_a_week() + SignedDuration::from_secs(1);
    assert_eq!(both.lapsed(now()), None);
    let lapsed = both.lapsed(later).unwrap();
    assert_eq!(lapsed.accepted().count(), 1);
    assert_eq!((lapsed.lapsed(later), lapsed.shown(&pairs[1].fingerprint, now())), (None, None));
    assert_eq!(both.shown(&pairs[1].fingerprint, later), None);

    let again =
        Succession::sign(1, &pairs[0], &pairs[1].certificate, later + SignedDuration::from_hours(24), now());
    let again = Chain { certificate: pairs[0].pem.clone(), steps: vec![again.unwrap()] };
    assert_eq!(taken(lapsed.consider(&again, pairs[0].fingerprint, later)).accepted().count(), 2);
}

#[test]
fn two_successors_of_one_certificate_are_an_alarm_and_neither_is_taken() {
    let (old, one, two, three) = (pair(), pair(), pair(), pair());
    let proof = |number, from: &KeyPair, next: &KeyPair| Chain {
        certificate: from.pem.clone(),
        steps: vec![step(number, from, next)],
    };
    for number in [1, 2] {
        let both = taken(pinned(&old).consider(&proof(1, &old, &one), old.fingerprint, now()));
        let Ok(Verdict::Alarm(alarmed, alarm)) =
            both.consider(&proof(number, &old, &two), old.fingerprint, now())
        else {
            panic!("no alarm");
        };
        assert_eq!((alarm.first, alarm.second), (one.fingerprint, two.fingerprint));
        assert_eq!(alarmed.accepted().collect::<Vec<_>>(), [old.fingerprint]);
        // Nothing is taken until a person has decided, whichever comes again.
        for next in [&one, &two, &three] {
            let again = alarmed.consider(&proof(1, &old, next), next.fingerprint, now());
            assert_eq!(again, Err(Refused::Alarmed(alarm)));
        }
    }

    // One that is in use already was taken rightly: it stays, and goes on to its own successor.
    let moved = taken(pinned(&old).consider(&proof(1, &old, &one), one.fingerprint, now()));
    let Ok(Verdict::Alarm(alarmed, _)) = moved.consider(&proof(1, &old, &two), two.fingerprint, now()) else {
        panic!("no alarm");
    };
    assert_eq!(alarmed.accepted().collect::<Vec<_>>(), [one.fingerprint]);
    let again = alarmed.consider(&proof(1, &old, &two), two.fingerprint, now());
    assert!(matches!(again, Err(Refused::Alarmed(_))), "{again:?}");
    assert_eq!(
        taken(alarmed.consider(&proof(2, &one, &three), three.fingerprint, now())).fingerprint,
        three.fingerprint
    );
}

#[test]
fn a_proof_is_refused_that_is_anothers_or_late_or_skips_or_shows_what_it_does_not_prove() {
    let pairs = [pair(), pair(), pair()];
    let [old, mid, new] = [0, 1, 2].map(|at: usize| pairs[at].fingerprint);
    let stranger = pair();
    let whole = chain(1, &pairs);
    let unrelated = pinned(&stranger).consider(&whole, new, now());
    assert_eq!(unrelated, Err(Refused::Unrelated(stranger.fingerprint)));
    let late = pinned(&pairs[0]).consider(&whole, new, in_a_week() + SignedDuration::from_secs(1));
    assert!(matches!(late, Err(Refused::Stale(Stale::Late { .. }))), "{late:?}");
    assert!(late.unwrap_err().is_genuine());
    let before = pinned(&pairs[0]);
    assert_eq!(
        before.consider(&whole, stranger.fingerprint, now()),
        Err(Refused::NotShown(stranger.fingerprint))
    );
    assert_eq!(before.consider(&whole, old, now()), Err(Refused::NotShown(old)), "two steps ahead");

    let moved = taken(before.consider(&chain(1, &pairs[..2]), mid, now()));
    let skipping = chain(3, &pairs[1..]);
    assert_eq!(moved.consider(&skipping, new, now()), Err(Refused::Number { expected: 2, got: 3 }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whoever has a pin anywhere in a chain ends at what is shown, by any part of the chain that holds its pin.
    #[test]
    fn somebody_who_was_away_ends_where_the_other_side_is(
        length in 2_usize..6, knows in 0_usize..6, from in 0_usize..6, shows in 0_usize..6, numbered in any::<bool>(),
    ) {
        let pairs: Vec<KeyPair> = (0..length).map(|_| pair()).collect();
        let (knows, shows) = (knows % length, shows % length);
        let from = from.min(knows).min(length - 2);
        let whole = chain(1, &pairs);
        let part = whole.since(&pairs[from].fingerprint).unwrap();
        let mut before = pinned(&pairs[knows]);
        if numbered && knows > 0 {
            before.lineage.last = Some(Taken {
                number: u64::try_from(knows).unwrap(),
                from: pairs[knows - 1].fingerprint,
                to: pairs[knows].fingerprint,
            });
        }
        let verdict = before.consider(&part, pairs[shows].fingerprint, now());
        // It is shown the last certificate, or the last but one with its successor announced.
        if shows < knows {
            prop_assert!(matches!(verdict, Err(Refused::NotShown(_)) | Ok(Verdict::Known)), "{:?}", verdict);
        } else if shows + 2 < length {
            prop_assert_eq!(verdict, Err(Refused::NotShown(pairs[shows].fingerprint)));
        } else if knows + 1 == length {
            prop_assert_eq!(verdict, Ok(Verdict::Known));
        } else {
            let after = taken(verdict);
            prop_assert_eq!(after.fingerprint, pairs[shows].fingerprint);
            prop_assert_eq!(after.accepted().count(), length - shows);
            prop_assert_eq!(after.consider(&whole, pairs[shows].fingerprint, now()), Ok(Verdict::Known));
        }
    }
}
