//! An identity provider that lies, and strangers who make tokens up.

use std::time::Instant;

use integration::http::Answer;
use integration::oidc::{Hostile, Reply};
use integration::{Agent, Http};
use serde_json::{Value, json};

const DOCUMENT: &str = "/.well-known/openid-configuration";

fn set(agent: &Agent, issuer: &str) -> Answer {
    let config = json!({ "oidc.issuer": issuer, "oidc.client.id": "comity", "oidc.groups.claim": "groups" });
    Http::socket(agent).patch("/1.0", &json!({ "config": config }))
}

fn show(agent: &Agent, token: &str) -> Answer {
    Http::anonymous(agent).send("GET", "/1.0", &[("authorization", &format!("Bearer {token}"))], None)
}

/// Shows an access token that cannot be read, and the ID token of its login.
fn show_both(agent: &Agent, token: &str, id: &str) -> Answer {
    let headers = [("authorization", &*format!("Bearer {token}")), ("x-comity-oidc-id-token", id)];
    Http::anonymous(agent).send("GET", "/1.0", &headers, None)
}

/// Asks until it is told to wait: how often that is depends on how long the answers before it took.
fn until_told_to_wait(mut ask: impl FnMut(usize) -> u16) -> Vec<u16> {
    let mut statuses = Vec::new();
    while statuses.last() != Some(&429) {
        assert!(statuses.len() < 40, "{statuses:?}");
        statuses.push(ask(statuses.len()));
    }
    statuses
}

#[test]
fn what_is_no_good_provider_is_not_set() {
    let east = Agent::start("east");
    let (good, evil) = (Hostile::start(), Hostile::start());
    evil.answer(DOCUMENT, Reply::Redirect(format!("{}{DOCUMENT}", good.issuer())));
    set(&east, &evil.issuer()).refused(400, "no redirect is followed");
    assert_eq!(good.asked(DOCUMENT), 0, "nobody was sent there");
    for (reply, words) in [
        (Reply::Json(json!({ "issuer": good.issuer(), "jwks_uri": good.issuer() })), "calls itself"),
        (Reply::Json(json!({ "issuer": evil.issuer() })), "something else than expected"),
        (Reply::Json(json!([])), "something else than expected"),
        (Reply::Endless, "more than 1 MiB"),
        (Reply::Status(500), "500"),
    ] {
        evil.answer(DOCUMENT, reply);
        set(&east, &evil.issuer()).refused(400, words);
    }
    let issuer = evil.issuer();
    evil.answer(DOCUMENT, Reply::Json(json!({ "issuer": issuer, "jwks_uri": format!("{issuer}/jwks") })));
    for keys in [json!({ "keys": [] }), json!({ "keys": [{ "kty": "oct", "k": "AAAA", "alg": "HS256" }] })] {
        evil.answer("/jwks", Reply::Json(keys));
        set(&east, &issuer).refused(400, "publishes no key");
    }
    evil.answer("/jwks", Reply::Redirect(format!("{}/jwks", good.issuer())));
    set(&east, &issuer).refused(400, "no redirect is followed");
    assert!(Http::socket(&east).get("/1.0").metadata()["config"]["oidc.issuer"].is_null());
    assert!(Http::anonymous(&east).get("/1.0").metadata()["config"].is_null());
}

