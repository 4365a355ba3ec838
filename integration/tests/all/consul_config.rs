//! Config entries, intentions and exported services through Consul's API and the command: what is written is what is
//! read, by whomever, and nobody's part is lost.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use integration::{Agent, Consul, LIMIT, Operator, wait_for};
use serde_json::{Value, json};

fn intentions(destination: &str, sources: &[(&str, &str)]) -> Value {
    let sources: Vec<Value> =
        sources.iter().map(|(name, action)| json!({ "Name": name, "Action": action })).collect();
    json!({ "Kind": "service-intentions", "Name": destination, "Sources": sources })
}

fn sources(entry: &Value) -> Vec<String> {
    let rows = entry["Sources"].as_array().expect("sources");
    rows.iter()
        .map(|row| format!("{} {}", row["Name"].as_str().unwrap(), row["Action"].as_str().unwrap()))
        .collect()
}

#[test]
fn an_entry_goes_in_and_out_as_consul_has_it() {
    let agent = Agent::start("east");
    let consul = Consul::socket(&agent);
    assert_eq!(consul.get("/v1/config/service-intentions").expect(200).json(), json!([]));
    consul
        .get("/v1/config/service-intentions/web")
        .says(404, "Config entry not found for \"service-intentions\" / \"web\"");
    consul.get("/v1/config/nonsense").says(500, "invalid config entry kind: nonsense");
    consul.get("/v1/config/nonsense/x").says(500, "invalid config entry kind: nonsense");
    consul.delete("/v1/config/nonsense/x").says(400, "invalid config entry kind: nonsense");
    consul.delete("/v1/config/service-intentions").says(404, "Must provide both a kind and name to delete");
    assert_eq!(consul.get("/v1/config/mesh").expect(200).json(), json!([]));
    consul.get("/v1/config/mesh?filter=x").says(500, "filtering not supported for config entry kind=mesh");

    // Bad input: of form 400, of meaning 500.
    for (body, status, words) in [
        ("{", 400, "Request decoding failed: "),
        ("", 400, "Request decoding failed: EOF"),
        (r#"{"Name":"x"}"#, 400, "Payload does not contain a kind/Kind key at the top level"),
        (r#"{"Kind":"nope"}"#, 400, "invalid config entry kind: nope"),
        (r#"{"Kind":"service-intentions","Name":"x","Foo":1}"#, 400, "invalid config key \"Foo\""),
        (r#"{"Kind":"service-intentions","Name":"x"}"#, 500, "At least one source is required"),
        (r#"{"Kind":"exported-services","Name":"x"}"#, 500, "exported-services Name must be \"default\""),
        (
            r#"{"Kind":"service-defaults","Name":"x","Protocol":"blah"}"#,
            500,
            "invalid value for protocol: blah",
        ),
    ] {
        consul.send("PUT", "/v1/config", &[], Some(body)).says(status, words);
    }
    consul.put("/v1/config?cas=soon", &intentions("web", &[("a", "allow")])).says(500, "invalid syntax");

    // The guard, and what needs none.
    let one = intentions("web", &[("a", "allow"), ("*", "deny"), ("b", "deny")]);
    assert_eq!(consul.put("/v1/config?cas=7", &one).expect(200).json(), json!(false));
    assert_eq!(consul.put("/v1/config?cas=0", &one).expect(200).json(), json!(true));
    let read = consul.get("/v1/config/service-intentions/web").expect(200);
    let entry = read.json();
    assert_eq!(sources(&entry), ["a allow", "b deny", "* deny"]);
    assert_eq!(
        (&entry["Sources"][0]["Precedence"], &entry["Sources"][2]["Precedence"]),
        (&json!(9), &json!(8))
    );
    let index = entry["ModifyIndex"].as_u64().expect("an index");
    assert_eq!((read.index(), entry["Hash"].is_u64()), (index, true));
    assert_eq!(consul.put("/v1/config?cas=1", &entry).expect(200).json(), json!(true), "the same, sent back");
    assert_eq!(consul.get("/v1/config/service-intentions/web").expect(200).index(), index);
    let two = intentions("web", &[("a", "deny")]);
    assert_eq!(consul.put("/v1/config?cas=1", &two).expect(200).json(), json!(false));
    assert_eq!(consul.put(&format!("/v1/config?cas={index}"), &two).expect(200).json(), json!(true));

    // Whoever waits is told, of this entry and no other.
    let index = consul.get("/v1/config/service-intentions/web").expect(200).index();
    let waiting = consul.clone();
    let told = thread::spawn(move || waiting.after("/v1/config/service-intentions/web", index));
    consul.put("/v1/config", &intentions("web2", &[("a", "allow")])).expect(200);
    consul.put("/v1/config", &intentions("web", &[("c", "allow")])).expect(200);
    let told = told.join().expect("an answer").expect(200);
    assert_eq!(sources(&told.json()), ["c allow"]);
    assert!(told.index() > index);

    let index = told.index();
    assert_eq!(consul.delete("/v1/config/service-intentions/web?cas=1").expect(200).json(), json!(false));
    let right = format!("/v1/config/service-intentions/web?cas={index}");
    assert_eq!(consul.delete(&right).expect(200).json(), json!(true));
    assert_eq!(consul.delete(&right).expect(200).json(), json!(true), "what is not there is deleted");
    assert_eq!(consul.delete("/v1/config/service-intentions/web").expect(200).json(), json!({}));
    consul.get("/v1/config/service-intentions/web").expect(404);

    // All kinds at once, by name.
    consul
        .put("/v1/config", &json!({"Kind": "service-defaults", "Name": "web", "Protocol": "HTTP"}))
        .expect(200);
    let group = json!({"Kind": "sameness-group", "Name": "all", "Members": [{"Peer": "b"}, {"Peer": "a"}]});
    consul.put("/v1/config", &group).expect(200);
    consul
        .put("/v1/config", &json!({"Kind": "exported-services", "Name": "default", "Services": []}))
        .expect(200);
    let all = consul.get("/v1/config/").expect(200).json();
    let kinds: Vec<_> = all.as_array().unwrap().iter().map(|entry| entry["Kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["exported-services", "sameness-group", "service-defaults", "service-intentions"]);
    assert_eq!(all[2]["Protocol"], "http");
    let filtered = consul.get("/v1/config/service-defaults?filter=Protocol+%3D%3D+tcp").expect(200).json();
    assert_eq!(filtered, json!([]));

    // Permissions go where HTTP is spoken, both ways.
    let permitting = |name: &str| {
        json!({"Kind": "service-intentions", "Name": name,
            "Sources": [{"Name": "a", "Permissions": [{"Action": "allow", "HTTP": {"Methods": ["get"]}}]}]})
    };
    let words = "has protocol \"tcp\", which is incompatible with L7 intentions permissions";
    consul.put("/v1/config", &permitting("db")).says(500, words);
    consul.put("/v1/config", &permitting("web")).expect(200);
    consul.delete("/v1/config/service-defaults/web").says(500, words);
    let entry = consul.get("/v1/config/service-intentions/web").expect(200).json();
    assert_eq!(entry["Sources"][0]["Permissions"][0]["HTTP"]["Methods"], json!(["GET"]));
    assert_eq!(entry["Sources"][0].get("Action"), None);
}

#[test]
fn hcl_is_taken_as_curl_sends_it_where_it_still_can_be_read() {
    let agent = Agent::start("east");
    let consul = Consul::socket(&agent);
    let file = "Kind = \"service-intentions\"\nName = \"backend\"\n\nSources = [\n  {\n    Name   = \"frontend\"\n    \
                Peer   = \"west\"\n    Action = \"allow\"\n  }\n]\n";
    for body in [file.to_owned(), file.replace('\n', "")] {
        assert_eq!(consul.curl("PUT", "/v1/config", &body).expect(200).json(), json!(true));
    }
    let commented = "Kind = \"exported-services\"\nName = \"default\"\n## what peers see\nServices = []\n";
    consul.curl("PUT", "/v1/config", commented).expect(200);
    consul.curl("PUT", "/v1/config", &commented.replace('\n', "")).says(400, "--data-binary");
}

#[test]
fn the_parts_of_manifests_and_of_a_stock_client_live_beside_each_other() {
    let agent = Agent::start("east");
    let consul = Consul::socket(&agent);
    let operator = Operator::new();
    operator.trusted_by(&agent);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let declare = |team: &str, action: &str| {
        let text = format!(
            "manifest \"{team}\" {{ cluster = \"east\" }}\nservice_intentions \"backend\" {{\n  sources = [{{ name = \
             \"{team}\", action = \"{action}\" }}]\n}}\n"
        );
        let beneath = folder.path().join(team);
        std::fs::create_dir_all(&beneath).expect("a folder");
        std::fs::write(beneath.join("team.hcl"), text).expect("a file");
        operator.run_in(folder.path(), &["apply", team, "--yes"])
    };
    declare("shop", "allow").success();
    declare("ops", "deny").success();
    let entry = || consul.get("/v1/config/service-intentions/backend").expect(200).json();
    assert_eq!(sources(&entry()), ["ops deny", "shop allow"]);

    // A stock client adds its own, with and without naming theirs, and cannot change theirs.
    consul.put("/v1/config", &intentions("backend", &[("mine", "allow")])).expect(200);
    assert_eq!(sources(&entry()), ["mine allow", "ops deny", "shop allow"]);
    let own = intentions("backend", &[("mine", "allow")]).to_string();
    let socket = agent.socket();
    let arguments = ["--socket", socket.to_str().expect("UTF-8"), "config", "write", "-"];
    let noted = operator.run_with(folder.path(), &arguments, &own).success();
    let note =
        "Note: 1 source of manifest ops stays as it is.\nNote: 1 source of manifest shop stays as it is.\n";
    assert!(noted.stderr.contains(note), "{}", noted.stderr);
    let index = entry()["ModifyIndex"].clone();
    let refused = consul.put("/v1/config", &intentions("backend", &[("shop", "deny")]));
    refused.says(409, "source \"shop\" of service_intentions \"backend\" belongs to manifest \"shop\"");
    consul.delete("/v1/config/service-intentions/backend").says(409, "belongs to manifest");
    consul
        .delete("/v1/connect/intentions/exact?source=ops&destination=backend")
        .says(409, "belongs to manifest \"ops\"");
    assert_eq!(entry()["ModifyIndex"], index, "nothing was written");

    // Removing one team's files removes its own source and nobody else's.
    std::fs::write(folder.path().join("ops/team.hcl"), "manifest \"ops\" { cluster = \"east\" }\n")
        .expect("a file");
    operator.run_in(folder.path(), &["apply", "ops", "--yes"]).success();
    assert_eq!(sources(&entry()), ["mine allow", "shop allow"]);
    operator.run_in(folder.path(), &["plan", "shop", "--detailed-exitcode"]).exits(0);
}

#[test]
fn single_intentions_are_whole_sources_wherever_they_are_named() {
    let agent = Agent::start("east");
    let consul = Consul::socket(&agent);
    let all = "/v1/connect/intentions";
    assert_eq!(consul.get(all).expect(200).json(), json!([]));
    let made = consul
        .post(all, &json!({"SourceName": "web", "DestinationName": "db", "Action": "allow"}))
        .expect(200);
    let id = made.json()["ID"].as_str().expect("an id").to_owned();
    consul
        .post(all, &json!({"SourceName": "web", "DestinationName": "db", "Action": "deny"}))
        .says(500, "Sources[1] defines \"web\" more than once");
    consul
        .post(all, &json!({"ID": id, "SourceName": "a", "DestinationName": "b", "Action": "allow"}))
        .says(500, "ID must be empty when creating a new intention");
    consul.post(all, &json!({"Nonsense": 1})).says(400, "json: unknown field \"Nonsense\"");
    consul
        .post(all, &json!({"SourceName": "a*", "DestinationName": "b", "Action": "allow"}))
        .says(500, "SourceName: wildcard character '*' cannot be used with partial values");

    // The peer's `web` and ours are two: neither call finds the other.
    let exact = |source: &str| format!("{all}/exact?source={source}&destination=db");
    consul.put(&exact("peer:west/web"), &json!({"Action": "deny"})).expect(200);
    assert_eq!(consul.get(&exact("web")).expect(200).json()["Action"], "allow");
    let peered = consul.get(&exact("peer:west/web")).expect(200).json();
    assert_eq!(
        (&peered["SourcePeer"], &peered["Action"], &peered["Precedence"]),
        (&json!("west"), &json!("deny"), &json!(9))
    );
    let check = |source: &str| {
        let answer = consul.get(&format!("{all}/check?source={source}&destination=db")).expect(200);
        answer.json()["Allowed"].clone()
    };
    assert_eq!(
        (check("web"), check("peer:west/web"), check("other")),
        (json!(true), json!(false), json!(false))
    );
    consul.put(&exact("peer:*/*"), &json!({"Action": "allow"})).expect(200);
    assert_eq!((check("peer:south/x"), check("peer:west/web")), (json!(true), json!(false)));

    let matched = |by: &str, name: &str| {
        let answer = consul.get(&format!("{all}/match?by={by}&name={name}")).expect(200).json();
        let rows = answer[name].as_array().cloned().unwrap_or_default();
        let shown = |row: &Value| {
            let peer = row["SourcePeer"].as_str().unwrap_or("-").to_owned();
            format!("{peer} {} {}", row["SourceName"].as_str().unwrap(), row["Precedence"])
        };
        rows.iter().map(shown).collect::<Vec<_>>()
    };
    assert_eq!(matched("destination", "db"), ["- web 9", "west web 9", "* * 8"]);
    assert_eq!(matched("source", "web"), ["- web 9"]);
    assert_eq!(matched("source", "peer:west/web"), ["west web 9", "* * 8"]);
    assert!(matched("source", "nobody").is_empty());
    consul.get(&format!("{all}/match?by=datacenter")).says(500, "'by' parameter must be one of");
    consul.get(&format!("{all}/check?source=a")).says(500, "required query parameter 'destination' not set");
    consul.get(&format!("{all}/exact?source=a/b/c/d&destination=x")).says(500, "at most two '/'");

    // Ids stay, by whatever way the intention was written.
    assert_eq!(consul.get(&format!("{all}/{id}")).expect(200).json()["SourceName"], "web");
    let body = json!({"SourceName": "web", "DestinationName": "db", "Action": "deny", "CreatedAt": "0001-01-01T00:00:00Z"});
    assert_eq!(consul.put(&format!("{all}/{id}"), &body).expect(200).json()["ID"], json!(id));
    let other = "b7d2e2f6-4f3b-4d0e-9f64-8d6f0a4f2b11";
    consul.put(&format!("{all}/{other}"), &body).says(500, "Cannot modify non-existent intention");
    consul.get(&format!("{all}/{other}")).says(404, "Intention not found");
    consul.get(&format!("{all}/nonsense")).says(400, "UUID");
    consul
        .put(&exact("web"), &json!({"Action": "allow", "Meta": {"k": "v"}}))
        .says(500, "Meta must not be specified");
    let listed = consul.get(&format!("{all}?filter=SourcePeer+%3D%3D+west")).expect(200).json();
    assert_eq!(listed.as_array().map(Vec::len), Some(1));
    assert_eq!(consul.delete(&format!("{all}/{id}")).expect(200).json(), json!(true));
    for source in ["peer:west/web", "peer:*/*", "nobody"] {
        assert_eq!(consul.delete(&exact(source)).expect(200).json(), json!(true));
    }
    assert_eq!(consul.get("/v1/config/service-intentions").expect(200).json(), json!([]));
}

#[test]
fn large_entries_are_taken_or_refused_and_never_break_the_agent() {
    let agent = Agent::start("east");
    let consul = Consul::socket(&agent);
    let many: Vec<(String, &str)> = (0..50_000).map(|n| (format!("source-{n}"), "allow")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, action)| (name.as_str(), *action)).collect();
    assert_eq!(consul.put("/v1/config", &intentions("web", &many)).expect(200).json(), json!(true));
    let entry = consul.get("/v1/config/service-intentions/web").expect(200).json();
    assert_eq!(entry["Sources"].as_array().map(Vec::len), Some(50_000));
    let check = "/v1/connect/intentions/check?source=source-49999&destination=web";
    assert_eq!(consul.get(check).expect(200).json()["Allowed"], json!(true));

    let long = format!("{{\"Kind\":\"service-intentions\",\"Name\":\"{}\"}}", "x".repeat(10 << 20));
    consul.send("PUT", "/v1/config", &[], Some(&long)).says(413, "max size: 8388608 bytes");
    let longer = " ".repeat(17 << 20);
    consul.send("PUT", "/v1/config", &[], Some(&longer)).says(413, "Request body too large");
    let deep =
        format!("{{\"Kind\":\"service-intentions\",\"Name\":{}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
    consul.send("PUT", "/v1/config", &[], Some(&deep)).says(400, "nested");
    consul.get("/v1/status/leader").expect(200);
}

#[test]
fn writers_that_race_lose_nothing() {
    const WRITERS: usize = 4;
    const EACH: usize = 5;
    let agent = Agent::start("east");
    let consul = Consul::socket(&agent);
    consul.put("/v1/config", &intentions("web", &[("first", "allow")])).expect(200);
    let refused = AtomicUsize::new(0);
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (consul, refused) = (consul.clone(), &refused);
            scope.spawn(move || {
                for turn in 0..EACH {
                    // Read, add, write if nobody else has, until nobody has.
                    wait_for("a write that nobody was before", LIMIT, || {
                        let mut entry = consul.get("/v1/config/service-intentions/web").expect(200).json();
                        let index = entry["ModifyIndex"].as_u64()?;
                        let own = json!({ "Name": format!("w{writer}-{turn}"), "Action": "allow" });
                        entry["Sources"].as_array_mut()?.push(own);
                        let written =
                            consul.put(&format!("/v1/config?cas={index}"), &entry).expect(200).json();
                        if written == json!(false) {
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                        (written == json!(true)).then_some(())
                    });
                }
            });
        }
    });
    let entry = consul.get("/v1/config/service-intentions/web").expect(200).json();
    assert_eq!(sources(&entry).len(), 1 + WRITERS * EACH, "after {refused:?} refusals");
}

#[test]
fn who_may_not_see_or_write_does_not() {
    let agent = Agent::start("east");
    let admin = Consul::socket(&agent);
    admin.put("/v1/config", &intentions("web", &[("a", "allow")])).expect(200);
    admin
        .put("/v1/config", &json!({"Kind": "service-defaults", "Name": "web", "Protocol": "http"}))
        .expect(200);
    let reader = Consul::bearer(
        &agent,
        &Consul::token(&agent, "reader", &[("server", "can_view_service_intentions")]),
    );
    let writer = Consul::bearer(
        &agent,
        &Consul::token(&agent, "writer", &[("server", "can_edit_service_intentions")]),
    );
    let nobody = Consul::bearer(&agent, &Consul::token(&agent, "nobody", &[]));

    let path = "/v1/config/service-intentions/web";
    reader.get(path).expect(200);
    reader.put("/v1/config", &intentions("web", &[("b", "allow")])).says(403, "Permission denied");
    reader.delete(path).says(403, "Permission denied");
    reader
        .put("/v1/connect/intentions/exact?source=b&destination=web", &json!({"Action": "allow"}))
        .says(403, "Permission denied");
    writer.put("/v1/config", &intentions("web", &[("b", "allow")])).expect(200);
    writer
        .put("/v1/config", &json!({"Kind": "sameness-group", "Name": "all"}))
        .says(403, "Permission denied");
    nobody.get(path).says(403, "Permission denied");
    for list in ["/v1/config/service-intentions", "/v1/connect/intentions"] {
        let hidden = nobody.get(list).expect(200);
        assert_eq!(
            (hidden.json(), hidden.header("x-consul-results-filtered-by-acls")),
            (json!([]), Some("true"))
        );
    }
    let all = reader.get("/v1/config/").expect(200);
    assert_eq!(all.json().as_array().map(Vec::len), Some(1), "{}", all.text());
    Consul::anonymous(&agent)
        .put("/v1/config", &intentions("web", &[("c", "allow")]))
        .says(403, "Permission denied");
}

#[test]
fn the_command_says_what_consuls_says() {
    let agent = Agent::start("east");
    let operator = Operator::new();
    let run = |arguments: &[&str]| operator.run_on(&agent, arguments);
    for (arguments, words) in [
        (
            &["config", "write"][..],
            "Must provide exactly one positional argument to specify the config entry to write",
        ),
        (&["config", "read", "-name", "x"], "Must specify the -kind parameter"),
        (&["config", "read", "-kind", "mesh"], "Must specify the -name parameter"),
        (&["config", "list"], "Must specify the -kind parameter"),
        (&["config", "delete"], "Must specify the -kind or -filename parameter"),
        (&["config", "delete", "-name", "db"], "Must specify the -kind parameter"),
        (
            &["config", "delete", "-kind", "mesh", "-filename", "x"],
            "filename can't be used with kind or name",
        ),
        (
            &["config", "delete", "-kind", "a", "-name", "b", "-cas"],
            "Must specify a -modify-index greater than 0 with -cas",
        ),
        (
            &["config", "delete", "-kind", "a", "-name", "b", "-modify-index", "1"],
            "Cannot specify -modify-index without -cas",
        ),
        (
            &["config", "write", "-modify-index", "1", "/nonexistent"],
            "Cannot specify -modify-index without -cas",
        ),
        (&["config", "write", "/nonexistent"], "Failed to load data: "),
        (
            &["intention", "create", "-allow", "-deny", "a", "b"],
            "Only one of -allow or -deny may be specified.",
        ),
        (
            &["intention", "match", "-source", "-destination", "a"],
            "only one of -source or -destination may be specified",
        ),
        (&["intention", "delete"], "command requires exactly 1 or 2 arguments"),
        (
            &["services", "export", "-name", "web"],
            "Missing the required -consumer-peers or -consumer-partitions flag",
        ),
        (&["services", "export", "-consumer-peers", "a"], "Missing the required -name flag"),
        (&["services", "export", "-name", "web", "-consumer-peers", "a,"], "Invalid peer \"\""),
        (&["services", "export", "-name", "web", "-consumer-partitions", "p"], "Invalid partition \"p\""),
        (&["services", "export", "-name", "web", "-consumer-partitions", "default"], "which needs no offer"),
    ] {
        let done = run(arguments).exits(1);
        assert!(done.stderr.contains(words), "{arguments:?}: {}", done.stderr);
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |text: &str| {
        let file = folder.path().join("entry.hcl");
        std::fs::write(&file, text).expect("a file");
        run(&["config", "write", file.to_str().expect("UTF-8")])
    };
    let entry = |name: &str, action: &str| {
        format!(
            "Kind = \"service-intentions\"\nName = \"{name}\"\nSources = [{{ Name = \"a\" Action = \"{action}\" }}]\n"
        )
    };
    assert_eq!(
        write(&entry("web", "allow")).success().stdout,
        "Config entry written: service-intentions/web\n"
    );
    // Several are written whole or not at all.
    let refused = write(&(entry("db", "allow") + &entry("web", "maybe"))).exits(1);
    assert!(
        refused.stderr.contains("Error writing config entry service-intentions/web: "),
        "{}",
        refused.stderr
    );
    run(&["config", "read", "-kind", "service-intentions", "-name", "db"]).exits(1);
    let both = write(&(entry("db", "allow") + &entry("web", "deny"))).success();
    assert_eq!(
        both.stdout,
        "Config entry written: service-intentions/db\nConfig entry written: service-intentions/web\n"
    );
    let listed = run(&["config", "list", "-kind", "service-intentions"]).success();
    assert_eq!(listed.stdout, "db\nweb\n");
    let read = run(&["config", "read", "-kind", "service-intentions", "-name", "web"]).success();
    assert!(
        read.stdout.contains("\n    \"Name\": \"web\"") && !read.stdout.contains("Hash"),
        "{}",
        read.stdout
    );
    let socket = agent.socket();
    let socket = socket.to_str().expect("UTF-8");
    let arguments = ["--socket", socket, "config", "write", "-"];
    let again = operator.run_with(folder.path(), &arguments, &read.stdout).success();
    assert_eq!(again.stdout, "Config entry written: service-intentions/web\n");

    let list =
        format!("[{}, {}]", intentions("list-a", &[("x", "allow")]), intentions("list-b", &[("x", "deny")]));
    let listed = operator.run_with(folder.path(), &arguments, &list).success();
    assert_eq!(listed.stdout.lines().count(), 2, "{}", listed.stdout);
    let declaration = write("service_defaults \"m2\" {\n  protocol = \"http\"\n}\n").exits(1);
    assert!(declaration.stderr.contains("`comity apply` takes"), "{}", declaration.stderr);

    assert_eq!(run(&["intention", "check", "a", "db"]).exits(0).stdout, "Allowed\n");
    assert_eq!(run(&["intention", "check", "a", "web"]).exits(1).stdout, "Denied\n");
    run(&["intention", "check", "a"]).exits(2);
    let made = run(&["intention", "create", "peer:west/a", "db"]).success();
    assert_eq!(made.stdout, "Created: peer:west/a => db (allow)\n");
    let twice = run(&["intention", "create", "-deny", "peer:west/a", "db"]).exits(1);
    assert!(twice.stderr.contains("more than once"), "{}", twice.stderr);
    assert_eq!(run(&["intention", "create", "-replace", "-deny", "peer:west/a", "db"]).success().stdout, "");
    let matched = run(&["intention", "match", "db"]).success();
    assert_eq!(matched.stdout, "a => db (allow)\npeer:west/a => db (deny)\n");
    assert_eq!(run(&["intention", "check", "a@west", "db"]).exits(1).stdout, "Denied\n");
    let got = run(&["intention", "get", "a@west", "db"]).success();
    assert!(got.stdout.contains("Source:") && got.stdout.contains("deny"), "{}", got.stdout);
    assert!(run(&["intention", "list"]).success().stdout.starts_with("ID "));
    assert_eq!(run(&["intention", "delete", "peer:west/a", "db"]).success().stdout, "Intention deleted.\n");

    assert_eq!(run(&["services", "exported-services"]).success().stdout, "No exported services found\n");
    let exported = run(&["services", "export", "-name", "web", "-consumer-peers", "a,b"]).success();
    assert_eq!(exported.stdout, "Successfully exported service \"web\" to cluster peers \"a,b\"\n");
    run(&["services", "export", "-name", "web", "-consumer-peers", "c"]).success();
    let table = run(&["services", "exported-services"]).success();
    assert_eq!(table.stdout, "Service  Consumer Peers\nweb      a, b, c\n");
    for (filter, is_shown) in
        [("Service == web", true), ("c in Consumers.Peers", true), ("Service != web", false)]
    {
        let shown = run(&["services", "exported-services", "-filter", filter, "-format", "json"]).success();
        assert_eq!(shown.stdout.contains("\"web\""), is_shown, "{filter}: {}", shown.stdout);
    }
    run(&["services", "exported-services", "-filter", "Nonsense == 1"]).exits(1);
    for name in ["db", "web", "list-a", "list-b"] {
        run(&["config", "delete", "-kind", "service-intentions", "-name", name]).success();
    }
    run(&["intention", "list"]).exits(2);
}
