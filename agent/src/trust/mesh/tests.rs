//! The mesh CA: what it issues is of its roots, within its domain, and in its time.

use jiff::SignedDuration;
use rcgen::{CertificateParams, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use schema::name::LinkName;
use x509_parser::extensions::GeneralName;

use super::rotation::ANNOUNCED;
use super::*;
use crate::store::sqlite::SqliteStore;
use crate::trust::authority::{is_issued_by, parsed};
use crate::trust::certificate::from_pem;
use crate::trust::{Caller, Fingerprint, Groups};

struct Allowed(Caller);

impl Permission for Allowed {
    fn caller(&self) -> &Caller {
        &self.0
    }
}

fn local() -> Allowed {
    Allowed(Caller::local(0))
}

fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

async fn scratch() -> (tempfile::TempDir, Arc<MeshAuthority>) {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::scratch();
    let dir = folder.path().join("mesh");
    let opened = MeshAuthority::open(store, &dir, name("east"), Timestamp::now());
    let authority = opened.await.unwrap();
    (folder, authority)
}

fn uris(pem: &str) -> Vec<String> {
    let der = from_pem(pem).unwrap();
    let read = parsed(&der).unwrap();
    let names = read.subject_alternative_name().unwrap().unwrap();
    let uri = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => (*uri).to_owned(),
        other => panic!("{other:?}"),
    };
    names.value.general_names.iter().map(uri).collect()
}

#[tokio::test]
async fn a_leaf_is_of_the_root_and_names_the_service() {
    let (_folder, authority) = scratch().await;
    let now = Timestamp::now();
    let leaf = authority.leaf(&local(), &name("web"), now).unwrap();
    let roots = authority.roots();
    let root = roots.active(now).unwrap();
    let der = from_pem(&leaf.certificate_pem).unwrap();
    assert!(is_issued_by(&parsed(&der).unwrap(), &parsed(&root.der).unwrap()));
    let uri = format!("spiffe://{}/ns/default/dc/east/svc/web", roots.domain);
    assert_eq!((uris(&leaf.certificate_pem), leaf.uri.clone()), (vec![uri.clone()], uri));
    assert_eq!(uris(&root.pem), [format!("spiffe://{}", roots.domain)]);
    assert!(leaf.key.as_ref().unwrap().expose().contains("PRIVATE KEY"));
    assert_eq!(leaf.valid_before.duration_since(now).as_hours(), 71);

    let again = authority.leaf(&local(), &name("web"), now).unwrap();
    assert_eq!(again.serial, leaf.serial);
    let other = authority.leaf(&Allowed(Caller::local(7)), &name("web"), now).unwrap();
    assert_ne!(other.serial, leaf.serial, "a key is not shared by two callers");
    let late = now + SignedDuration::from_hours(36);
    let renewed = authority.leaf(&local(), &name("web"), late).unwrap();
    assert!(renewed.serial != leaf.serial && renewed.index > other.index);
}

#[tokio::test]
async fn the_same_authority_is_there_after_a_restart_and_a_lost_key_is_followed_by_another() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::scratch();
    let dir = folder.path().join("mesh");
    let now = Timestamp::now();
    let open = || MeshAuthority::open(store.clone(), &dir, name("east"), now);
    let first = open().await.unwrap().roots();
    let again = open().await.unwrap().roots();
    assert_eq!((&first.domain, first.all.len()), (&again.domain, 1));
    assert_eq!(first.all[0].fingerprint, again.all[0].fingerprint);

    let key = dir.join(format!("{}.key", first.all[0].fingerprint));
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&key).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    std::fs::remove_file(key).unwrap();
    let authority = open().await.unwrap();
    let roots = authority.roots();
    assert_eq!((&roots.domain, roots.all.len()), (&first.domain, 2));
    assert_eq!(roots.active(now).unwrap().fingerprint, roots.all[1].fingerprint);
    authority.leaf(&local(), &name("web"), now).unwrap();
}

