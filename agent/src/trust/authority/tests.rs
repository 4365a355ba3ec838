use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use uuid::Uuid;
use x509_parser::prelude::FromDer as _;

use super::revocation::{Added, Reason, RevocationError, Revocations};
use super::serial::Serial;
use super::shown::{Beside, ShownCertificate, ShownList};
use super::subject::Role;
use super::*;

fn authority() -> Authority {
    Authority::create(&"mycluster".parse().unwrap(), Algorithm::EcdsaP384, Timestamp::now()).unwrap().0
}

fn roots(authority: &CertificateDer<'static>) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).unwrap();
    Arc::new(roots)
}

/// What rustls says of it as a client's.
fn as_client(
    authority: &CertificateDer<'static>,
    leaf: &CertificateDer<'static>,
) -> Result<(), rustls::Error> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots(authority), Arc::new(default_provider()))
            .build()
            .unwrap();
    verifier.verify_client_cert(leaf, &[], UnixTime::now()).map(drop)
}

/// What rustls says of it as the certificate of a server of this name.
fn as_server(
    authority: &CertificateDer<'static>,
    leaf: &CertificateDer<'static>,
    name: &str,
) -> Result<(), rustls::Error> {
    let verifier =
        WebPkiServerVerifier::builder_with_provider(roots(authority), Arc::new(default_provider()))
            .build()
            .unwrap();
    let name = name.to_owned().try_into().unwrap();
    verifier.verify_server_cert(leaf, &[], &name, &[], UnixTime::now()).map(drop)
}

fn user(name: &str) -> Role {
    Role::User(name.parse().unwrap())
}

#[test]
fn each_role_gets_what_it_needs_and_no_other_role_can_use_it() {
    let (now, ca) = (Timestamp::now(), authority());
    let control = ca.issue_control(&"example.org".parse().unwrap(), Algorithm::EcdsaP384, now).unwrap();
    let by_address = ca.issue_control(&"127.0.0.1".parse().unwrap(), Algorithm::EcdsaP384, now).unwrap();
    let node = Role::Node(Uuid::new_v4());
    let node = ca.issue_client(&node, Algorithm::EcdsaP384, now).unwrap();
    let alice = ca.issue_client(&user("Älice@home"), Algorithm::EcdsaP384, now).unwrap();

    let own = ca.certificate();
    as_server(own, &control.certificate, "example.org").unwrap();
    as_server(own, &control.certificate, "control-service").unwrap();
    as_server(own, &control.certificate, "example.com").unwrap_err();
    as_server(own, &by_address.certificate, "127.0.0.1").unwrap();
    as_client(own, &control.certificate).unwrap_err();
    for client in [&node, &alice] {
        as_client(own, &client.certificate).unwrap();
        as_server(own, &client.certificate, "control-service").unwrap_err();
    }
    // Another CA of the same name did not issue them.
    let other = authority();
    as_client(other.certificate(), &alice.certificate).unwrap_err();

    for (issued, common_name) in [(&control, "control-service"), (&alice, "user-Älice@home")] {
        let read = parsed(&issued.certificate).unwrap();
        ca.check_issued(&read).unwrap();
        assert!(matches!(other.check_issued(&read), Err(AuthorityError::Foreign)));
        assert_eq!(read.version(), X509Version::V3);
        assert_eq!(read.raw_serial().len(), 16);
        let subject = Subject::of(read.subject()).unwrap();
        assert_eq!((subject.role.common_name().as_str(), subject.cluster), (common_name, ca.cluster()));
        let valid = validity(&read).unwrap();
        let long = valid.until.duration_since(valid.from);
        assert_eq!(long, SignedDuration::from_hours(24 * 365 * 20));
        assert!(valid.from <= now - SignedDuration::from_mins(10));
        let key = PrivateKeyDer::from_pem_slice(issued.key.as_ref().unwrap().expose().as_bytes()).unwrap();
        let key = rcgen::KeyPair::try_from(&key).unwrap();
        assert_eq!(key.subject_public_key_info(), read.public_key().raw);
    }
    let shown = ShownCertificate::of(&alice.certificate, &Beside::default(), now).unwrap();
    assert_eq!(shown.names, [format!("URI:comity:{}/user/%C3%84lice%40home", ca.cluster())]);
    assert_eq!(shown.usages, ["clientAuth"]);
    assert_eq!(shown.signed_by_ca, None);
    assert_eq!(shown.algorithm, "ECDSA P-384");
}

