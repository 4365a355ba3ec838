//! Connections whose app breaks off, or that come as the agent ends.

use super::*;

/// East's backend at `backend` is called by west's frontend at the port that comes back.
async fn across(east: &Side, west: &Side, client: &KeyPair, backend: u16) -> u16 {
    let local = free_port().await;
    let mut upstream = upstream("backend", local);
    upstream.destination_peer = Some("east".parse().unwrap());
    west.declare(vec![put("service/frontend", calling(vec![upstream]))]).await;
    let export = Record::ExportedServices(Export { consumers: vec!["west".parse().unwrap()] });
    east.declare(vec![
        put("service/backend", instance(backend)),
        put("service_intentions/backend/west/frontend", intention(Action::Allow)),
        identity(client),
        put("exported_services/default/backend", export),
    ])
    .await;
    until(|| east.mesh.parts.identities.get(&client.fingerprint.into()).is_some()).await;
    until(|| !east.mesh.parts.catalog.view().exports.is_empty()).await;
    west.ports(listening).await;
    local
}

fn open(side: &Side) -> u64 {
    side.mesh.status().traffic.iter().map(|row| row.open).sum()
}

/// Writes until nothing more is taken.
async fn fill(socket: &TcpStream) {
    let piece = vec![0; 1 << 16];
    while tokio::time::timeout(Duration::from_millis(500), socket.writable()).await.is_ok() {
        match socket.try_write(&piece) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
    }
}

#[tokio::test]
async fn an_app_that_resets_while_its_upload_waits_is_noticed() {
    let (east, west, client) = linked().await;
    let deaf = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let local = across(&east, &west, &client, deaf.local_addr().unwrap().port()).await;
    let app = TcpStream::connect(("127.0.0.1", local)).await.unwrap();
    let instance = tokio::time::timeout(LIMIT, deaf.accept()).await.unwrap().unwrap().0;
    fill(&app).await;
    assert_eq!((open(&west), open(&east)), (1, 1));
    app.set_zero_linger().unwrap();
    drop(app);
    until(|| open(&west) == 0).await;
    drop(instance);
    west.drain().await;
    east.drain().await;
}

#[tokio::test]
async fn an_app_that_resets_while_it_waits_for_an_answer_is_noticed() {
    let (east, west, client) = linked().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let local = across(&east, &west, &client, silent.local_addr().unwrap().port()).await;
    let mut app = TcpStream::connect(("127.0.0.1", local)).await.unwrap();
    app.shutdown().await.unwrap();
    let mut instance = tokio::time::timeout(LIMIT, silent.accept()).await.unwrap().unwrap().0;
    assert_eq!(tokio::time::timeout(LIMIT, instance.read(&mut [0])).await.unwrap().unwrap(), 0);
    app.set_zero_linger().unwrap();
    drop(app);
    until(|| open(&west) == 0).await;
    drop(instance);
    west.drain().await;
    east.drain().await;
}

#[tokio::test]
async fn who_waits_in_the_queue_when_the_agent_ends_is_carried() {
    let side = Side::start().await;
    let (backend, local) = (shouter().await, free_port().await);
    side.declare(vec![
        put("service/backend", instance(backend)),
        put("service/frontend", caller(&[("backend", local)])),
        put("service_intentions/backend/@/frontend", intention(Action::Allow)),
    ])
    .await;
    side.ports(listening).await;
    // This thread runs the agent, too: nothing is accepted before it is told to end.
    let queued: Vec<_> =
        (0..100).map(|_| std::net::TcpStream::connect(("127.0.0.1", local)).unwrap()).collect();
    side.tasks.end();
    for socket in queued {
        socket.set_nonblocking(true).unwrap();
        let mut socket = TcpStream::from_std(socket).unwrap();
        socket.write_all(b"last").await.unwrap();
        socket.shutdown().await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(LIMIT, socket.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert_eq!(answer, "LAST");
    }
    side.drain().await;
}
