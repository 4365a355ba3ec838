use jiff::Timestamp;

use super::*;
use crate::store::keys;
use crate::store::sqlite::SqliteStore;
use crate::task::Tasks;
use crate::trust::authority::subject::Role;
use crate::trust::authority::{Algorithm, Authority};
use crate::trust::certificate::KeyPair;
use crate::trust::cluster_identity::ClusterIdentity;
use crate::trust::identity::{Backing, IdentityKind, IdentityRecord};
use crate::trust::pki::{Pki, Unknowns};
use crate::trust::shown::Shown;
use crate::trust::{Access, Caller, Groups, Permission, Who};
use crate::wire::token::{Secret, TrustToken};

struct Granted(Caller);

impl Permission for Granted {
    fn caller(&self) -> &Caller {
        &self.0
    }
}

const BY: Granted = Granted(Caller::local(0));
const LIFETIME: SignedDuration = SignedDuration::from_hours(15 * 24);
const CERTIFICATES: Counter = Counter::Certificates;
const IDENTITIES: Counter = Counter::Identities;

struct Fixture {
    clients: Clients,
    identities: Arc<Identities>,
    now: Timestamp,
}

impl Fixture {
    async fn new() -> Self {
        let store = SqliteStore::scratch();
        let identities = Identities::start(store.clone(), &Tasks::new()).await.unwrap();
        let clients = Clients::new(
            store,
            identities.clone(),
            ServerIdentity::of_cluster(ClusterIdentity::scratch()),
            Audit::none(),
        );
        Self { clients, identities, now: Timestamp::now() }
    }

    async fn mint(&self, name: &str) -> String {
        self.mint_for(name, Purpose::Certificate, Access::Unrestricted).await.unwrap()
    }

    async fn mint_for(&self, name: &str, purpose: Purpose, access: Access) -> Result<String, ClientError> {
        let addresses = ["127.0.0.1:8443".to_owned()];
        let order = Order { name, purpose, access, addresses: &addresses, lifetime: LIFETIME };
        let minted = self.clients.mint(&BY, order, self.now).await?;
        Ok(minted.token.encode().expose().to_owned())
    }

    async fn redeem(&self, text: &str, pair: &KeyPair) -> Result<IdentityRecord, ClientError> {
        self.redeem_at(CERTIFICATES, text, pair, self.now).await
    }

    async fn redeem_at(
        &self,
        counter: Counter,
        text: &str,
        pair: &KeyPair,
        now: Timestamp,
    ) -> Result<IdentityRecord, ClientError> {
        let nobody = Caller::from(Who::Anonymous { certificate: Some(pair.fingerprint) });
        let shown = Shown::new(pair.certificate.clone());
        self.clients.redeem(&nobody, counter, text, &shown, now).await
    }
}

fn groups(names: &[&str]) -> Access {
    Access::Groups(names.iter().map(|name| name.parse().unwrap()).collect::<Groups>())
}

fn pair() -> KeyPair {
    KeyPair::generate("laptop", &[]).unwrap()
}

