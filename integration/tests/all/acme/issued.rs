//! An ACME server that proves nothing and issues what no client would take, or only what it is asked for politely.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::net::TcpStream;
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use integration::{Agent, Server};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, IsCa, Issuer, KeyPair,
    SanType,
};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use super::{DOMAIN, set, status, wait_acme, wait_shown};

/// At each path it issues in another way.
fn authority() -> Server {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::<String>::new()).expect("no names");
    params.distinguished_name.push(DnType::CommonName, "An authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let own = params.self_signed(&key).expect("a certificate").pem();
    let issuer = Issuer::new(params, key);
    let issued = Mutex::new(HashMap::new());
    Server::scripted(move |head, body, socket| {
        let path = head.split_whitespace().nth(1).unwrap_or_default();
        let host = head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
        let (way, what) = path.trim_start_matches('/').split_once('/').unwrap_or_default();
        let url = |what: &str| format!("http://{host}/{way}/{what}");
        let order = |state: &str| {
            let certificate = (state == "valid").then(|| url("certificate"));
            json!({ "status": state, "authorizations": [], "finalize": url("finalize"), "certificate": certificate })
        };
        let mut issued = issued.lock().unwrap_or_else(PoisonError::into_inner);
        let (status, text) = match what {
            "dir" => {
                let directory = json!({ "newNonce": url("nonce"), "newAccount": url("account"), "newOrder": url("new-order") });
                (200, directory.to_string())
            }
            "nonce" => (200, String::new()),
            "account" => (201, "{}".to_owned()),
            "new-order" => (201, order("ready").to_string()),
            "order" => (200, order("valid").to_string()),
            "finalize" => match issue(way, &request_in(body), &issuer) {
                Ok(pem) => {
                    issued.insert(way.to_owned(), format!("{pem}{own}"));
                    (200, order("valid").to_string())
                }
                Err(detail) => {
                    let problem = json!({ "type": "urn:ietf:params:acme:error:badCSR", "detail": detail });
                    (400, problem.to_string())
                }
            },
            "certificate" => (200, issued.get(way).cloned().unwrap_or_default()),
            _ => (404, "{}".to_owned()),
        };
        drop(issued);
        let location = if what == "new-order" { url("order") } else { url("account") };
        answer(socket, status, &location, &text)
    })
}

fn answer(socket: &mut TcpStream, status: u16, location: &str, text: &str) -> io::Result<()> {
    let length = text.len();
    write!(
        socket,
        "HTTP/1.1 {status} So\r\nconnection: close\r\nreplay-nonce: bm9uY2U\r\nlocation: {location}\r\n\
         content-length: {length}\r\n\r\n{text}"
    )
}

/// The signing request, DER, in the signed body of a request to finalize.
fn request_in(body: &[u8]) -> Vec<u8> {
    let signed: Value = serde_json::from_slice(body).expect("a signed body");
    let decode = |value: &Value| URL_SAFE_NO_PAD.decode(value.as_str().expect("a text")).expect("base64");
    let payload: Value = serde_json::from_slice(&decode(&signed["payload"])).expect("a payload");
    decode(&payload["csr"])
}

fn issue(way: &str, request: &[u8], issuer: &Issuer<'_, KeyPair>) -> Result<String, &'static str> {
    let mut request = CertificateSigningRequestParams::from_der(&request.into()).expect("a signing request");
    if way == "small" && request.public_key.algorithm() == &rcgen::PKCS_ECDSA_P384_SHA384 {
        return Err("keys on P-384 are not taken");
    }
    let now = OffsetDateTime::now_utc();
    let hours = |from: i64, until: i64| (now + Duration::hours(from), now + Duration::hours(until));
    let (from, until) = match way {
        // As a machine sees it whose clock is ahead, or behind.
        "over" => hours(-2, -1),
        "early" => hours(1, 2),
        _ => hours(-1, 24 * 90),
    };
    (request.params.not_before, request.params.not_after) = (from, until);
    if way == "other-name" {
        request.params.subject_alt_names =
            vec![SanType::DnsName("other.example".try_into().expect("a name"))];
    }
    if way == "other-key" {
        let key = KeyPair::generate().expect("a key");
        return Ok(request.params.signed_by(&key, issuer).expect("a certificate").pem());
    }
    if way == "no-pem" {
        return Ok("<html>".to_owned());
    }
    Ok(request.signed_by(issuer).expect("a certificate").pem())
}

#[test]
fn what_is_issued_is_looked_at_before_anybody_is_shown_it() {
    let (server, east) = (authority(), Agent::start("east"));
    let url = |way: &str| format!("acme.ca_url=http://127.0.0.1:{}/{way}/dir", server.port());
    let domain = format!("acme.domain={DOMAIN}");
    // One that takes no key on P-384 gets another.
    set(&east, &["acme.email=ops@east.example", "acme.agree_tos=true", &domain, &url("small")]);
    let good = wait_shown(&east, "");
    assert!(east.log().contains("a P-256 key is used"), "{}", east.log());
    let shown = status(&east)["server_certificate"].clone();
    assert_eq!((&shown["names"], &shown["origin"]), (&json!([DOMAIN]), &json!("acme")));
    assert!(shown["issuer"].as_str().unwrap_or_default().contains("An authority"), "{shown:#}");
    let pem = || std::fs::read_to_string(east.data_dir().join("server.crt")).expect("a certificate");
    let kept = pem();
    assert_eq!(kept.matches("BEGIN CERTIFICATE").count(), 2, "with its chain");

    for (way, said) in [
        ("over", "is the clock right?"),
        ("early", "is the clock right?"),
        ("other-name", "it names other.example, not east.example"),
        ("other-key", "its key is not the one that was asked for"),
        ("no-pem", "it is no chain of certificates in PEM"),
    ] {
        set(&east, &[&url(way)]);
        let acme = wait_acme(&east, said, |acme| {
            let here = acme["directory"].as_str().unwrap_or_default().contains(&format!("/{way}/"));
            here && acme["state"] == "failing"
        });
        let message = acme["last_error"]["message"].as_str().unwrap_or_default();
        assert!(
            message.contains("what the ACME server issued is not used") && message.contains(said),
            "{message}"
        );
        assert_eq!(
            (status(&east)["server_fingerprint"].as_str(), pem()),
            (Some(good.as_str()), kept.clone())
        );
    }
    // Back at the first, what is shown is what is wanted: nobody is asked.
    set(&east, &[&url("small")]);
    let waiting = wait_acme(&east, "it waits", |acme| acme["state"] == "waiting");
    assert!(waiting["last_error"].is_null(), "{waiting:#}");
    assert_eq!(status(&east)["server_fingerprint"], good.as_str());
}
