//! Certificates as nobody but an attacker, or a clock that is wrong, would show them: each is refused, and for its reason.

use jiff::SignedDuration;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use time::OffsetDateTime;

use super::*;
use crate::store::sqlite::SqliteStore;
use crate::store::{Op, Store, Txn, keys, value};
use crate::task::Tasks;
use crate::trust::identity::{Backing, IdentityKind, IdentityRecord};
use crate::trust::mesh::{Before, TrustDomain};
use crate::trust::{Access, Caller, Fingerprint, Permission};

struct Allowed(Caller);

impl Permission for Allowed {
    fn caller(&self) -> &Caller {
        &self.0
    }
}

/// East, which is linked with west and north, and knows their bundles.
struct Scene {
    _folders: Vec<tempfile::TempDir>,
    judge: Judge,
    west: Arc<MeshAuthority>,
    north: Arc<MeshAuthority>,
    store: Arc<dyn Store>,
}

async fn authority(cluster: &str) -> (tempfile::TempDir, Arc<MeshAuthority>) {
    let folder = tempfile::tempdir().unwrap();
    let (dir, now) = (folder.path().join("mesh"), Timestamp::now());
    let opened = MeshAuthority::open(SqliteStore::scratch(), &dir, cluster.parse().unwrap(), now);
    let authority = opened.await.unwrap();
    (folder, authority)
}

fn linked(link: &str, byte: u8) -> (String, Op) {
    let key = keys::identity(&Fingerprint([byte; 32]).to_string());
    let identity = IdentityRecord {
        kind: IdentityKind::ClusterLink { link: link.parse().unwrap(), backing: Backing::Itself },
        name: link.to_owned(),
        access: Access::Unrestricted,
        certificate_pem: String::new(),
    };
    (key.clone(), Op::Put { key, value: value::encode(&identity) })
}

impl Scene {
    async fn set() -> Self {
        let (east_folder, east) = authority("east").await;
        let (west_folder, west) = authority("west").await;
        let (north_folder, north) = authority("north").await;
        let store = SqliteStore::scratch();
        let ops = vec![linked("west", 1).1, linked("north", 2).1];
        store.commit(Txn { guards: Vec::new(), ops }).await.unwrap();
        let identities = Identities::start(store.clone(), &Tasks::new()).await.unwrap();
        let bundles = Arc::new(PeerBundles::default());
        for (link, peer) in [("west", &west), ("north", &north)] {
            bundles.learn(&link.parse().unwrap(), peer.bundle(), &east.roots().domain).unwrap();
        }
        let judge = Judge { authority: east, bundles, identities };
        Self { _folders: vec![east_folder, west_folder, north_folder], judge, west, north, store }
    }

    fn ask(&self, leaf: &CertificateDer<'_>) -> Result<Speaker, LeafError> {
        self.judge.speaker(leaf, Timestamp::now()).map_err(|unfit| unfit.why)
    }

    fn east(&self) -> &Arc<MeshAuthority> {
        &self.judge.authority
    }
}

fn uri(authority: &MeshAuthority, cluster: &str, service: &str) -> String {
    format!("spiffe://{}/ns/default/dc/{cluster}/svc/{service}", authority.roots().domain)
}

/// A good leaf's description, to be spoilt.
fn params(uris: &[String]) -> CertificateParams {
    let mut params = CertificateParams::default();
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) =
        (now - time::Duration::minutes(1), now + time::Duration::hours(1));
    params.subject_alt_names =
        uris.iter().map(|uri| SanType::URI(uri.as_str().try_into().unwrap())).collect();
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    params.is_ca = IsCa::ExplicitNoCa;
    params
}

/// `params`, signed by the root of `authority` that signs.
fn sign(authority: &MeshAuthority, params: &CertificateParams) -> CertificateDer<'static> {
    let roots = authority.roots();
    let signer = roots.active(Timestamp::now()).unwrap().signer().unwrap();
    params.signed_by(&KeyPair::generate().unwrap(), signer).unwrap().der().clone()
}

fn named(authority: &MeshAuthority, uris: &[String]) -> CertificateDer<'static> {
    sign(authority, &params(uris))
}

#[tokio::test]
async fn a_leaf_of_each_cluster_is_taken_for_its_own_service() {
    let scene = Scene::set().await;
    let own = scene.ask(&named(scene.east(), &[uri(scene.east(), "east", "web")])).unwrap();
    assert_eq!((own.peer, own.service.as_str()), (None, "web"));
    let left = own.ends.duration_since(Timestamp::now());
    assert!(left > SignedDuration::from_mins(59) && left <= SignedDuration::from_mins(60));
    let peer = scene.ask(&named(&scene.west, &[uri(&scene.west, "west", "web")])).unwrap();
    assert_eq!(peer.peer, Some("west".parse().unwrap()));
    // Beside its URI a leaf may have other names: ours that are shown have their host's.
    let mut both = params(&[uri(&scene.west, "west", "web")]);
    both.subject_alt_names.push(SanType::DnsName("web.example".try_into().unwrap()));
    scene.ask(&sign(&scene.west, &both)).unwrap();
}

