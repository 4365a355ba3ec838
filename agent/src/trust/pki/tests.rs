//! Authorities, lists and certificates as files and bytes; the rows of the table are beside the table.

use std::fs;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason,
    RevokedCertParams, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};

use super::*;

mod strict;

/// A CA of a test.
struct Ca(CertifiedIssuer<'static, KeyPair>);

const CLUSTER: &str = "00000000-0000-0000-0000-000000000007";

fn subject(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationalUnitName, CLUSTER);
    subject.push(DnType::CommonName, name);
    subject
}

fn days(count: i64) -> OffsetDateTime {
    OffsetDateTime::now_utc() + Duration::days(count)
}

impl Ca {
    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = (days(-2), days(100));
        params
    }

    fn new(name: &str) -> Self {
        Self::of(Self::params(name))
    }

    fn of(params: CertificateParams) -> Self {
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// An authority under this one.
    fn under(&self, name: &str, number: u64) -> Self {
        let mut params = Self::params(name);
        params.serial_number = Some(number.into());
        Self(CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &self.0).unwrap())
    }

    fn leaf(&self, name: &str, number: u64) -> CertificateDer<'static> {
        self.leaf_with(name, number, |_| {})
    }

    fn leaf_with(
        &self,
        name: &str,
        number: u64,
        change: impl FnOnce(&mut CertificateParams),
    ) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(name);
        params.serial_number = Some(SerialNumber::from(number));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        (params.not_before, params.not_after) = (days(-1), days(10));
        change(&mut params);
        params.signed_by(&KeyPair::generate().unwrap(), &self.0).unwrap().der().clone()
    }

    fn list(&self, number: u64, revoked: &[u64]) -> String {
        self.list_of(number, revoked, days(-1), days(1))
    }

    fn list_of(&self, number: u64, revoked: &[u64], from: OffsetDateTime, due: OffsetDateTime) -> String {
        let revoked = revoked.iter().map(|number| RevokedCertParams {
            serial_number: SerialNumber::from(*number),
            revocation_time: from,
            reason_code: Some(RevocationReason::KeyCompromise),
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: from,
            next_update: due,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.0).unwrap().pem().unwrap()
    }
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new(server_ca: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.put(SERVER_CA, server_ca);
        folder
    }

    fn put(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }

    fn open(&self) -> Arc<Pki> {
        self.try_open(None).unwrap()
    }

    fn try_open(&self, cluster_ca: Option<&str>) -> Result<Arc<Pki>, AuthorityError> {
        let path = cluster_ca.map(|name| self.0.path().join(name));
        Pki::open(self.0.path(), path.as_deref(), Box::new(|| Unknowns::AreNobody), Timestamp::now())
    }
}

fn word(pki: &Pki, leaf: &CertificateDer<'static>) -> Word {
    pki.word(&Shown::new(leaf.clone()), Timestamp::now()).0
}

fn objection(pki: &Pki, leaf: &CertificateDer<'static>) -> String {
    let (_, objection) = pki.word(&Shown::new(leaf.clone()), Timestamp::now());
    objection.map(|objection| objection.to_string()).unwrap_or_default()
}

fn refusal(pki: &Pki) -> String {
    pki.status(Timestamp::now()).unwrap().refused.map(|refused| refused.reason).unwrap_or_default()
}

