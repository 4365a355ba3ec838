//! A thousand node certificates: `integration/bench ca`.
//!
//! Made by a thousand runs of the command, by one run of it, and by OpenSSL doing the same work (a P-384 key, a request,
//! and a certificate signed by the same CA with the same extensions: three runs each). In rounds, in turn, so that what
//! else the machine does falls on all alike.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use integration::{Operator, binary, measure};
use serde_json::json;

const ROUNDS: u32 = 5;
const EACH: u32 = 200;
/// The goal for all of them, seconds.
const GOAL: f64 = 10.0;

fn main() {
    let operator = Operator::new();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    operator.run_in(folder, &["ca", "initialize", "mycluster"]).success();
    let extensions = "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth\n\
                      subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\nsubjectAltName=URI:urn:node\n";
    fs::write(folder.join("extensions"), extensions).expect("a file");
    let (mut runs, mut counted, mut openssl) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let out = format!("out-{round}");
        fs::create_dir(folder.join(&out)).expect("a folder");
        runs.push(timed(|| {
            for _ in 0..EACH {
                comity(folder, &["ca", "create-node-certificate", "-o", &out]);
            }
        }));
        let many = EACH.to_string();
        counted
            .push(timed(|| comity(folder, &["ca", "create-node-certificate", "-o", &out, "--count", &many])));
        openssl.push(timed(|| {
            for number in 0..EACH {
                by_openssl(folder, &format!("{out}/{number}"));
            }
        }));
        let made = fs::read_dir(folder.join(&out)).expect("a folder").count();
        assert_eq!(
            made,
            usize::try_from(EACH).expect("it fits") * 7,
            "two files of ours a piece, three of OpenSSL's"
        );
    }
    let all = |rounds: Vec<f64>| measure::median(rounds) * f64::from(ROUNDS);
    let (runs, counted, openssl) = (all(runs), all(counted), all(openssl));
    let report = json!({
        "bench": "ca",
        "build": measure::build(),
        "certificates": ROUNDS * EACH,
        "one_a_run": measure::beside(runs, GOAL, "s"),
        "one_run": measure::beside(counted, GOAL, "s"),
        "openssl": measure::alone(openssl, "s"),
        "openssl_to_one_a_run": measure::alone(openssl / runs, "times"),
        "openssl_to_one_run": measure::alone(openssl / counted, "times"),
    });
    println!("{report:#}");
}

fn timed(work: impl FnOnce()) -> f64 {
    let began = Instant::now();
    work();
    began.elapsed().as_secs_f64()
}

fn comity(folder: &Path, arguments: &[&str]) {
    run(folder, &binary::comity().display().to_string(), arguments);
}

fn by_openssl(folder: &Path, stem: &str) {
    let (key, request, certificate) = (format!("{stem}.key"), format!("{stem}.csr"), format!("{stem}.crt"));
    run(folder, "openssl", &["ecparam", "-name", "secp384r1", "-genkey", "-noout", "-out", &key]);
    run(
        folder,
        "openssl",
        &["req", "-new", "-key", &key, "-subj", "/CN=node-1/OU=cluster", "-out", &request],
    );
    let signed = [
        "x509",
        "-req",
        "-in",
        &request,
        "-CA",
        "cluster.crt",
        "-CAkey",
        "cluster.key",
        "-days",
        "7300",
        "-sha384",
        "-extfile",
        "extensions",
        "-out",
        &certificate,
    ];
    run(folder, "openssl", &signed);
}

fn run(folder: &Path, program: &str, arguments: &[&str]) {
    let status = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("the program starts");
    assert!(status.success(), "{program} {arguments:?}");
}
