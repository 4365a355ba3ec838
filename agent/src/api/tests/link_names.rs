//! Names of links and of clusters that only call here, and who may make what of a public link.

use super::*;

const LINKS: &str = "/1.0/cluster/links";

fn error(body: &Value) -> &str {
    body["error"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_link_and_a_cluster_that_only_calls_have_no_name_in_common() {
    let served = Served::new().await;
    let (pair, _) = served.trusted(&[]).await;
    let mut sender = served.connection(&pair).await;
    let post = async |sender: &mut http1::SendRequest<Full<Bytes>>, path: &str, body: Value| {
        let (head, body) = ask(sender, Method::POST, path, body.to_string()).await;
        (head.status().as_u16(), body)
    };
    let caller = |groups: Value| json!({"name": "west", "type": "unidirectional", "auth_groups": groups});
    let (status, body) = post(&mut sender, LINKS, caller(json!(["nobodys"]))).await;
    assert_eq!((status, error(&body)), (404, "One or more groups were not found: \"nobodys\""));

    let (status, pending) = post(&mut sender, LINKS, caller(json!([]))).await;
    assert_eq!(status, 201, "{pending}");
    let link = json!({"name": "west", "type": "bidirectional"});
    let is_taken = |body: &Value| error(body).starts_with("An identity with name \"west\" already exists");
    let (status, body) = post(&mut sender, LINKS, link.clone()).await;
    assert_eq!((status, is_taken(&body)), (409, true), "while its token waits");

    let text: crate::wire::token::TrustToken = serde_json::from_value(pending["metadata"].clone()).unwrap();
    let west = KeyPair::generate("west", &[]).unwrap();
    let mut its = served.connection(&west).await;
    let redeem = json!({"trust_token": text.encode().expose()});
    let (status, body) = post(&mut its, "/1.0/auth/identities/tls", redeem).await;
    assert_eq!(status, 201, "{body}");
    let (status, body) = post(&mut sender, LINKS, link).await;
    assert_eq!((status, is_taken(&body)), (409, true), "while it is known");

    let (status, body) = post(&mut sender, LINKS, json!({"name": "south", "type": "bidirectional"})).await;
    assert_eq!(status, 201, "{body}");
    let (status, body) = post(&mut sender, &format!("{LINKS}/south"), json!({"name": "west"})).await;
    assert_eq!((status, is_taken(&body)), (409, true), "by another name");
    // And the other way about.
    let (status, _) = post(&mut sender, LINKS, json!({"name": "south", "type": "unidirectional"})).await;
    assert_eq!(status, 409);
}

#[tokio::test]
async fn asking_for_a_public_links_certificate_again_is_to_edit_it() {
    let (served, west) = (Served::new().await, Served::new().await);
    let makers = json!({"v": 1, "data": {"record": {"auth_group": {"permissions":
        [{"entity_type": "server", "entitlement": "can_create_cluster_links"}]}}}});
    let put =
        Op::Put { key: "/declared/auth_group/makers".to_owned(), value: makers.to_string().into_bytes() };
    let mut changed = served.state.identities.changed();
    served.state.store.commit(Txn { guards: Vec::new(), ops: vec![put] }).await.unwrap();
    changed.changed().await.unwrap();
    let (pair, _) = served.trusted(&[]).await;
    let (limited, _) = served.trusted_as("maker", &["makers".to_owned()]).await;
    let post = async |pair: &KeyPair, body: Value| {
        let mut sender = served.connection(pair).await;
        let (head, body) = ask(&mut sender, Method::POST, LINKS, body.to_string()).await;
        (head.status().as_u16(), body)
    };
    let first = json!({"name": "images", "type": "public", "remote_address": west.address});
    let (status, offered) = post(&pair, first.clone()).await;
    assert_eq!(status, 200, "{offered}");
    let pem = &offered["metadata"]["certificate"];
    let second = json!({"name": "images", "type": "public", "cluster_certificate": pem});
    let exists = "A cluster link with name \"images\" already exists";
    for body in [&first, &second] {
        let (status, body) = post(&limited, body.clone()).await;
        assert_eq!((status, error(&body)), (409, exists));
    }
    let (status, body) = post(&pair, second).await;
    assert_eq!(status, 201, "{body}");

    // Who may make links does not look round the network by it.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = json!({"name": "more", "type": "public", "remote_address": closed.to_string()});
    let (_, body) = post(&limited, silent).await;
    let uniform = "Failed validating cluster certificate: Failed retrieving cluster certificate from the remote address";
    assert_eq!(error(&body), uniform);
}