#[test]
fn tokens_that_anybody_can_make_up_are_refused_and_the_provider_is_left_alone() {
    let (east, provider) = (Agent::start("east"), Hostile::start());
    set(&east, &provider.issuer()).expect(200);
    let claims = provider.claims("alice@example.com", "comity");
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        provider.sign(&claims)
    };
    let signed_as = |algorithm: &str| {
        provider.sign_as(&json!({ "alg": algorithm, "typ": "JWT", "kid": "first" }), &claims)
    };
    let begun = Instant::now();
    let now = claims["iat"].as_i64().expect("a time");
    let asked = provider.asked("/jwks");
    for (token, words) in [
        (signed_as("none"), "signed by \"none\""),
        (signed_as("HS256"), "signed by \"HS256\""),
        (format!("{}AAAA", provider.sign(&claims)), "signature"),
        (with("iss", json!("https://evil.example")), "another issuer"),
        (with("aud", json!("other")), "it is for other, not for comity"),
        (with("sub", json!("")), "\"sub\""),
        (with("exp", json!("never")), "\"exp\""),
    ] {
        let refused = show(&east, &token);
        assert_eq!(refused.header("x-lxd-oidc-clientid"), Some("comity"));
        refused.refused(401, words);
    }
    // What the provider did sign is no guess, so it does not count as one.
    show(&east, &with("exp", json!(now - 3600))).refused(401, "60 min ago by this machine's clock");
    let mut early = claims.clone();
    (early["iat"], early["exp"]) = (json!(now + 3600), json!(now + 7200));
    show(&east, &provider.sign(&early)).refused(401, "in the future by this machine's clock");
    show(&east, &with("email_verified", json!(false))).refused(401, "not been verified");
    assert_eq!(provider.asked("/me"), 0, "nobody called the provider");

    // Whoever goes on guessing is told to wait, and nothing that they say has the provider called.
    let unknown = |number: usize| {
        let header = json!({ "alg": "ES256", "kid": format!("made up {number}") });
        provider.sign_as(&header, &claims)
    };
    until_told_to_wait(|number| show(&east, &unknown(number)).status);
    // Besides, the agent looks now and then whether the provider is there.
    let calls = usize::try_from(begun.elapsed().as_secs() / 15).expect("a few") + 2;
    let called = provider.asked("/jwks") - asked;
    assert!(called <= calls, "{called}: unknown keys are asked for once in a while");
    let id = provider.sign(&claims);
    until_told_to_wait(|number| show_both(&east, &format!("opaque-{number}"), &id).status);
    let before = provider.asked("/me");
    assert_eq!(show_both(&east, "one-more", &id).status, 429);
    assert_eq!(provider.asked("/me"), before);
    // One that was good is good for everybody at that address, and the others' guesses are not in its way.
    assert!(Http::socket(&east).get("/1.0/auth/identities/oidc").metadata() == json!([]));
    let log = east.log();
    assert!(!log.contains(&provider.sign(&claims)[..60]), "a token is in the log");
}

#[test]
fn keys_may_change_and_a_provider_that_hangs_holds_nobody_up() {
    let (east, provider) = (Agent::start("east"), Hostile::start());
    set(&east, &provider.issuer()).expect(200);
    let token = |email: &str| provider.sign(&provider.claims(email, "comity"));
    show(&east, &token("a@example.com")).expect(200);
    provider.rotate("second");
    show(&east, &token("b@example.com")).expect(200);
    // Its old keys are no good any more, whatever they signed.
    // (When it is set it may be looked at twice.)
    assert!((2..=3).contains(&provider.asked("/jwks")));
    // A token that is for asking with is asked with, and one that is judged is not again.
    provider.answer("/me", Reply::Json(json!({ "sub": "c", "email": "c@example.com", "groups": ["ops"] })));
    let mut of_c = provider.claims("c@example.com", "comity");
    of_c["sub"] = json!("c");
    let of_c = provider.sign(&of_c);
    for _ in 0..3 {
        assert_eq!(
            show_both(&east, "opaque", &of_c).expect(200).metadata()["auth_user_name"],
            "c@example.com"
        );
    }
    assert_eq!(provider.asked("/me"), 1);
    // Of another user than the token's it tells nothing.
    let mut bare = provider.claims("d@example.com", "comity");
    bare.as_object_mut().expect("an object").remove("email");
    show(&east, &provider.sign(&bare)).refused(401, "another user");

    provider.answer("/me", Reply::Silence);
    let (east, of_c) = (&east, &*of_c);
    std::thread::scope(|scope| {
        let slow = scope.spawn(move || show_both(east, "another-opaque", of_c));
        assert_eq!(show(east, &token("e@example.com")).metadata()["auth"], "trusted");
        Http::trusted(east).get("/1.0/auth/groups").expect(200);
        slow.join().expect("it ends").refused(503, "did not answer within 10 s");
    });
}

#[test]
fn a_wrong_token_of_ours_is_not_shown_to_the_provider_and_counts_as_a_guess() {
    let (east, provider) = (Agent::start("east"), Hostile::start());
    let admin = Http::socket(&east);
    let body = json!({ "type": "Client token bearer", "name": "ci", "groups": [] });
    admin.post("/1.0/auth/identities/bearer", &body).expect(201);
    let place = "/1.0/auth/identities/bearer/ci/token";
    let token =
        admin.post(place, &json!({})).expect(200).metadata()["token"].as_str().expect("a token").to_owned();
    set(&east, &provider.issuer()).expect(200);
    show(&east, &token).expect(200);
    admin.delete(place).expect(200);
    let statuses = until_told_to_wait(|_| show(&east, &token).status);
    assert_eq!(statuses[0], 403, "{statuses:?}");
    assert_eq!(provider.asked("/me"), 0);
}
