//! `comity link rotate` from outside: peers that are there, peers that are away, forged proofs, and kills on the way.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use agent::task::Tasks;
use agent::trust::certificate::KeyPair;
use agent::trust::succession::{Chain, Succession};
use agent::tunnel::{Incoming, Router, Session, dial, frame};
use agent::wire::link::{Refusal, StreamAnswer, StreamHeader};
use futures::future::BoxFuture;

use integration::{Agent, Clusters, LIMIT, Operator, wait_for};
use serde_json::Value;

/// The fingerprint of the certificate that an agent shows to whoever connects, as openssl sees it.
fn shown(agent: &Agent) -> String {
    let script = format!(
        "openssl s_client -connect {} </dev/null 2>/dev/null | openssl x509 -noout -fingerprint -sha256",
        agent.address()
    );
    let done = Command::new("sh").args(["-c", &script]).output().expect("openssl runs");
    let text = String::from_utf8_lossy(&done.stdout);
    let (_, digits) = text.trim().split_once('=').expect("a fingerprint");
    digits.replace(':', "").to_ascii_lowercase()
}

fn fingerprint(clusters: &Clusters, agent: &Agent) -> String {
    let status = clusters.operator.run_on(agent, &["--format", "json", "status"]).success().json();
    status["fingerprint"].as_str().expect("a fingerprint").to_owned()
}

fn rotation(clusters: &Clusters, agent: &Agent) -> Value {
    clusters.operator.run_on(agent, &["--format", "json", "link", "rotate", "--status"]).success().json()
}

/// What `agent` says of the link, over its socket.
fn link(clusters: &Clusters, agent: &Agent, name: &str) -> Value {
    clusters.operator.run_on(agent, &["--format", "json", "link", "show", name]).json()
}

#[track_caller]
fn wait_both_active(clusters: &Clusters) {
    for (agent, name) in [(&clusters.east, "west"), (&clusters.west, "east")] {
        wait_for(&format!("link {name} of {} is ACTIVE", agent.name()), LIMIT, || {
            (link(clusters, agent, name)["state"] == "ACTIVE").then_some(())
        });
    }
}

#[track_caller]
fn wait_pinned(clusters: &Clusters, agent: &Agent, name: &str, fingerprint: &str) {
    wait_for(&format!("{} has pinned {fingerprint}", agent.name()), LIMIT, || {
        (link(clusters, agent, name)["peer_fingerprint"] == fingerprint).then_some(())
    });
}

/// A copy of an agent's key pair: what a thief would have.
fn stolen(clusters: &Clusters, agent: &Agent) -> (PathBuf, PathBuf) {
    let copy = |name: &str| {
        let to = clusters.path(&format!("{}-{name}", agent.name()));
        std::fs::copy(agent.data_dir().join(name), &to).expect("a copy");
        to
    };
    (copy("cluster.crt"), copy("cluster.key"))
}

/// Whether `agent` trusts who shows this pair.
fn trusts(agent: &Agent, (certificate, key): &(PathBuf, PathBuf)) -> bool {
    // A connection that is cut because the trust ends just now has no answer.
    let answer: Value = wait_for("an answer", LIMIT, || {
        let mut curl = Command::new("curl");
        curl.args(["-sk", "--cert"]).arg(certificate).arg("--key").arg(key);
        let done = curl.arg(format!("https://{}/1.0", agent.address())).output().expect("curl runs");
        serde_json::from_slice(&done.stdout).ok()
    });
    answer["metadata"]["auth"] == "trusted"
}

