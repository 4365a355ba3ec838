//! Peers, apps and instances that do what none should, while others go on: each is bounded and told, and nobody else
//! is harmed.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use agent::tunnel::{OpenError, Session};
use agent::wire::link::{Refusal, StreamHeader};
use integration::peer::{Peer, Script};
use integration::{Agent, Clusters, LIMIT, Server, free_port, shout, wait_for};
use serde_json::{Value, json};

/// What an agent may take more while it is ill-treated. Generous: it is there to tell bounded from unbounded.
const ROOM: u64 = 192 << 20;
/// Bytes that an app fetches beside somebody who hinders.
const MANY: usize = 32 << 20;

/// East has a service that shouts and one that sends without end, both for west and for north.
struct World {
    clusters: Clusters,
    runtime: tokio::runtime::Runtime,
    /// North.
    peer: Peer,
    local: [u16; 3],
    _servers: [Server; 3],
}

fn link(clusters: Clusters, east: &str, west: &str) -> Clusters {
    clusters.declare("east", east);
    clusters.declare("west", west);
    clusters.apply().success();
    clusters.wait_active();
    clusters
}

fn east(ports: [u16; 3], peers: &[&str]) -> String {
    let each =
        |text: &dyn Fn(&str) -> String| peers.iter().map(|peer| text(peer)).collect::<Vec<_>>().join(", ");
    let sources = each(&|peer| format!("{{ name = \"frontend\", peer = \"{peer}\", action = \"allow\" }}"));
    let consumers = each(&|peer| format!("{{ peer = \"{peer}\" }}"));
    let services = ["shouting", "endless", "silent"].into_iter().zip(ports).map(|(name, port)| {
        format!(
            r#"
service "{name}" {{
  port = {port}
}}
service_intentions "{name}" {{
  sources = [{sources}]
}}
"#
        )
    });
    let rows = ["shouting", "endless", "silent"]
        .map(|name| format!("{{ name = \"{name}\", consumers = [{consumers}] }}"));
    let hidden = "service \"hidden\" {\n  port = 9\n}\n";
    let exports = format!("exported_services \"default\" {{\n  services = [{}]\n}}\n", rows.join(", "));
    services.collect::<String>() + hidden + &exports
}

fn west(local: [u16; 3]) -> String {
    let upstreams = ["shouting", "endless", "silent"].into_iter().zip(local).map(|(name, port)| {
        format!("{{ destination_name = \"{name}\", destination_peer = \"east\", local_bind_port = {port} }}")
    });
    let upstreams: Vec<String> = upstreams.collect();
    format!("service \"frontend\" {{\n  port = 9000\n  upstreams = [{}]\n}}\n", upstreams.join(", "))
}

impl World {
    fn start() -> Self {
        let servers = [Server::shouting(), Server::endless(), Server::silent()];
        let ports = [&servers[0], &servers[1], &servers[2]].map(Server::port);
        let local = [free_port(), free_port(), free_port()];
        let (clusters, runtime) = (Clusters::start(), runtime());
        // It must be there before an intention names it.
        let peer = runtime.block_on(Peer::linked(&clusters.east, "north"));
        let clusters = link(clusters, &east(ports, &["west", "north"]), &west(local));
        let world = Self { clusters, runtime, peer, local, _servers: servers };
        wait_for("west's app is served", LIMIT, || world.is_served().ok());
        world
    }

    /// West's app is served within the limit.
    fn is_served(&self) -> io::Result<()> {
        let answer = shout(self.local[0], "hello")?;
        if answer == "HELLO" { Ok(()) } else { Err(io::Error::other(format!("answered {answer:?}"))) }
    }

    fn fetch(&self, bytes: usize) -> Duration {
        let began = Instant::now();
        let mut socket = connect(self.local[1]);
        let mut buffer = vec![0; 256 << 10];
        let mut come = 0;
        while come < bytes {
            come += socket.read(&mut buffer).expect("it comes");
        }
        began.elapsed()
    }
}

fn connect(port: u16) -> TcpStream {
    let socket = TcpStream::connect(("127.0.0.1", port)).expect("the upstream listens");
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket.set_write_timeout(Some(LIMIT)).unwrap();
    socket
}

