use jiff::SignedDuration;
use proptest::prelude::*;
use time::{Duration as Days, OffsetDateTime};

use super::*;

pub(crate) fn pair() -> KeyPair {
    KeyPair::generate("east", &[]).unwrap()
}

pub(crate) fn in_a_week() -> Timestamp {
    Timestamp::now() + SignedDuration::from_hours(7 * 24)
}

pub(crate) fn step(number: u64, current: &KeyPair, next: &KeyPair) -> Succession {
    Succession::sign(number, current, &next.certificate, in_a_week(), Timestamp::now()).unwrap()
}

/// The chain of these pairs, its first step numbered `first`.
pub(crate) fn chain(first: u64, pairs: &[KeyPair]) -> Chain {
    let steps = pairs.windows(2).zip(first..).map(|(two, number)| step(number, &two[0], &two[1])).collect();
    Chain { certificate: pairs[0].pem.clone(), steps }
}

fn prove(chain: &Chain) -> Result<Vec<Proven>, ChainFault> {
    chain.prove(Timestamp::now())
}

#[test]
fn a_chain_is_proven_step_by_step_and_from_any_of_its_certificates() {
    let pairs: Vec<KeyPair> = (0..4).map(|_| pair()).collect();
    let whole = chain(1, &pairs);
    let proven = prove(&whole).unwrap();
    assert_eq!(
        proven.iter().map(|step| step.to).collect::<Vec<_>>(),
        pairs[1..].iter().map(|pair| pair.fingerprint).collect::<Vec<_>>()
    );
    assert!(proven.iter().all(|step| step.stale.is_none()));
    let late = whole.since(&pairs[2].fingerprint).unwrap();
    assert_eq!((late.certificate.as_str(), late.steps.len()), (pairs[2].pem.as_str(), 1));
    assert_eq!(prove(&late).unwrap()[0].number, 3);
    assert_eq!(whole.since(&pairs[3].fingerprint), None);
    let text = serde_json::to_string(&whole).unwrap();
    assert_eq!(serde_json::from_str::<Chain>(&text).unwrap(), whole);
}

#[test]
fn every_field_is_signed() {
    let (old, new, thief) = (pair(), pair(), pair());
    let genuine = step(5, &old, &new);
    let with = |change: &dyn Fn(&mut Succession)| {
        let mut step = genuine.clone();
        change(&mut step);
        prove(&Chain { certificate: old.pem.clone(), steps: vec![step] })
    };
    assert!(with(&|_| {}).is_ok());
    let forged = Err(ChainFault::Signature(old.fingerprint));
    assert_eq!(with(&|step| step.number = 6), forged);
    assert_eq!(with(&|step| step.certificate = thief.pem.clone()), forged);
    assert_eq!(with(&|step| step.deadline += SignedDuration::from_secs(1)), forged);
    assert_eq!(with(&|step| step.scheme = SignatureScheme::ECDSA_NISTP256_SHA256.into()), forged);
    assert_eq!(with(&|step| step.scheme = SignatureScheme::RSA_PKCS1_SHA256.into()), forged);
    assert_eq!(with(&|step| step.signature = "%".to_owned()), forged);
    assert_eq!(with(&|step| step.from = thief.fingerprint), Err(ChainFault::Gap));
    // Signed by another key, in the name of the old one.
    let other = step(5, &thief, &new);
    assert_eq!(
        with(&|step| *step = Succession { from: old.fingerprint, ..other.clone() }),
        Err(ChainFault::Signature(old.fingerprint))
    );
}

#[test]
fn keys_that_an_administrator_brings_sign_too() {
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ED25519] {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let certificate =
            rcgen::CertificateParams::new(["own".to_owned()]).unwrap().self_signed(&key).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (crt, keys) = (dir.path().join("own.crt"), dir.path().join("own.key"));
        std::fs::write(&crt, certificate.pem()).unwrap();
        std::fs::write(&keys, key.serialize_pem()).unwrap();
        std::fs::set_permissions(&keys, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let own = KeyPair::load(&crt, &keys).unwrap();
        assert!(prove(&chain(1, &[own, pair()])).is_ok());
    }
}