#[test]
fn a_server_ca_that_is_none_is_refused_with_what_it_is() {
    let ca = Ca::new("ca");
    let folder = Folder::new("");
    let message = |text: &str| {
        folder.put(SERVER_CA, text);
        folder.try_open(None).unwrap_err().to_string()
    };
    assert!(message("").contains("holds no certificate in PEM"));
    assert!(message("hello\n").contains("holds no certificate in PEM"));
    assert!(message(&ca.pem()[..ca.pem().len() / 2]).contains("a section in it has no end"));
    assert!(message(&KeyPair::generate().unwrap().serialize_pem()).contains("holds a private key"));
    let both = format!("{}{}", ca.pem(), KeyPair::generate().unwrap().serialize_pem());
    assert!(message(&both).contains("holds a private key"));
    let leaf = super::super::certificate::to_pem(&ca.leaf("laptop", 1));
    assert!(message(&leaf).contains("is no authority's"), "{}", message(&leaf));
    let broken = ca.pem().replacen("MII", "AAA", 1);
    assert!(message(&broken).contains("damaged"), "{}", message(&broken));
    folder.put(SERVER_CA, &ca.pem());
    folder.open();
    fs::remove_file(folder.0.path().join(SERVER_CA)).unwrap();
    assert!(folder.open().is_none());
    folder.put("cluster.crt", &ca.pem());
    assert_eq!(folder.try_open(Some("cluster.crt")).unwrap().mode(), Mode::Store);
    assert!(matches!(folder.try_open(Some("missing")), Err(AuthorityError::Io { .. })));
    let mut params = Ca::params("no unit");
    params.distinguished_name = DistinguishedName::new();
    folder.put("cluster.crt", &Ca::of(params).pem());
    assert!(matches!(folder.try_open(Some("cluster.crt")), Err(AuthorityError::NoCluster { .. })));
}

#[test]
fn who_is_signed_for_is_known_by_the_key_and_not_by_the_name() {
    let (one, two, other) = (Ca::new("ca"), Ca::new("ca"), Ca::new("ca"));
    let folder = Folder::new(&format!("{}{}", one.pem(), two.pem()));
    folder.put(CA_CRL, &two.list(1, &[5]));
    let pki = folder.open();
    assert_eq!(word(&pki, &one.leaf("a", 5)), Word::Signed, "the other one's number");
    assert_eq!(word(&pki, &two.leaf("a", 5)), Word::Revoked);
    assert_eq!(word(&pki, &two.leaf("a", 6)), Word::Signed);
    assert!(matches!(word(&pki, &other.leaf("a", 5)), Word::Unsigned | Word::Void));
    let alone = super::super::certificate::KeyPair::generate("laptop", &[]).unwrap();
    assert_eq!(word(&pki, &alone.certificate), Word::Unsigned);
    // A list by a third of that name is no list of theirs.
    folder.put(CA_CRL, &other.list(9, &[6]));
    pki.reload(Timestamp::now());
    assert!(refusal(&pki).contains("not signed by the key"), "{}", refusal(&pki));
    assert_eq!(word(&pki, &two.leaf("a", 5)), Word::Revoked, "the last good one stays");
}

#[test]
fn intermediates_that_come_along_are_a_way_and_may_be_revoked() {
    let root = Ca::new("root");
    let middle = root.under("middle", 77);
    let leaf = middle.leaf("laptop", 1);
    let folder = Folder::new(&root.pem());
    let pki = folder.open();
    assert!(matches!(word(&pki, &leaf), Word::Unsigned));
    let der = || vec![middle.0.der().clone()];
    let along = |pki: &Pki| pki.word(&Shown::with(leaf.clone(), der()), Timestamp::now()).0;
    assert_eq!(along(&pki), Word::Signed);
    folder.put(CA_CRL, &root.list(1, &[77]));
    pki.reload(Timestamp::now());
    assert_eq!(along(&pki), Word::Revoked);
    // The same where the one in the middle is an authority here itself.
    folder.put(SERVER_CA, &format!("{}{}", root.pem(), middle.pem()));
    assert_eq!(word(&folder.open(), &leaf), Word::Revoked);
    folder.put(CA_CRL, &format!("{}{}", root.list(2, &[]), middle.list(1, &[1])));
    assert_eq!(word(&folder.open(), &leaf), Word::Revoked);
    folder.put(CA_CRL, &root.list(3, &[]));
    assert_eq!(word(&folder.open(), &leaf), Word::Signed);
}

