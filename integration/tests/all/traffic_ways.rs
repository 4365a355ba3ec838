//! The way of a connection, from outside: several destinations of one upstream, unix sockets and users, what an
//! instance is told of who calls, and that bytes arrive as they were sent.

use std::hash::{DefaultHasher, Hasher as _};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use integration::{Agent, Clusters, LIMIT, Server, free_port, own_only, shout, wait_for};

/// A destination's side: a service, and who may call it.
fn service(port: u16, action: &str) -> String {
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

/// The same, exported.
fn offering(port: u16, action: &str) -> String {
    service(port, action)
        + r#"
exported_services "default" {
  services = [{ name = "backend", consumers = [{ peer = "west" }] }]
}
"#
}

fn calling(upstreams: &str) -> String {
    format!("service \"frontend\" {{\n  port = 9000\n  upstreams = [{upstreams}]\n}}\n")
}

/// Which server answers at the upstream's port: its name.
fn who(local: u16) -> io::Result<String> {
    let mut socket = TcpStream::connect(("127.0.0.1", local))?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.write_all(b"GET / HTTP/1.1\r\nHost: backend\r\n\r\n")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(answer.rsplit("\r\n").next().unwrap_or_default().to_owned())
}

fn wait_who(local: u16, name: &str) {
    wait_for(&format!("{name} answers"), LIMIT, || (who(local).ok()? == name).then_some(()));
}

#[test]
fn an_upstream_falls_back_to_the_next_peer_and_comes_back() {
    let (east, north) = (Server::http("east"), Server::http("north"));
    let (local, group) = (free_port(), free_port());
    let mut clusters = Clusters::start();
    let mut third = Agent::start("north");
    clusters.operator.trusted_by(&third);
    clusters.declare("east", &offering(east.port(), "allow"));
    let manifest =
        |cluster: &str, rest: &str| format!("manifest \"shop\" {{\n  cluster = \"{cluster}\"\n}}\n{rest}");
    clusters.write(
        "north/shop.hcl",
        &manifest("north", &("cluster_link \"west\" {}\n".to_owned() + &offering(north.port(), "allow"))),
    );
    let upstreams = format!(
        r#"
    {{ destination_name = "backend", destination_peer = "east", failover = [{{ peer = "north" }}], local_bind_port = {local} }},
    {{ destination_name = "backend", sameness_group = "coast", local_bind_port = {group} }},
"#
    );
    let links = "cluster_link \"east\" {}\ncluster_link \"north\" {}\n\
        sameness_group \"coast\" {\n  members = [{ peer = \"north\" }, { peer = \"east\" }]\n}\n";
    clusters.write("west/shop.hcl", &manifest("west", &(links.to_owned() + &calling(&upstreams))));
    clusters.run(&["apply", "east", "west", "north", "--yes"]).success();
    wait_who(local, "east");
    wait_who(group, "north");

    // The peer is gone: new connections go to the next, and back once it is there again.
    clusters.east.kill9();
    wait_who(local, "north");
    assert_eq!(who(local).unwrap(), "north");
    clusters.east.launch();
    clusters.east.wait_ready();
    wait_who(local, "east");

    third.kill9();
    wait_who(group, "east");
    third.launch();
    third.wait_ready();
    wait_who(group, "north");

    // The peer is there and its instance is not.
    drop(east);
    wait_who(local, "north");
    assert_eq!(who(local).unwrap(), "north");

    // A denial is an answer: nothing is tried after it.
    let east = Server::http("east");
    clusters.declare("east", &offering(east.port(), "allow"));
    clusters.run(&["apply", "east", "--yes"]).success();
    wait_who(local, "east");
    clusters.declare("east", &offering(east.port(), "deny"));
    clusters.run(&["apply", "east", "--yes"]).success();
    wait_for("east denies", LIMIT, || {
        let answered = who(local).unwrap_or_default();
        assert_ne!(answered, "north", "carried elsewhere after a denial");
        answered.is_empty().then_some(())
    });
}

/// Sends `data` and its end, and gives a digest of all that comes back. `pause` is made between reads of the answer.
fn digest_back(port: u16, data: &[u8], chunk: usize, pause: Duration) -> (u64, usize) {
    let socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let mut reader = socket.try_clone().unwrap();
    let data = data.to_vec();
    let writer = std::thread::spawn(move || {
        let mut socket = socket;
        for piece in data.chunks(chunk) {
            socket.write_all(piece).unwrap();
        }
        socket.shutdown(Shutdown::Write).unwrap();
    });
    let (mut digest, mut total, mut buffer) = (DefaultHasher::new(), 0, vec![0; 64 * 1024]);
    loop {
        let read = reader.read(&mut buffer).expect("the answer ends and does not break");
        if read == 0 {
            break;
        }
        digest.write(&buffer[..read]);
        total += read;
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
    }
    writer.join().unwrap();
    (digest.finish(), total)
}

/// Bytes without a pattern that could hide a swap.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    })
    .take(length)
    .collect()
}

