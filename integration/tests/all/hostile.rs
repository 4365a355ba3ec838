//! Callers that do not behave: slow, large, many, or senseless. Each is refused or cut off, and nobody else waits.

use std::io::{BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use integration::http::read_answer;
use integration::{Agent, Http, LIMIT, wait_for};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

/// What a trusted caller may have to wait on a busy machine, while others misbehave.
const PROMPT: Duration = Duration::from_secs(3);
/// How often a slow sender sends its next byte.
const DRIP: Duration = Duration::from_millis(250);
const IDLE: usize = 3000;

/// Sends a byte now and then until the other side has hung up, and gives what it said. Fails after `LIMIT`.
fn trickle(mut stream: impl std::io::Read + std::io::Write, start: &str, what: &str) -> String {
    stream.write_all(start.as_bytes()).expect("the start is taken");
    let began = Instant::now();
    while began.elapsed() < LIMIT {
        // What a slow sender does is the one thing that takes a fixed time.
        thread::sleep(DRIP);
        if stream.write_all(b"x").and_then(|()| stream.flush()).is_err() {
            break;
        }
    }
    assert!(began.elapsed() < LIMIT, "{what}: still connected after {LIMIT:?}");
    let mut said = Vec::new();
    // What was said before the hanging up is still there to be read, or was lost with the reset.
    let _ = stream.read_to_end(&mut said);
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn slow_senders_are_cut_off_whoever_they_are_and_others_do_not_wait() {
    let agent = Agent::start("east");
    let trusted = Http::trusted(&agent);
    let head = "POST /1.0/certificates HTTP/1.1\r\nhost: x\r\n";
    let with_body = format!("{head}content-type: application/json\r\ncontent-length: 100000\r\n\r\n{{");
    thread::scope(|scope| {
        let mut slow = Vec::new();
        for who in [Http::anonymous(&agent), Http::stranger(&agent), trusted.clone()] {
            slow.push(scope.spawn(move || trickle(who.connect().expect("a connection"), head, "a head")));
        }
        let body = with_body.as_str();
        let stranger = Http::stranger(&agent);
        let cut = scope.spawn(move || trickle(stranger.connect().expect("a connection"), body, "a body"));
        let silent = TcpStream::connect(agent.address()).expect("a connection");
        slow.push(scope.spawn(move || {
            let mut silent = silent;
            silent.set_read_timeout(Some(LIMIT)).expect("a time limit");
            let mut byte = [0];
            assert!(!matches!(silent.read(&mut byte), Ok(1..)), "there is nothing to say to silence");
            String::new()
        }));
        while slow.iter().any(|sender| !sender.is_finished()) {
            let began = Instant::now();
            trusted.get("/1.0").expect(200);
            assert!(began.elapsed() < PROMPT, "a trusted caller waited {:?}", began.elapsed());
            thread::sleep(DRIP);
        }
        for sender in slow {
            sender.join().expect("the sender was cut off");
        }
        let said = cut.join().expect("the sender was cut off");
        // The answer is lost where the sender's next byte met a closed socket.
        assert!(said.is_empty() || said.contains("408") && said.contains("\"type\":\"error\""), "{said}");
    });
    assert!(agent.log().contains("status=408"), "the body that was cut off is logged as such");
}

#[test]
fn what_is_too_large_is_refused_in_the_surface_s_words() {
    let agent = Agent::start("east");
    let (trusted, stranger) = (Http::trusted(&agent), Http::stranger(&agent));
    let large = json!({ "name": "x".repeat(2 << 20) });
    trusted.post("/1.0/certificates", &large).refused(413, "");
    Http::socket(&agent).post("/1.0/certificates", &large).refused(413, "");
    stranger.post("/1.0/certificates", &json!({ "trust_token": "x".repeat(80 << 10) })).refused(413, "");
    let ours = trusted.post("/control/v1/links/west/token", &json!({ "plan": "x".repeat(2 << 20) }));
    assert_eq!((ours.status, ours.json()["code"].as_str()), (413, Some("too_large")));

    let long = "x".repeat(100 << 10);
    assert_eq!(trusted.send("GET", "/1.0", &[("x-long", &long)], None).status, 431);
    let many: Vec<(String, String)> = (0..100).map(|n| (format!("x-{n}"), String::new())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    assert_eq!(trusted.send("GET", "/1.0", &many, None).status, 431);
    assert!(matches!(trusted.get(&format!("/1.0/{long}")).status, 414 | 431));
    trusted.get(&format!("/1.0/{}", "x".repeat(10 << 10))).refused(404, "Not Found");
    trusted.get("/1.0").expect(200);
}

#[test]
fn what_makes_no_sense_is_the_caller_s_fault() {
    let agent = Agent::start("east");
    let trusted = Http::trusted(&agent);
    let sent = |method: &str, path: &str, body: &str| trusted.send(method, path, &[], Some(body));
    trusted.get("/1.0/nonsense").refused(404, "Not Found");
    trusted.delete("/1.0/certificates").refused(501, "Not Implemented");
    trusted.send("BREW", "/1.0/certificates", &[], None).refused(404, "Method \"BREW\" not found");
    trusted.send("BREW", "/1.0/nonsense", &[], None).refused(404, "Method \"BREW\" not found");
    for body in [
        "",
        "{",
        "nonsense",
        "[]",
        "5",
        "null",
        "\"x\"",
        "{\"name\":5}",
        "{\"name\":{}}",
        "{\"projects\":\"x\"}",
    ] {
        for path in ["/1.0/certificates", "/1.0/cluster/links"] {
            let answer = sent("POST", path, body);
            assert_eq!(answer.status, 400, "{path} {body}: {}", String::from_utf8_lossy(&answer.body));
            answer.refused(400, "");
        }
    }
    let deep = "[".repeat(100_000);
    sent("POST", "/1.0/certificates", &deep).refused(400, "");
    sent("POST", "/1.0/certificates", &format!("{{\"name\":{deep}")).refused(400, "");
    let token = format!("{{\"token\":\"eyJ{}\"}}", "x".repeat(60));
    let told = sent("POST", "/1.0/certificates", &token).refused(400, "");
    assert!(!told.error().contains("eyJx"), "{}", told.error());
    // LXD's own clients do not all say what they send.
    let bare =
        "POST /1.0/certificates HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}";
    let mut stream = trusted.connect().expect("a connection");
    stream.write_all(bare.as_bytes()).expect("it is taken");
    let (status, _, body) = read_answer(&mut BufReader::new(stream)).expect("an answer");
    assert_eq!(status, 400, "{}", String::from_utf8_lossy(&body));
    assert!(!String::from_utf8_lossy(&body).contains("ontent"), "it is about the content, not its type");

    for path in [
        "/1.0/certificates/%00",
        "/1.0/certificates/%ff",
        "/1.0/cluster/links/a%2fb",
        "/1.0//",
        "/1.0/operations/x",
    ] {
        for method in ["GET", "DELETE", "PUT", "PATCH", "POST"] {
            let answer = trusted.send(method, path, &[], Some("{}"));
            assert!(
                (400..=501).contains(&answer.status) && answer.status != 500,
                "{method} {path}: {}",
                answer.status
            );
            assert_eq!(answer.json()["type"], "error", "{method} {path}");
        }
    }
    for garbage in [
        "\r\n\r\n\r\nx",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    ] {
        let mut stream = trusted.connect().expect("a connection");
        stream.write_all(garbage.as_bytes()).expect("it is taken");
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        assert!(
            said.is_empty() || said.starts_with(b"HTTP/1.1 400"),
            "{garbage:?}: {}",
            String::from_utf8_lossy(&said)
        );
    }
    assert!(!agent.log().contains("panicked"), "{}", agent.log());
}

#[test]
fn thousands_who_connect_and_say_nothing_shut_nobody_out() {
    raise_descriptors();
    let agent = Agent::start("east");
    let trusted = Http::trusted(&agent);
    let mut kept = trusted.connect().expect("a connection");
    let mut ask_kept = || {
        kept.write_all(b"GET /1.0 HTTP/1.1\r\nhost: x\r\n\r\n").expect("the connection lives");
        let (status, _, _) = read_answer(&mut BufReader::new(&mut kept)).expect("an answer");
        assert_eq!(status, 200);
    };
    ask_kept();
    let mut idle = Vec::with_capacity(IDLE);
    let mut slowest = Duration::ZERO;
    for count in 0..IDLE {
        idle.push(TcpStream::connect(agent.address()).expect("the listener takes connections"));
        if count % 100 == 0 {
            let began = Instant::now();
            trusted.get("/1.0").expect(200);
            slowest = slowest.max(began.elapsed());
            ask_kept();
        }
    }
    assert!(slowest < PROMPT, "a trusted caller waited {slowest:?}");
    // The oldest have gone to make room, the newest have not.
    let gone = |stream: &mut TcpStream| {
        stream.set_nonblocking(true).expect("a socket");
        !matches!(stream.read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    };
    wait_for("the oldest is gone", LIMIT, || gone(&mut idle[0]).then_some(()));
    assert!(!gone(idle.last_mut().expect("there are some")));
    ask_kept();
    trusted.get("/1.0").expect(200);
    agent_is_small(&agent);
}

/// What so many connections cost must stay far below what would hurt a small machine.
fn agent_is_small(agent: &Agent) {
    let resident = integration::measure::memory_mib(agent.pid().expect("it runs"), "VmRSS").expect("it runs");
    assert!(resident < 256.0, "{resident} MiB");
}

fn raise_descriptors() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("the soft limit may rise");
}
