//! Logging in from the command line, with a real identity provider and somebody in front of a browser.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use integration::oidc::DEVICE_CLIENT;
use integration::{Agent, Done, LIMIT, Operator, Provider, Transcript, wait_for};
use serde_json::json;

/// An agent that lets in whom this provider knows.
fn agent_of(provider: &Provider) -> Agent {
    let east = Agent::start("east");
    let admin = Operator::new();
    let set = [
        format!("oidc.issuer={}", provider.issuer()),
        format!("oidc.client.id={DEVICE_CLIENT}"),
        "oidc.groups.claim=groups".to_owned(),
    ];
    let words: Vec<&str> = ["server", "set"].into_iter().chain(set.iter().map(String::as_str)).collect();
    admin.run_on(&east, &words).success();
    wait_for("the provider can be used", LIMIT, || {
        let shown = integration::Http::anonymous(&east).get("/1.0").expect(200).metadata();
        shown["auth_methods"].as_array().is_some_and(|all| all.contains(&"oidc".into())).then_some(())
    });
    east
}

/// The arguments that add `agent` by a login.
fn adding(agent: &Agent) -> Vec<String> {
    let words = ["remote", "add", "east", &agent.address(), "--accept-certificate", "--auth-type", "oidc"];
    words.map(str::to_owned).to_vec()
}

