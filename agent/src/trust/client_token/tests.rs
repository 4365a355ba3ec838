use super::*;
use crate::store::sqlite::SqliteStore;
use crate::task::Tasks;
use crate::trust::Caller;
use crate::trust::certificate::KeyPair;

struct Granted(Caller);

impl Permission for Granted {
    fn caller(&self) -> &Caller {
        &self.0
    }
}

const BY: Granted = Granted(Caller::local(0));

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
            crate::trust::cluster_identity::ClusterIdentity::scratch(),
        );
        Self { clients, identities, now: Timestamp::now() }
    }

    async fn mint(&self, name: &str) -> String {
        let addresses = ["127.0.0.1:8443".to_owned()];
        let minted =
            self.clients.mint(&BY, name, Access::Unrestricted, &addresses, self.now, LIFETIME).await.unwrap();
        minted.token.encode().expose().to_owned()
    }

    async fn redeem(&self, text: &str, pair: &KeyPair) -> Result<IdentityRecord, ClientError> {
        self.clients.redeem(text, &pair.certificate, self.now).await
    }
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
    fixture.clients.remove(&BY, found).await.unwrap();
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
    let elsewhere = Fingerprint([8; 32]).to_string();
    let cases = [
        (String::new(), "the token is empty"),
        (text[..text.len() - 9].to_owned(), "part of it may be missing"),
        ("bm90IGpzb24=".to_owned(), "does not hold what a token holds"),
        (with(&|token| token.secret = Secret::random()), "no such token"),
        (with(&|token| token.fingerprint = elsewhere.clone()), "of another cluster"),
        (with(&|token| token.kind = crate::wire::token::TYPE_CLUSTER_LINK.to_owned()), "not for a client"),
    ];
    for (text, expected) in cases {
        let message = fixture.redeem(&text, &pair()).await.unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert!(!message.contains(good.secret.expose()), "{message}");
    }
    // The issuer's clock counts, whatever the bearer's copy says.
    let later = fixture.now + LIFETIME;
    let prolonged = with(&|token| token.expires_at = Timestamp::MAX);
    let late = fixture.clients.redeem(&prolonged, &pair().certificate, later).await;
    assert!(matches!(late, Err(ClientError::Expired)));
    assert!(!format!("{good:?}").contains(good.secret.expose()));
}

#[tokio::test]
async fn a_revoked_token_is_gone_and_an_outdated_one_is_swept_by_the_next() {
    let fixture = Fixture::new().await;
    let text = fixture.mint("laptop").await;
    assert_eq!(fixture.clients.revoke(&BY, "laptop", fixture.now).await.unwrap(), 1);
    assert!(matches!(fixture.redeem(&text, &pair()).await, Err(ClientError::Unknown)));
    assert!(matches!(fixture.clients.revoke(&BY, "laptop", fixture.now).await, Err(ClientError::Unknown)));

    fixture.mint("outdated").await;
    let much_later = fixture.now + LIFETIME + KEPT_AFTER + SignedDuration::from_secs(1);
    let addresses = ["127.0.0.1:8443".to_owned()];
    let minted =
        fixture.clients.mint(&BY, "new", Access::Unrestricted, &addresses, much_later, LIFETIME).await;
    minted.unwrap();
    assert_eq!(fixture.clients.tokens().await.unwrap().len(), 1);
    let nowhere = fixture.clients.mint(&BY, "new", Access::Unrestricted, &[], much_later, LIFETIME).await;
    assert!(matches!(nowhere, Err(ClientError::NotListening)));
    for name in ["", "-v", "a/b", "a\nb"] {
        assert!(matches!(check_name(name), Err(ClientError::Name)), "{name}");
    }
}
