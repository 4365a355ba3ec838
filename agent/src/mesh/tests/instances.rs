//! Which instance a connection reaches, and what it is told.

use super::*;
use schema::kind::service::{ProxyProtocol, Weights};
use tokio::net::UnixListener;

/// Says `name` to each that connects, and ends.
async fn named(name: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = socket.write_all(name.as_bytes()).await;
        }
    });
    port
}

async fn hear(local: u16) -> String {
    let mut socket = TcpStream::connect(("127.0.0.1", local)).await.unwrap();
    let mut heard = String::new();
    // A reset is an answer, too.
    let _ = tokio::time::timeout(LIMIT, socket.read_to_string(&mut heard)).await.expect("no end in time");
    heard
}

fn with_weight(port: u16, passing: u16) -> Record {
    let weights = Weights { passing, warning: 1 };
    Record::Service(Service { port: Some(port), weights, ..Service::default() })
}

async fn open_to(instances: Vec<Op>) -> (Side, u16) {
    let side = Side::start().await;
    let local = free_port().await;
    let mut ops = vec![
        put("service/web", caller(&[("db", local)])),
        put("service_intentions/db/@/web", intention(Action::Allow)),
    ];
    ops.extend(instances);
    side.declare(ops).await;
    side.ports(listening).await;
    (side, local)
}

#[tokio::test]
async fn instances_have_turns_by_their_weights_and_one_that_is_gone_is_passed_over() {
    let (one, two) = (named("1").await, named("2").await);
    let (side, local) =
        open_to(vec![put("service/db/one", with_weight(one, 3)), put("service/db/two", with_weight(two, 1))])
            .await;
    let mut heard = String::new();
    for _ in 0..12 {
        heard += &hear(local).await;
    }
    assert_eq!((heard.matches('1').count(), heard.matches('2').count()), (9, 3), "{heard}");
    // Spread: the one with the small weight is never called twice in a row.
    assert!(!heard.contains("22") && !heard.contains("1111"), "{heard}");

    side.declare(vec![put("service/db/one", with_weight(free_port().await, 3))]).await;
    let all_two = async {
        let mut row = 0;
        while row < 12 {
            row = if hear(local).await == "2" { row + 1 } else { 0 };
        }
    };
    tokio::time::timeout(LIMIT, all_two).await.expect("connections still fail");
    side.drain().await;
}

#[tokio::test]
async fn an_instance_may_listen_on_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db.sock");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut text = String::new();
            if socket.read_to_string(&mut text).await.is_ok() {
                let _ = socket.write_all(text.to_uppercase().as_bytes()).await;
            }
        }
    });
    let service = Service { socket_path: path.to_str().unwrap().to_owned(), ..Service::default() };
    let (side, local) = open_to(vec![put("service/db", Record::Service(service))]).await;
    assert_eq!(shout(local, "hello").await.unwrap(), "HELLO");
    side.drain().await;
}

#[tokio::test]
async fn an_instance_that_wants_to_hear_who_calls_hears_it_first() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let service = Service { port: Some(port), proxy_protocol: Some(ProxyProtocol::V2), ..Service::default() };
    let (side, local) = open_to(vec![put("service/db", Record::Service(service))]).await;
    let mut app = TcpStream::connect(("127.0.0.1", local)).await.unwrap();
    app.write_all(b"hello").await.unwrap();
    app.shutdown().await.unwrap();
    let mut instance = tokio::time::timeout(LIMIT, listener.accept()).await.unwrap().unwrap().0;
    let mut heard = Vec::new();
    tokio::time::timeout(LIMIT, instance.read_to_end(&mut heard)).await.unwrap().unwrap();
    let source = schema::access::Source { peer: None, service: "web".parse().unwrap() };
    let (from, to) = (app.local_addr().unwrap(), instance.local_addr().unwrap());
    let mut expected =
        crate::mesh::proxy_protocol::header(&source, &"db".parse().unwrap(), Some(from), Some(to));
    expected.extend(b"hello");
    assert_eq!(heard, expected);
    // A connection that is open is waited for.
    drop((app, instance));
    side.drain().await;
}
