//! Peerings by Consul's API and by our own commands: one link under two names, whose tokens and states tell the truth.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use integration::{Agent, Answer, Clusters, Consul, LIMIT, Operator, free_port, wait_for};
use serde_json::{Value, json};

/// Two agents that know nothing of each other, and their administrators.
struct World {
    east: Agent,
    west: Agent,
    at_east: Consul,
    at_west: Consul,
}

impl World {
    fn start() -> Self {
        let (mut east, mut west) = (Agent::prepare("east"), Agent::prepare("west"));
        east.launch();
        west.launch();
        east.wait_ready();
        west.wait_ready();
        let (at_east, at_west) = (Consul::socket(&east), Consul::socket(&west));
        Self { east, west, at_east, at_west }
    }

    /// East's peering with west, made and ACTIVE on both sides.
    fn peered() -> Self {
        let world = Self::start();
        world.establish(&world.token()).expect(200);
        world.are_active();
        world
    }

    /// A token of east for west.
    #[track_caller]
    fn token(&self) -> String {
        token(&self.at_east.post("/v1/peering/token", &json!({ "PeerName": "west" })))
    }

    /// West redeems it.
    #[track_caller]
    fn establish(&self, token: &str) -> Answer {
        self.at_west.post("/v1/peering/establish", &json!({ "PeerName": "east", "PeeringToken": token }))
    }

    #[track_caller]
    fn are_active(&self) {
        wait_state(&self.at_east, "west", "ACTIVE");
        wait_state(&self.at_west, "east", "ACTIVE");
    }
}

#[track_caller]
fn token(answer: &Answer) -> String {
    let answer = answer.clone().expect(200).json();
    answer["PeeringToken"].as_str().expect("a token").to_owned()
}

#[track_caller]
fn read(consul: &Consul, name: &str) -> Value {
    consul.get(&format!("/v1/peering/{name}")).expect(200).json()
}

#[track_caller]
fn wait_state(consul: &Consul, name: &str, state: &str) {
    wait_for(&format!("{name} is {state}"), LIMIT, || (read(consul, name)["State"] == state).then_some(()));
}

fn content(token: &str) -> Value {
    serde_json::from_slice(&STANDARD.decode(token).expect("base64")).expect("JSON")
}

#[test]
fn a_peering_is_shown_by_both_sides_with_what_each_knows() {
    let world = World::start();
    let body = json!({ "PeerName": "west", "Meta": { "env": "prod" } });
    let text = token(&world.at_east.post("/v1/peering/token", &body));
    let waiting = read(&world.at_east, "west");
    assert_eq!(waiting["State"], "PENDING");
    assert_eq!(waiting["Meta"], json!({ "env": "prod" }));
    assert_eq!(waiting["StreamStatus"]["LastHeartbeat"], Value::Null);
    for absent in ["PeerID", "PeerCAPems", "PeerServerName", "PeerServerAddresses", "DeletedAt"] {
        assert!(waiting.get(absent).is_none(), "{absent} in {waiting}");
    }
    let before = world.at_east.get("/v1/peerings").expect(200);
    world.establish(&text).expect(200);
    // A query that waits hears of it.
    let after = world.at_east.after("/v1/peerings", before.index()).expect(200);
    assert!(after.index() > before.index() && after.body != before.body);
    world.are_active();

    let (issuer, dialler) = (read(&world.at_east, "west"), read(&world.at_west, "east"));
    let (said, pem) = (content(&text), std::fs::read_to_string(world.east.data_dir().join("cluster.crt")));
    assert_eq!((&dialler["PeerID"], &said["PeerID"]), (&issuer["ID"], &issuer["ID"]));
    assert_eq!(dialler["PeerServerAddresses"], said["ServerAddresses"]);
    assert_eq!(dialler["PeerServerName"], said["ServerName"]);
    assert_eq!(dialler["PeerCAPems"], json!([pem.expect("a certificate")]));
    assert_eq!(
        (&dialler["Remote"]["Datacenter"], &issuer["Remote"]["Datacenter"]),
        (&json!("east"), &json!("west"))
    );
    assert!(issuer.get("PeerID").is_none() && issuer.get("PeerServerAddresses").is_none(), "{issuer}");
    for peering in [&issuer, &dialler] {
        for time in ["LastReceive", "LastSend"] {
            assert!(peering["StreamStatus"][time].is_string(), "{time} in {peering}");
        }
        assert!(!peering.to_string().contains(said["EstablishmentSecret"].as_str().expect("a secret")));
    }
    // Names are looked up in lower case too, as Consul has it.
    assert_eq!(read(&world.at_east, "WEST")["ID"], issuer["ID"]);
    // The other vocabulary, and its free keys.
    let operator = Operator::new();
    let shown = operator.run_on(&world.east, &["link", "show", "west"]).success().stdout;
    assert!(shown.contains("user.env: prod"), "{shown}");
    let listed = operator.run_on(&world.west, &["peering", "list"]).success().stdout;
    assert_eq!(listed.lines().next(), Some("Name  State   Imported Svcs  Exported Svcs  Meta"), "{listed}");
    assert!(listed.contains("east  ACTIVE  0              0"), "{listed}");
}