#[tokio::test]
async fn a_certificate_that_is_not_quite_a_leaf_is_refused() {
    let scene = Scene::set().await;
    let (east, west) = (scene.east(), &scene.west);
    let own = uri(east, "east", "web");
    let domain = east.roots().domain.to_string();
    let name = |text: String| scene.ask(&named(east, &[text]));
    assert_eq!(scene.ask(&named(east, &[])), Err(LeafError::Names(0)));
    assert_eq!(scene.ask(&named(east, &[own.clone(), own.clone()])), Err(LeafError::Names(2)));
    assert_eq!(name("https://web.example/".to_owned()), Err(LeafError::Name(SpiffeError::Scheme)));
    assert_eq!(name(format!("spiffe://{domain}")), Err(LeafError::NoService));
    assert_eq!(name(format!("spiffe://{domain}/agent/client/dc/east/id/east")), Err(LeafError::NoService));
    for written in [
        format!("spiffe://{domain}/ns/default/dc/east/svc/w%65b"),
        format!("spiffe://{domain}/ns/default/dc/east/svc/web%2F..%2Fdb"),
        format!("spiffe://{domain}/ns/other/dc/east/svc/web"),
        format!("spiffe://{domain}/ap/other/ns/default/dc/east/svc/web"),
        format!("spiffe://{domain}/ap/default/ns/default/dc/east/svc/web"),
        format!("spiffe://{}/ns/default/dc/east/svc/web", domain.to_uppercase()),
        format!("spiffe://{domain}/ns/default/dc/east/svc/-"),
    ] {
        assert_eq!(name(written.clone()), Err(LeafError::Form), "{written}");
    }
    assert_eq!(name(uri(east, "west", "web")), Err(LeafError::OtherCluster));
    assert!(matches!(name(format!("{own}/more")), Err(LeafError::Name(SpiffeError::Path))));

    // Who may speak for whom: another's roots count for nothing.
    assert_eq!(scene.ask(&named(west, std::slice::from_ref(&own))), Err(LeafError::NotSigned));
    assert_eq!(scene.ask(&named(&scene.north, &[uri(west, "west", "web")])), Err(LeafError::NotSigned));
    assert_eq!(scene.ask(&named(east, &[uri(west, "west", "web")])), Err(LeafError::NotSigned));
    let unknown = TrustDomain::random();
    let strange = format!("spiffe://{unknown}/ns/default/dc/west/svc/web");
    assert_eq!(scene.ask(&named(west, &[strange])), Err(LeafError::UnknownDomain));
    let alone = params(std::slice::from_ref(&own)).self_signed(&KeyPair::generate().unwrap()).unwrap();
    assert_eq!(scene.ask(alone.der()), Err(LeafError::NotSigned));
    // Another's key under our root's name.
    let mut forger = CertificateParams::default();
    let roots = east.roots();
    let (_, read) = x509_parser::parse_x509_certificate(&roots.all[0].der).unwrap();
    let known_as = read.subject().iter_common_name().next().unwrap().as_str().unwrap();
    forger.distinguished_name = rcgen::DistinguishedName::new();
    forger.distinguished_name.push(rcgen::DnType::CommonName, known_as);
    forger.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let forger = Issuer::new(forger, KeyPair::generate().unwrap());
    let forged =
        params(std::slice::from_ref(&own)).signed_by(&KeyPair::generate().unwrap(), &forger).unwrap();
    assert_eq!(scene.ask(forged.der()), Err(LeafError::NotSigned));

    let mut late = params(std::slice::from_ref(&own));
    late.not_after = OffsetDateTime::now_utc() - time::Duration::seconds(2);
    assert!(matches!(scene.ask(&sign(east, &late)), Err(LeafError::Expired { .. })));
    let mut early = params(std::slice::from_ref(&own));
    early.not_before = OffsetDateTime::now_utc() + time::Duration::minutes(1);
    assert!(matches!(scene.ask(&sign(east, &early)), Err(LeafError::NotYet { .. })));
    let mut server = params(std::slice::from_ref(&own));
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    assert_eq!(scene.ask(&sign(east, &server)), Err(LeafError::Usage));
    server.extended_key_usages = Vec::new();
    assert_eq!(scene.ask(&sign(east, &server)), Err(LeafError::Usage));
    let mut authority = params(std::slice::from_ref(&own));
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    assert_eq!(scene.ask(&sign(east, &authority)), Err(LeafError::Authority));
    // The root itself, whose key an app never has, names no service.
    assert_eq!(scene.ask(&roots.all[0].der), Err(LeafError::NoService));
    assert_eq!(scene.ask(&CertificateDer::from(vec![0x30, 0])), Err(LeafError::Unreadable));
}

