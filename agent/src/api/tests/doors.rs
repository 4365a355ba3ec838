//! The listener moves when its setting does, and connections go on.

use super::*;

#[tokio::test]
async fn the_listener_moves_at_once_and_open_connections_live_on() {
    let served = Served::new().await;
    let (pair, _) = served.trusted(&[]).await;
    let mut open = served.connection(&pair).await;
    let set = async |sender: &mut http1::SendRequest<Full<Bytes>>, address: &str| {
        let body = json!({ "config": { "core.https_address": address } }).to_string();
        let (head, body) = ask(sender, Method::PATCH, "/1.0", body).await;
        (head.status(), body["error"].as_str().unwrap_or_default().to_owned())
    };
    // What cannot be bound is refused, and nothing has changed.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (status, error) = set(&mut open, &taken.local_addr().unwrap().to_string()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(error.contains("is in use by"), "{error}");
    assert_eq!(served.state.settings.current().https_address(), None);
    let reaches = async |address: &str| tokio::net::TcpStream::connect(address).await.is_ok();
    assert!(reaches(&served.address).await);

    let free = taken.local_addr().unwrap().to_string();
    drop(taken);
    assert_eq!(set(&mut open, &free).await.0, StatusCode::OK);
    assert!(reaches(&free).await);
    assert_eq!(served.state.addresses.current().to_vec(), std::slice::from_ref(&free));
    let closed = async {
        while reaches(&served.address).await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), closed).await.expect("the old address is let go");

    // The same port on every address: the old listener has to make room.
    let everywhere = free.replace("127.0.0.1", "0.0.0.0");
    assert_eq!(set(&mut open, &everywhere).await, (StatusCode::OK, String::new()));
    assert!(reaches(&free).await);
    assert_eq!(set(&mut open, "").await.0, StatusCode::OK);
    assert!(served.state.addresses.current().is_empty());
    let (head, _) = ask(&mut open, Method::GET, "/1.0", "").await;
    assert_eq!(head.status(), StatusCode::OK);
}

#[tokio::test]
async fn those_who_connect_and_say_nothing_shut_nobody_out() {
    let served = Served::new().await;
    let (pair, client) = served.trusted(&[]).await;
    let mut kept = served.connection(&pair).await;
    assert_eq!(ask(&mut kept, Method::GET, "/1.0", "").await.0.status(), StatusCode::OK);
    let mut idle = Vec::new();
    for _ in 0..1100 {
        idle.push(tokio::net::TcpStream::connect(&served.address).await.unwrap());
    }
    let client = client.with_timeout(Duration::from_secs(5));
    client.request::<Status>(Method::GET, "/control/v1/status", NO_BODY).await.unwrap();
    assert_eq!(ask(&mut kept, Method::GET, "/1.0", "").await.0.status(), StatusCode::OK);
}