fn digest(data: &[u8]) -> (u64, usize) {
    let mut digest = DefaultHasher::new();
    digest.write(data);
    (digest.finish(), data.len())
}

#[test]
fn what_is_sent_arrives_whole_in_order_and_to_its_end_in_both_directions() {
    let (echo, here) = (Server::echo(), Server::echo());
    let (local, home, speaks) = (free_port(), free_port(), free_port());
    // Speaks first, and hears nothing until it has.
    let greeter = TcpListener::bind("127.0.0.1:0").unwrap();
    let greets = greeter.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for socket in greeter.incoming() {
            let Ok(mut socket) = socket else { return };
            let mut answer = String::new();
            let _ = socket
                .write_all(b"220 ready\r\n")
                .and_then(|()| socket.read_to_string(&mut answer))
                .and_then(|_| socket.write_all(b"221 bye\r\n"));
        }
    });
    let east = offering(echo.port(), "allow").replace(
        "services = [",
        "services = [\n    { name = \"greeter\", consumers = [{ peer = \"west\" }] },",
    ) + &format!(
        "service \"greeter\" {{\n  port = {greets}\n}}\nservice_intentions \"greeter\" {{\n  sources = [{{ name = \"frontend\", peer = \"west\", action = \"allow\" }}]\n}}\n"
    );
    let upstreams = format!(
        r#"
    {{ destination_name = "backend", destination_peer = "east", local_bind_port = {local} }},
    {{ destination_name = "greeter", destination_peer = "east", local_bind_port = {speaks} }},
    {{ destination_name = "here", local_bind_port = {home} }},
"#
    );
    let west = calling(&upstreams)
        + &format!("service \"here\" {{\n  port = {}\n}}\n", here.port())
        + "service_intentions \"here\" {\n  sources = [{ name = \"frontend\", action = \"allow\" }]\n}\n";
    let _clusters = Clusters::linked(&east, &west);
    wait_for("the upstream answers", LIMIT, || (shout(local, "hello").ok()? == "hello").then_some(()));
    // One that waits all the while, and still stands at the end.
    let mut idle = TcpStream::connect(("127.0.0.1", local)).unwrap();
    idle.set_read_timeout(Some(LIMIT)).unwrap();

    for port in [local, home] {
        let large = noise(24 << 20);
        assert_eq!(digest_back(port, &large, 1 << 20, Duration::ZERO), digest(&large), "large writes");
        let small = noise(4_000);
        assert_eq!(digest_back(port, &small, 1, Duration::ZERO), digest(&small), "tiny writes");
        let middle = noise(6 << 20);
        assert_eq!(
            digest_back(port, &middle, 100_000, Duration::from_millis(5)),
            digest(&middle),
            "a slow reader"
        );
        // Half of it ends at once.
        assert_eq!(digest_back(port, b"", 1, Duration::ZERO), digest(b""));
    }

    let mut socket = TcpStream::connect(("127.0.0.1", speaks)).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let mut greeting = [0; 11];
    socket.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"220 ready\r\n");
    socket.shutdown(Shutdown::Write).unwrap();
    let mut rest = String::new();
    socket.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "221 bye\r\n");

    idle.write_all(b"still here").unwrap();
    let mut answer = [0; 10];
    idle.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"still here");
}

/// An open connection that has carried a byte each way.
fn open(local: u16) -> TcpStream {
    wait_for("a connection through both agents", LIMIT, || {
        let mut socket = TcpStream::connect(("127.0.0.1", local)).ok()?;
        socket.set_read_timeout(Some(LIMIT)).ok()?;
        socket.write_all(b"x").ok()?;
        socket.read_exact(&mut [0]).ok()?;
        Some(socket)
    })
}

/// It is cut within a second, by a reset and not by an end.
fn is_reset(mut socket: TcpStream, why: &str) {
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    match socket.read(&mut [0; 16]) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
        other => panic!("{why}: {other:?}"),
    }
}

#[test]
fn whatever_ends_the_permit_resets_what_is_open_within_a_second() {
    let (backend, local) = (Server::echo(), free_port());
    let west = |local: u16| {
        calling(&format!(
            r#"{{ destination_name = "backend", destination_peer = "east", local_bind_port = {local} }}"#
        ))
    };
    let clusters = Clusters::linked(&offering(backend.port(), "allow"), &west(local));

    let before = open(local);
    clusters.declare("east", &offering(backend.port(), "deny"));
    clusters.apply().success();
    is_reset(before, "the intention denies");
    clusters.declare("east", &offering(backend.port(), "allow"));
    clusters.apply().success();

    let before = open(local);
    clusters.declare("east", &service(backend.port(), "allow"));
    clusters.apply().success();
    is_reset(before, "the export is revoked");
    clusters.declare("east", &offering(backend.port(), "allow"));
    clusters.apply().success();

    let before = open(local);
    clusters.declare("west", &west(free_port()));
    clusters.apply().success();
    is_reset(before, "the upstream leads elsewhere");
    clusters.declare("west", &west(local));
    clusters.apply().success();

    let before = open(local);
    let alone = format!(
        "manifest \"shop\" {{\n  cluster = \"east\"\n}}\nservice \"backend\" {{\n  port = {}\n}}\n",
        backend.port()
    );
    clusters.write("east/shop.hcl", &alone);
    clusters.run(&["apply", "east", "--yes"]).success();
    is_reset(before, "the link is gone");
}