#[tokio::test]
async fn a_token_makes_its_bearer_trusted_once() {
    let fixture = Fixture::new().await;
    let (text, laptop) = (fixture.mint("laptop").await, pair());
    assert_eq!(fixture.clients.pending(fixture.now).await.unwrap()[0].name, "laptop");
    assert_eq!(fixture.redeem(&text, &laptop).await.unwrap().name, "laptop");
    assert!(fixture.identities.caller(Some(&laptop.certificate)).is_trusted());
    assert!(fixture.clients.pending(fixture.now).await.unwrap().is_empty());
    // A client that did not hear the answer asks again; anybody else hears that it is used.
    assert_eq!(fixture.redeem(&text, &laptop).await.unwrap().name, "laptop");
    assert!(matches!(fixture.redeem(&text, &pair()).await, Err(ClientError::Used)));
    let second = fixture.mint("again").await;
    assert!(matches!(fixture.redeem(&second, &laptop).await, Err(ClientError::AlreadyTrusted)));

    let (found, _) = fixture.clients.find(&laptop.fingerprint.to_string()[..12]).unwrap();
    fixture.clients.remove(&BY, &found.into(), fixture.now).await.unwrap();
    assert!(!fixture.identities.caller(Some(&laptop.certificate)).is_trusted());
    assert!(matches!(fixture.redeem(&text, &laptop).await, Err(ClientError::Used)));
    assert!(matches!(fixture.clients.find("laptop"), Err(ClientError::NotFound)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_hundred_redeemers_one_wins() {
    let fixture = Arc::new(Fixture::new().await);
    let text: Arc<str> = fixture.mint("laptop").await.into();
    let redeemers: Vec<_> = (0..100)
        .map(|_| {
            let (fixture, text) = (fixture.clone(), text.clone());
            tokio::spawn(async move { fixture.redeem(&text, &pair()).await })
        })
        .collect();
    let mut won = 0;
    for redeemer in redeemers {
        match redeemer.await.unwrap() {
            Ok(_) => won += 1,
            Err(ClientError::Used) => {}
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((won, fixture.identities.all().len()), (1, 1));
}

#[tokio::test]
async fn each_bad_token_is_told_apart_and_none_is_echoed() {
    let fixture = Fixture::new().await;
    let text = fixture.mint("laptop").await;
    let good = TrustToken::decode(&text).unwrap();
    let with = |change: &dyn Fn(&mut TrustToken)| {
        let mut token = good.clone();
        change(&mut token);
        token.encode().expose().to_owned()
    };
    let cases = [
        (String::new(), "the token is empty"),
        (with(&|token| token.client_name.clear()), "No client name in certificate add token"),
        (with(&|token| token.addresses.clear()), "No server addresses in certificate add token"),
        (with(&|token| token.secret = Secret::default()), "No secret in certificate add token"),
        (with(&|token| token.fingerprint.clear()), "No certificate fingerprint in certificate add token"),
        (text[..text.len() - 9].to_owned(), "part of it may be missing"),
        ("bm90IGpzb24=".to_owned(), "does not hold what a token holds"),
        (with(&|token| token.secret = Secret::random()), "no such token"),
    ];
    for (text, expected) in cases {
        let message = fixture.redeem(&text, &pair()).await.unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert!(!message.contains(good.secret.expose()), "{message}");
    }
    // The issuer's clock counts, whatever the bearer's copy says.
    let later = fixture.now + LIFETIME;
    let prolonged = with(&|token| token.expires_at = Timestamp::MAX);
    let late = fixture.redeem_at(CERTIFICATES, &prolonged, &pair(), later).await;
    assert!(matches!(late, Err(ClientError::Expired)));
    assert!(!format!("{good:?}").contains(good.secret.expose()));
}

#[tokio::test]
async fn a_revoked_token_is_gone_and_an_outdated_one_is_swept() {
    let fixture = Fixture::new().await;
    let text = fixture.mint("laptop").await;
    assert_eq!(fixture.clients.revoke(&BY, "laptop", fixture.now).await.unwrap(), 1);
    assert!(matches!(fixture.redeem(&text, &pair()).await, Err(ClientError::Unknown)));
    assert!(matches!(fixture.clients.revoke(&BY, "laptop", fixture.now).await, Err(ClientError::Unknown)));

    fixture.mint("outdated").await;
    let much_later = fixture.now + LIFETIME + KEPT_AFTER + SignedDuration::from_secs(1);
    fixture.clients.prune(much_later).await.unwrap();
    assert!(fixture.clients.tokens().await.unwrap().is_empty());
    let left = fixture.clients.store.range(keys::TOKEN_DIGEST).await.unwrap();
    assert!(left.entries.is_empty(), "the way to a token that is gone is gone");
    let access = Access::Unrestricted;
    let order =
        Order { name: "new", purpose: Purpose::Certificate, access, addresses: &[], lifetime: LIFETIME };
    let nowhere = fixture.clients.mint(&BY, order, much_later).await;
    assert!(matches!(nowhere, Err(ClientError::NotListening)));
    for name in ["", "-v", "a/b", "a\nb"] {
        assert!(matches!(check_name(name), Err(ClientError::Name)), "{name}");
    }
}

#[tokio::test]
async fn a_pending_identity_is_a_token_until_it_is_redeemed() {
    let fixture = Fixture::new().await;
    let text = fixture.mint_for("ada", Purpose::Identity, groups(&["dev"])).await.unwrap();
    let taken = fixture.mint_for("ada", Purpose::Identity, groups(&[])).await;
    assert_eq!(taken.unwrap_err().to_string(), "An identity with name \"ada\" already exists");
    let pending = fixture.clients.pending_identities(fixture.now).await.unwrap().remove(0);
    assert_eq!((pending.name.as_str(), &pending.access), ("ada", &groups(&["dev"])));
    let Access::Groups(ops) = groups(&["ops"]) else { unreachable!() };
    fixture.clients.regroup_pending(&BY, pending.id, ops, fixture.now).await.unwrap();

    assert!(matches!(fixture.redeem(&text, &pair()).await, Err(ClientError::ForIdentities)));
    let laptop = pair();
    let made = fixture.redeem_at(IDENTITIES, &text, &laptop, fixture.now).await.unwrap();
    assert!(made.name == "ada" && made.access == groups(&["ops"]) && !made.is_legacy());
    assert!(fixture.clients.pending_identities(fixture.now).await.unwrap().is_empty());
    let taken = fixture.mint_for("ada", Purpose::Identity, groups(&[])).await;
    assert!(matches!(taken, Err(ClientError::NameTaken(_))));

    let plain = fixture.mint("plain").await;
    let wrong = fixture.redeem_at(IDENTITIES, &plain, &pair(), fixture.now).await;
    assert!(matches!(wrong, Err(ClientError::Unknown)));
}

#[tokio::test]
async fn an_expired_pending_identity_is_gone() {
    let fixture = Fixture::new().await;
    let later = fixture.now + LIFETIME;
    let text = fixture.mint_for("ada", Purpose::Identity, groups(&[])).await.unwrap();
    assert!(fixture.clients.pending_identities(later).await.unwrap().is_empty());
    let late = fixture.redeem_at(IDENTITIES, &text, &pair(), later).await;
    assert!(matches!(late, Err(ClientError::Expired)));
    assert!(fixture.clients.tokens().await.unwrap().is_empty());
    fixture.mint_for("bob", Purpose::Identity, groups(&[])).await.unwrap();
    fixture.clients.prune(later).await.unwrap();
    assert!(fixture.clients.tokens().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_links_token_makes_a_links_identity() {
    let fixture = Fixture::new().await;
    let purpose = Purpose::ClusterLink { name: "west".parse().unwrap() };
    let text = fixture.mint_for("west", purpose, groups(&["clusters"])).await.unwrap();
    assert_eq!(TrustToken::decode(&text).unwrap().kind, "Cluster link certificate");
    let west = pair();
    let made = fixture.redeem_at(IDENTITIES, &text, &west, fixture.now).await.unwrap();
    assert_eq!(
        made.kind,
        IdentityKind::ClusterLink { link: "west".parse().unwrap(), backing: Backing::Itself }
    );
    assert!(matches!(fixture.identities.caller(Some(&west.certificate)), Who::Peer { .. }));
    // A bidirectional link's token is not among these: it is told where it belongs.
    let mut other = TrustToken::decode(&text).unwrap();
    other.secret = Secret::random();
    let wrong = fixture.redeem_at(IDENTITIES, other.encode().expose(), &pair(), fixture.now).await;
    assert!(matches!(wrong, Err(ClientError::ForLinks)));
}

#[tokio::test]
async fn a_token_is_used_up_by_a_client_that_is_trusted_already() {
    let fixture = Fixture::new().await;
    let laptop = pair();
    fixture.redeem(&fixture.mint("laptop").await, &laptop).await.unwrap();
    let text = fixture.mint("again").await;
    assert!(matches!(fixture.redeem(&text, &laptop).await, Err(ClientError::AlreadyTrusted)));
    assert!(matches!(fixture.redeem(&text, &pair()).await, Err(ClientError::Used)));
    assert!(matches!(fixture.redeem(&text, &laptop).await, Err(ClientError::Used)));
}

#[tokio::test]
async fn tokens_of_older_versions_are_found_once_they_are_indexed() {
    let fixture = Fixture::new().await;
    let text = fixture.mint("laptop").await;
    let digest = TrustToken::decode(&text).unwrap().secret.digest();
    let op = crate::store::Op::Delete { key: keys::token_digest(digest.as_str()) };
    let txn = crate::store::Txn { guards: Vec::new(), ops: vec![op] };
    fixture.clients.store.commit(txn).await.unwrap();
    fixture.clients.indexed.store(false, std::sync::atomic::Ordering::Release);
    assert!(matches!(fixture.redeem(&text, &pair()).await, Err(ClientError::Unknown)));
    fixture.clients.prune(fixture.now).await.unwrap();
    fixture.redeem(&text, &pair()).await.unwrap();
}

#[tokio::test]
async fn a_nodes_certificate_is_said_to_be_one() {
    let (folder, now) = (tempfile::tempdir().unwrap(), Timestamp::now());
    let (authority, issued) =
        Authority::create(&"mycluster".parse().unwrap(), Algorithm::EcdsaP384, now).unwrap();
    let path = folder.path().join("cluster.crt");
    std::fs::write(&path, issued.pem()).unwrap();
    let pki = Pki::open(folder.path(), Some(&path), Box::new(|| Unknowns::AreNobody), now).unwrap();
    let store = SqliteStore::scratch();
    let identities = Identities::start_with(store.clone(), pki, &Tasks::new()).await.unwrap();
    let server = ServerIdentity::of_cluster(ClusterIdentity::scratch());
    let clients = Clients::new(store, identities, server, Audit::none());

    let node = uuid::Uuid::from_u128(9);
    let issued = authority.issue_client(&Role::Node(node), Algorithm::EcdsaP384, now).unwrap();
    let newcomer = Newcomer {
        name: "x",
        kind: IdentityKind::Client,
        access: groups(&[]),
        certificate: &issued.certificate,
    };
    let error = clients.add(&BY, newcomer, now).await.unwrap_err();
    assert!(matches!(error, ClientError::Node(id) if id == node), "{error}");
}