#[test]
fn a_list_is_taken_only_if_it_is_newer_and_good_and_the_last_good_one_stays() {
    let ca = Ca::new("ca");
    let folder = Folder::new(&ca.pem());
    let pki = folder.open();
    let (first, second) = (ca.leaf("a", 1), ca.leaf("b", 2));
    assert_eq!(word(&pki, &first), Word::Signed);
    let held = Shown::new(first.clone());
    assert_eq!(pki.word(&held, Timestamp::now()).0, Word::Signed);
    folder.put(CA_CRL, &ca.list(5, &[1]));
    pki.reload(Timestamp::now());
    assert_eq!(refusal(&pki), "");
    // Of a connection that is there already as of a new one.
    assert_eq!(pki.word(&held, Timestamp::now()).0, Word::Revoked);
    let good = ca.list(6, &[1, 2]);
    let bad = [
        (ca.list(4, &[2]), "older"),
        (ca.list_of(6, &[2], days(-3), days(1)), "older"),
        (ca.list_of(6, &[2], days(-2), days(-1)), "stale"),
        (ca.list_of(6, &[2], days(1), days(2)), "check the clock"),
        (Ca::new("other").list(6, &[2]), "no authority here is its issuer"),
        (good[..good.len() / 2].to_owned(), "has no end"),
        (good.replacen("MII", "AAA", 1), "no revocation list"),
        (ca.pem(), "no section X509 CRL"),
        (String::new(), "no section X509 CRL"),
    ];
    for (text, words) in bad {
        folder.put(CA_CRL, &text);
        pki.reload(Timestamp::now());
        assert!(refusal(&pki).contains(words), "{words}: {}", refusal(&pki));
        assert_eq!((word(&pki, &first), word(&pki, &second)), (Word::Revoked, Word::Signed), "{words}");
    }
    fs::remove_file(folder.0.path().join(CA_CRL)).unwrap();
    pki.reload(Timestamp::now());
    assert!(refusal(&pki).contains("it is gone"), "{}", refusal(&pki));
    assert_eq!(word(&pki, &first), Word::Revoked);
    folder.put(CA_CRL, &good);
    pki.reload(Timestamp::now());
    assert_eq!((refusal(&pki).as_str(), word(&pki, &second)), ("", Word::Revoked));
    let status = pki.status(Timestamp::now()).unwrap();
    assert_eq!(status.authorities[0].revoked, Some(2));
    assert_eq!(status.authorities[0].list_number.as_deref(), Some("6"));
    // Stale while it is in force: what it revokes stays revoked.
    let later = Timestamp::now() + SignedDuration::from_hours(48);
    assert!(pki.status(later).unwrap().authorities[0].stale);
    assert_eq!(pki.word(&Shown::new(second), later).0, Word::Revoked);
}

#[test]
fn what_is_no_good_at_the_start_closes_everything_until_there_is_a_good_one() {
    let (ca, other) = (Ca::new("ca"), Ca::new("ca"));
    let leaf = ca.leaf("a", 1);
    for bad in [other.list(1, &[9]), String::new(), ca.list_of(1, &[9], days(-3), days(-1))] {
        let folder = Folder::new(&ca.pem());
        folder.put(CA_CRL, &bad);
        let pki = folder.open();
        assert_eq!(word(&pki, &leaf), Word::Void);
        assert!(objection(&pki, &leaf).contains("cannot be told"), "{}", objection(&pki, &leaf));
        assert!(pki.status(Timestamp::now()).unwrap().closed.is_some());
        folder.put(CA_CRL, &other.list(2, &[]));
        pki.reload(Timestamp::now());
        assert_eq!(word(&pki, &leaf), Word::Void);
        folder.put(CA_CRL, &ca.list(2, &[9]));
        pki.reload(Timestamp::now());
        assert_eq!(word(&pki, &leaf), Word::Signed);
    }
}

