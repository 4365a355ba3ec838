//! Remotes, of our own command line and of lxc's.

use integration::http::fingerprint_of;
use integration::{Lxc, Operator, own_only};
use serde_json::json;

use super::Case;

pub const CASES: &[Case] = &[
    ("remote-001", |w| {
        for (name, address) in
            [("r001", w.east.address()), ("r001b", format!("https://{}", w.east.address()))]
        {
            let token = w.token(&json!({ "token": true, "type": "client", "name": name }));
            Operator::new().run(&["remote", "add", "test", &address, "--token", &token]).success();
        }
    }),
    ("remote-002", |w| {
        for name in ["-foo", "fo/o"] {
            let body = json!({ "token": true, "type": "client", "name": name });
            w.admin.post("/1.0/certificates", &body).refused(400, "");
        }
    }),
    ("remote-007", |w| {
        let other = Operator::new();
        other.trusted_by(&w.east);
        other.run(&["remote", "switch", "east"]).success();
        other.run(&["remote", "rename", "east", "bar"]).success();
        assert_eq!(other.run(&["remote", "get-default"]).success().stdout.trim(), "bar");
    }),
    ("remote-008", |w| {
        let other = Operator::new();
        other.trusted_by(&w.east);
        // The last one may go: there is nothing left to be the default then.
        other.trusted_by(&w.west);
        other.run(&["remote", "switch", "east"]).success();
        let done = other.run(&["remote", "remove", "east"]);
        assert!(
            done.code != Some(0) && done.stderr.contains("Cannot remove the default remote"),
            "{}",
            done.stderr
        );
    }),
    ("remote-009", |w| {
        if own_only() {
            return;
        }
        let lxc = Lxc::new();
        lxc.add(&w.east);
        lxc.converse(&["remote", "add", "foo", &w.east.address()], &[("ok (y/n", "y")]).success();
    }),
    ("remote-012", |w| {
        if own_only() {
            return;
        }
        for answer in ["n", ""] {
            let done =
                Lxc::new().converse(&["remote", "add", "foo", &w.east.address()], &[("ok (y/n", answer)]);
            assert!(done.exits(1).stderr.contains("Server certificate NACKed by user"));
        }
    }),
    ("remote-013", |w| {
        if own_only() {
            return;
        }
        let fingerprint = fingerprint_of(&w.east).to_string();
        let token = Lxc::token(&w.east, "r013");
        let answers = [("ok (y/n", fingerprint.as_str()), ("(or token) for foo: ", token.as_str())];
        Lxc::new().converse(&["remote", "add", "foo", &w.east.address()], &answers).success();
    }),
];