#[test]
fn an_rsa_ca_is_flockers_but_for_the_version() {
    let now = Timestamp::now();
    let (ca, issued) = Authority::create(&"mycluster".parse().unwrap(), Algorithm::Rsa, now).unwrap();
    let alice = ca.issue_client(&user("alice"), Algorithm::EcdsaP384, now).unwrap();
    as_client(ca.certificate(), &alice.certificate).unwrap();
    let read = parsed(&issued.certificate).unwrap();
    assert_eq!(read.signature_algorithm.algorithm.to_string(), "1.2.840.113549.1.1.11", "SHA-256 with RSA");
    let shown = ShownCertificate::of(&issued.certificate, &Beside::default(), now).unwrap();
    assert_eq!((shown.algorithm.as_str(), shown.role), ("RSA 4096", Some("authority")));
    assert_eq!(shown.usages, ["keyCertSign", "cRLSign"]);
    // It can be read again, which needs the key to be of a kind that is known.
    let key = PrivateKeyDer::from_pem_slice(issued.key.unwrap().expose().as_bytes()).unwrap();
    assert_eq!(Authority::open(issued.certificate, &key).unwrap().cluster(), ca.cluster());
}

#[test]
fn a_ca_outside_its_time_does_not_issue() {
    let (now, ca) = (Timestamp::now(), authority());
    let later = now + SignedDuration::from_hours(24 * 366 * 20);
    let refused = ca.issue_client(&user("alice"), Algorithm::EcdsaP384, later).unwrap_err();
    assert!(matches!(refused, AuthorityError::Expired(_)), "{refused}");
    let earlier = now - SignedDuration::from_hours(1);
    let refused = ca.issue_client(&user("alice"), Algorithm::EcdsaP384, earlier).unwrap_err();
    assert!(refused.to_string().contains("clock"), "{refused}");
    let mut list = Revocations::default();
    assert!(list.sign(&ca, later, SignedDuration::from_hours(1)).is_err());
}

#[test]
fn what_is_renewed_keeps_its_name_and_its_key() {
    let (now, ca) = (Timestamp::now(), authority());
    let old = ca.issue_control(&"::1".parse().unwrap(), Algorithm::EcdsaP384, now).unwrap();
    let new = ca.renew(&old.certificate, None, now).unwrap();
    let (before, after) = (parsed(&old.certificate).unwrap(), parsed(&new.certificate).unwrap());
    assert_eq!(before.subject().as_raw(), after.subject().as_raw());
    assert_eq!(before.public_key().raw, after.public_key().raw);
    assert_ne!(before.raw_serial(), after.raw_serial());
    as_server(ca.certificate(), &new.certificate, "::1").unwrap();
    as_server(ca.certificate(), &new.certificate, "control-service").unwrap();
    assert!(new.key.is_none());

    let fresh = ca.renew(&old.certificate, Some(Algorithm::EcdsaP384), now).unwrap();
    assert!(fresh.key.is_some());
    assert_ne!(parsed(&fresh.certificate).unwrap().public_key().raw, before.public_key().raw);

    let renewed = ca.renew_own(now).unwrap();
    assert_ne!(&renewed.certificate, ca.certificate());
    as_server(&renewed.certificate, &old.certificate, "control-service").unwrap();
    assert!(matches!(ca.renew(ca.certificate(), None, now), Err(AuthorityError::Own)));
    assert!(matches!(authority().renew(&old.certificate, None, now), Err(AuthorityError::Foreign)));
}

#[test]
fn the_list_only_grows_and_its_number_rises() {
    let (now, ca) = (Timestamp::now(), authority());
    let month = SignedDuration::from_hours(24 * 30);
    let mut list = Revocations::default();
    let empty = list.sign(&ca, now, month).unwrap();
    assert_eq!(empty.number, "1");
    let serial = Serial::random();
    assert_eq!(list.add(serial.clone(), Reason::KeyCompromise, now), Added::New);
    assert!(matches!(list.add(serial.clone(), Reason::Superseded, now), Added::Already(_)));
    list.add(Serial::random(), Reason::Unspecified, now);
    let signed = list.sign(&ca, now, month).unwrap();
    assert_eq!(signed.number, "2");

    let der = pem_crl(&signed.pem);
    let again = Revocations::of(&ca, &der, now).unwrap();
    assert_eq!(again.number(), "2");
    assert_eq!(again.entries().len(), 2);
    assert_eq!(again.find(&serial).unwrap().reason, Reason::KeyCompromise);
    let other = authority();
    assert!(matches!(Revocations::of(&other, &der, now), Err(RevocationError::Foreign)));
    let before = now - SignedDuration::from_hours(1);
    assert!(matches!(Revocations::of(&ca, &der, before), Err(RevocationError::Future { .. })));

    let beside = Beside { authority: Some(ca.certificate().clone()), revocations: None };
    let shown = ShownList::of(&der, &beside, now).unwrap();
    assert_eq!((shown.signed_by_ca, shown.revoked.len(), shown.problems.len()), (Some(true), 2, 0));
    let late = now + SignedDuration::from_hours(24 * 31);
    assert!(ShownList::of(&der, &beside, late).unwrap().problems[0].contains("comity ca crl"));
}

