//! Traffic, from outside: an app on west's loopback reaches a server behind east, through both agents.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use integration::{Clusters, LIMIT, Server, free_port, shout, wait_for};
use rustix::process::{Pid, Signal, kill_process};

fn east(port: u16, action: &str) -> String {
    format!(
        r#"
service "backend" {{
  port = {port}
}}
service_intentions "backend" {{
  sources = [{{ name = "frontend", peer = "west", action = "{action}" }}]
}}
"#
    )
}

const EXPORT: &str = r#"
exported_services "default" {
  services = [{ name = "backend", consumers = [{ peer = "west" }] }]
}
"#;

fn exported(port: u16, action: &str) -> String {
    east(port, action) + EXPORT
}

fn west(local: u16) -> String {
    format!(
        r#"
service "frontend" {{
  port      = 9000
  upstreams = [{{ destination_name = "backend", destination_peer = "east", local_bind_port = {local} }}]
}}
"#
    )
}

/// Waits until west's upstream answers: the link is up before its first connection is.
fn wait_answer(local: u16) {
    wait_for("the upstream answers", LIMIT, || (shout(local, "hello").ok()? == "HELLO").then_some(()));
}

#[test]
fn a_request_goes_through_and_half_of_a_connection_may_end_first() {
    let (backend, local) = (Server::shouting(), free_port());
    let mut clusters = Clusters::linked(&exported(backend.port(), "allow"), &west(local));
    wait_answer(local);
    let large = "tea ".repeat(1 << 20);
    assert!(shout(local, &large).unwrap() == large.to_uppercase());

    let listed = clusters.ask("west", &["service", "list"]);
    assert_eq!(listed[0]["upstreams"][0]["port"]["state"], "listening");
    // Neither side's restart needs anyone's help.
    clusters.east.restart();
    wait_answer(local);
    clusters.west.restart();
    wait_answer(local);
}

#[test]
fn a_crowd_that_arrives_at_once_is_carried_whole() {
    let (backend, local) = (Server::shouting(), free_port());
    let clusters = Clusters::linked(&exported(backend.port(), "allow"), &west(local));
    wait_answer(local);
    let west = clusters.west.pid().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)).unwrap();
    // More than are taken at one go wait by the time that the agent looks.
    kill_process(west, Signal::STOP).unwrap();
    let crowd: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut socket = TcpStream::connect(("127.0.0.1", local)).unwrap();
            socket.set_read_timeout(Some(LIMIT)).unwrap();
            socket.write_all(b"hello").unwrap();
            socket.shutdown(Shutdown::Write).unwrap();
            socket
        })
        .collect();
    kill_process(west, Signal::CONT).unwrap();
    for mut socket in crowd {
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "HELLO");
    }
}

#[test]
fn deny_refuses_the_next_connection_and_cuts_the_one_that_is_open() {
    let (backend, local) = (Server::echo(), free_port());
    let clusters = Clusters::linked(&exported(backend.port(), "allow"), &west(local));
    let mut open = wait_for("a connection through both agents", LIMIT, || {
        let mut socket = TcpStream::connect(("127.0.0.1", local)).ok()?;
        socket.set_read_timeout(Some(LIMIT)).ok()?;
        socket.write_all(b"ping").ok()?;
        let mut answer = [0; 4];
        socket.read_exact(&mut answer).ok()?;
        (&answer == b"ping").then_some(socket)
    });
    let explained =
        clusters.run(&["--remote", "east", "explain", "frontend@west", "backend", "--check"]).success();
    assert!(explained.stdout.contains("frontend@west → backend: allowed"), "{}", explained.stdout);
    assert!(explained.stdout.contains("manifest shop"), "{}", explained.stdout);

    clusters.declare("east", &exported(backend.port(), "deny"));
    clusters.apply().success();
    open.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    match open.read(&mut [0; 16]) {
        Ok(0) => {}
        Ok(_) => panic!("bytes came after the permit fell"),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
    }
    assert_eq!(shout(local, "hello").unwrap_or_default(), "");
    let explained =
        clusters.run(&["--remote", "east", "explain", "frontend@west", "backend", "--check"]).exits(1);
    assert!(explained.stdout.contains("denied"), "{}", explained.stdout);
    // Each side's log says what happened, and what the peer hears is one word.
    assert!(clusters.east.log().contains("connection cut"));
    assert!(clusters.west.log().contains("denied"));

    clusters.declare("east", &exported(backend.port(), "allow"));
    clusters.apply().success();
    wait_for("allowed again", LIMIT, || (shout(local, "hello").ok()? == "hello").then_some(()));
}

#[test]
fn what_is_not_exported_cannot_be_reached_however_it_is_allowed() {
    let (backend, local) = (Server::shouting(), free_port());
    let declared = east(backend.port(), "allow");
    let clusters = Clusters::linked(&declared, &west(local));
    wait_for("the upstream listens", LIMIT, || TcpStream::connect(("127.0.0.1", local)).ok());
    assert_eq!(shout(local, "hello").unwrap_or_default(), "");
    wait_for("east says why", LIMIT, || {
        clusters.east.log().contains("the service is not exported to the link").then_some(())
    });
}