#[test]
fn time_and_use_are_looked_at_and_said() {
    let ca = Ca::new("ca");
    let pki = Folder::new(&ca.pem()).open();
    let hour = Duration::hours(1);
    let early = ca.leaf_with("a", 1, |params| params.not_before = OffsetDateTime::now_utc() + hour);
    assert_eq!(word(&pki, &early), Word::Void);
    assert!(objection(&pki, &early).contains("check the clocks"), "{}", objection(&pki, &early));
    let late = ca.leaf_with("a", 1, |params| params.not_after = OffsetDateTime::now_utc() - hour);
    assert!(objection(&pki, &late).contains("expired"), "{}", objection(&pki, &late));
    let server = ca.leaf_with("a", 1, |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    assert!(objection(&pki, &server).contains("clientAuth"), "{}", objection(&pki, &server));
    // A way that was found is looked at again when time has passed.
    let shown = Shown::new(ca.leaf("a", 1));
    assert_eq!(pki.word(&shown, Timestamp::now()).0, Word::Signed);
    let later = Timestamp::now() + SignedDuration::from_hours(24 * 11);
    assert_eq!(pki.word(&shown, later).0, Word::Void);
    let mut params = Ca::params("old");
    (params.not_before, params.not_after) = (days(-9), days(-1));
    let old = Ca::of(params);
    let pki = Folder::new(&old.pem()).open();
    let leaf = old.leaf("a", 1);
    assert_eq!(word(&pki, &leaf), Word::Void);
    assert!(objection(&pki, &leaf).contains("nothing that it signed"), "{}", objection(&pki, &leaf));
}

#[test]
fn the_clusters_own_authority_gives_roles() {
    let (ca, clients) = (Ca::new("mycluster"), Ca::new("clients"));
    let folder = Folder::new(&clients.pem());
    folder.put("cluster.crt", &ca.pem());
    folder.put(CA_CRL, &format!("{}{}", ca.list(1, &[3]), clients.list(1, &[4])));
    let pki = folder.try_open(Some("cluster.crt")).unwrap();
    assert_eq!(word(&pki, &ca.leaf("user-alice", 1)), Word::Role(Role::User("alice".to_owned())));
    assert_eq!(word(&pki, &ca.leaf("user-alice", 3)), Word::Revoked);
    assert_eq!(word(&pki, &ca.leaf("user-alice", 4)), Word::Role(Role::User("alice".to_owned())));
    assert_eq!(word(&pki, &ca.leaf("alice", 1)), Word::Void);
    assert_eq!(word(&pki, &clients.leaf("user-alice", 1)), Word::Signed, "no role by another authority");
    let node = uuid::Uuid::from_u128(9);
    assert_eq!(word(&pki, &ca.leaf(&format!("node-{node}"), 1)), Word::Role(Role::Node(node)));
    let two = ca.leaf_with("user-alice", 1, |params| {
        params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 3]), "node-bob");
    });
    assert_eq!(word(&pki, &two), Word::Void);
    assert!(objection(&pki, &two).contains("2 common names"), "{}", objection(&pki, &two));
    // Roles are the authority's own to give.
    let below = ca.under("middle", 5);
    let shown = Shown::with(below.leaf("user-alice", 1), vec![below.0.der().clone()]);
    assert_eq!(pki.word(&shown, Timestamp::now()).0, Word::Void);
}

#[test]
fn a_hundred_thousand_entries_are_read_and_looked_up() {
    let ca = Ca::new("ca");
    let folder = Folder::new(&ca.pem());
    let numbers: Vec<u64> = (1..=100_000).map(|number| number * 7).collect();
    folder.put(CA_CRL, &ca.list(1, &numbers));
    let pki = folder.open();
    assert_eq!(pki.status(Timestamp::now()).unwrap().authorities[0].revoked, Some(100_000));
    assert_eq!(word(&pki, &ca.leaf("a", 7)), Word::Revoked);
    assert_eq!(word(&pki, &ca.leaf("a", 700_000)), Word::Revoked);
    assert_eq!(word(&pki, &ca.leaf("a", 8)), Word::Signed);
}

#[test]
fn a_list_without_an_authority_is_told() {
    let ca = Ca::new("ca");
    let folder = Folder::new(&ca.pem());
    fs::remove_file(folder.0.path().join(SERVER_CA)).unwrap();
    assert_eq!(folder.open().status(Timestamp::now()), None);
    folder.put(CA_CRL, &ca.list(1, &[7]));
    let status = folder.open().status(Timestamp::now()).unwrap();
    assert!(status.idle_list && status.authorities.is_empty());
}
