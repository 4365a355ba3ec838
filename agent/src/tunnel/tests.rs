use std::sync::Mutex;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::trust::cluster_identity::ClusterIdentity;
use crate::wire::link::StreamHeader;

/// Echoes `Api` streams, refuses `Sync` ones, and keeps `Service` ones open until the test lets go.
#[derive(Default)]
struct Echo {
    sessions: Mutex<Vec<Session>>,
}

impl Router for Echo {
    fn route(&self, _session: &Session, incoming: Incoming) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            match incoming.header {
                StreamHeader::Api => {
                    let (mut reader, mut writer) = tokio::io::split(incoming.accept().await.unwrap());
                    // A broken stream shows at the other end.
                    if tokio::io::copy(&mut reader, &mut writer).await.is_ok() {
                        let _ = writer.shutdown().await;
                    }
                }
                StreamHeader::Sync { .. } => incoming.refuse(Refusal::Denied, "not for you").await,
                _ => {
                    let mut stream = incoming.accept().await.unwrap();
                    let _ = stream.read_u8().await;
                }
            }
        })
    }

    fn arrived(&self, session: &Session) {
        self.sessions.lock().unwrap().push(session.clone());
    }
}

struct Pair {
    tasks: Tasks,
    dialled: Session,
    accepted: Session,
    address: String,
    server: Arc<KeyPair>,
    client: Arc<KeyPair>,
    router: Arc<Echo>,
}

async fn listen(server: Arc<KeyPair>, room: Room, router: Arc<Echo>, tasks: Tasks) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let config = tls::server_config(
        ClusterIdentity::new(server.clone()).unwrap(),
        &[ALPN_LINK],
        tls::ClientCertificate::Required,
    )
    .unwrap();
    let group = tasks.clone();
    tasks.spawn("listener", async move {
        loop {
            let tcp = tokio::select! {
                accepted = listener.accept() => accepted.unwrap().0,
                () = group.ending().cancelled_owned() => break,
            };
            // A handshake that fails is the dialler's to report.
            let Ok(stream) = TlsAcceptor::from(config.clone()).accept(tcp).await else { continue };
            let peer = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
            let peer = crate::trust::certificate::fingerprint(&peer);
            serve(stream, peer, room, router.clone(), &group).await.unwrap();
        }
    });
    address
}

async fn pair() -> Pair {
    pair_with(Room::Full).await
}

async fn pair_with(room: Room) -> Pair {
    let tasks = Tasks::new();
    let server = Arc::new(KeyPair::generate("east", &[]).unwrap());
    let client = Arc::new(KeyPair::generate("west", &[]).unwrap());
    let router = Arc::new(Echo::default());
    let address = listen(server.clone(), room, router.clone(), tasks.clone()).await;
    let dialled = dial(std::slice::from_ref(&address), server.fingerprint, &client, router.clone(), &tasks)
        .await
        .unwrap();
    // The greeting is sent before the session is registered.
    while router.sessions.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    let accepted = router.sessions.lock().unwrap()[0].clone();
    Pair { tasks, dialled, accepted, address, server, client, router }
}