#[tokio::test]
async fn a_new_root_is_announced_before_it_signs_and_the_old_one_stays_until_its_leaves_ended() {
    let (_folder, authority) = scratch().await;
    let now = Timestamp::now();
    let old = authority.leaf(&local(), &name("web"), now).unwrap();
    authority.rotate(&local(), Before::Stay, now).await.unwrap();
    assert_eq!(authority.bundle().roots.len(), 2);
    assert_eq!(authority.leaf(&local(), &name("web"), now).unwrap().serial, old.serial);
    let later = now + ANNOUNCED;
    let new = authority.leaf(&local(), &name("web"), later).unwrap();
    assert_ne!(new.root, old.root);
    authority.settle(later + LEAF_LIFE - SignedDuration::from_secs(1)).await.unwrap();
    assert_eq!(authority.bundle().roots.len(), 2);
    authority.settle(later + LEAF_LIFE).await.unwrap();
    assert_eq!(authority.bundle().roots.len(), 1);
    assert_eq!(authority.roots().all[0].fingerprint, new.root);
    assert_eq!(std::fs::read_dir(&authority.dir).unwrap().count(), 1);
}

#[tokio::test]
async fn a_request_gives_its_key_and_nothing_else() {
    let (_folder, authority) = scratch().await;
    let now = Timestamp::now();
    for algorithm in [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let params = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        let leaf = authority.sign(&local(), &name("web"), &pem, now).unwrap();
        assert!(leaf.key.is_none());
        assert_eq!(uris(&leaf.certificate_pem).len(), 1);
        let der = from_pem(&leaf.certificate_pem).unwrap();
        let read = parsed(&der).unwrap();
        assert_eq!(read.public_key().raw, rcgen::PublicKeyData::subject_public_key_info(&key));
        assert!(!read.is_ca());
    }
}

#[tokio::test]
async fn a_request_must_be_signed_with_its_own_key() {
    let (_folder, authority) = scratch().await;
    let key = rcgen::KeyPair::generate().unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap();
    let mut der = request.der().to_vec();
    // A bit of the name, which the signature is over.
    der[20] ^= 1;
    let text = certificate_request(&der);
    let refused = |text: &str| authority.sign(&local(), &name("web"), text, Timestamp::now());
    assert!(matches!(
        refused(&text),
        Err(MeshError::Request(RequestError::Unproven | RequestError::Malformed))
    ));
    assert!(matches!(refused("nonsense"), Err(MeshError::Request(RequestError::Malformed))));
    assert!(matches!(refused(&"x".repeat(20_000)), Err(MeshError::Request(RequestError::TooLong))));
    let root = authority.bundle().roots[0].clone();
    assert!(matches!(refused(&root), Err(MeshError::Request(RequestError::Malformed))));
}

fn certificate_request(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n", lines.join("\n"))
}

#[tokio::test]
async fn nothing_is_given_over_a_link_whatever_its_groups() {
    let (_folder, authority) = scratch().await;
    let who = Who::Peer { link: name("west"), fingerprint: Fingerprint([1; 32]), groups: Groups::default() };
    let peer = Allowed(Caller::from(who));
    let now = Timestamp::now();
    assert!(matches!(authority.leaf(&peer, &name("web"), now), Err(MeshError::OverLink)));
    assert!(matches!(authority.sign(&peer, &name("web"), "", now), Err(MeshError::OverLink)));
}

#[tokio::test]
async fn a_peer_claims_no_domain_but_its_own() {
    let (_folder, east) = scratch().await;
    let (_other, west) = scratch().await;
    let own = east.roots().domain.clone();
    let (one, two): (LinkName, LinkName) = (name("one"), name("two"));
    let bundles = PeerBundles::default();
    assert_eq!(bundles.learn(&one, west.bundle(), &own), Ok(true));
    assert_eq!(bundles.learn(&one, west.bundle(), &own), Ok(false));
    assert_eq!(bundles.learn(&two, west.bundle(), &own), Err(BundleError::Taken(one.clone())));
    assert_eq!(bundles.learn(&two, east.bundle(), &own), Err(BundleError::Ours));
    assert_eq!(bundles.link_of(&west.roots().domain), Some(one.clone()));
    assert_eq!(bundles.link_of(&own), None);
    let none = TrustBundle { roots: Vec::new(), ..west.bundle() };
    assert_eq!(bundles.learn(&one, none, &own), Err(BundleError::Count(0)));
    let leaf = west.leaf(&local(), &name("web"), Timestamp::now()).unwrap();
    let no_ca = TrustBundle { roots: vec![leaf.certificate_pem.clone()], ..west.bundle() };
    assert_eq!(bundles.learn(&one, no_ca, &own), Err(BundleError::Root(0)));
    bundles.forget(&one);
    assert_eq!(bundles.learn(&two, west.bundle(), &own), Ok(true));
}