#[tokio::test]
async fn a_leaf_signs_nobody() {
    let scene = Scene::set().await;
    let own = uri(scene.east(), "east", "web");
    let key = KeyPair::generate().unwrap();
    let roots = scene.east().roots();
    let signer = roots.active(Timestamp::now()).unwrap().signer().unwrap();
    let leaf = params(std::slice::from_ref(&own)).signed_by(&key, signer).unwrap();
    let issuer = Issuer::from_ca_cert_der(leaf.der(), key).unwrap();
    let other = uri(scene.east(), "east", "db");
    let below = params(&[other]).signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
    assert_eq!(scene.ask(below.der()), Err(LeafError::NotSigned));
}

#[tokio::test]
async fn two_roots_vouch_while_one_follows_the_other_and_one_that_ended_does_not() {
    let scene = Scene::set().await;
    let (east, now) = (scene.east(), Timestamp::now());
    let permit = Allowed(Caller::local(0));
    let mut old = params(&[uri(east, "east", "web")]);
    old.not_after = OffsetDateTime::now_utc() + time::Duration::days(30);
    let old = sign(east, &old);
    let peers = sign(&scene.west, &params(&[uri(&scene.west, "west", "web")]));
    east.rotate(&permit, Before::Stay, now).await.unwrap();
    assert!(matches!(
        east.rotate(&permit, Before::Stay, now).await,
        Err(super::super::MeshError::Announced(_))
    ));
    let later = now + SignedDuration::from_mins(6);
    let new = {
        let roots = east.roots();
        let signer = roots.active(later).unwrap().signer().unwrap();
        let signed = params(&[uri(east, "east", "web")]).signed_by(&KeyPair::generate().unwrap(), signer);
        signed.unwrap().der().clone()
    };
    let at = |leaf: &CertificateDer<'_>, moment| scene.judge.speaker(leaf, moment).map_err(|unfit| unfit.why);
    let taken = at(&old, later).unwrap();
    at(&new, later).unwrap();
    // It lives no longer than the root that signed it, however long it says it does.
    let ends = east.roots().all[0].ends.unwrap();
    assert_eq!(taken.ends, ends);
    assert_eq!(at(&old, ends), Err(LeafError::NotSigned));

    // The peer's word is the bundle: both roots while it holds both, one when it says so.
    scene.west.rotate(&permit, Before::Stay, now).await.unwrap();
    let learn = || {
        let own = east.roots().domain.clone();
        scene.judge.bundles.learn(&"west".parse().unwrap(), scene.west.bundle(), &own)
    };
    assert_eq!(learn(), Ok(true));
    scene.ask(&peers).unwrap();
    let mut vouching = scene.judge.vouching();
    let speaker = scene.ask(&peers).unwrap();
    scene.west.rotate(&permit, Before::Go, now).await.unwrap();
    assert_eq!(scene.west.bundle().roots.len(), 1);
    assert_eq!(learn(), Ok(true));
    assert_eq!(scene.ask(&peers), Err(LeafError::NotSigned));
    let ended = vouching.ended(&scene.judge, &peers, &speaker);
    let ended = tokio::time::timeout(Duration::from_secs(5), ended).await;
    assert_eq!(ended.expect("nobody was told"), LeafError::NotSigned);
}

#[tokio::test]
async fn a_link_that_goes_takes_its_services_with_it() {
    let scene = Scene::set().await;
    let leaf = sign(&scene.west, &params(&[uri(&scene.west, "west", "web")]));
    let mut vouching = scene.judge.vouching();
    let speaker = scene.ask(&leaf).unwrap();
    let ops = vec![Op::Delete { key: linked("west", 1).0 }];
    scene.store.commit(Txn { guards: Vec::new(), ops }).await.unwrap();
    let ended = vouching.ended(&scene.judge, &leaf, &speaker);
    let ended = tokio::time::timeout(Duration::from_secs(5), ended).await;
    assert_eq!(ended.expect("nobody was told"), LeafError::NoLink("west".parse().unwrap()));
    scene.judge.bundles.forget(&"west".parse().unwrap());
    assert_eq!(scene.ask(&leaf), Err(LeafError::UnknownDomain));
}

#[tokio::test]
async fn what_a_certificate_claims_is_told_with_the_reason() {
    let scene = Scene::set().await;
    let leaf = named(&scene.west, &[uri(scene.east(), "east", "web")]);
    let unfit = scene.judge.speaker(&leaf, Timestamp::now()).unwrap_err();
    assert_eq!(unfit.claims.map(|id| id.service), Some("web".to_owned()));
}
