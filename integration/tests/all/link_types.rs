//! Links of every type, by plain requests with LXD's bodies, by the command line and by declarations.

use integration::http::Http;
use integration::{Agent, Clusters, LIMIT, Operator, wait_for};
use serde_json::{Value, json};

const LINKS: &str = "/1.0/cluster/links";

/// Agents `east` and `west`, each asked as its machine's administrator.
struct Pair {
    east: Agent,
    west: Agent,
}

impl Pair {
    fn start() -> Self {
        let (mut east, mut west) = (Agent::prepare("east"), Agent::prepare("west"));
        east.launch();
        west.launch();
        east.wait_ready();
        west.wait_ready();
        Self { east, west }
    }

    fn east(&self) -> Http {
        Http::socket(&self.east)
    }

    fn west(&self) -> Http {
        Http::socket(&self.west)
    }
}

fn metadata(answer: &integration::http::Answer) -> Value {
    answer.json()["metadata"].clone()
}

fn error(answer: &integration::http::Answer) -> String {
    answer.json()["error"].as_str().unwrap_or_default().to_owned()
}

/// A token object as `POST` answers it, as the text that is handed over.
fn token(answer: &integration::http::Answer) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(metadata(answer).to_string())
}

fn state(at: &Http, link: &str) -> Value {
    at.get(&format!("/control/v1/links/{link}")).json()["state"].clone()
}

#[track_caller]
fn reaches(at: &Http, link: &str, wanted: &str) {
    let mut last = Value::Null;
    wait_for(&format!("link {link} is {wanted}, not {last}"), LIMIT, || {
        last = state(at, link);
        (last == wanted).then_some(())
    });
}

#[test]
fn a_bidirectional_link_is_made_changed_renamed_and_deleted() {
    let pair = Pair::start();
    let (east, west) = (pair.east(), pair.west());
    let body =
        json!({"name": "west", "type": "bidirectional", "auth_groups": [], "config": {"user.site": "attic"}});
    let pending = east.post(LINKS, &body).expect(201);
    assert!(pending.header("location").is_some_and(|at| at.starts_with("/1.0/auth/identities/tls/")));
    assert_eq!(metadata(&pending)["type"], "Cluster link certificate");
    east.post(LINKS, &body).expect(409);
    east.get(&format!("{LINKS}/west/state")).expect(400);

    let token = token(&pending);
    // Whoever has the token may not make a client of himself with it.
    let cross = Http::stranger(&pair.east).post("/1.0/auth/identities/tls", &json!({"trust_token": token}));
    cross.expect(403);
    let made = json!({"name": "east", "type": "bidirectional", "trust_token": token, "auth_groups": []});
    west.post(LINKS, &made).expect(201);
    reaches(&east, "west", "ACTIVE");
    reaches(&west, "east", "ACTIVE");

    // The volatile key came with the activation, the free one stayed.
    let shown = east.get(&format!("{LINKS}/west")).expect(200);
    let config = metadata(&shown)["config"].clone();
    assert_eq!(config["user.site"], "attic");
    assert_eq!(config["volatile.addresses"], pair.west.address());
    wait_for("west was dialled back", LIMIT, || {
        let state = metadata(&east.get(&format!("{LINKS}/west/state")));
        (state["dial_back"]["result"] == "reached").then_some(())
    });
    for (at, link) in [(&east, "west"), (&west, "east")] {
        let members = metadata(&at.get(&format!("{LINKS}/{link}/state")).expect(200));
        assert_eq!(members["cluster_link_members"][0]["status"], "Active", "{members}");
    }

    let tag = shown.header("etag").expect("a tag").to_owned();
    let path = format!("{LINKS}/west");
    let put = |config: Value, tag: &str| {
        let body = json!({"description": "the other one", "config": config}).to_string();
        east.send("PUT", &path, &[("If-Match", tag)], Some(&body))
    };
    let moved = json!({"volatile.addresses": "99.99.99.99:8443"});
    assert_eq!(error(&put(moved, &tag).expect(400)), "Volatile configuration keys cannot be modified");
    let gone = json!({"user.site": "cellar"});
    assert_eq!(error(&put(gone, &tag).expect(400)), "Volatile configuration keys cannot be modified");
    let good = json!({"user.site": "cellar", "volatile.addresses": pair.west.address()});
    put(good.clone(), &tag).expect(200);
    assert!(error(&put(good, &tag).expect(412)).starts_with("ETag does not match: "));
    east.patch(&path, &json!({"config": {"user.more": "1"}})).expect(200);
    let shown = metadata(&east.get(&path));
    assert_eq!(
        (&shown["description"], &shown["config"]["user.more"]),
        (&json!("the other one"), &json!("1"))
    );
    let unknown = east.patch(&path, &json!({"confg": {}})).expect(400);
    assert!(error(&unknown).contains("did you mean \"config\""), "{}", error(&unknown));

    // The link works on under its new name; what speaks of a link keeps it from being renamed.
    east.post(&path, &json!({"name": "occident"})).expect(201);
    east.get(&path).expect(404);
    reaches(&east, "occident", "ACTIVE");
    reaches(&west, "east", "ACTIVE");

    east.delete(&format!("{LINKS}/occident")).expect(200);
    reaches(&west, "east", "TERMINATED");
}