#[test]
fn what_has_no_bound_is_refused_before_it_is_looked_at() {
    let (old, new) = (pair(), pair());
    let genuine = step(1, &old, &new);
    let chain = |steps: Vec<Succession>| Chain { certificate: old.pem.clone(), steps };
    assert_eq!(prove(&chain(Vec::new())), Err(ChainFault::Length));
    assert_eq!(prove(&chain(vec![genuine.clone(); MAX_STEPS + 1])), Err(ChainFault::Length));
    assert_eq!(prove(&chain(vec![genuine.clone(), genuine.clone()])), Err(ChainFault::Gap));
    let large = Succession { certificate: "x".repeat(MAX_PEM + 1), ..genuine.clone() };
    assert_eq!(prove(&chain(vec![large])), Err(ChainFault::Large));
    let last = Succession { number: u64::MAX, ..step(u64::MAX, &old, &new) };
    let after = step(0, &new, &old);
    assert_eq!(prove(&chain(vec![last, after])), Err(ChainFault::Gap));
}

#[test]
fn what_is_out_of_its_time_is_genuine_and_stale() {
    let now = OffsetDateTime::now_utc();
    let (old, expired) =
        (pair(), KeyPair::generate_valid("east", &[], now - Days::days(2), now - Days::days(1)).unwrap());
    let later = in_a_week() + SignedDuration::from_hours(1);
    let fresh = chain(1, &[pair(), pair()]);
    let stale = &fresh.prove(later).unwrap()[0];
    assert!(matches!(stale.stale, Some(Stale::Late { .. })), "{:?}", stale.stale);
    let to_expired = Succession::sign(1, &old, &expired.certificate, in_a_week(), Timestamp::now()).unwrap();
    let stale = &prove(&Chain { certificate: old.pem.clone(), steps: vec![to_expired] }).unwrap()[0];
    assert!(
        matches!(stale.stale, Some(Stale::OutOfTime { why: Validity::Expired, .. })),
        "{:?}",
        stale.stale
    );
    assert!(matches!(
        Succession::sign(1, &expired, &old.certificate, in_a_week(), Timestamp::now()),
        Err(SignError::Expired)
    ));
    // Nothing outlives the certificate that vouches for it.
    let short = KeyPair::generate_valid("east", &[], now - Days::days(2), now + Days::days(1)).unwrap();
    assert!(step(1, &short, &old).deadline < in_a_week() - SignedDuration::from_hours(24));
}

proptest! {
    #[test]
    fn hostile_text_is_refused_and_never_panics(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        cut in 0_usize..2000,
        at in 0_usize..2000,
        with in any::<u8>(),
    ) {
        use std::sync::LazyLock;
        static GENUINE: LazyLock<String> =
            LazyLock::new(|| serde_json::to_string(&chain(1, &[pair(), pair(), pair()])).unwrap());
        let _ = serde_json::from_slice::<Chain>(&bytes).map(|chain| prove(&chain));
        let mut text = GENUINE.clone().into_bytes();
        let place = at % text.len();
        text[place] = with;
        let changed = serde_json::from_slice::<Chain>(&text);
        if let Ok(changed) = changed && *GENUINE != serde_json::to_string(&changed).unwrap()
            && let Ok(steps) = prove(&changed)
        {
            // What is left is another spelling of the same.
            prop_assert_eq!(steps, prove(&serde_json::from_str(&GENUINE).unwrap()).unwrap());
        }
        text.truncate(cut);
        let _ = serde_json::from_slice::<Chain>(&text).map(|chain| prove(&chain));
        let _ = Chain { certificate: String::from_utf8_lossy(&bytes).into_owned(), steps: Vec::new() }.prove(Timestamp::MAX);
    }
}