fn pem_crl(pem: &str) -> Vec<u8> {
    let crl = rustls_pki_types::CertificateRevocationListDer::from_pem_slice(pem.as_bytes()).unwrap();
    let (_, read) = x509_parser::revocation_list::CertificateRevocationList::from_der(&crl).unwrap();
    assert_eq!(read.version(), Some(x509_parser::x509::X509Version(1)), "v2");
    crl.to_vec()
}

#[test]
fn a_reason_is_known_by_its_names() {
    for text in ["keyCompromise", "key-compromise", "KEYCOMPROMISE"] {
        assert_eq!(text.parse(), Ok(Reason::KeyCompromise));
    }
    assert!("certificateHold".parse::<Reason>().is_err() && "".parse::<Reason>().is_err());
    assert_eq!(Reason::CaCompromise.to_string(), "CACompromise");
}

/// A CA's certificate as Flocker made them: version 1 by its encoding, with the extensions of version 3.
fn as_version_1(certificate: &[u8], key: &rcgen::KeyPair) -> Vec<u8> {
    use rcgen::SigningKey as _;
    let sequence = |content: &[u8]| {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[0x30, 0x82, length[0], length[1]][..], content].concat()
    };
    let read = parsed(certificate).unwrap();
    let signed: &[u8] = read.tbs_certificate.as_ref();
    assert_eq!(signed[4..9], [0xa0, 3, 2, 1, 2], "the version");
    let signed = sequence(&signed[9..]);
    let signature = key.sign(&signed).unwrap();
    let algorithm = [0x30, 0x0a, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3];
    let head = [3, u8::try_from(signature.len() + 1).unwrap(), 0];
    sequence(&[&signed[..], &algorithm, &head, &signature].concat())
}

#[test]
fn a_ca_that_flocker_made_is_renewed_and_then_issues() {
    let now = Timestamp::now();
    let (ca, issued) = Authority::create(&"mycluster".parse().unwrap(), Algorithm::EcdsaP384, now).unwrap();
    let pem = issued.key.unwrap();
    let key = PrivateKeyDer::from_pem_slice(pem.expose().as_bytes()).unwrap();
    let old = as_version_1(ca.certificate(), &rcgen::KeyPair::try_from(&key).unwrap());
    let old = Authority::open(old.into(), &key).unwrap();
    let refused = old.issue_client(&user("alice"), Algorithm::EcdsaP384, now).unwrap_err();
    assert!(matches!(refused, AuthorityError::Version), "{refused}");
    let shown = ShownCertificate::of(old.certificate(), &Beside::default(), now).unwrap();
    assert!(shown.problems[0].contains("version 1"), "{:?}", shown.problems);

    let new = Authority::open(old.renew_own(now).unwrap().certificate, &key).unwrap();
    assert_eq!(new.cluster(), ca.cluster());
    let alice = new.issue_client(&user("alice"), Algorithm::EcdsaP384, now).unwrap();
    as_client(new.certificate(), &alice.certificate).unwrap();
    // What it had issued is of version 1 too, and is made anew with its own key.
    let signer = rcgen::KeyPair::try_from(&key).unwrap();
    let of_old: CertificateDer<'static> = as_version_1(&alice.certificate, &signer).into();
    as_client(new.certificate(), &of_old).unwrap_err();
    let renewed = new.renew(&of_old, None, now).unwrap();
    as_client(new.certificate(), &renewed.certificate).unwrap();
    assert_eq!(
        parsed(&renewed.certificate).unwrap().public_key().raw,
        parsed(&alice.certificate).unwrap().public_key().raw
    );
}
