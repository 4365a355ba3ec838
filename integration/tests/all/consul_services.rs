//! Services with several instances, as Consul's users register, check and find them.

use std::thread;
use std::time::Instant;

use integration::{Agent, Clusters, Consul, LIMIT, Operator, Server, free_port, shout, wait_for};
use serde_json::{Value, json};

fn register(consul: &Consul, id: &str, ttl: &str) {
    let body = json!({
        "Name": "web", "ID": id, "Port": 8080, "Tags": [id], "Meta": {"team": "a"},
        "Check": {"TTL": ttl, "Notes": "says so itself"},
    });
    let answer = consul.put("/v1/agent/service/register", &body).expect(200);
    assert_eq!(answer.text(), "");
}

fn ids(answer: &Value) -> Vec<String> {
    let rows = answer.as_array().unwrap_or_else(|| panic!("not a list: {answer}"));
    rows.iter().map(|row| row["Service"]["ID"].as_str().unwrap().to_owned()).collect()
}

fn passing(consul: &Consul) -> Vec<String> {
    ids(&consul.get("/v1/health/service/web?passing").expect(200).json())
}

#[test]
fn instances_are_found_by_their_health_which_a_waiting_query_follows() {
    let mut agent = Agent::start("east");
    let consul = Consul::socket(&agent);
    for id in ["web-1", "web-2", "web-3"] {
        register(&consul, id, "10m");
    }
    assert_eq!(passing(&consul), [""; 0], "none has said that it is well");
    for id in ["web-1", "web-2", "web-3"] {
        consul.curl("PUT", &format!("/v1/agent/check/pass/service:{id}"), "").expect(200);
    }
    assert_eq!(passing(&consul), ["web-1", "web-2", "web-3"]);
    assert_eq!(ids(&consul.get("/v1/health/service/web?tag=web-2").json()), ["web-2"]);
    let filter = "/v1/health/service/web?filter=Service.Meta.team%20%3D%3D%20%22b%22";
    assert_eq!(ids(&consul.get(filter).expect(200).json()), [""; 0]);

    // A query that waits is answered when one of them falls ill, and not by what is none of its business.
    let seen = consul.get("/v1/health/service/web").expect(200);
    let row = &seen.json()[0];
    assert_eq!((&row["Node"]["Node"], &row["Service"]["Port"]), (&json!("east"), &json!(8080)));
    let check = row["Checks"].as_array().unwrap().iter().find(|check| check["ServiceID"] == "web-1").unwrap();
    assert_eq!((&check["CheckID"], &check["Type"]), (&json!("service:web-1"), &json!("ttl")));
    let (waiting, from) = (consul.clone(), seen.index());
    let asked = thread::spawn(move || (waiting.after("/v1/health/service/web", from), Instant::now()));
    consul.put("/v1/agent/service/register", &json!({"Name": "other"})).expect(200);
    let fails = Instant::now();
    let update = json!({"Status": "critical", "Output": "out of memory"});
    consul.put("/v1/agent/check/update/service:web-2", &update).expect(200);
    let (answer, answered) = asked.join().unwrap();
    assert!(answered >= fails, "woken by another service");
    assert!(answer.index() > from);
    assert_eq!(passing(&consul), ["web-1", "web-3"]);
    let critical = consul.get("/v1/health/state/critical").expect(200).json();
    assert_eq!((critical.as_array().unwrap().len(), &critical[0]["Output"]), (1, &json!("out of memory")));
    consul.get("/v1/agent/health/service/name/web").says(503, "\"AggregatedStatus\":\"critical\"");
    consul.get("/v1/agent/health/service/id/web-1?format=text").says(200, "passing");

    // One that is silent runs out by itself.
    register(&consul, "web-3", "1s");
    consul.curl("PUT", "/v1/agent/check/pass/service:web-3?note=alive", "").expect(200);
    wait_for("web-3 runs out of time", LIMIT, || (passing(&consul) == ["web-1"]).then_some(()));
    consul.get("/v1/health/checks/web").says(200, "TTL expired (last output before timeout follows): alive");

    // Out of service for as long as somebody says, over a restart too; registrations stay, and begin critical.
    consul.curl("PUT", "/v1/agent/service/maintenance/web-1?enable=true&reason=disk", "").expect(200);
    assert_eq!(passing(&consul), [""; 0]);
    agent.restart();
    assert_eq!(ids(&consul.get("/v1/health/service/web").json()), ["web-1", "web-2", "web-3"]);
    consul.curl("PUT", "/v1/agent/check/pass/service:web-1", "").expect(200);
    consul.get("/v1/agent/health/service/id/web-1?format=text").says(503, "maintenance");
    consul.get("/v1/health/checks/web").says(200, "\"Notes\":\"disk\"");
    consul.curl("PUT", "/v1/agent/service/maintenance/web-1?enable=false", "").expect(200);
    assert_eq!(passing(&consul), ["web-1"]);

    for id in ["web-1", "web-2", "web-3", "other"] {
        consul.curl("PUT", &format!("/v1/agent/service/deregister/{id}"), "").expect(200);
    }
    assert_eq!(consul.get("/v1/agent/services").expect(200).json(), json!({}));
    assert_eq!(consul.get("/v1/catalog/services").expect(200).json(), json!({"consul": []}));
}