#[test]
fn with_the_peer_there_both_sides_go_over_and_the_old_key_opens_nothing() {
    let clusters = Clusters::linked("", "");
    let old = stolen(&clusters, &clusters.east);
    let before = fingerprint(&clusters, &clusters.east);
    assert_eq!(shown(&clusters.east), before);
    assert!(trusts(&clusters.west, &old));

    let done = clusters.operator.run_on(&clusters.east, &["link", "rotate"]).success();
    let after = fingerprint(&clusters, &clusters.east);
    assert!(done.stdout.contains(&format!("Cluster certificate renewed: {after}")), "{}", done.stdout);
    assert!(done.stderr.contains("lxc remote add"), "{}", done.stderr);
    assert_ne!(before, after);
    assert_eq!(shown(&clusters.east), after);
    wait_pinned(&clusters, &clusters.west, "east", &after);
    wait_both_active(&clusters);
    wait_for("the old key opens nothing at the peer", LIMIT, || {
        (!trusts(&clusters.west, &old)).then_some(())
    });
    assert!(trusts(&clusters.west, &stolen(&clusters, &clusters.east)));
    assert!(!clusters.east.data_dir().join("cluster.next.key").exists());
    let status = rotation(&clusters, &clusters.east);
    assert_eq!((&status["rotation"]["state"], &status["rotation"]["number"]), (&"done".into(), &1.into()));

    // The other side, and the first once more.
    clusters.operator.run_on(&clusters.west, &["link", "rotate"]).success();
    wait_both_active(&clusters);
    clusters.operator.run_on(&clusters.east, &["link", "rotate"]).success();
    wait_both_active(&clusters);
    assert_eq!(rotation(&clusters, &clusters.east)["rotation"]["number"], 2);
    clusters.run(&["plan", "east", "west", "--detailed-exitcode"]).success();
    let audit = std::fs::read_to_string(clusters.east.data_dir().join("audit.log")).expect("the audit log");
    let stages = ["asked", "decided", "in use"].map(|stage| format!("\"stage\":\"{stage}\""));
    assert!(stages.iter().all(|stage| audit.matches(stage.as_str()).count() == 2), "{audit}");
    assert!(audit.contains("cluster-link-repinned"), "{audit}");
}

/// West is away while east, which rotates, is the side that is dialled (it issued the token), and then the one that
/// dials.
#[test]
fn a_peer_that_was_away_takes_the_new_certificate_on_its_return_whoever_dials() {
    let mut clusters = Clusters::linked("", "");
    let dials = link(&clusters, &clusters.west, "east")["dials"].clone();
    assert_eq!(dials, "here", "the test is to cover both directions");

    clusters.west.kill9();
    let waiting = clusters.operator.run_on(&clusters.east, &["link", "rotate", "--wait", "300ms"]);
    assert_eq!(waiting.code, Some(1));
    assert!(waiting.stderr.contains("west must hear of it first"), "{}", waiting.stderr);
    let before = fingerprint(&clusters, &clusters.east);
    let status = rotation(&clusters, &clusters.east);
    assert_eq!(
        (&status["rotation"]["state"], &status["rotation"]["missing"][0]),
        (&"announced".into(), &"west".into())
    );
    clusters.operator.run_on(&clusters.east, &["link", "rotate", "--force"]).success();
    // Twice, so that the proof is a chain.
    clusters.operator.run_on(&clusters.east, &["link", "rotate", "--force"]).success();
    let after = fingerprint(&clusters, &clusters.east);
    assert_ne!(before, after);
    clusters.west.launch();
    clusters.west.wait_ready();
    wait_pinned(&clusters, &clusters.west, "east", &after);
    wait_both_active(&clusters);

    // West dials east: now it is west that rotates while east is away.
    clusters.east.kill9();
    clusters.operator.run_on(&clusters.west, &["link", "rotate", "--force"]).success();
    let after = fingerprint(&clusters, &clusters.west);
    clusters.east.launch();
    clusters.east.wait_ready();
    wait_pinned(&clusters, &clusters.east, "west", &after);
    wait_both_active(&clusters);
}

#[test]
fn remotes_and_tokens_that_are_out_follow_by_the_proof_and_lose_their_way_without_it() {
    let clusters = Clusters::start();
    let (east, operator) = (&clusters.east, &clusters.operator);
    let before = fingerprint(&clusters, east);
    let token = operator.run_on(east, &["trust", "add", "--name", "late", "--quiet"]).success().stdout;
    operator.run_on(east, &["link", "rotate"]).success();
    let after = fingerprint(&clusters, east);

    let asked = operator.run(&["--remote", "east", "status"]).success();
    assert!(asked.stderr.contains(&format!("{after} follows {before}")), "{}", asked.stderr);
    let asked = operator.run(&["--remote", "east", "status"]).success();
    assert_eq!(asked.stderr, "", "it is pinned");
    let late = Operator::new();
    late.run(&["remote", "add", "east", token.trim()]).success();
    late.run(&["--remote", "east", "status"]).success();

    // Over the network, so that the one who asks has to follow meanwhile.
    operator.run(&["--remote", "east", "link", "rotate", "--deadline", "1s"]).success();
    let refused = wait_for("the deadline has passed", LIMIT, || {
        let asked = late.run(&["--remote", "east", "status"]);
        // While the proof is good, nobody follows: the copy of the pin that is tried is put back.
        if asked.succeeded() {
            std::fs::write(late.config_dir().join("servercerts/east.crt"), pem(east, &after))
                .expect("the old pin");
            return None;
        }
        Some(asked)
    });
    let now = fingerprint(&clusters, east);
    assert!(refused.stderr.contains(&after) && refused.stderr.contains(&now), "{}", refused.stderr);
    operator.run(&["--remote", "east", "status"]).success();
}