#[test]
fn a_unix_socket_carries_and_only_the_users_that_are_named_get_through() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can be another user");
        return;
    }
    let nobody = 65_533;
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = folder.path().join("backend.sock");
    let (backend, local) = (Server::shouting(), free_port());
    let upstreams = format!(
        r#"
    {{ destination_name = "backend", local_bind_port = {local}, allowed_uids = [{nobody}] }},
    {{ destination_name = "backend", local_bind_socket_path = "{}", local_bind_socket_mode = "0666", allowed_uids = [{nobody}] }},
"#,
        path.display()
    );
    let declared = format!(
        "service \"backend\" {{\n  port = {}\n}}\nservice_intentions \"backend\" {{\n  sources = [{{ name = \"frontend\", action = \"allow\" }}]\n}}\n",
        backend.port()
    ) + &calling(&upstreams);
    let clusters = Clusters::linked("", &declared);
    wait_for("the socket is there", LIMIT, || path.exists().then_some(()));
    let listed = clusters.ask("west", &["service", "list"]);
    assert!(listed.to_string().contains(path.to_str().unwrap()), "{listed}");

    let as_user = |uid: u32, script: &str| {
        let done = Command::new("bash").args(["-c", script]).uid(uid).gid(uid).output().unwrap();
        String::from_utf8_lossy(&done.stdout).trim().to_owned()
    };
    let through = |uid: u32, to: &str| as_user(uid, &format!("printf hello | timeout 10 socat -t 10 - {to}"));
    let (tcp, unix) = (format!("TCP:127.0.0.1:{local}"), format!("UNIX-CONNECT:{}", path.display()));
    wait_for("nobody gets through", LIMIT, || (through(nobody, &tcp) == "HELLO").then_some(()));
    assert_eq!(through(nobody, &unix), "HELLO");
    assert_eq!(through(0, &tcp), "", "root is not named");
    assert_eq!(through(0, &unix), "", "root is not named");
    wait_for("the log names the user", LIMIT, || {
        clusters.west.log().contains("other users than 0").then_some(())
    });
    assert_eq!(UnixStream::connect(&path).unwrap().peer_addr().unwrap().as_pathname(), Some(path.as_path()));
}

/// A real reader of the PROXY protocol. Killed when dropped.
struct HaProxy {
    child: Child,
    _folder: tempfile::TempDir,
}

impl HaProxy {
    /// Answers every request with what the protocol's header said.
    fn telling(port: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("haproxy.cfg");
        let text = format!(
            "defaults\n  mode http\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n\
             frontend told\n  bind 127.0.0.1:{port} accept-proxy\n  \
             http-request return status 200 content-type text/plain lf-string \"%[src] %[src_port] %[fc_pp_authority]\"\n"
        );
        std::fs::write(&config, text).unwrap();
        let child = Command::new("haproxy")
            .arg("-db")
            .arg("-f")
            .arg(&config)
            .stdout(Stdio::null())
            .spawn()
            .expect("haproxy; integration/run installs what is needed");
        Self { child, _folder: folder }
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_real_proxy_behind_the_destination_hears_what_is_asked_for_and_no_peer_s_loopback() {
    if own_only() {
        return;
    }
    let (told, local) = (free_port(), free_port());
    let _haproxy = HaProxy::telling(told);
    wait_for("haproxy listens", LIMIT, || TcpStream::connect(("127.0.0.1", told)).ok());
    let east = offering(told, "allow")
        .replace(&format!("port = {told}"), &format!("port = {told}\n  proxy_protocol = \"v2\""));
    let west = calling(&format!(
        r#"{{ destination_name = "backend", destination_peer = "east", local_bind_port = {local} }}"#
    ));
    let _clusters = Clusters::linked(&east, &west);
    wait_for("haproxy answers through both agents", LIMIT, || {
        let mut socket = TcpStream::connect(("127.0.0.1", local)).ok()?;
        socket.set_read_timeout(Some(LIMIT)).ok()?;
        socket.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).ok()?;
        // `127.0.0.1` of another cluster is nobody here, and no address that this one might trust.
        // (HAProxy shows the port 0 as nothing.)
        let from = "0.0.0.0  backend";
        if answer.is_empty() {
            return None;
        }
        assert!(answer.ends_with(from), "{answer}, and not {from}");
        Some(())
    });
}