#[test]
fn what_is_wrong_with_a_request_is_told_as_lxd_does() {
    let pair = Pair::start();
    let east = pair.east();
    for (body, status, says) in [
        (json!({"name": "x"}), 400, "type must be provided"),
        (json!({"name": "x", "type": "one-way"}), 400, "Unknown cluster link type"),
        (json!({"name": "link..bad", "type": "bidirectional"}), 400, "Invalid cluster link name"),
        (json!({"name": "x", "type": "public"}), 400, "Public cluster links require remote_address"),
        (json!({"name": "x", "type": "bidirectional", "remote_address": "h"}), 400, "remote address"),
        (
            json!({"name": "x", "type": "bidirectional", "config": {"foo": "1"}}),
            400,
            "configuration key \"foo\"",
        ),
        (
            json!({"name": "x", "type": "bidirectional", "trust_token": "nonsense"}),
            403,
            "Invalid trust token",
        ),
        (json!({"nmae": "x", "type": "bidirectional"}), 400, "did you mean \"name\""),
        (json!({"trust_token": "t", "type": "bidirectional"}), 400, "expected one of pending creation"),
    ] {
        let answer = east.post(LINKS, &body).expect(status);
        assert!(error(&answer).contains(says), "{body}: {}", error(&answer));
    }
    let stranger = Http::anonymous(&pair.east);
    assert_eq!(
        error(&stranger.post(LINKS, &json!({"type": "bidirectional"})).expect(403)),
        "Trust token required"
    );
    assert_eq!(metadata(&east.get(LINKS)), json!([]));
}

#[test]
fn a_caller_needs_a_token_of_the_side_that_is_called_and_trust_goes_one_way() {
    let pair = Pair::start();
    let (east, west) = (pair.east(), pair.west());
    // West is called: an identity in waiting, and no link.
    let pending = west.post(LINKS, &json!({"name": "caller", "type": "unidirectional"})).expect(201);
    assert_eq!(metadata(&west.get(LINKS)), json!([]));
    let made = json!({"name": "west", "type": "unidirectional", "trust_token": token(&pending)});
    east.post(LINKS, &made).expect(201);
    reaches(&east, "west", "ACTIVE");
    let shown = metadata(&east.get(&format!("{LINKS}/west")));
    assert_eq!(shown["config"]["volatile.addresses"], pair.west.address());
    let members = metadata(&east.get(&format!("{LINKS}/west/state")));
    assert_eq!(members["cluster_link_members"][0]["status"], "Active", "{members}");
    assert_eq!(metadata(&west.get(LINKS)), json!([]));

    // The token is used up, whoever else brings it.
    let again = Http::stranger(&pair.west)
        .post("/1.0/auth/identities/tls", &json!({"trust_token": made["trust_token"]}));
    again.expect(403);
    east.delete(&format!("{LINKS}/west")).expect(200);
    let pending = west.post(LINKS, &json!({"name": "again", "type": "unidirectional"})).expect(201);
    wait_for("west has forgotten the caller", LIMIT, || {
        let made = json!({"name": "west", "type": "unidirectional", "trust_token": token(&pending)});
        (east.post(LINKS, &made).status == 201).then_some(())
    });
    reaches(&east, "west", "ACTIVE");
}

#[test]
fn a_public_link_takes_two_calls_and_pins_what_was_looked_at() {
    let pair = Pair::start();
    let east = pair.east();
    let offer = json!({"name": "west", "type": "public", "remote_address": pair.west.address()});
    let offered = metadata(&east.post(LINKS, &offer).expect(200));
    let pending = metadata(&east.get(&format!("{LINKS}/west")));
    assert_eq!(pending["config"]["volatile.pending_address"], pair.west.address());
    // Asked again, and confirmed with another address: what was verified counts.
    east.post(LINKS, &offer).expect(200);
    let confirm = |certificate: &Value| json!({"name": "west", "type": "public", "remote_address": "other:1", "cluster_certificate": certificate});
    let own = std::fs::read_to_string(pair.east.data_dir().join("cluster.crt")).expect("a certificate");
    let wrong = east.post(LINKS, &confirm(&json!(own))).expect(400);
    assert!(error(&wrong).starts_with("Certificate does not match the certificate returned"));
    east.post(LINKS, &confirm(&offered["certificate"])).expect(201);
    reaches(&east, "west", "ACTIVE");
    let confirmed = "Cluster link \"west\" has already been confirmed";
    assert_eq!(error(&east.post(LINKS, &confirm(&offered["certificate"])).expect(409)), confirmed);
    assert_eq!(error(&east.post(LINKS, &offer).expect(409)), confirmed);
    let members = metadata(&east.get(&format!("{LINKS}/west/state")));
    let member = &members["cluster_link_members"][0];
    assert_eq!(
        (&member["status"], &member["address"]),
        (&json!("Unauthenticated"), &json!(pair.west.address()))
    );
}