#[test]
fn a_token_that_is_not_good_leaves_nothing() {
    let world = World::start();
    let old = world.token();
    let newer = world.token();
    let used = "a new peering token must be generated: invalid peering establishment secret";
    world.establish(&old).says(403, used);
    world.at_west.get("/v1/peering/east").says(404, "Peering not found for \"east\"");
    assert_eq!(world.at_west.get("/v1/peerings").expect(200).json(), json!([]));
    // Nobody answers where it says.
    let mut nowhere = content(&newer);
    let address = format!("127.0.0.1:{}", free_port());
    nowhere["ServerAddresses"] = json!([address]);
    nowhere["addresses"] = json!([address]);
    let nowhere = STANDARD.encode(nowhere.to_string());
    let tried = format!("failed to exchange peering secret through address \"{address}\": ");
    world.establish(&nowhere).says(500, &tried);
    world.at_west.get("/v1/peering/east").expect(404);
    // One of another kind of cluster has nothing by which that one could be known.
    let mut foreign = content(&newer);
    foreign.as_object_mut().expect("an object").retain(|key, _| key.starts_with(char::is_uppercase));
    world.establish(&STANDARD.encode(foreign.to_string())).says(500, "fingerprint");
    // Its own.
    let own = json!({ "PeerName": "me", "PeeringToken": newer });
    let own = world.at_east.post("/v1/peering/establish", &own);
    own.says(500, "cannot create a peering within the same cluster \"server.east.peering.");
    world.at_east.get("/v1/peering/me").expect(404);
    // None of that has used the token up.
    world.establish(&newer).expect(200);
    world.are_active();
    let again = json!({ "PeerName": "other", "PeeringToken": newer });
    world.at_west.post("/v1/peering/establish", &again).says(403, used);
    world.at_west.get("/v1/peering/other").expect(404);
    world.establish(&newer).says(403, used);
    world.are_active();
    let log = world.west.log();
    assert!(!log.contains(&newer) && !log.contains(content(&newer)["secret"].as_str().expect("a secret")));
}

#[test]
fn another_token_leaves_the_link_as_it_is_until_it_is_redeemed() {
    let world = World::peered();
    let first = read(&world.at_east, "west")["StreamStatus"]["LastReceive"].clone();
    let dropped = |agent: &Agent| agent.log().matches("the connection to the peer ended").count();
    let (unused, text) = (world.token(), world.token());
    assert_eq!(read(&world.at_east, "west")["State"], "ACTIVE");
    world.establish(&unused).expect(403);
    world.are_active();
    world.establish(&text).expect(200);
    world.are_active();
    assert_eq!((dropped(&world.east), dropped(&world.west)), (0, 0));
    assert!(read(&world.at_east, "west")["StreamStatus"]["LastReceive"].as_str() >= first.as_str());
    // Who redeemed a token issues none.
    let why = "cannot create peering with name: \"east\"; there is already an established peering";
    world.at_west.post("/v1/peering/token", &json!({ "PeerName": "east" })).says(500, why);
}

#[test]
fn a_peering_that_the_peer_has_deleted_is_established_again() {
    let world = World::peered();
    let operator = Operator::new();
    let deleted = operator.run_on(&world.east, &["peering", "delete", "-name", "west"]).success();
    assert_eq!(deleted.stdout.trim(), "Successfully submitted peering connection, west, for deletion");
    wait_state(&world.at_west, "east", "TERMINATED");
    wait_for("it is gone", LIMIT, || (world.at_east.get("/v1/peering/west").status == 404).then_some(()));
    // A token that is not good leaves it as it was.
    world.establish(&world.token().replace('=', "")[..40]).expect(500);
    let mut nowhere = content(&world.token());
    nowhere["addresses"] = json!([format!("127.0.0.1:{}", free_port())]);
    world.establish(&STANDARD.encode(nowhere.to_string())).expect(500);
    assert_eq!(read(&world.at_west, "east")["State"], "TERMINATED");

    world.establish(&world.token()).expect(200);
    world.are_active();
    // Deleting what is not there is no fault.
    for name in ["nobody", "No_Body", "a/b", "west"] {
        assert!(
            world
                .at_east
                .delete(&format!("/v1/peering/{}", name.replace('/', "%2F")))
                .expect(200)
                .body
                .is_empty()
        );
    }
}

