//! Who sees and stops what was started.

use super::*;

#[tokio::test]
async fn an_operation_is_for_who_started_it() {
    let served = Served::new().await;
    let nobody = json!({"v": 1, "data": {"record": {"auth_group": {"permissions": []}}}});
    let put =
        Op::Put { key: "/declared/auth_group/nobody".to_owned(), value: nobody.to_string().into_bytes() };
    let mut changed = served.state.identities.changed();
    served.state.store.commit(Txn { guards: Vec::new(), ops: vec![put] }).await.unwrap();
    changed.changed().await.unwrap();
    let (first, _) = served.trusted(&["nobody".to_owned()]).await;
    let (second, _) = served.trusted_as("desktop", &["nobody".to_owned()]).await;
    let start = crate::operation::Start {
        class: crate::operation::Class::Task,
        description: "Testing",
        by: served.state.identities.caller_by_fingerprint(first.fingerprint).into(),
        resources: Vec::new(),
    };
    let operation = served.state.operations.start(&served.state.tasks, start, |_| std::future::pending());
    let path = format!("/1.0/operations/{}", operation.id);
    for (pair, status) in [(&second, StatusCode::NOT_FOUND), (&first, StatusCode::OK)] {
        let (head, _) = ask(&mut served.connection(pair).await, Method::GET, &path, "").await;
        assert_eq!(head.status(), status);
    }
}
