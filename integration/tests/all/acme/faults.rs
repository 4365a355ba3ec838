//! ACME servers that are none, are down, say no, or say nothing.

use std::io::{self, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use integration::{Agent, LIMIT, Operator, Server, free_port};
use jiff::Timestamp;
use serde_json::Value;

use super::{set, status, wait_acme};

/// A server that has a fault at each path, and counts what is signed and sent to it.
fn faulty(signed: Arc<AtomicUsize>) -> Server {
    Server::scripted(move |head, _, socket| {
        let mut words = head.split_whitespace();
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let host = head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
        let (fault, what) = path.trim_start_matches('/').split_once('/').unwrap_or_default();
        match (method, fault, what) {
            ("get", "page", _) => answer(socket, "200 OK", "", "<html>Welcome</html>"),
            ("get", "down", _) => answer(socket, "503 Service Unavailable", "", "<html>Sorry</html>"),
            ("get", "elsewhere", _) => {
                answer(socket, "302 Found", "location: https://evil.example/dir\r\n", "")
            }
            ("get", "endless", _) => {
                socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
                loop {
                    socket.write_all(&[b'x'; 4096])?;
                }
            }
            // Until the other side has had enough.
            ("get", "silent", _) => io::copy(socket, &mut io::sink()).map(drop),
            ("get", _, "dir") => {
                let url = |what: &str| format!("http://{host}/{fault}/{what}");
                let directory = serde_json::json!({
                    "newNonce": url("nonce"), "newAccount": url("account"), "newOrder": url("order"),
                });
                answer(socket, "200 OK", "", &directory.to_string())
            }
            (_, _, "nonce") => answer(socket, "200 OK", "replay-nonce: bm9uY2U\r\n", ""),
            ("post", _, _) => {
                signed.fetch_add(1, Ordering::Relaxed);
                let (status, more, kind, detail) = match fault {
                    "limited" => ("429 No", "retry-after: 3600\r\n", "rateLimited", "too many certificates"),
                    "nonces" => ("400 No", "replay-nonce: bm9uY2U\r\n", "badNonce", "that was used"),
                    "terms" => ("403 No", "", "userActionRequired", "there are new terms"),
                    _ => ("500 No", "", "serverInternal", "oh dear"),
                };
                let kind = format!("urn:ietf:params:acme:error:{kind}");
                let problem = serde_json::json!({ "type": kind, "detail": detail });
                let more = format!("content-type: application/problem+json\r\n{more}");
                answer(socket, status, &more, &problem.to_string())
            }
            _ => answer(socket, "404 Not Found", "", ""),
        }
    })
}

fn answer(socket: &mut TcpStream, status: &str, more: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    write!(socket, "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n{more}\r\n{body}")
}

fn time(value: &Value) -> Timestamp {
    value.as_str().and_then(|at| at.parse().ok()).expect("a time")
}

fn seconds_until(acme: &Value) -> i64 {
    time(&acme["next_attempt"]).duration_since(Timestamp::now()).as_secs()
}

#[test]
fn each_fault_is_said_and_none_makes_a_loop_or_takes_anything_away() {
    let signed = Arc::new(AtomicUsize::new(0));
    let server = faulty(signed.clone());
    let mut east = Agent::start("east");
    let fingerprint = status(&east)["fingerprint"].clone();
    assert!(status(&east)["acme"].is_null(), "nobody has asked for one");

    // What is missing is named, and nobody is asked meanwhile.
    set(&east, &["acme.domain=east.example"]);
    let lacking = |key: &str| {
        let acme = wait_acme(&east, key, |acme| acme["note"].as_str().unwrap_or_default().contains(key));
        assert_eq!(acme["state"], "incomplete");
    };
    lacking("acme.email");
    let url = |fault: &str| format!("acme.ca_url=http://127.0.0.1:{}/{fault}/dir", server.port());
    set(&east, &["acme.email=ops@east.example", "acme.agree_tos=false", &url("broken")]);
    lacking("acme.agree_tos must be true");
    assert_eq!(signed.load(Ordering::Relaxed), 0);
    set(&east, &["acme.agree_tos=true"]);

    let nobody = format!("acme.ca_url=http://127.0.0.1:{}/dir", free_port());
    let untrusted = format!("acme.ca_url=https://{}/dir", east.address());
    for (setting, said, least, most) in [
        (url("broken"), "a fault of its own: oh dear (serverInternal)", 7, 10),
        (nobody, "could not be reached", 7, 10),
        (untrusted, "UnknownIssuer", 7, 10),
        (url("page"), "is acme.ca_url the address of a directory?", 7, 10),
        (url("down"), "status 503", 7, 10),
        (url("elsewhere"), "no redirect is followed", 7, 10),
        (url("endless"), "more than 1 MiB", 7, 10),
        (url("nonces"), "that was used (badNonce)", 7, 10),
        (url("terms"), "there are new terms (userActionRequired)", 224, 300),
        (url("limited"), "not to be asked again before", 3590, 3600),
    ] {
        set(&east, &[&setting]);
        let acme = wait_acme(&east, said, |acme| {
            acme["last_error"]["message"].as_str().is_some_and(|message| message.contains(said))
        });
        assert_eq!(acme["state"], "failing", "{acme:#}");
        let pause = time(&acme["next_attempt"]).duration_since(time(&acme["last_error"]["at"])).as_secs();
        assert!((least..=most).contains(&pause) || acme["failures"] != 1, "{setting}: {pause} s");
    }
    // The authority's word holds for whatever else is wanted of it.
    let asked = signed.load(Ordering::Relaxed);
    let least = 1 + 3 + 1 + 1;
    // On a machine that is so slow that one was tried again meanwhile, there are some more.
    assert!((least..2 * least).contains(&asked), "one each, and three tries with a nonce: {asked}");
    set(&east, &["acme.email=admin@east.example"]);
    let put_off = wait_acme(&east, "it waits", |acme| acme["failures"] == 0);
    assert!(seconds_until(&put_off) > 3400, "{put_off:#}");
    assert_eq!(signed.load(Ordering::Relaxed), asked);

    let told = Operator::new().run_on(&east, &["status"]).success().stdout;
    assert!(told.contains("too many certificates (rateLimited)"), "{told}");
    assert!(east.log().contains("no certificate was had"), "{}", east.log());
    let now = status(&east);
    assert_eq!(now["fingerprint"], fingerprint);
    assert!(now["server_fingerprint"].is_null() && !east.data_dir().join("acme-account.json").exists());

    // Nor does a start make it forget.
    east.restart();
    let put_off = wait_acme(&east, "it waits", |acme| acme["state"] == "waiting");
    assert!(seconds_until(&put_off) > 3400, "{put_off:#}");

    // One that says nothing holds up neither the settings nor the end.
    set(&east, &[&url("silent")]);
    wait_acme(&east, "it asks", |acme| acme["state"] == "asking");
    let began = std::time::Instant::now();
    assert!(east.terminate().success());
    assert!(began.elapsed() < LIMIT / 2, "{:?}", began.elapsed());
}