async fn echo(session: Session, content: Vec<u8>) {
    let (mut reader, mut writer) = tokio::io::split(session.open(&StreamHeader::Api).await.unwrap());
    let send = async {
        writer.write_all(&content).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let mut back = Vec::new();
    let ((), read) = tokio::join!(send, reader.read_to_end(&mut back));
    read.unwrap();
    assert!(back == content, "{} of {} bytes came back alike", back.len(), content.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_go_both_ways_at_once_and_carry_the_end_of_each_direction() {
    let pair = pair().await;
    assert_eq!(
        (pair.dialled.peer(), pair.accepted.peer()),
        (pair.server.fingerprint, pair.client.fingerprint)
    );
    let streams = (0..100).map(|n| {
        let session = if n % 2 == 0 { &pair.dialled } else { &pair.accepted };
        tokio::spawn(echo(session.clone(), vec![u8::try_from(n).unwrap(); 10_000 + n]))
    });
    for stream in streams.collect::<Vec<_>>() {
        stream.await.unwrap();
    }
    let large: Vec<u8> = (0..8_000_000_u32).map(|n| n.to_le_bytes()[(n % 3) as usize]).collect();
    tokio::join!(echo(pair.dialled.clone(), large.clone()), echo(pair.accepted.clone(), large));
    assert_eq!(pair.tasks.drain(std::time::Duration::from_secs(10)).await, crate::task::Drained::Clean);
}

#[tokio::test]
async fn a_refused_stream_says_why_and_leaves_the_session_up() {
    let pair = pair().await;
    match pair.dialled.open(&StreamHeader::Sync { version: 1, resume: None }).await {
        Err(OpenError::Refused { code: Refusal::Denied, message }) => assert_eq!(message, "not for you"),
        other => panic!("{:?}", other.map(|_| "accepted")),
    }
    echo(pair.dialled.clone(), b"still up".to_vec()).await;
}

#[tokio::test]
async fn a_stranger_gets_room_for_a_few_streams_only() {
    let pair = pair_with(Room::Little).await;
    let header =
        StreamHeader::Service { destination: "b".parse().unwrap(), source: "a".parse().unwrap(), from: None };
    let mut open = Vec::new();
    while let Ok(stream) = pair.dialled.open(&header).await {
        open.push(stream);
        assert!(open.len() < 64, "a stranger may open as many streams as it likes");
    }
    assert!(!open.is_empty());
}

#[tokio::test]
async fn closing_a_session_ends_its_streams_with_an_error_at_both_ends() {
    let pair = pair().await;
    let header =
        StreamHeader::Service { destination: "b".parse().unwrap(), source: "a".parse().unwrap(), from: None };
    let mut stream = pair.dialled.open(&header).await.unwrap();
    pair.accepted.close("revoked");
    assert_eq!(stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(pair.accepted.closed().await, Closed::Here("revoked".to_owned()));
    pair.dialled.closed().await;
    assert!(matches!(pair.dialled.open(&header).await, Err(OpenError::Closed)));
}

#[tokio::test]
async fn another_certificate_than_the_pinned_one_is_told_with_both_fingerprints() {
    let pair = pair().await;
    let wrong = pair.client.fingerprint;
    let router = Arc::new(Echo::default());
    let error = dial(std::slice::from_ref(&pair.address), wrong, &pair.client, router, &pair.tasks)
        .await
        .unwrap_err();
    assert_eq!(error.mismatch(), Some((wrong, pair.server.fingerprint)));
}

#[tokio::test]
async fn a_peer_that_is_not_trusted_hears_so() {
    let tasks = Tasks::new();
    let server = Arc::new(KeyPair::generate("east", &[]).unwrap());
    let client = KeyPair::generate("west", &[]).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let config = tls::server_config(
        ClusterIdentity::new(server.clone()).unwrap(),
        &[ALPN_LINK],
        tls::ClientCertificate::Required,
    )
    .unwrap();
    let refusing = async {
        let (tcp, _) = listener.accept().await.unwrap();
        let stream = TlsAcceptor::from(config).accept(tcp).await.unwrap();
        refuse(stream, Refusal::Denied, "no link with this certificate").await.unwrap();
    };
    let addresses = [address];
    let dialling = dial(&addresses, server.fingerprint, &client, Arc::new(Echo::default()), &tasks);
    let ((), dialled) = tokio::join!(refusing, dialling);
    let message = dialled.unwrap_err().to_string();
    assert!(message.contains("no link with this certificate"), "{message}");
}

#[test]
fn a_server_is_asked_for_by_its_name_where_it_has_one() {
    let asked = |address: &str| tls::name_at(address).to_str().into_owned();
    assert_eq!(asked("east.example:8443"), "east.example");
    for unnamed in ["127.0.0.1:8443", "[::1]:8443", "a b:1", ""] {
        assert_eq!(asked(unnamed), "0.0.0.0", "{unnamed}");
    }
}

fn service() -> StreamHeader {
    StreamHeader::Service { destination: "b".parse().unwrap(), source: "a".parse().unwrap(), from: None }
}

#[tokio::test]
async fn what_an_app_has_sent_by_now_leaves_with_the_opening() {
    let pair = pair().await;
    let mut stream = pair.dialled.begin(&StreamHeader::Api, b"first").unwrap().answered().await.unwrap();
    stream.write_all(b", then").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).await.unwrap();
    assert_eq!(back, b"first, then");
    assert!(matches!(
        pair.dialled
            .begin(&StreamHeader::Sync { version: 1, resume: None }, b"first")
            .unwrap()
            .answered()
            .await,
        Err(OpenError::Refused { .. })
    ));
}

#[tokio::test]
async fn a_session_that_is_left_takes_no_streams_and_ends_with_the_last_that_is_open() {
    let pair = pair().await;
    let mut stream = pair.dialled.open(&StreamHeader::Api).await.unwrap();
    pair.accepted.leave();
    pair.dialled.leaving().await;
    assert!(matches!(pair.dialled.open(&service()).await, Err(OpenError::Leaving)));
    assert!(matches!(pair.accepted.open(&service()).await, Err(OpenError::Leaving)));
    stream.write_all(b"goes on").await.unwrap();
    let mut back = [0; 7];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"goes on");
    assert!(!pair.accepted.is_closed() && !pair.dialled.is_closed());
    stream.shutdown().await.unwrap();
    stream.read_to_end(&mut Vec::new()).await.unwrap();
    drop(stream);
    assert!(matches!(pair.accepted.closed().await, Closed::Here(_)));
    assert_eq!(pair.dialled.closed().await, Closed::ByPeer);
}

#[tokio::test]
async fn a_stream_that_nobody_reads_holds_up_no_other() {
    let pair = pair().await;
    // What is echoed is never read here, so that the other end stops reading, too.
    let mut stuck = pair.dialled.open(&StreamHeader::Api).await.unwrap();
    let full = async { while stuck.write_all(&vec![1; 64 * 1024]).await.is_ok() {} };
    assert!(tokio::time::timeout(std::time::Duration::from_millis(300), full).await.is_err());
    echo(pair.dialled.clone(), vec![7; 3_000_000]).await;
}

/// A peer that speaks TLS as it should, and frames as it likes.
async fn raw(pair: &Pair) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    let config =
        tls::client_config_pinned(pair.server.fingerprint, Some(&pair.client), &[ALPN_LINK]).unwrap();
    let mut stream = connect::connect(&pair.address, config).await.unwrap();
    assert_eq!(frame::read::<StreamAnswer>(&mut stream).await.unwrap(), StreamAnswer::Accepted);
    stream
}

#[tokio::test]
async fn a_peer_that_breaks_the_rules_loses_its_connection_and_is_told_the_rule() {
    let pair = pair().await;
    let mut open = Vec::new();
    wire::Frame::Open { id: 1, window: 1000, header: br#"{"type":"api"}"# }.encode(&mut open);
    let mut overdrawn = open.clone();
    let most = credit::FIRST as usize;
    wire::Frame::Data { id: 1, bytes: &vec![7; most + 1] }.encode(&mut overdrawn);
    let mut again = open.clone();
    again.extend(&open);
    for (bytes, rule) in [
        (overdrawn, "more bytes on the stream 1 than it was given credit for"),
        (again, "a stream was opened under the number 1, which is not the next"),
        (vec![0, 0, 0, 1, 77, 0, 0, 0], "a frame of unknown kind 77"),
    ] {
        let mut peer = raw(&pair).await;
        peer.write_all(&bytes).await.unwrap();
        let mut back = Vec::new();
        peer.read_to_end(&mut back).await.unwrap();
        let words = String::from_utf8_lossy(&back);
        assert!(words.contains(rule), "{words:?}");
    }
    echo(pair.dialled.clone(), b"others are unharmed".to_vec()).await;
}

#[tokio::test]
async fn a_header_that_makes_no_sense_is_refused_and_nothing_else_ends() {
    let pair = pair().await;
    let mut peer = raw(&pair).await;
    let mut bytes = Vec::new();
    wire::Frame::Open { id: 1, window: 1000, header: b"{nonsense" }.encode(&mut bytes);
    wire::Frame::Open { id: 3, window: 1000, header: br#"{"type":"api"}"# }.encode(&mut bytes);
    wire::Frame::Data { id: 3, bytes: b"echo" }.encode(&mut bytes);
    peer.write_all(&bytes).await.unwrap();
    let mut back = Vec::new();
    while !String::from_utf8_lossy(&back).contains("echo") {
        assert!(peer.read_buf(&mut back).await.unwrap() > 0);
    }
    assert!(String::from_utf8_lossy(&back).contains("malformed"));
}

#[tokio::test]
async fn a_connection_that_is_cut_reads_as_an_error_and_never_as_an_end() {
    let pair = pair().await;
    let mut peer = raw(&pair).await;
    let mut bytes = Vec::new();
    wire::Frame::Open { id: 1, window: 1000, header: br#"{"type":"api"}"# }.encode(&mut bytes);
    peer.write_all(&bytes).await.unwrap();
    assert!(peer.read_u8().await.is_ok());
    drop(peer);
    // The first session is the pair's own.
    let cut = loop {
        if let Some(session) = pair.router.sessions.lock().unwrap().get(1) {
            break session.clone();
        }
        tokio::task::yield_now().await;
    };
    assert!(matches!(cut.closed().await, Closed::Lost(_)));
}