#[test]
fn each_surface_takes_the_others_tokens_and_the_link_is_shown_by_both() {
    let world = World::start();
    let operator = Operator::new();
    let run = |agent: &Agent, arguments: &[&str]| operator.run_on(agent, arguments).success().stdout;
    // Ours, under a name that Consul's rules refuse.
    let made = run(&world.east, &["link", "create", "cluster_b", "--quiet"]);
    let ours = made.split_whitespace().find(|word| word.starts_with("eyJ")).expect("a token").to_owned();
    let body = json!({ "PeerName": "cluster_a", "PeeringToken": ours });
    world.at_west.post("/v1/peering/establish", &body).says(500, "is not a valid peer name");
    world.establish(&ours).expect(200);
    wait_state(&world.at_east, "cluster_b", "ACTIVE");
    assert!(run(&world.west, &["link", "list"]).contains("east"));
    run(&world.west, &["peering", "delete", "-name", "east"]);
    wait_state(&world.at_east, "cluster_b", "TERMINATED");
    run(&world.east, &["link", "delete", "cluster_b"]);

    // Consul's, redeemed by our command, and by ours that is called as Consul's is.
    let text = world.token();
    run(&world.west, &["link", "create", "east", "--token", &text]);
    world.are_active();
    run(&world.west, &["link", "delete", "east"]);
    wait_state(&world.at_east, "west", "TERMINATED");
    run(&world.east, &["peering", "delete", "-name", "west"]);
    wait_for("it is gone", LIMIT, || (world.at_east.get("/v1/peering/west").status == 404).then_some(()));
    let text = run(&world.east, &["peering", "generate-token", "-name", "west", "-meta", "env=prod"]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("token");
    std::fs::write(&file, &text).expect("a file");
    let file = file.display().to_string();
    let done = run(&world.west, &["peering", "establish", "-name", "east", "-peering-token-file", &file]);
    assert_eq!(done.trim(), "Successfully established peering connection with east");
    world.are_active();
    let shown = run(&world.east, &["peering", "read", "-name", "west"]);
    assert!(shown.contains("State:        ACTIVE\nMeta:\n    env=prod\n"), "{shown}");
    for (arguments, said) in [
        (&["peering", "read", "-name", "nobody"][..], "No peering with name nobody found."),
        (&["peering", "read"], "Missing the required -name flag"),
        (&["peering", "generate-token"], "Missing the required -name flag"),
        (&["peering", "establish", "-name", "x"], "Missing the required -peering-token flag"),
        (
            &["peering", "generate-token", "-name", "A_b"],
            "Error generating peering token for A_b: Unexpected response code: 500 (",
        ),
    ] {
        let failed = operator.run_on(&world.east, arguments).exits(1);
        assert!(failed.stderr.contains(said), "{}", failed.stderr);
    }
}

#[test]
fn what_a_manifest_declares_is_deleted_by_it_alone() {
    let clusters = Clusters::linked("", "");
    let east = Consul::socket(&clusters.east);
    assert_eq!(read(&east, "west")["State"], "ACTIVE");
    let refused = east.delete("/v1/peering/west");
    assert!(refused.status >= 400 && refused.text().contains("shop"), "{}", refused.text());
    wait_state(&east, "west", "ACTIVE");
}

#[test]
fn who_may_not_is_refused_and_nothing_is_told() {
    let world = World::start();
    let nobody = Consul::anonymous(&world.east);
    for (method, path) in
        [("GET", "/v1/peerings"), ("GET", "/v1/peering/west"), ("DELETE", "/v1/peering/west")]
    {
        nobody.send(method, path, &[], None).says(403, "Permission denied");
    }
    let viewer = Consul::bearer(&world.east, &Consul::token(&world.east, "viewer", &[("server", "viewer")]));
    viewer.post("/v1/peering/token", &json!({ "PeerName": "west" })).says(403, "Permission denied");
    world.at_east.get("/v1/peering/west").expect(404);
    world.token();
    assert_eq!(viewer.get("/v1/peerings").expect(200).json()[0]["Name"], "west");
    viewer.delete("/v1/peering/west").says(403, "Permission denied");
    let limited = Consul::token(&world.east, "limited", &[("server", "can_view_metrics")]);
    let limited = Consul::bearer(&world.east, &limited);
    assert_eq!(limited.get("/v1/peerings").expect(200).json(), json!([]));
    limited.get("/v1/peering/west").expect(403);
}