#[test]
fn bad_registrations_are_refused_in_consuls_words_and_change_nothing() {
    let agent = Agent::start("east");
    let consul = Consul::socket(&agent);
    let refused = |body: &str, status: u16, words: &str| {
        consul.curl("PUT", "/v1/agent/service/register", body).says(status, words);
    };
    refused("{", 400, "Request decode failed: unexpected EOF");
    refused(r#"{"Name":"a","Foo":1}"#, 400, "Request decode failed: json: unknown field \"Foo\"");
    refused(r#"{"ID":"a"}"#, 400, "Missing service name");
    refused(r#"{"Name":"a","Address":"0.0.0.0"}"#, 400, "Invalid service address");
    refused(r#"{"Name":"a","Check":{"Args":["x"],"Interval":"1s"}}"#, 400, "Invalid check: Script checks");
    let huge = format!(r#"{{"Name":"a","Tags":["{}"]}}"#, "x".repeat(100_000));
    refused(&huge, 413, "Request body too large");
    consul.curl("PUT", "/v1/agent/service/deregister/none", "").says(
        404,
        "Unknown service ID \"none\". Ensure that the service ID is passed, not the service name.",
    );
    consul.curl("PUT", "/v1/agent/check/pass/none", "").says(404, "Unknown check ID \"none\"");
    consul.curl("PUT", "/v1/agent/service/maintenance/none", "").says(400, "Missing value for enable");
    consul.get("/v1/health/service/a?passing=maybe").says(400, "Invalid value for ?passing");
    let both = "/v1/health/service/a?peer=west&sg=all";
    consul.get(both).says(400, "peer-name and sameness-group are mutually exclusive");
    consul.get("/v1/health/service/a?sg=all").says(404, "Sameness group not found: \"all\"");
    consul.get("/v1/agent/service/none").says(404, "unknown service ID: none");
    assert_eq!(consul.get("/v1/agent/services").expect(200).json(), json!({}));
}

const SHOP: &str = r#"
manifest "shop" { cluster = "east" }
service "web" {
  port = 80
}
service "web" {
  id     = "web-2"
  port   = 81
  checks = [{ id = "beat", ttl = "30s", status = "passing" }]
}
"#;

#[test]
fn a_manifests_instances_are_its_own() {
    let mut agent = Agent::start("east");
    let operator = Operator::new();
    operator.trusted_by(&agent);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shop.hcl");
    std::fs::write(&file, SHOP).unwrap();
    let path = file.to_str().unwrap();
    operator.run(&["apply", "--yes", path]).success();
    let again = operator.run(&["plan", path]).success();
    assert!(again.stdout.contains("No changes."), "{}", again.stdout);

    let consul = Consul::socket(&agent);
    let equal = json!({"Name": "web", "ID": "web-2", "Port": 81,
                       "Checks": [{"CheckID": "beat", "TTL": "30s", "Status": "passing"}]});
    consul.put("/v1/agent/service/register", &equal).expect(200);
    let other = json!({"Name": "web", "ID": "web-2", "Port": 82});
    let refused = consul.put("/v1/agent/service/register?replace-existing-checks", &other);
    refused.says(409, "belongs to manifest \"shop\"");
    consul.curl("PUT", "/v1/agent/service/deregister/web-2", "").says(409, "belongs to manifest \"shop\"");

    // By hand beside it, under an id that is free.
    let listed =
        operator.run(&["service", "register", "-name", "web", "-id", "web-3", "-port", "83"]).success();
    assert_eq!(listed.stdout, "Registered service: web\n");
    let taken = operator.run(&["service", "register", "-name", "api", "-id", "web-2"]).exits(1);
    assert!(taken.stderr.contains("Error registering service \"api\""), "{}", taken.stderr);
    agent.restart();
    let rows = operator.run(&["service", "list", "-f", "json"]).success();
    let rows: Value = serde_json::from_str(&rows.stdout).unwrap();
    let shown: Vec<_> = rows.as_array().unwrap().iter().map(|row| (&row["id"], &row["status"])).collect();
    let passing = json!("passing");
    assert_eq!(shown, [(&json!("web"), &passing), (&json!("web-2"), &passing), (&json!("web-3"), &passing)]);
    let gone = operator.run(&["services", "deregister", "-id", "web-3"]).success();
    assert_eq!(gone.stdout, "Deregistered service: web-3\n");
}

#[test]
fn connections_go_to_the_instances_that_are_well() {
    let (one, two, local) = (Server::shouting(), Server::shouting(), free_port());
    let east = format!(
        r#"
service "backend" {{
  port   = {}
  checks = [{{ id = "one", ttl = "10m" }}]
}}
service "backend" {{
  id     = "backend-2"
  port   = {}
  checks = [{{ id = "two", ttl = "10m" }}]
}}
service_intentions "backend" {{
  sources = [{{ name = "frontend", peer = "west", action = "allow" }}]
}}
exported_services "default" {{
  services = [{{ name = "backend", consumers = [{{ peer = "west" }}] }}]
}}
"#,
        one.port(),
        two.port()
    );
    let west = format!(
        r#"
service "frontend" {{
  upstreams = [{{ destination_name = "backend", destination_peer = "east", local_bind_port = {local} }}]
}}
"#
    );
    let clusters = Clusters::linked(&east, &west);
    let consul = Consul::socket(&clusters.east);
    let say = |word: &str, check: &str| {
        consul.curl("PUT", &format!("/v1/agent/check/{word}/{check}"), "").expect(200);
    };
    let answers = || shout(local, "hello").is_ok_and(|answer| answer == "HELLO");
    say("pass", "two");
    wait_for("the one that is well answers", LIMIT, || answers().then_some(()));
    for _ in 0..4 {
        assert!(answers(), "never to the one that is critical");
    }
    say("fail", "two");
    assert!(!answers(), "none is well");
    say("warn", "one");
    assert!(answers(), "one that warns is better than none");

    // West sees the same, as far as it was told.
    let there = Consul::socket(&clusters.west);
    let imported = || ids(&there.get("/v1/health/service/backend?peer=east&passing").expect(200).json());
    say("pass", "one");
    wait_for("west hears that it is well", LIMIT, || (imported() == ["backend"]).then_some(()));
    let all = there.get("/v1/health/service/backend?peer=east").expect(200).json();
    assert_eq!(all[0]["Node"]["PeerName"], "east");
    assert_eq!(all[0]["Checks"][0]["PeerName"], "east");
    let none = there.get("/v1/health/service/backend").expect(200).json();
    assert_eq!(none, json!([]), "imported ones are not among one's own");
}

/// Somebody who may only make services of his own cannot stop another's heartbeats by what he calls his checks.
#[test]
fn a_check_called_like_anothers_takes_nothing_from_it() {
    let (agent, port) = Consul::agent("east");
    let operator = Operator::new();
    let web = json!({ "Name": "web", "Port": 80, "Check": { "CheckID": "beat", "TTL": "1h" } });
    Consul::socket(&agent).put("/v1/agent/service/register", &web).expect(200);
    let maker = Consul::token(&agent, "maker", &[("server", "can_create_services")]);
    let maker = Consul::plain(port, &maker);
    let editor = Consul::token(&agent, "editor", &[]);
    operator
        .run_on(&agent, &["auth", "group", "permission", "add", "editor", "service", "web", "can_edit"])
        .success();
    let editor = Consul::plain(port, &editor);

    let evil = |check: &str| json!({ "Name": "evil", "Port": 1, "Check": { "CheckID": check, "TTL": "1h" } });
    let refused = maker.put("/v1/agent/service/register", &evil("service:web"));
    refused.says(400, "is what a check of another instance is called");
    maker.put("/v1/agent/service/register", &evil("beat")).expect(200);
    editor.curl("PUT", "/v1/agent/check/pass/beat", "").expect(200);
    let checks = editor.get("/v1/health/checks/web").expect(200).json();
    assert_eq!(checks[0]["Status"], "passing", "{checks}");
    // What one may not know of is not there, by whatever id it is asked for.
    maker.get("/v1/agent/service/web").says(404, "unknown service ID: web");
    maker.curl("PUT", "/v1/agent/service/deregister/web", "").says(404, "Unknown service ID");
    assert_eq!(maker.get("/v1/health/service/web").expect(200).json(), json!([]));

    // Rights on a service go by its name: they are there before it, and outlive its instances.
    Consul::socket(&agent).curl("PUT", "/v1/agent/service/deregister/web", "").expect(200);
    editor.put("/v1/agent/service/register", &web).expect(200);
}