#[test]
fn the_command_line_asks_before_it_pins_and_leaves_nothing_when_told_no() {
    let pair = Pair::start();
    let operator = Operator::new();
    let socket = pair.east.socket();
    let socket = socket.to_str().expect("temporary paths are UTF-8");
    let run = |arguments: &[&str], input: &str| {
        operator.run_with(std::path::Path::new("."), &[&["--socket", socket], arguments].concat(), input)
    };
    let address = pair.west.address();
    let create = ["link", "create", "west", "--public", "--remote-address", &address];
    for (input, says) in [
        ("n\n", "Remote cluster certificate NACKed by user"),
        ("", "Remote cluster certificate NACKed by user"),
        (
            &format!("{}\n", "ab".repeat(32)),
            "The provided fingerprint does not match the remote cluster certificate fingerprint",
        ),
    ] {
        let done = run(&create, input).exits(1);
        assert!(done.stderr.contains(says), "{}", done.stderr);
        assert_eq!(metadata(&pair.east().get(LINKS)), json!([]));
    }
    assert_eq!(run(&create, "what\ny\n").success().stdout, "Cluster link west created\n");
    assert!(
        run(&["link", "create", "x", "--unidirectional"], "").exits(64).stderr.contains("requires --token")
    );

    run(&["link", "set", "west", "user.site=attic"], "").success();
    assert_eq!(run(&["link", "get", "west", "user.site"], "").success().stdout, "attic\n");
    let shown = run(&["link", "show", "west"], "").success().stdout;
    let edited = shown.replace("attic", "cellar").replace("description: \"\"", "description: images");
    assert_eq!(
        run(&["cluster", "link", "edit", "west"], &edited).success().stdout,
        "Cluster link west updated\n"
    );
    run(&["link", "unset", "west", "user.site"], "").success();
    assert_eq!(run(&["link", "get", "west", "user.site"], "").success().stdout, "\n");
    assert_eq!(run(&["link", "get", "west", "description", "-p"], "").success().stdout, "images\n");
    let renamed = run(&["link", "rename", "west", "images"], "").success().stdout;
    assert_eq!(renamed, "Cluster link west renamed to images\n");
    assert!(run(&["link", "info", "images"], "").success().stdout.contains("UNAUTHENTICATED"));
    assert_eq!(run(&["link", "delete", "images"], "").success().stdout, "Cluster link images deleted\n");
}

#[test]
fn one_way_and_public_links_are_made_by_declarations_and_plan_to_nothing_afterwards() {
    let clusters = Clusters::start();
    let status = clusters.ask("west", &["status"]);
    let fingerprint = status["fingerprint"].as_str().expect("a fingerprint").to_owned();
    clusters.write(
        "east/shop.hcl",
        &format!(
            r#"
manifest "shop" {{
  cluster = "east"
}}
cluster_link "west" {{
  type = "unidirectional"
}}
cluster_link "images" {{
  type        = "public"
  address     = "{}"
  fingerprint = "{fingerprint}"
}}
"#,
            clusters.west.address()
        ),
    );
    clusters.write(
        "west/shop.hcl",
        r#"
manifest "shop" {
  cluster = "west"
}
auth_group "callers" {
  permissions = [{ entity_type = "server", entitlement = "can_view_metrics" }]
}
cluster_link "east" {
  type        = "unidirectional"
  auth_groups = ["callers"]
}
service "backend" {
  port = 9090
}
exported_services "default" {
  services = [{ name = "backend", consumers = [{ peer = "east" }] }]
}
"#,
    );
    // Alone, the calling side says what it lacks.
    let alone = clusters.run(&["plan", "east"]).exits(1);
    assert!(alone.stderr.contains("is the calling side of a unidirectional link"), "{}", alone.stderr);
    clusters.apply().success();
    clusters.wait_active();
    clusters.wait_state("east", "images", "ACTIVE");
    wait_for("east imports what west exports to it", LIMIT, || {
        (clusters.ask("east", &["service", "imported"])[0]["service"] == "backend").then_some(())
    });
    clusters.run(&["plan", "east", "west", "--detailed-exitcode"]).success();
    let owned = clusters.run(&["--remote", "east", "link", "rename", "west", "other"]).exits(1);
    assert!(owned.stderr.contains("manifest \"shop\""), "{}", owned.stderr);
}
