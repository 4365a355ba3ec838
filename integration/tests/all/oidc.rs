//! Logins that a real identity provider vouches for, as the agent takes them. (What people see of it is in login.rs.)

use integration::http::Answer;
use integration::oidc::{DEVICE_CLIENT, OTHER_CLIENT, Tokens, WEB_CLIENT, WEB_SECRET};
use integration::{Agent, Http, LIMIT, Provider, wait_for};
use serde_json::{Value, json};

/// What is set for logins by `provider`.
pub fn settings(provider: &Provider) -> Value {
    json!({
        "oidc.issuer": provider.issuer(), "oidc.client.id": WEB_CLIENT,
        "oidc.device.client.id": DEVICE_CLIENT, "oidc.groups.claim": "groups",
    })
}

/// Sets them.
pub fn configure(agent: &Agent, config: &Value) -> Answer {
    Http::socket(agent).patch("/1.0", &json!({ "config": config }))
}

/// Sends a request with the tokens of a login, by somebody without a certificate.
fn with_token(agent: &Agent, tokens: impl Into<Tokens>, method: &str, path: &str) -> Answer {
    let Tokens { access, id, .. } = tokens.into();
    let value = format!("Bearer {access}");
    let mut headers = vec![("authorization", value.as_str())];
    headers.extend(id.as_deref().map(|id| ("x-comity-oidc-id-token", id)));
    Http::anonymous(agent).send(method, path, &headers, None)
}

/// Who the agent takes the bringer of a token for, and that one's effective groups.
fn current(agent: &Agent, token: impl Into<Tokens>) -> (String, Vec<String>) {
    let shown = with_token(agent, token, "GET", "/1.0/auth/identities/current").expect(200).metadata();
    let groups = shown["effective_groups"].as_array().expect("a list").iter();
    let groups = groups.map(|group| group.as_str().expect("a name").to_owned()).collect();
    (shown["id"].as_str().expect("a mail address").to_owned(), groups)
}

fn methods(agent: &Agent) -> Vec<Value> {
    Http::anonymous(agent).get("/1.0").expect(200).metadata()["auth_methods"]
        .as_array()
        .cloned()
        .expect("a list")
}

fn wait_for_method(agent: &Agent, there: bool) {
    let what = format!("that oidc is among the methods is {there}");
    wait_for(&what, LIMIT, || (methods(agent).contains(&json!("oidc")) == there).then_some(()));
}