/// The certificate `fingerprint`, from the proof that `agent` shows to anybody.
fn pem(agent: &Agent, fingerprint: &str) -> String {
    let url = format!("https://{}/control/v1/succession?from={fingerprint}", agent.address());
    let done = Command::new("curl").args(["-sk", &url]).output().expect("curl runs");
    let chain: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    chain["certificate"].as_str().expect("a certificate").to_owned()
}

#[test]
fn a_rotation_that_waits_goes_on_when_the_peer_is_back() {
    let mut clusters = Clusters::linked("", "");
    clusters.west.kill9();
    let before = fingerprint(&clusters, &clusters.east);
    assert_eq!(clusters.operator.run_on(&clusters.east, &["link", "rotate", "--wait", "0s"]).code, Some(1));
    clusters.east.restart();
    assert_eq!(fingerprint(&clusters, &clusters.east), before, "nobody has heard");
    clusters.west.launch();
    clusters.west.wait_ready();
    wait_for("the rotation is done", LIMIT, || {
        (rotation(&clusters, &clusters.east)["rotation"]["state"] == "done").then_some(())
    });
    assert_ne!(fingerprint(&clusters, &clusters.east), before);
    wait_both_active(&clusters);
}

#[test]
fn after_the_deadline_the_proof_is_refused_and_the_link_says_what_to_do() {
    let mut clusters = Clusters::linked("", "");
    clusters.west.kill9();
    clusters.operator.run_on(&clusters.east, &["link", "rotate", "--force", "--deadline", "1s"]).success();
    wait_for("the deadline has passed", LIMIT, || {
        let deadline = rotation(&clusters, &clusters.east)["rotation"]["deadline"].clone();
        let deadline: jiff::Timestamp = deadline.as_str()?.parse().ok()?;
        (jiff::Timestamp::now() > deadline).then_some(())
    });
    clusters.west.launch();
    clusters.west.wait_ready();
    wait_for("west says why", LIMIT, || {
        let reason = link(&clusters, &clusters.west, "east")["reason"].as_str()?.to_owned();
        (reason.contains("ended at") && reason.contains("make the link anew")).then_some(())
    });
    assert_ne!(
        link(&clusters, &clusters.west, "east")["peer_fingerprint"],
        fingerprint(&clusters, &clusters.east).as_str()
    );
}

#[test]
fn killed_at_any_step_it_ends_with_one_certificate_and_the_links_come_back() {
    for step in
        ["rotate-prepared", "rotate-announced", "rotate-decided", "rotate-half-installed", "rotate-installed"]
    {
        let mut clusters = Clusters::linked("", "");
        let old = stolen(&clusters, &clusters.east);
        let before = fingerprint(&clusters, &clusters.east);
        clusters.east.terminate();
        clusters.east.set_env("COMITY_CRASH_AT", step);
        clusters.east.launch();
        clusters.east.wait_ready();
        wait_both_active(&clusters);
        clusters.operator.run_on(&clusters.east, &["link", "rotate"]);
        clusters.east.wait_end();
        clusters.east.clear_env();
        clusters.east.launch();
        clusters.east.wait_ready();
        if step == "rotate-prepared" {
            assert_eq!(fingerprint(&clusters, &clusters.east), before, "{step}");
            assert!(!clusters.east.data_dir().join("cluster.next.key").exists());
        } else {
            wait_for("the rotation is done", LIMIT, || {
                (rotation(&clusters, &clusters.east)["rotation"]["state"] == "done").then_some(())
            });
            assert_ne!(fingerprint(&clusters, &clusters.east), before, "{step}");
            wait_for("the old key is refused", LIMIT, || (!trusts(&clusters.west, &old)).then_some(()));
        }
        wait_both_active(&clusters);
        assert_eq!(shown(&clusters.east), fingerprint(&clusters, &clusters.east), "{step}");
    }
}

#[test]
fn a_public_link_follows_too() {
    let mut clusters = Clusters::start();
    let before = fingerprint(&clusters, &clusters.east);
    let public = format!(
        "cluster_link \"seen\" {{\n  type = \"public\"\n  address = \"{}\"\n  fingerprint = \"{before}\"\n}}\n",
        clusters.east.address(),
    );
    clusters.write("west/seen.hcl", &format!("manifest \"seen\" {{\n  cluster = \"west\"\n}}\n{public}"));
    clusters.run(&["apply", "west", "--yes"]).success();
    wait_pinned(&clusters, &clusters.west, "seen", &before);
    clusters.operator.run_on(&clusters.east, &["link", "rotate"]).success();
    // The peer is looked at now and then, and at a start.
    clusters.west.restart();
    wait_pinned(&clusters, &clusters.west, "seen", &fingerprint(&clusters, &clusters.east));
}

