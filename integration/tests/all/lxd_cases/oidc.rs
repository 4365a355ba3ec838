//! Logins that an identity provider vouches for.

use integration::oidc::{DEVICE_CLIENT, Hostile, Reply};
use integration::{Http, LIMIT, Operator, Provider, wait_for};
use serde_json::{Value, json};

use super::Case;
use super::world::World;

/// Where a provider says what it is.
const DOCUMENT: &str = "/.well-known/openid-configuration";

pub const CASES: &[Case] = &[
    ("oidc-001", |w| {
        for scopes in ["openid", "email", "profile offline_access"] {
            set(w, &json!({ "oidc.scopes": scopes })).refused(400, "must be among the scopes");
        }
        set(w, &json!({ "oidc.scopes": "openid email" })).expect(200);
        set(w, &json!({ "oidc.scopes": "" })).expect(200);
    }),
    ("oidc-002", |w| {
        let provider = Hostile::start();
        let nowhere = integration::free_port();
        for issuer in [
            format!("http://127.0.0.1:{nowhere}"),
            format!("{}/elsewhere", provider.issuer()),
            format!("{}/", provider.issuer()),
            "https://nobody.invalid".to_owned(),
        ] {
            let config = json!({ "oidc.issuer": issuer, "oidc.client.id": "comity" });
            set(w, &config).refused(400, "Nothing was set");
            let shown = w.admin.get("/1.0").metadata()["config"].take();
            assert_eq!((&shown["oidc.issuer"], &shown["oidc.client.id"]), (&Value::Null, &Value::Null));
        }
    }),
    ("oidc-003", |w| {
        set(w, &json!({ "oidc.device.client.id": "device" })).refused(400, "oidc.client.id");
        assert!(w.admin.get("/1.0").metadata()["config"]["oidc.device.client.id"].is_null());
    }),
    ("oidc-005", |w| {
        if !Provider::is_installed() {
            return;
        }
        let mut provider = Provider::start();
        provider.account_with("eve", &json!({ "name": "eve" }));
        let config = json!({ "oidc.issuer": provider.issuer(), "oidc.client.id": DEVICE_CLIENT });
        set(w, &config).expect(200);
        for (login, why) in
            [("mallory", "the identity provider refused"), ("eve", "does not accept the login")]
        {
            let operator = Operator::new();
            let address = w.east.address();
            let add = ["remote", "add", "east", &address, "--accept-certificate", "--auth-type", "oidc"];
            let mut running = operator.begin(&add);
            provider.approve(&running.says("Code: "), login);
            let done = running.end().exits(1);
            assert!(done.stderr.contains(why), "{}", done.stderr);
            assert!(!operator.config_dir().join("config.toml").exists());
        }
        set(w, &json!({ "oidc.issuer": "", "oidc.client.id": "" })).expect(200);
    }),
    ("oidc-009", |w| {
        let provider = Hostile::start();
        set(w, &json!({ "oidc.issuer": provider.issuer(), "oidc.client.id": "comity" })).expect(200);
        let bearer = format!("Bearer {}", provider.sign(&provider.claims("u009@example.com", "comity")));
        let anonymous = Http::anonymous(&w.east);
        let first = anonymous.send("GET", "/1.0", &[("authorization", &bearer)], None).expect(200);
        let cookie =
            first.header("set-cookie").and_then(|all| all.split(';').next()).expect("a cookie").to_owned();
        let auth = || anonymous.send("GET", "/1.0", &[("cookie", &cookie)], None).metadata()["auth"].clone();
        let listed = || {
            let methods = anonymous.get("/1.0").metadata()["auth_methods"].take();
            methods.as_array().is_some_and(|methods| methods.contains(&json!("oidc")))
        };
        for path in [DOCUMENT, "/me"] {
            provider.answer(path, Reply::Status(503));
        }
        // A token that does not say whose it is, so that the provider is asked.
        let mut bare = provider.claims("other009@example.com", "comity");
        bare.as_object_mut().expect("an object").remove("email");
        let bare = format!("Bearer {}", provider.sign(&bare));
        anonymous.send("GET", "/1.0", &[("authorization", &bare)], None).refused(503, "");
        wait_for("the method is gone", LIMIT, || (!listed()).then_some(()));
        assert_eq!(auth(), "trusted");
        let issuer = provider.issuer();
        let document = json!({ "issuer": issuer, "jwks_uri": format!("{issuer}/jwks") });
        provider.answer(DOCUMENT, Reply::Json(document));
        wait_for("the method is back", LIMIT, || listed().then_some(()));
        assert_eq!(auth(), "trusted");
        set(w, &json!({ "oidc.issuer": "", "oidc.client.id": "" })).expect(200);
        assert_eq!(auth(), "untrusted");
    }),
];

fn set(w: &World, config: &Value) -> integration::http::Answer {
    w.admin.patch("/1.0", &json!({ "config": config }))
}
