use std::pin::pin;

use jiff::SignedDuration;

use super::*;
use crate::audit::Audit;
use crate::store::sqlite::SqliteStore;
use crate::trust::cluster_identity::ClusterIdentity;
use crate::trust::server_identity::ServerIdentity;
use crate::trust::{Caller, Permission};

struct Granted(Caller);

impl Permission for Granted {
    fn caller(&self) -> &Caller {
        &self.0
    }
}

const BY: Granted = Granted(Caller::local(0));
const DAY: SignedDuration = SignedDuration::from_hours(24);

async fn logins() -> Arc<Logins> {
    let (store, tasks) = (SqliteStore::scratch(), Tasks::new());
    let identities = Identities::start(store.clone(), &tasks).await.unwrap();
    let server = ServerIdentity::of_cluster(ClusterIdentity::scratch());
    let clients = Arc::new(Clients::new(store, identities.clone(), server, Audit::none()));
    Logins::new(Web::new().unwrap(), identities, clients, tasks)
}

/// Nobody answers there.
fn config(client: &str) -> OidcConfig {
    OidcConfig {
        issuer: "http://127.0.0.1:1".to_owned(),
        client_id: client.to_owned(),
        client_secret: None,
        device_client_id: None,
        audience: None,
        groups_claim: None,
        scopes: Vec::new(),
        session_expiry: DAY,
    }
}

fn alice() -> Vouched {
    let person = Person { email: "alice@example.com".to_owned(), name: "Alice".to_owned() };
    Vouched { person, groups: Vec::new(), good_for: TAKEN_FOR }
}

fn arrival() -> Arrival<'static> {
    Arrival { origin: Caller::local(0).origin, user_agent: "test" }
}

#[tokio::test]
async fn a_provider_that_was_replaced_meanwhile_lets_nobody_in() {
    let logins = logins().await;
    let digest = Secret::new("opaque".to_owned()).digest();
    let sessions = || logins.identities.sessions(crate::trust::oidc::session::Sessions::count);
    let provider = |client: &str| {
        logins.set_provider(Some(config(client)), None);
        logins.provider().unwrap()
    };
    // Before anything is written down.
    let old = provider("one");
    let current = provider("two");
    let refused = logins.keep(&old, &digest, alice(), arrival()).await.unwrap_err();
    assert!(matches!(refused, Refusal::Absent(_)), "{refused}");
    assert!(logins.identities.all().is_empty());
    // While it is.
    {
        let mut kept = pin!(logins.keep(&current, &digest, alice(), arrival()));
        assert!(futures::poll!(kept.as_mut()).is_pending());
        provider("three");
        assert!(matches!(kept.await, Err(Refusal::Absent(_))));
    }
    assert_eq!(sessions(), 0);
    assert!(logins.judged(&digest).is_none());

    let current = logins.provider().unwrap();
    logins.keep(&current, &digest, alice(), arrival()).await.unwrap();
    assert_eq!(sessions(), 1);
    assert!(matches!(logins.judged(&digest), Some(Ok(_))));
}

#[tokio::test]
async fn an_id_token_is_taken_where_it_is_judged() {
    let logins = logins().await;
    let takes = |access: &str| {
        let secret = |text: &str| Secret::new(text.to_owned());
        logins.presented(secret(access), Some(secret("id"))).id.is_some()
    };
    let readable = "eyJhbGciOiJFUzI1NiJ9.e30.AAAA";
    assert!(!takes("opaque"), "there is no provider");
    logins.set_provider(Some(config("one")), None);
    assert!(takes("opaque") && !takes(readable));
    let asked = OidcConfig { client_secret: Some(Secret::new("x".to_owned())), ..config("one") };
    logins.set_provider(Some(asked), None);
    assert!(!takes("opaque"), "the provider is asked");
    logins.set_provider(Some(OidcConfig { audience: Some("x".to_owned()), ..config("one") }), None);
    assert!(!takes("opaque"), "it says nothing about the audience");
}

#[tokio::test]
async fn sessions_end_sooner_where_less_is_set() {
    let logins = logins().await;
    logins.set_provider(Some(config("one")), None);
    let provider = logins.provider().unwrap();
    let digest = Secret::new("opaque".to_owned()).digest();
    let session = logins.keep(&provider, &digest, alice(), arrival()).await.unwrap().session;
    let known = || logins.identities.sessions(|sessions| sessions.get(&session).cloned());
    let begun = known().unwrap().created_at;
    let hour = SignedDuration::from_hours(1);
    for (lasts, expected) in [(DAY * 2, DAY), (hour, hour), (DAY, hour)] {
        logins.clients.shorten_sessions(&BY, lasts, begun).await.unwrap();
        assert_eq!(known().unwrap().expires_at, begun + expected);
    }
    logins.clients.shorten_sessions(&BY, hour, begun + hour).await.unwrap();
    assert!(known().is_none());
}

#[test]
fn what_a_login_rests_on_ends_it_when_it_changes() {
    let before = config("one");
    let text = || Some("x".to_owned());
    for after in [
        OidcConfig { issuer: "http://127.0.0.1:2".to_owned(), ..before.clone() },
        config("two"),
        OidcConfig { device_client_id: text(), ..before.clone() },
        OidcConfig { audience: text(), ..before.clone() },
        OidcConfig { groups_claim: text(), ..before.clone() },
    ] {
        assert!(!after.vouches_as(&before), "{after:?}");
    }
    assert!(OidcConfig { session_expiry: DAY * 2, ..before.clone() }.vouches_as(&before));
}
