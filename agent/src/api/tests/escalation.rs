//! Nobody comes into rights by what may be done to others, or reads what it was not given to see.

use super::*;

/// A group with these entitlements on the server.
async fn group(served: &Served, name: &str, entitlements: &[&str]) {
    let on_server = |word: &&str| json!({ "entity_type": "server", "entitlement": word });
    let permissions: Vec<Value> = entitlements.iter().map(on_server).collect();
    let value = json!({"v": 1, "data": {"record": {"auth_group": {"permissions": permissions}}}});
    let put = Op::Put { key: format!("/declared/auth_group/{name}"), value: value.to_string().into_bytes() };
    let mut changed = served.state.identities.changed();
    served.state.store.commit(Txn { guards: Vec::new(), ops: vec![put] }).await.unwrap();
    changed.changed().await.unwrap();
}

#[tokio::test]
async fn who_edits_identities_puts_no_key_in_the_place_of_a_mightier_one() {
    let served = Served::new().await;
    group(&served, "boss", &["admin"]).await;
    group(&served, "clerk", &["can_edit_identities", "can_view_identities", "can_view_groups"]).await;
    let (administrator, _) = served.trusted_as("administrator", &[]).await;
    let (boss, _) = served.trusted_as("boss", &["boss".to_owned()]).await;
    let (other, _) = served.trusted_as("other", &["clerk".to_owned()]).await;
    let (clerk, _) = served.trusted_as("clerk", &["clerk".to_owned()]).await;
    let mut sender = served.connection(&clerk).await;
    let pem = || KeyPair::generate("mine", &[]).unwrap().pem.clone();
    let mut swap = async |path: String, key: &str| {
        let body = json!({ key: pem() }).to_string();
        ask(&mut sender, Method::PATCH, &path, body).await.0.status()
    };
    let certificate = format!("/1.0/certificates/{}", administrator.fingerprint);
    assert_eq!(swap(certificate, "certificate").await, StatusCode::FORBIDDEN);
    let identity = |pair: &KeyPair| format!("/1.0/auth/identities/tls/{}", pair.fingerprint);
    assert!(swap(identity(&boss), "tls_certificate").await.is_client_error());
    // One that can do no more than the clerk is the clerk's to give a new key.
    assert_eq!(swap(identity(&other), "tls_certificate").await, StatusCode::OK);
    for pair in [&administrator, &boss] {
        assert!(served.state.identities.get(&pair.fingerprint.into()).is_some());
    }
}

#[tokio::test]
async fn what_is_declared_is_read_by_who_views_the_server() {
    let served = Served::new().await;
    group(&served, "resources", &["can_view_resources"]).await;
    group(&served, "viewers", &["viewer"]).await;
    let (limited, _) = served.trusted_as("limited", &["resources".to_owned()]).await;
    let (viewer, _) = served.trusted_as("viewer", &["viewers".to_owned()]).await;
    for path in ["/control/v1/state", "/control/v1/link-rotation"] {
        for (pair, status) in [(&limited, StatusCode::FORBIDDEN), (&viewer, StatusCode::OK)] {
            let (head, _) = ask(&mut served.connection(pair).await, Method::GET, path, "").await;
            assert_eq!(head.status(), status, "{path}");
        }
    }
}

#[tokio::test]
async fn what_was_begun_with_a_right_ends_with_it() {
    use crate::operation::{Class, Start, Status};
    let served = Served::new().await;
    let (pair, _) = served.trusted(&[]).await;
    let caller: Caller = served.state.identities.caller_by_fingerprint(pair.fingerprint).into();
    let begin = |caller: Caller| {
        let permit = served.state.permit(&caller, Entitlement::CanEdit, Entity::Server).unwrap();
        let start = Start { class: Class::Task, description: "x", by: caller, resources: Vec::new() };
        let started = served.state.operations.start(&served.state.tasks, start, |_| std::future::pending());
        crate::api::upgrade::end_if_revoked(&served.state, &[&permit], &started);
        started.id
    };
    let (revoked, local) = (begin(caller), begin(Caller::local(0)));
    let key = keys::identity(&pair.fingerprint.to_string());
    served.state.store.commit(Txn { guards: Vec::new(), ops: vec![Op::Delete { key }] }).await.unwrap();
    let ended = served.state.operations.wait(revoked, Duration::from_secs(60)).await.unwrap();
    assert!(ended.status.ended(), "{:?}", ended.status);
    assert_eq!(served.state.operations.get(local).unwrap().status, Status::Running);
}
