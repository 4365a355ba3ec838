//! Agents on machines of their own, with a firewall in between that lets only some pass, and cuts.
//!
//! A connection that is cut without a word is noticed by the silence: the link's heartbeats come every two seconds, and
//! whoever has heard nothing for its window ends the session, which resets every stream on it at both ends.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use integration::{Agent, Clusters, Hosts, LIMIT, Operator, free_port, wait_for};

/// Within this both apps must know of a cut that nobody told anybody of.
const SILENCE: Duration = Duration::from_secs(30);
/// Bytes in one transfer: far more than what may be under way.
const MANY: usize = 64 << 20;

/// The two clusters on their hosts, and a service behind each, which the other's app may reach.
struct World {
    clusters: Clusters,
    servers: [TcpListener; 2],
    ports: [u16; 2],
    // Last: the agents end before their networks do.
    hosts: Hosts,
}

const EAST: usize = 0;
const WEST: usize = 1;

impl World {
    fn start(rules: &[&str]) -> Option<Self> {
        let hosts = Hosts::start(2)?;
        hosts.firewall(rules);
        let agents =
            [("east", EAST), ("west", WEST)].map(|(name, at)| Agent::prepare(name).on(hosts.host(at)));
        let [east, west] = agents;
        let clusters = Clusters::run_by(Operator::new().within(hosts.router()), east, west);
        let servers = [EAST, WEST].map(|at| hosts.host(at).on(|| TcpListener::bind("127.0.0.1:0").unwrap()));
        let ports = [free_port(), free_port()];
        for (side, other, at) in [("east", "west", EAST), ("west", "east", WEST)] {
            let (port, local) = (servers[at].local_addr().unwrap().port(), ports[at]);
            clusters.declare(
                side,
                &format!(
                    r#"
service "{side}-server" {{
  port = {port}
}}
service "{side}-app" {{
  port      = 9000
  upstreams = [{{ destination_name = "{other}-server", destination_peer = "{other}", local_bind_port = {local} }}]
}}
service_intentions "{side}-server" {{
  sources = [{{ name = "{other}-app", peer = "{other}", action = "allow" }}]
}}
exported_services "default" {{
  services = [{{ name = "{side}-server", consumers = [{{ peer = "{other}" }}] }}]
}}
"#
                ),
            );
        }
        clusters.apply().success();
        clusters.wait_active();
        Some(Self { clusters, servers, ports, hosts })
    }

    /// The two ends of a connection from the app on one host to the server on the other, after a word each way.
    fn connect(&self, from: usize) -> (TcpStream, TcpStream) {
        wait_for("an app reaches the other side", 2 * LIMIT, || {
            let port = self.ports[from];
            let mut app = self.hosts.host(from).on(|| TcpStream::connect(("127.0.0.1", port))).ok()?;
            app.set_read_timeout(Some(LIMIT)).ok()?;
            app.write_all(b"there").ok()?;
            let server = &self.servers[1 - from];
            server.set_nonblocking(true).ok()?;
            let mut instance = wait_for("the server is reached", LIMIT, || match server.accept() {
                Ok((socket, _)) => Some(Some(socket)),
                // Refused meanwhile: another attempt is made.
                Err(_) if is_over(&app) => Some(None),
                Err(_) => None,
            })?;
            instance.set_nonblocking(false).ok()?;
            instance.set_read_timeout(Some(LIMIT)).ok()?;
            let mut word = [0; 5];
            instance.read_exact(&mut word).ok()?;
            instance.write_all(b"back!").ok()?;
            app.read_exact(&mut word).ok()?;
            assert_eq!(&word, b"back!");
            Some((app, instance))
        })
    }
}

fn is_over(app: &TcpStream) -> bool {
    app.set_nonblocking(true).unwrap();
    let over = match app.peek(&mut [0]) {
        Ok(bytes) => bytes == 0,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    };
    app.set_nonblocking(false).unwrap();
    over
}

/// Carries bytes from `app` to `instance` until `cut` has been called and both have noticed; gives how long that took.
fn cut_in_a_transfer(app: TcpStream, mut instance: TcpStream, cut: impl FnOnce()) -> Duration {
    for end in [&app, &instance] {
        end.set_read_timeout(Some(SILENCE)).unwrap();
        end.set_write_timeout(Some(SILENCE)).unwrap();
    }
    let mut writer = app.try_clone().unwrap();
    let mut reader = app;
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || {
            let chunk = vec![7; 64 << 10];
            let mut sent = 0;
            loop {
                match writer.write(&chunk) {
                    Ok(bytes) => sent += bytes,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => break (sent, error),
                }
                assert!(sent < 64 * MANY, "nobody minds the cut");
            }
        });
        // In the middle: some has come, more is to come.
        let mut buffer = vec![0; 64 << 10];
        let mut received = 0;
        while received < MANY / 16 {
            received += instance.read(&mut buffer).expect("it comes");
        }
        cut();
        let began = Instant::now();
        let error = loop {
            match instance.read(&mut buffer) {
                Ok(0) => panic!("a clean end in the middle of a transfer"),
                Ok(bytes) => received += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "the instance: {error}");
        let (sent, error) = writing.join().expect("it ends");
        let told = matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe);
        assert!(told, "the app: {error}");
        assert!(sent > received, "it was in the middle");
        // However the write failed, there is no end of data to be read.
        let read = reader.read(&mut buffer);
        assert!(!matches!(read, Ok(1..)), "{read:?}");
        began.elapsed()
    })
}

#[test]
fn where_one_side_alone_can_dial_both_sides_apps_reach_the_other() {
    // Whoever begins a connection from east towards west is not let through.
    let Some(world) =
        World::start(&["ip saddr 10.77.1.2 ip daddr 10.77.2.2 tcp flags & (syn | ack) == syn drop"])
    else {
        return;
    };
    let refused = world.hosts.host(EAST).on(|| {
        let west = world.clusters.west.address().parse().unwrap();
        TcpStream::connect_timeout(&west, Duration::from_millis(500))
    });
    assert!(refused.is_err(), "the firewall does nothing");
    for from in [WEST, EAST, WEST] {
        let (mut app, mut instance) = world.connect(from);
        let sent: Vec<u8> = (0..8_000_000_u32).map(|n| n.to_le_bytes()[(n % 3) as usize]).collect();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                app.write_all(&sent).unwrap();
                app.shutdown(std::net::Shutdown::Write).unwrap();
            });
            let mut come = Vec::new();
            instance.read_to_end(&mut come).unwrap();
            assert!(come == sent, "{} of {} bytes came alike", come.len(), sent.len());
        });
    }
}

#[test]
fn a_link_that_is_cut_without_a_word_resets_both_apps_and_heals_by_itself() {
    let Some(world) = World::start(&[]) else { return };
    let everything = "drop";
    let one_way = "ip saddr 10.77.1.2 drop";
    let told = "meta l4proto tcp reject with tcp reset";
    for (named, rule, from) in [
        ("dropped", everything, WEST),
        ("dropped one way", one_way, WEST),
        ("dropped one way", one_way, EAST),
        ("told", told, EAST),
    ] {
        let (app, instance) = world.connect(from);
        let took = cut_in_a_transfer(app, instance, || world.hosts.firewall(&[rule]));
        eprintln!("a link that was {named}: both apps knew after {took:?}");
        assert!(took < SILENCE, "{named}: {took:?}");
        world.clusters.wait_state("west", "east", "FAILING");
        world.clusters.wait_state("east", "west", "FAILING");
        world.hosts.firewall(&[]);
        world.clusters.wait_active();
        for from in [WEST, EAST] {
            world.connect(from);
        }
    }
}
