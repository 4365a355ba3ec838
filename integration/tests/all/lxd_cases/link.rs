//! Cluster links: making, changing, ending them, and what their names and addresses may be.

use integration::http::{Answer, fingerprint_of};
use integration::{Agent, Http, LIMIT, wait_for};
use serde_json::{Value, json};

use super::Case;
use super::world::{World, encode};

const LINKS: &str = "/1.0/cluster/links";

pub const CASES: &[Case] = &[
    ("link-003", |w| {
        w.admin.post(LINKS, &pending("l003")).expect(201);
        w.admin.delete(&format!("{LINKS}/l003")).expect(200);
        w.admin.get(&format!("{LINKS}/l003")).expect(404);
        assert!(!identities(&w.admin).contains("l003"));
    }),
    ("link-006", |w| {
        let token = w.admin.post(LINKS, &pending("l006")).expect(201).metadata();
        let mut wrong = token;
        wrong["secret"] = "0".repeat(64).into();
        let body = json!({ "name": "l006b", "type": "bidirectional", "trust_token": encode(&wrong) });
        let answer = w.western.post(LINKS, &body);
        assert!(answer.status >= 400, "{}", answer.status);
        w.western.get(&format!("{LINKS}/l006b")).expect(404);
        assert!(!identities(&w.western).contains("l006b"));
    }),
    ("link-009", |w| {
        linked("l009", |w, north| {
            w.link_to(north, "l009");
            let path = format!("{LINKS}/l009");
            let before = w.admin.get(&path).expect(200).metadata();
            let body = json!({ "config": { "volatile.addresses": "99.99.99.99:8443" } });
            w.admin.patch(&path, &body).refused(400, "Volatile configuration keys cannot be modified");
            assert_eq!(w.admin.get(&path).metadata()["config"], before["config"]);
        })(w);
    }),
    ("link-011", |w| {
        linked("l011", |w, north| {
            w.link_to(north, "l011");
            let there = Http::trusted(north);
            let name = there.get(&format!("{LINKS}?recursion=1")).metadata()[0]["name"].clone();
            let name = name.as_str().expect("a name").to_owned();
            assert!(identities(&there).contains(&fingerprint_of(&w.east).to_string()));
            there.delete(&format!("{LINKS}/{name}")).expect(200);
            assert!(!identities(&there).contains(&fingerprint_of(&w.east).to_string()));
        })(w);
    }),
    ("link-017", |w| {
        let done = w.comity(&["link", "create", "l017", "--unidirectional", "--public"]);
        assert_eq!(done.code, Some(64), "{}", done.stderr);
    }),
    ("link-018", |w| {
        let done = w.comity(&["link", "create", "l018", "--unidirectional", "--auth-group", "g"]);
        assert_ne!(done.code, Some(0), "{}", done.stderr);
    }),
    ("link-021", |w| {
        assert_ne!(w.comity(&["link", "create", "l021", "--public"]).code, Some(0));
        assert_ne!(w.comity(&["link", "create", "l021", "--remote-address", "127.0.0.1:1"]).code, Some(0));
    }),
    ("link-023", |w| {
        let answer = w.admin.post(LINKS, &json!({ "name": "l023", "type": "public" }));
        answer.refused(400, "remote_address");
        w.admin.get(&format!("{LINKS}/l023")).expect(404);
    }),
    ("link-025", |w| public(w, "l025", "n\n", "Remote cluster certificate NACKed by user")),
    ("link-026", |w| {
        let wrong = format!("{}\n", "0".repeat(64));
        let why = "The provided fingerprint does not match the remote cluster certificate fingerprint";
        public(w, "l026", &wrong, why);
    }),
    ("link-027", |w| public(w, "l027", "", "")),
    ("link-031", |w| {
        let first = json!({ "name": "l031", "type": "public", "remote_address": w.west.address() });
        let shown = w.admin.post(LINKS, &first).expect(200).metadata();
        let body = json!({
            "name": "l031", "type": "public", "cluster_certificate": shown["certificate"],
            "remote_address": "127.0.0.1:1",
        });
        let answer = w.admin.post(LINKS, &body);
        assert!(answer.status < 300, "{}", answer.status);
        let link = w.admin.get(&format!("{LINKS}/l031")).expect(200).metadata();
        assert_eq!(link["config"]["volatile.addresses"], w.west.address().as_str());
    }),
    ("link-033", |w| {
        let first = json!({ "name": "l033", "type": "public", "remote_address": w.west.address() });
        let shown = w.admin.post(LINKS, &first).expect(200).metadata();
        let second = json!({ "name": "l033", "type": "public", "cluster_certificate": shown["certificate"] });
        assert!(w.admin.post(LINKS, &second).status < 300);
        w.admin.post(LINKS, &second).refused(409, "has already been confirmed");
        w.admin.post(LINKS, &first).refused(409, "has already been confirmed");
    }),
    ("link-038", |w| name(w, "primary", true)),
    ("link-039", |w| name(w, "backup-cluster", true)),
    ("link-040", |w| name(w, "link123", true)),
    ("link-042", |w| name(w, "", false)),
    ("link-044", |w| name(w, "link..bad", false)),
    ("link-045", |w| name(w, "a/b", false)),
    ("link-046", |w| name(w, "link?param=1", false)),
    ("link-047", |w| name(w, "link&other", false)),
    ("link-049", |w| name(w, "lïnk", false)),
    ("link-062", |w| {
        for key in ["invalid.key", "foo"] {
            let mut body = pending("l062");
            body["config"] = json!({ key: "x" });
            let why = format!("Invalid cluster link configuration key \"{key}\"");
            w.admin.post(LINKS, &body).refused(400, &why);
        }
    }),
    ("link-063", |w| {
        for kind in ["", "one-way"] {
            w.admin.post(LINKS, &json!({ "name": "l063", "type": kind })).refused(400, "");
        }
        w.admin.post(LINKS, &pending("l063")).expect(201);
    }),
    ("link-064", |w| {
        linked("l064", |w, north| {
            w.link_to(north, "l064");
            let put = volatile(w, "l064", "PUT");
            put(&|_| {}).expect(200);
            put(&|config| config["volatile.addresses"] = json!("99.99.99.99:8443")).expect(400);
            put(&|config| {
                config.as_object_mut().expect("an object").remove("volatile.addresses");
            })
            .expect(400);
            put(&|config| config["volatile.other"] = json!("x")).expect(400);
        })(w);
    }),
    ("link-065", |w| {
        linked("l065", |w, north| {
            w.link_to(north, "l065");
            let patch = volatile(w, "l065", "PATCH");
            patch(&|config| *config = json!({ "user.x": "y" })).expect(200);
            patch(&|_| {}).expect(200);
            patch(&|config| config["volatile.addresses"] = json!("99.99.99.99:8443")).expect(400);
            patch(&|config| config["volatile.other"] = json!("x")).expect(400);
        })(w);
    }),
    ("link-066", |w| {
        linked("l066", |w, north| {
            let mut body = pending("l066");
            body["config"] = json!({ "user.description": "kept" });
            let token = w.admin.post(LINKS, &body).expect(201).metadata();
            w.redeem(north, "l066", &token);
            let link = w.admin.get(&format!("{LINKS}/l066")).expect(200).metadata();
            assert_eq!(link["config"]["user.description"], "kept");
            assert_eq!(link["config"]["volatile.addresses"], north.address().as_str());
        })(w);
    }),
];