fn words(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

/// Runs a command that asks for a login, which `login` makes.
fn logging_in(operator: &Operator, provider: &Provider, arguments: &[&str], login: &str) -> Done {
    let mut running = operator.begin(arguments);
    let code = running.says("Code: ");
    let page = provider.approve(&code, login);
    assert!(page.status == 200 || login == "nobody", "{}", page.body);
    running.end()
}

fn exists(operator: &Operator, path: &str) -> bool {
    operator.config_dir().join(path).exists()
}

#[test]
fn somebody_logs_in_and_may_do_what_their_groups_may() {
    if !Provider::is_installed() {
        return;
    }
    let mut provider = Provider::start();
    provider.account("alice", "alice@example.com", &["engineering"]);
    let east = agent_of(&provider);
    let operator = Operator::new();
    let mut transcript = Transcript::of(&[&east]);
    transcript.call(&provider.issuer(), "PROVIDER");

    let mut running = operator.begin(&words(&adding(&east)));
    let code = running.says("Code: ");
    transcript.call(&code, "CODE");
    assert_eq!(running.says("URL: "), format!("{}/device", provider.issuer()));
    provider.approve(&code, "alice").ok();
    let done = running.end().success();
    assert!(!done.stderr.contains(['█', '▀', '\u{1b}']), "{}", done.stderr);
    transcript.add(done);

    // Nothing else is made for it, and nobody else may read it.
    assert!(!exists(&operator, "client.crt"), "a login needs no certificate");
    for path in ["oidctokens/east.json", "jars/east"] {
        let found = fs::metadata(operator.config_dir().join(path)).expect("a file");
        assert_eq!(found.permissions().mode() & 0o777, 0o600, "{path}");
    }
    transcript.add(operator.run(&["remote", "list"]));
    transcript.add(operator.run(&["auth", "group", "create", "mine"]));

    // An administrator says what the provider's group is worth.
    let admin = Operator::new();
    admin.run_on(&east, &["auth", "group", "create", "readers"]).success();
    admin.run_on(&east, &["auth", "group", "permission", "add", "readers", "server", "admin"]).success();
    let mapping = ["auth", "identity-provider-group", "create", "engineering", "--group", "readers"];
    admin.run_on(&east, &mapping).success();
    transcript.add(operator.run(&["auth", "group", "create", "mine"]));
    transcript.add(operator.run(&["remote", "rename", "east", "orient"]));
    transcript.add(operator.run(&["--remote", "orient", "auth", "group", "list", "--format", "csv"]));
    // A taken-over connection brings the login too.
    let mut events = operator.begin(&["monitor", "orient:", "--type", "lifecycle", "--format", "json"]);
    let mut nth = 0;
    // What happens before it listens is not told.
    wait_for("an event arrives", LIMIT, || {
        nth += 1;
        admin.run_on(&east, &["auth", "group", "create", &format!("g{nth}")]).success();
        events.has_said("auth-group-created").then_some(())
    });
    drop(events);

    // Their login is listed, and ended by an administrator.
    let listed = operator.run(&["auth", "oidc-session", "list", "orient:", "--format", "json"]).json();
    assert_eq!(
        (&listed[0]["email"], listed.as_array().map(Vec::len)),
        (&json!("alice@example.com"), Some(1))
    );
    assert!(listed[0]["user_agent"].as_str().is_some_and(|agent| agent.starts_with("comity/")), "{listed}");
    let uuid = listed[0]["uuid"].as_str().expect("a uuid").to_owned();
    let ended = admin.run_on(&east, &["auth", "oidc-session", "delete", &uuid]).success();
    assert_eq!(ended.stdout, format!("Deleted OIDC session \"{uuid}\"\n"));
    admin.run_on(&east, &["auth", "oidc-session", "show", &uuid]).exits(1);

    transcript.add(operator.run(&["remote", "remove", "orient"]));
    for path in ["oidctokens/orient.json", "oidctokens/east.json", "jars/orient", "jars/east"] {
        assert!(!exists(&operator, path), "{path} was left");
    }
    transcript.matches_in("cli", "login");
    let log = east.log();
    assert!(!log.contains("Bearer "), "a token is in the log");
}

#[test]
fn a_login_is_renewed_by_itself_until_it_cannot_be() {
    if !Provider::is_installed() {
        return;
    }
    // Shorter than what is left aside for the way: every command renews.
    let mut provider = Provider::prepare().access_tokens_live(5);
    provider.launch();
    provider.account("alice", "alice@example.com", &[]);
    let east = agent_of(&provider);
    let operator = Operator::new();
    logging_in(&operator, &provider, &words(&adding(&east)), "alice").success();
    let tokens = || fs::read_to_string(operator.config_dir().join("oidctokens/east.json")).expect("tokens");
    let mut before = tokens();
    // A session goes on without the provider; these are to do without a session.
    let end_session =
        || fs::remove_file(operator.config_dir().join("jars/east")).expect("a session's cookie");
    for _ in 0..2 {
        end_session();
        operator.run(&["auth", "identity", "list"]).success();
        let now = tokens();
        assert_ne!(now, before, "the refresh token is one that is used once");
        before = now;
    }
    end_session();
    // Several at once: one renews, the others use what it got.
    let together: Vec<_> = (0..4).map(|_| operator.begin(&["auth", "identity", "list"])).collect();
    for one in together {
        one.end().success();
    }
    operator.run(&["auth", "identity", "list"]).success();

    // The login is taken back at the provider, and its session here.
    let mut lost: serde_json::Value = serde_json::from_str(&tokens()).expect("JSON");
    lost["refresh_token"] = json!("taken-back");
    lost["access_token"] = json!("taken-back");
    fs::write(operator.config_dir().join("oidctokens/east.json"), lost.to_string()).expect("a file");
    end_session();
    let done = operator.run(&["auth", "identity", "list"]).exits(1);
    assert!(done.stderr.contains("the login at east has ended"), "{}", done.stderr);
    assert!(done.stderr.contains("`comity remote login east`"), "{}", done.stderr);
    assert!(!done.stderr.contains("taken-back"), "{}", done.stderr);
    let done = logging_in(&operator, &provider, &["remote", "login", "east"], "alice").success();
    assert_eq!(done.stdout, "Logged in to east as alice@example.com\n");
    operator.run(&["auth", "identity", "list"]).success();
}

#[test]
fn what_is_no_login_leaves_nothing_behind() {
    if !Provider::is_installed() {
        return;
    }
    let mut provider = Provider::start();
    provider.account_with("eve", &json!({ "name": "eve" }));
    let mut east = agent_of(&provider);
    let refused = |done: Done, operator: &Operator, why: &str| {
        let done = done.exits(1);
        assert!(done.stderr.contains(why), "{}", done.stderr);
        assert!(!exists(operator, "config.toml") && !exists(operator, "oidctokens/east.json"));
    };
    // Refused in the browser.
    let operator = Operator::new();
    let mut running = operator.begin(&words(&adding(&east)));
    provider.deny(&running.says("Code: "));
    refused(running.end(), &operator, "the login was refused in the browser");
    // Without an address to be known by.
    let done = logging_in(&operator, &provider, &words(&adding(&east)), "eve");
    refused(done, &operator, "does not accept the login");
    // Given up while waiting.
    let mut running = operator.begin(&words(&adding(&east)));
    running.says("Code: ");
    running.interrupt();
    assert_eq!(running.end().code, Some(130));
    assert!(!exists(&operator, "config.toml"));
    // On a terminal there is a picture to scan.
    let mut running = operator.begin_on_terminal(&words(&adding(&east)));
    let code = running.says("Code: ");
    running.says("▄");
    provider.deny(&code);
    assert_eq!(running.end().code, Some(1));

    // The provider is away: other ways to be trusted are not.
    provider.stop();
    east.restart();
    let done = operator.run(&words(&adding(&east)));
    refused(done, &operator, "Authentication type 'oidc' not supported by server");
    operator.trusted_by(&east);
    let listed = operator.run(&["remote", "list", "--format", "json"]).json();
    assert_eq!(listed[0]["auth_type"], "tls", "{listed}");
    let done = operator.run(&["remote", "login", "east"]).exits(1);
    assert!(done.stderr.contains("Remote east is not one that is logged in to"), "{}", done.stderr);
}