/// What the agent holds in memory, bytes.
fn resident(agent: &Agent) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid().unwrap())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[track_caller]
fn grown_by(agent: &Agent, before: u64) -> u64 {
    let grown = resident(agent).saturating_sub(before);
    assert!(grown < ROOM, "{} has taken {} MiB more", agent.name(), grown >> 20);
    grown
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

fn to(destination: &str) -> StreamHeader {
    let (destination, source) = (destination.parse().unwrap(), "frontend".parse().unwrap());
    StreamHeader::Service { destination, source, from: None }
}

/// Whether the peer's link still answers: its API is asked.
async fn answers(session: &Session) -> bool {
    let asked = async {
        let mut stream = session.open(&StreamHeader::Api).await.ok()?;
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        stream.write_all(b"GET /1.0 HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n\r\n").await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        answer.starts_with("HTTP/1.1 200").then_some(())
    };
    tokio::time::timeout(LIMIT, asked).await.is_ok_and(|answer| answer.is_some())
}

/// A frame of a session: the stream, the kind, the length in three bytes, what the kind says.
fn frame(stream: u32, kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    [stream.to_be_bytes().as_slice(), &[kind], &length[1..], content].concat()
}

const OPEN: u8 = 0;
const PING: u8 = 7;

/// Opens a stream: how much may be sent on it, and what it is for.
fn open(stream: u32, header: &[u8]) -> Vec<u8> {
    frame(stream, OPEN, &[(64_u32 << 10).to_be_bytes().as_slice(), header].concat())
}

#[test]
fn a_peer_that_opens_streams_without_end_is_bounded_and_nobody_else_notices() {
    let world = World::start();
    let east = &world.clusters.east;
    let (runtime, peer) = (&world.runtime, &world.peer);
    // One that is denied each time, and one that holds on to what it is given.
    for header in [to("hidden"), StreamHeader::Api] {
        let before = resident(east);
        let named = serde_json::to_string(&header).unwrap();
        let mut hostile = peer.bare();
        let mut sent = 0;
        for number in 0..100_000_u32 {
            // It never reads what it is told of them, and is parted with at some point, or goes on to the end.
            if hostile.write_all(&open(2 * number + 1, named.as_bytes())).is_err() {
                break;
            }
            sent += 1;
            if number % 10_000 == 0 {
                world.is_served().expect("west is served meanwhile");
            }
        }
        let grown = grown_by(east, before);
        eprintln!("{sent} streams {named} were begun; the agent took {} MiB more", grown >> 20);
        world.is_served().expect("west is served as before");
        drop(hostile);
        // The very same link, by somebody who behaves.
        runtime.block_on(async {
            let (session, _told) = peer.dial(Script::new()).await;
            assert!(answers(&session).await);
        });
    }
    wait_for("the log tells of it", LIMIT, || {
        let log = east.log();
        (log.contains("turned away") || log.contains("breaks the rules")).then_some(())
    });
}

#[test]
fn headers_that_lie_are_refused_and_those_that_break_the_rules_end_their_session_alone() {
    let world = World::start();
    let east = &world.clusters.east;
    let (runtime, peer) = (&world.runtime, &world.peer);
    runtime.block_on(async {
        let (session, _told) = peer.dial(Script::new()).await;
        for destination in ["hidden", "nobody"] {
            match session.open(&to(destination)).await {
                Err(OpenError::Refused { code: Refusal::Denied, message }) => assert_eq!(message, "denied"),
                other => panic!("{destination}: {:?}", other.map(drop)),
            }
        }
        assert!(answers(&session).await);

        let refused: [Value; 6] = [
            json!({ "type": "service", "destination": "../shouting", "source": "frontend" }),
            json!({ "type": "service", "destination": "shouting", "source": "front end\n" }),
            json!({ "type": "service", "destination": "shouting" }),
            json!({ "type": "surprise" }),
            json!(["service"]),
            json!({ "type": "service", "destination": "shouting", "source": "f".repeat(10_000) }),
        ];
        let mut bare = peer.bare();
        for (number, header) in (0..).zip(&refused) {
            bare.write_all(&open(2 * number + 1, &serde_json::to_vec(header).unwrap())).unwrap();
        }
        bare.write_all(&frame(0, PING, &[9; 8])).unwrap();
        let told = read_until(&mut bare, |bytes| bytes.windows(8).any(|window| window == [9; 8]));
        let count = String::from_utf8_lossy(&told).matches("malformed").count();
        assert_eq!(count, refused.len(), "{}", String::from_utf8_lossy(&told));
        drop(bare);

        let oversize = [vec![0, 0, 0, 1, OPEN, 0xff, 0xff, 0xff], vec![b' '; 1 << 20]].concat();
        let wrong_number = open(2, b"{}");
        let unknown = frame(1, 99, b"");
        for broken in [oversize, wrong_number, unknown] {
            let mut bare = peer.bare();
            // The agent may have had enough before it is all sent.
            let _ = bare.write_all(&broken);
            read_until(&mut bare, |_| false);
        }
    });
    wait_for("each is told", LIMIT, || {
        (east.log().matches("the peer breaks the rules").count() >= 3).then_some(())
    });
    world.is_served().unwrap();
}

/// Reads until `enough`, or to the end of the connection.
fn read_until(from: &mut impl io::Read, enough: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let (mut all, mut some) = (Vec::new(), [0; 4096]);
    while !enough(&all) {
        match from.read(&mut some) {
            Ok(bytes @ 1..) => all.extend(&some[..bytes]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => panic!("nothing within {LIMIT:?}"),
            _ => break,
        }
    }
    all
}

#[test]
fn a_header_that_never_ends_holds_up_its_own_session_and_is_parted_with() {
    let world = World::start();
    let peer = &world.peer;
    let mut bare = peer.bare();
    bare.write_all(&open(1, &vec![b' '; 60_000])[..30_000]).unwrap();
    world.is_served().unwrap();
    // It answers nothing that it is asked, so it is taken for gone.
    bare.sock.set_read_timeout(Some(3 * LIMIT)).unwrap();
    read_until(&mut bare, |_| false);
    world.is_served().unwrap();
}

#[test]
fn an_app_that_does_not_read_and_an_instance_that_says_nothing_hinder_nobody() {
    let world = World::start();
    let alone = world.fetch(MANY);
    let before = [&world.clusters.east, &world.clusters.west].map(resident);
    // Twenty of each, held open.
    let idle: Vec<TcpStream> = (0..20).map(|_| connect(world.local[1])).collect();
    let mut asking: Vec<TcpStream> = (0..20).map(|_| connect(world.local[2])).collect();
    for socket in &mut asking {
        socket.write_all(b"anybody there?").unwrap();
    }
    for socket in &idle {
        wait_for("something waits to be read", LIMIT, || (socket.peek(&mut [0]).ok()? == 1).then_some(()));
    }
    let beside = world.fetch(MANY);
    eprintln!("{MANY} bytes took {alone:?} alone, {beside:?} beside those");
    assert!(beside < 5 * alone + Duration::from_secs(2), "{beside:?} and not {alone:?}");
    world.is_served().unwrap();
    for (agent, before) in [&world.clusters.east, &world.clusters.west].into_iter().zip(before) {
        grown_by(agent, before);
    }
    // What was said to a silent instance was taken, and no answer is made up.
    for socket in &mut asking {
        socket.set_nonblocking(true).unwrap();
        assert_eq!(socket.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
    drop((idle, asking));
    wait_for("nothing is left open", LIMIT, || {
        let open = |side: &str| -> Option<u64> {
            let status = world.clusters.ask(side, &["status"]);
            let rows = status["mesh"]["traffic"].as_array()?.clone();
            rows.iter().map(|row| row["open"].as_u64()).sum()
        };
        (open("east")? == 0 && open("west")? == 0).then_some(())
    });
}

#[test]
fn a_peer_that_never_reads_takes_no_more_than_its_share() {
    let world = World::start();
    let east = &world.clusters.east;
    let peer = &world.peer;
    let before = resident(east);
    let header = serde_json::to_vec(&to("endless")).unwrap();
    let mut hostile = peer.bare();
    for number in 0..50 {
        // More credit than any agent would give, and nothing of it is read.
        let window = (1_u32 << 30).to_be_bytes();
        hostile.write_all(&frame(2 * number + 1, OPEN, &[&window, header.as_slice()].concat())).unwrap();
    }
    world.fetch(MANY);
    world.is_served().unwrap();
    let grown = grown_by(east, before);
    eprintln!("the agent took {} MiB more", grown >> 20);
    drop(hostile);
    world.is_served().unwrap();
}

#[test]
fn an_agent_that_is_killed_in_the_middle_of_a_transfer_is_a_reset_for_both_apps() {
    for killed in ["east", "west"] {
        let instance = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = instance.local_addr().unwrap().port();
        let local = [free_port(), free_port(), free_port()];
        let mut clusters = Clusters::linked(&east([port; 3], &["west"]), &west(local));
        let mut app =
            wait_for("the upstream listens", LIMIT, || TcpStream::connect(("127.0.0.1", local[0])).ok());
        app.write_all(b"the first").unwrap();
        let (mut instance, _) = instance.accept().unwrap();
        instance.read_exact(&mut [0; 9]).unwrap();
        instance.write_all(b"of many").unwrap();
        app.read_exact(&mut [0; 7]).unwrap();
        let agent = if killed == "east" { &mut clusters.east } else { &mut clusters.west };
        agent.kill9();
        for (named, end) in [("the app", &mut app), ("the instance", &mut instance)] {
            end.set_read_timeout(Some(LIMIT)).unwrap();
            match end.read(&mut [0; 16]) {
                Ok(bytes) => panic!("{killed} killed: {named} read {bytes} bytes and no reset"),
                Err(error) => {
                    assert_eq!(
                        error.kind(),
                        io::ErrorKind::ConnectionReset,
                        "{killed} killed: {named}: {error}"
                    );
                }
            }
        }
    }
}