/// Serves nothing.
struct Nothing;

impl Router for Nothing {
    fn route(&self, _: &Session, incoming: Incoming) -> BoxFuture<'static, ()> {
        Box::pin(incoming.refuse(Refusal::Unavailable, "nothing is served here"))
    }
}

/// Connects to `agent` as a linked cluster would, with this pair, and brings `chain`. Gives the answer.
fn bring(agent: &Agent, pin: &str, pair: &KeyPair, chain: &Chain) -> StreamAnswer {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (addresses, pin) = ([agent.address()], pin.parse().expect("a fingerprint"));
        let session = dial(&addresses, pin, pair, Arc::new(Nothing), &Tasks::new()).await.expect("a session");
        let mut stream = session.open(&StreamHeader::Succession).await.expect("a stream");
        frame::write(&mut stream, chain).await.expect("a proof is sent");
        frame::read(&mut stream).await.expect("an answer")
    })
}

#[test]
fn a_proof_by_another_key_is_refused_and_a_second_one_by_the_old_key_is_an_alarm() {
    let clusters = Clusters::linked("", "");
    let (old_certificate, old_key) = stolen(&clusters, &clusters.east);
    let old = KeyPair::load(&old_certificate, &old_key).expect("the old pair");
    let west = fingerprint(&clusters, &clusters.west);
    let [thief, stranger] = ["east", "north"].map(|name| KeyPair::generate(name, &[]).expect("a pair"));
    let now = jiff::Timestamp::now();
    let signed = |number, by: &KeyPair| {
        let until = now + jiff::SignedDuration::from_hours(1);
        Succession::sign(number, by, &thief.certificate, until, now).expect("a succession")
    };
    let refused = |step: Succession| {
        let chain = Chain { certificate: old.pem.clone(), steps: vec![step] };
        match bring(&clusters.west, &west, &thief, &chain) {
            StreamAnswer::Refused { message, .. } => message,
            StreamAnswer::Accepted => panic!("it was taken"),
        }
    };

    let mut forged = signed(1, &stranger);
    forged.from = old.fingerprint;
    assert!(refused(forged).contains("not signed by the key of certificate"));
    wait_both_active(&clusters);

    clusters.operator.run_on(&clusters.east, &["link", "rotate"]).success();
    let after = fingerprint(&clusters, &clusters.east);
    wait_pinned(&clusters, &clusters.west, "east", &after);
    assert!(refused(signed(1, &old)).contains("ALARM"));
    // What is in use was taken rightly, and stays; but it is said, there and in the log, until somebody has looked.
    wait_both_active(&clusters);
    wait_pinned(&clusters, &clusters.west, "east", &after);
    let note = link(&clusters, &clusters.west, "east")["note"].as_str().expect("a note").to_owned();
    assert!(note.contains("ALARM") && note.contains(&thief.fingerprint.to_string()), "{note}");
    let listed = clusters.operator.run_on(&clusters.west, &["link", "list"]).success();
    assert!(listed.stdout.contains("ALARM"), "{}", listed.stdout);
    assert!(clusters.west.log().contains("ALARM"));
}

#[test]
fn a_key_in_other_hands_is_given_up_with_every_link() {
    let clusters = Clusters::linked("", "");
    let old = stolen(&clusters, &clusters.east);
    let done =
        clusters.operator.run_on(&clusters.east, &["link", "rotate", "--compromised", "--yes"]).success();
    assert!(done.stderr.contains("exchange a new token"), "{}", done.stderr);
    assert!(!done.stderr.contains("NOT TOLD"), "{}", done.stderr);
    for (agent, name) in [(&clusters.east, "west"), (&clusters.west, "east")] {
        wait_for("the link is PENDING", LIMIT, || {
            (link(&clusters, agent, name)["state"] == "PENDING").then_some(())
        });
    }
    wait_for("west says why", LIMIT, || {
        link(&clusters, &clusters.west, "east")["reason"].as_str()?.contains("given up its key").then_some(())
    });
    assert!(!trusts(&clusters.west, &old));
    let reply = clusters.operator.run(&["--remote", "east", "status"]);
    assert_eq!(reply.code, Some(1));
    assert!(reply.stderr.contains("does not match"), "{}", reply.stderr);
}