impl World {
    /// Makes a link between east, which calls it `name`, and another agent.
    fn link_to(&self, north: &Agent, name: &str) {
        let token = self.admin.post(LINKS, &pending(name)).expect(201).metadata();
        self.redeem(north, name, &token);
    }

    fn redeem(&self, north: &Agent, name: &str, token: &Value) {
        let body = json!({ "name": name, "type": "bidirectional", "trust_token": encode(token) });
        Http::trusted(north).post(LINKS, &body).expect(201);
        wait_for("the link has addresses", LIMIT, || {
            let link = self.admin.get(&format!("{LINKS}/{name}")).metadata();
            link["config"]["volatile.addresses"].as_str().is_some_and(|text| !text.is_empty()).then_some(())
        });
    }
}

/// Runs a case with a third agent of its own: two clusters have one link.
fn linked(name: &'static str, body: fn(&World, &Agent)) -> impl Fn(&World) {
    move |w| {
        let north = Agent::start(name);
        body(w, &north);
    }
}

fn pending(name: &str) -> Value {
    json!({ "name": name, "type": "bidirectional", "auth_groups": [] })
}

fn identities(http: &Http) -> String {
    http.get("/1.0/auth/identities?recursion=1").expect(200).metadata().to_string()
}

fn name(w: &World, name: &str, valid: bool) {
    let answer = w.admin.post(LINKS, &pending(name));
    if valid {
        answer.expect(201);
    } else {
        assert!((400..500).contains(&answer.status), "{name:?}: {}", answer.status);
    }
}

/// A public link whose certificate is not taken leaves nothing.
fn public(w: &World, name: &str, answer: &str, why: &str) {
    let address = w.west.address();
    let done = w.comity_with(&["link", "create", name, "--public", "--remote-address", &address], answer);
    assert!(done.code != Some(0) && done.stderr.contains(why), "{}", done.stderr);
    w.admin.get(&format!("{LINKS}/{name}")).expect(404);
}

/// Sends the link's own description and configuration back, changed.
fn volatile<'a>(w: &'a World, name: &str, method: &'a str) -> impl Fn(&dyn Fn(&mut Value)) -> Answer + 'a {
    let path = format!("{LINKS}/{name}");
    move |change| {
        let link = w.admin.get(&path).expect(200).metadata();
        let mut config = link["config"].clone();
        change(&mut config);
        let body = json!({ "description": link["description"], "config": config }).to_string();
        w.admin.send(method, &path, &[], Some(&body))
    }
}