#[test]
fn somebody_new_can_do_nothing_until_a_group_is_granted_by_hand_or_by_the_provider() {
    if !Provider::is_installed() {
        return;
    }
    let mut provider = Provider::start();
    provider.account("alice", "alice@example.com", &["engineering"]);
    let east = Agent::start("east");
    let admin = Http::socket(&east);
    assert_eq!(methods(&east), [json!("tls"), json!("bearer")]);
    configure(&east, &settings(&provider)).expect(200);
    assert_eq!(methods(&east), [json!("tls"), json!("bearer"), json!("oidc")]);
    let public = Http::anonymous(&east).get("/1.0").metadata()["config"].take();
    assert_eq!(public, json!({ "oidc.issuer": provider.issuer(), "oidc.device.client.id": DEVICE_CLIENT }));

    // A client that is nobody yet is told where to log in.
    let asked = with_token(&east, "", "GET", "/1.0").refused(401, "");
    for (name, value) in [
        ("x-lxd-oidc-issuer", provider.issuer().as_str()),
        ("x-lxd-oidc-clientid", DEVICE_CLIENT),
        ("x-lxd-oidc-audience", ""),
        ("x-lxd-oidc-groups-claim", "groups"),
        ("x-lxd-oidc-scopes", r#"["openid","email","offline_access","profile"]"#),
    ] {
        assert_eq!(asked.header(name), Some(value), "{name}");
    }
    let forbidden = Http::anonymous(&east).get("/1.0/auth/groups").refused(403, "Forbidden");
    assert_eq!(forbidden.header("x-lxd-oidc-clientid"), Some(DEVICE_CLIENT));

    let token = provider.tokens(DEVICE_CLIENT, "alice");
    let shown = with_token(&east, &token, "GET", "/1.0").expect(200).metadata();
    let said = |name: &str| shown[name].as_str().unwrap_or_default().to_owned();
    assert_eq!((said("auth"), said("auth_user_method")), ("trusted".to_owned(), "oidc".to_owned()));
    assert_eq!(said("auth_user_name"), "alice@example.com");
    assert_eq!(current(&east, &token), ("alice@example.com".to_owned(), Vec::new()));
    with_token(&east, &token, "GET", "/control/v1/state").expect(403);
    let identity = "/1.0/auth/identities/oidc/alice@example.com";
    let known = admin.get(identity).expect(200).metadata();
    assert_eq!((&known["type"], &known["name"]), (&json!("OIDC client"), &json!("alice")));
    // Nobody is found by the name that they gave themselves.
    admin.get("/1.0/auth/identities/oidc/alice").expect(404);
    admin.patch("/1.0/auth/identities/oidc/alice", &json!({ "groups": [] })).expect(404);
    admin.delete("/1.0/auth/identities/oidc/alice").expect(404);

    // By hand, and by what the provider says: both count.
    for group in ["by-hand", "by-provider"] {
        admin.post("/1.0/auth/groups", &json!({ "name": group })).expect(201);
    }
    let viewer =
        json!({ "permissions": [{ "entity_type": "server", "url": "/1.0", "entitlement": "viewer" }] });
    admin.put("/1.0/auth/groups/by-provider", &viewer).expect(200);
    admin.patch(identity, &json!({ "groups": ["by-hand"] })).expect(200);
    assert_eq!(current(&east, &token).1, ["by-hand"]);
    let mapping = json!({ "name": "engineering", "groups": ["by-provider"] });
    admin.post("/1.0/auth/identity-provider-groups", &mapping).expect(201);
    assert_eq!(current(&east, &token).1, ["by-hand", "by-provider"]);
    with_token(&east, &token, "GET", "/control/v1/state").expect(200);
    assert!(!east.log().contains(&token.access), "the token is in the log");
}

#[test]
fn a_session_is_kept_by_a_cookie_listed_and_ended() {
    if !Provider::is_installed() {
        return;
    }
    let mut provider = Provider::start();
    provider.account("alice", "alice@example.com", &[]);
    provider.account("bob", "bob@example.com", &[]);
    let east = Agent::start("east");
    let mut config = settings(&provider);
    config["oidc.session.expiry"] = "1d".into();
    configure(&east, &config).expect(200);
    let token = provider.tokens(DEVICE_CLIENT, "alice");
    let first = with_token(&east, &token, "GET", "/1.0").expect(200);
    let cookie = first.header("set-cookie").expect("a cookie").to_owned();
    for word in ["session=", "; Secure", "; HttpOnly", "; SameSite=Strict", "; Path=/", "; Max-Age=86"] {
        assert!(cookie.contains(word), "{word}: {cookie}");
    }
    assert!(
        with_token(&east, &token, "GET", "/1.0").header("set-cookie").is_none(),
        "one login, one session"
    );
    let pair = cookie.split(';').next().expect("a pair").to_owned();
    let anonymous = Http::anonymous(&east);
    let shown = |path: &str| anonymous.send("GET", path, &[("cookie", &pair)], None);
    assert_eq!(shown("/1.0").metadata()["auth_user_name"], "alice@example.com");
    let elsewhere = [("cookie", pair.as_str()), ("origin", "https://agent:3000")];
    assert_eq!(anonymous.send("GET", "/1.0", &elsewhere, None).metadata()["auth"], "untrusted");

    // Each sees their own, the administrator all.
    let other = provider.tokens(DEVICE_CLIENT, "bob");
    with_token(&east, &other, "GET", "/1.0").expect(200);
    let admin = Http::socket(&east);
    let all = admin.get("/1.0/auth/oidc-sessions?recursion=1").expect(200).metadata();
    let emails: Vec<&Value> = all.as_array().expect("a list").iter().map(|one| &one["email"]).collect();
    assert_eq!(emails, ["alice@example.com", "bob@example.com"]);
    assert_eq!((&all[0]["username"], &all[0]["ip_address"]), (&json!("alice"), &json!("127.0.0.1")));
    let own = shown("/1.0/auth/oidc-sessions").expect(200).metadata();
    assert_eq!(own.as_array().map(Vec::len), Some(1));
    let bobs = admin.get("/1.0/auth/oidc-sessions?email=bob@example.com").metadata();
    shown(bobs[0].as_str().expect("a place")).refused(404, "Not Found");
    anonymous.get("/1.0/auth/oidc-sessions").refused(403, "");

    // Everybody may end their own; what was open by it is cut.
    let place = own[0].as_str().expect("a place");
    let mut open = anonymous.connect().expect("a connection");
    let request = format!(
        "GET /1.0/events HTTP/1.1\r\nhost: x\r\ncookie: {pair}\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    );
    std::io::Write::write_all(&mut open, request.as_bytes()).expect("it is sent");
    let mut reader = std::io::BufReader::new(open);
    let (status, ..) = integration::http::read_answer(&mut reader).expect("an answer");
    assert_eq!(status, 101);
    anonymous.send("DELETE", place, &[("cookie", &pair)], None).expect(200);
    let mut rest = Vec::new();
    // What is left is a close frame, or the end without one.
    let _ = std::io::Read::read_to_end(&mut reader, &mut rest);
    assert_eq!(shown("/1.0").metadata()["auth"], "untrusted");
    assert_eq!(admin.get("/1.0/auth/oidc-sessions").metadata().as_array().map(Vec::len), Some(1));

    // With its identity every session goes, and whoever logs in again begins anew.
    admin.delete("/1.0/auth/identities/oidc/bob@example.com").expect(200);
    assert_eq!(admin.get("/1.0/auth/oidc-sessions").metadata(), json!([]));
    assert_eq!(current(&east, &other), ("bob@example.com".to_owned(), Vec::new()));
    // Another provider, or none: those whom the old one vouched for are out.
    let unset = json!({ "oidc.issuer": "", "oidc.client.id": "", "oidc.device.client.id": "" });
    configure(&east, &unset).expect(200);
    with_token(&east, &other, "GET", "/1.0").refused(403, "");
    assert_eq!(admin.get("/1.0/auth/oidc-sessions").metadata(), json!([]));
}

#[test]
fn while_the_provider_is_away_everything_else_goes_on_and_it_returns_by_itself() {
    if !Provider::is_installed() {
        return;
    }
    let mut provider = Provider::start();
    provider.account("alice", "alice@example.com", &[]);
    let mut east = Agent::start("east");
    configure(&east, &settings(&provider)).expect(200);
    let token = provider.tokens(DEVICE_CLIENT, "alice");
    let unseen = provider.tokens(DEVICE_CLIENT, "alice");
    let first = with_token(&east, &token, "GET", "/1.0").expect(200);
    let cookie =
        first.header("set-cookie").and_then(|cookie| cookie.split(';').next()).expect("a cookie").to_owned();
    let by_cookie = |agent: &Agent| {
        Http::anonymous(agent).send("GET", "/1.0", &[("cookie", &cookie)], None).metadata()["auth"].clone()
    };
    provider.stop();
    // Whoever comes next finds out.
    with_token(&east, &unseen, "GET", "/1.0").refused(503, "Other ways of logging in are not affected");
    wait_for_method(&east, false);
    assert_eq!(by_cookie(&east), "trusted");
    assert_eq!(with_token(&east, &token, "GET", "/1.0").metadata()["auth"], "trusted");
    Http::trusted(&east).get("/1.0/auth/groups").expect(200);

    // Not there when the agent starts: that is no reason not to start.
    east.restart();
    assert_eq!(methods(&east), [json!("tls"), json!("bearer")]);
    assert_eq!(by_cookie(&east), "trusted");
    with_token(&east, &unseen, "GET", "/1.0").refused(503, "does not answer");
    provider.launch();
    wait_for_method(&east, true);
    assert_eq!(current(&east, &unseen).0, "alice@example.com");
    assert_eq!(by_cookie(&east), "trusted");
}

#[test]
fn a_token_that_can_be_read_must_be_for_this_cluster_and_keys_may_change() {
    if !Provider::is_installed() {
        return;
    }
    let mut provider = Provider::prepare().jwt("https://comity.example").algorithm("ES256");
    provider.launch();
    provider.account("alice", "alice@example.com", &["engineering"]);
    let east = Agent::start("east");
    let mut config = settings(&provider);
    config["oidc.audience"] = "https://comity.example".into();
    configure(&east, &config).expect(200);
    let token = provider.tokens(DEVICE_CLIENT, "alice");
    assert_eq!(current(&east, &token).0, "alice@example.com");
    // New keys, which the first token of theirs has us ask for.
    provider.replace_keys();
    let next = provider.tokens(DEVICE_CLIENT, "alice");
    assert_eq!(current(&east, &next).0, "alice@example.com");
    configure(&east, &json!({ "oidc.audience": "https://other.example" })).expect(200);
    let refused = with_token(&east, &next, "GET", "/1.0");
    refused.refused(401, "it is for https://comity.example, not for https://other.example");
    // Without an audience it must be for one of our clients, not for just anybody's.
    configure(&east, &json!({ "oidc.audience": "" })).expect(200);
    assert_eq!(current(&east, &next).0, "alice@example.com");
    let others = provider.tokens(OTHER_CLIENT, "alice");
    with_token(&east, &others, "GET", "/1.0").refused(401, "not for comity-web or comity-device");
}

#[test]
fn a_token_that_cannot_be_read_is_asked_about() {
    if !Provider::is_installed() {
        return;
    }
    let mut provider = Provider::prepare().access_tokens_live(6);
    provider.launch();
    provider.account("alice", "alice@example.com", &[]);
    provider.account_with("carol", &json!({ "name": "carol" }));
    provider.account_with("dave", &json!({ "email": "dave@example.com", "email_verified": false }));
    let east = Agent::start("east");
    let mut config = settings(&provider);
    config["oidc.client.secret"] = WEB_SECRET.into();
    configure(&east, &config).expect(200);
    let shown = Http::socket(&east).get("/1.0").expect(200).metadata();
    assert_eq!(shown["config"]["oidc.client.secret"], "true");
    // What is shown can be sent back.
    Http::socket(&east).put("/1.0", &shown).expect(200);
    let token = provider.tokens(DEVICE_CLIENT, "alice");
    assert_eq!(current(&east, &token).0, "alice@example.com");
    let others = provider.tokens(OTHER_CLIENT, "alice");
    with_token(&east, &others, "GET", "/1.0").refused(401, "not for comity-web or comity-device");
    for (login, words) in [("carol", "no mail address"), ("dave", "has not been verified")] {
        let token = provider.tokens(DEVICE_CLIENT, login);
        with_token(&east, &token, "GET", "/1.0").refused(401, words);
    }
    assert_eq!(
        Http::socket(&east).get("/1.0/auth/identities/oidc").metadata().as_array().map(Vec::len),
        Some(1)
    );
    wait_for("the token's time is over", LIMIT, || {
        (with_token(&east, &token, "GET", "/1.0").status == 401).then_some(())
    });
    with_token(&east, &token, "GET", "/1.0").refused(401, "not any more");
    let log = east.log();
    assert!(!log.contains(WEB_SECRET) && !log.contains(&token.access), "a secret is in the log");
    let audit = std::fs::read_to_string(east.data_dir().join("audit.log")).expect("the log");
    assert!(!audit.contains(WEB_SECRET) && audit.contains("oidc-session-created"));
}

#[test]
fn a_token_that_nobody_can_say_for_whom_it_is_is_refused() {
    if !Provider::is_installed() {
        return;
    }
    let mut provider = Provider::start();
    provider.account("alice", "alice@example.com", &[]);
    provider.account("mallory", "mallory@example.com", &[]);
    let east = Agent::start("east");
    configure(&east, &settings(&provider)).expect(200);
    let own = provider.tokens(DEVICE_CLIENT, "alice");
    with_token(&east, &own.access, "GET", "/1.0").refused(401, "nobody knows whether it is for this cluster");
    // What Alice gave to another service, in that service's hands: alone, with its own ID token of hers, and with the
    // one that Mallory has for this cluster.
    let others = provider.tokens(OTHER_CLIENT, "alice");
    with_token(&east, &others.access, "GET", "/1.0").refused(401, "nobody knows");
    with_token(&east, &others, "GET", "/1.0").refused(401, "not for comity-web or comity-device");
    let mallory = provider.tokens(DEVICE_CLIENT, "mallory");
    let posing = Tokens { id: mallory.id.clone(), ..others };
    with_token(&east, &posing, "GET", "/1.0").refused(401, "another user");
    let cut = Tokens { id: own.id.as_ref().map(|id| id[..id.len() - 8].to_owned()), ..own.clone() };
    with_token(&east, &cut, "GET", "/1.0").refused(401, "signature");
    // A refusal without the ID token does not stand in the way of the whole login.
    assert_eq!(current(&east, &own).0, "alice@example.com");
    assert_eq!(current(&east, &mallory).0, "mallory@example.com");
}
