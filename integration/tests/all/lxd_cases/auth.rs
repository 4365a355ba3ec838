//! Auth groups, their permissions, and identities.

use integration::Http;
use integration::oidc::Hostile;
use serde_json::json;

use super::Case;
use super::world::{World, shown};

pub const CASES: &[Case] = &[
    ("auth-001", |w| refused(w, "g001", "not_an_entity_type", "/1.0/nothing/fake_name", "can_view")),
    ("auth-002", |w| {
        refused(w, "g002", "container", "/1.0/containers/fake_name?project=default", "can_view");
    }),
    ("auth-004", |w| {
        refused(
            w,
            "g004",
            "instance_snapshot",
            "/1.0/instances/i/snapshots/fake_name?project=default",
            "can_view",
        );
    }),
    ("auth-006", |w| {
        let url = "/1.0/storage-pools/default/volumes/custom/v/backups/fake_name?project=default";
        refused(w, "g006", "storage_volume_backup", url, "can_view");
    }),
    ("auth-007", |w| {
        let url = "/1.0/storage-pools/default/volumes/custom/v/snapshots/fake_name?project=default";
        refused(w, "g007", "storage_volume_snapshot", url, "can_view");
    }),
    ("auth-009", |w| refused(w, "g009", "cluster_group", "/1.0/cluster/groups/fake_name", "can_view")),
    ("auth-010", |w| {
        w.group("g010");
        w.comity(&["auth", "group", "permission", "add", "g010", "server", "admin"]).success();
        w.comity(&["auth", "group", "permission", "remove", "g010", "server", "admin"]).success();
        let again = w.comity(&["auth", "group", "permission", "remove", "g010", "server", "admin"]).exits(1);
        assert!(again.stderr.contains("does not have"), "{}", again.stderr);
    }),
    ("auth-013", |w| {
        let client = w.client("c013", None);
        w.group("g013");
        let url = format!("/1.0/certificates/{}", client.fingerprint());
        w.permissions("g013", &[("certificate", &url, "can_view")]).expect(200);
    }),
    ("auth-017", |w| refused(w, "g017", "project", "/1.0/projects/default", "not_a_project_entitlement")),
    ("auth-018", |w| refused(w, "g018", "instance", "/1.0/instances/c1?project=default", "can_exec")),
    ("auth-019", |w| {
        w.group("g019");
        let done = w.comity(&["auth", "group", "permission", "add", "g019", "instance", "c1", "can_exec"]);
        assert!(done.code != Some(0) && done.stderr.contains("project"), "{}", done.stderr);
    }),
    ("auth-022", |w| {
        volume(w, "vol022");
        w.group("g022");
        let url = "/1.0/storage-pools/default/volumes/custom/vol022?project=default";
        let viewer = ("project", "/1.0/projects/default", "viewer");
        w.permissions("g022", &[viewer, ("storage_volume", url, "can_manage_backups")]).expect(200);
    }),
    ("auth-023", |w| {
        volume(w, "vol023");
        w.group("g023");
        let add =
            ["auth", "group", "permission", "add", "g023", "storage_volume", "vol023", "can_manage_backups"];
        for more in [&[][..], &["project=default"], &["project=default", "pool=default"]] {
            let done = w.comity(&[&add, more].concat());
            assert_ne!(done.code, Some(0), "{}", done.command);
        }
        refused(
            w,
            "g023b",
            "storage_volume",
            "/1.0/storage-pools/default/volumes/vol023",
            "can_manage_backups",
        );
    }),
    ("auth-026", |w| {
        // Of a TLS client, as an OIDC identity is made by its first login only.
        let who = w.identity("i026", &[]);
        let path = format!("/1.0/auth/identities/tls/{}", who.fingerprint());
        let answer = w.admin.patch(&path, &json!({ "groups": ["missing026"] }));
        assert!((400..500).contains(&answer.status), "{}", answer.status);
    }),
    ("auth-027", |w| {
        w.group("g027");
        let who = w.identity("i027", &[]);
        let path = format!("/1.0/auth/identities/tls/{}", who.fingerprint());
        let body =
            json!({ "groups": ["g027", "not-found1", "not-found2"], "tls_certificate": shown(&who).pem });
        let error = w.admin.put(&path, &body).error();
        assert_eq!(error, "One or more groups were not found: \"not-found1\", \"not-found2\"");
    }),
    ("auth-028", |w| {
        let done = w.comity(&["auth", "identity", "create", "oidc/a@b.example"]);
        assert!(done.stderr.contains("OIDC identities cannot be created manually"), "{}", done.stderr);
    }),
    ("auth-033", |w| {
        let (provider, user) = (logins(w), "test-user@example.com");
        let token = provider.sign(&provider.claims(user, "comity"));
        let bearer = format!("Bearer {token}");
        let asked = Http::anonymous(&w.east).send("GET", "/1.0", &[("authorization", &bearer)], None);
        asked.expect(200);
        w.group("g033");
        w.comity(&[
            "auth",
            "group",
            "permission",
            "add",
            "g033",
            "identity",
            &format!("oidc/{user}"),
            "can_view",
        ])
        .success();
        no_logins(w);
    }),
    ("auth-034", |w| {
        let body = json!({ "name": "i034", "token": true });
        let pending = w.admin.post("/1.0/auth/identities/tls", &body).expect(201);
        let url = pending.header("location").expect("it is somewhere").to_owned();
        w.group("g034");
        w.permissions("g034", &[("identity", &url, "can_view")]).expect(200);
    }),
    ("auth-035", |w| {
        let place = bearer(w, "b035");
        let shown = w.admin.get(&place).expect(200).metadata();
        assert!(shown["expires_at"].is_null(), "{shown}");
    }),
    ("auth-036", |w| {
        let place = bearer(w, "b036");
        let header = issued(w, &place);
        let who = Http::anonymous(&w.east).send("GET", "/1.0", &[("authorization", &header)], None);
        let server = who.expect(200).metadata();
        let id = w.admin.get(&place).expect(200).metadata()["id"].clone();
        assert_eq!((&server["auth"], &server["auth_user_method"]), (&json!("trusted"), &json!("bearer")));
        assert_eq!(server["auth_user_name"], id);
    }),
    ("auth-037", |w| {
        let place = bearer(w, "b037");
        let header = issued(w, &place);
        w.admin.delete(&format!("{place}/token")).expect(200);
        let refused = Http::anonymous(&w.east).send("GET", "/1.0", &[("authorization", &header)], None);
        refused.refused(403, "");
        let shown = w.admin.get(&place).expect(200).metadata();
        assert!(shown["expires_at"].is_null(), "{shown}");
    }),
    ("auth-039", |w| {
        let body = json!({ "name": "idp039", "groups": ["missing039"] });
        let answer = w.admin.post("/1.0/auth/identity-provider-groups", &body);
        assert!((400..500).contains(&answer.status), "{}", answer.status);
    }),
    ("auth-040", |w| {
        w.group("g040");
        w.comity(&["auth", "identity-provider-group", "create", "idp040"]).success();
        let done = w.comity(&["auth", "identity-provider-group", "group", "remove", "idp040", "g040"]);
        assert!(done.code != Some(0) && done.stderr.contains("not mapped"), "{}", done.stderr);
    }),
    ("auth-041", |w| {
        let list = w.admin.get("/1.0/auth/permissions?entity-type=server&recursion=1").expect(200).metadata();
        let rows = list.as_array().expect("a list");
        assert!(rows.iter().all(|row| row["entity_type"] == "server" && row["url"] == "/1.0"), "{list}");
        let admin = rows.iter().find(|row| row["entitlement"] == "admin").expect("there is admin");
        assert!(
            admin["groups"].as_array().is_some_and(|groups| groups.contains(&json!("admins"))),
            "{admin}"
        );
        assert!(rows.len() >= 37, "{} of 37", rows.len());
    }),
    ("auth-046", |w| {
        let who = w.identity("i046", &[]);
        let pool = w.admin.get("/1.0/storage-pools").metadata();
        let path = pool[0].as_str().expect("there is a pool").to_owned();
        assert_eq!(who.get(&path).expect(200).metadata()["used_by"], json!([]));
    }),
    ("auth-048", |w| {
        let (provider, alice) = (logins(w), "alice048@example.com");
        let token = provider.sign(&provider.claims(alice, "comity"));
        let place = format!("/1.0/auth/identities/oidc/{alice}");
        let send = |method: &str, path: &str| {
            Http::anonymous(&w.east).send(
                method,
                path,
                &[("authorization", &format!("Bearer {token}"))],
                None,
            )
        };
        send("GET", "/1.0/auth/identities/current").expect(200);
        w.group("g048");
        w.permissions("g048", &[("server", "/1.0", "viewer")]).expect(200);
        w.admin.patch(&place, &json!({ "groups": ["g048"] })).expect(200);
        send("DELETE", &place).expect(200);
        w.admin.get(&place).refused(404, "");
        let current = send("GET", "/1.0/auth/identities/current").expect(200).metadata();
        assert_eq!((&current["id"], &current["effective_permissions"]), (&json!(alice), &json!([])));
        w.admin.get(&place).expect(200);
        no_logins(w);
    }),
    ("auth-049", |w| {
        // Of a TLS client: who it is makes no difference.
        let (who, other) = (w.identity("i049", &[]), w.identity("o049", &[]));
        let path = format!("/1.0/auth/identities/tls/{}", other.fingerprint());
        who.get(&path).refused(404, "Not Found");
        who.delete(&path).refused(404, "Not Found");
    }),
    ("auth-050", |w| {
        w.group("g050");
        w.group("secret050");
        let target = w.identity("t050", &["secret050"]);
        let path = format!("/1.0/auth/identities/tls/{}", target.fingerprint());
        w.group("editors050");
        let rights = [
            ("identity", path.as_str(), "can_view"),
            ("identity", path.as_str(), "can_edit"),
            ("group", "/1.0/auth/groups/g050", "can_view"),
        ];
        w.permissions("editors050", &rights).expect(200);
        let editor = w.identity("e050", &["editors050"]);
        editor.patch(&path, &json!({ "groups": ["g050"] })).expect(403);
    }),
    ("auth-053", |w| {
        w.group("g053");
        let (who, next) = (w.identity("i053", &["g053"]), Http::stranger(&w.east));
        let path = format!("/1.0/auth/identities/tls/{}", who.fingerprint());
        who.put(&path, &json!({ "tls_certificate": shown(&next).pem }))
            .refused(403, "Only the certificate may be changed");
    }),
    ("auth-054", |w| {
        w.group("g054");
        let (who, next) = (w.identity("i054", &["g054"]), Http::stranger(&w.east));
        let path = format!("/1.0/auth/identities/tls/{}", who.fingerprint());
        who.put(&path, &json!({ "tls_certificate": shown(&next).pem, "groups": ["g054"] })).expect(200);
        assert_eq!(who.get("/1.0").metadata()["auth"], "untrusted");
        assert_eq!(next.get("/1.0").metadata()["auth"], "trusted");
    }),
    ("auth-055", |w| {
        w.group("g055");
        let (who, next) = (w.identity("i055", &[]), Http::stranger(&w.east));
        let path = format!("/1.0/auth/identities/tls/{}", who.fingerprint());
        who.patch(&path, &json!({ "tls_certificate": shown(&next).pem, "groups": ["g055"] })).expect(403);
    }),
    ("auth-056", |w| {
        let (who, next) = (w.identity("i056", &[]), Http::stranger(&w.east));
        let path = format!("/1.0/auth/identities/tls/{}", who.fingerprint());
        who.patch(&path, &json!({ "tls_certificate": shown(&next).pem })).expect(200);
        assert_eq!(next.get("/1.0").metadata()["auth"], "trusted");
    }),
    ("auth-057", |w| {
        let (provider, user) = (logins(w), "user057@example.com");
        let token = provider.sign(&provider.claims(user, "comity"));
        let bearer = format!("Bearer {token}");
        let asked = Http::anonymous(&w.east).send("GET", "/1.0", &[("authorization", &bearer)], None);
        asked.expect(200);
        let body = json!({ "groups": [], "tls_certificate": shown(&w.admin).pem });
        let place = format!("/1.0/auth/identities/oidc/{user}");
        let words = "Cannot update certificate for identities of type \"OIDC client\"";
        w.admin.put(&place, &body).refused(400, words);
        no_logins(w);
    }),
    ("auth-062", |w| {
        let path = "/1.0/auth/groups/admins";
        w.admin
            .put(path, &json!({ "description": "x", "permissions": [] }))
            .refused(400, "cannot be modified");
        w.admin.patch(path, &json!({ "description": "x" })).refused(400, "cannot be modified");
        w.admin.post(path, &json!({ "name": "other062" })).refused(400, "cannot be renamed");
        w.admin.delete(path).refused(400, "cannot be deleted");
    }),
    ("auth-063", |w| {
        let add = |name: &str| w.admin.post("/1.0/auth/groups", &json!({ "name": name }));
        add("").refused(400, "Group name cannot be empty");
        add("a/b").refused(400, "cannot contain a forward slash");
        add("a:b").refused(400, "cannot contain a colon");
    }),
    ("auth-064", |w| {
        w.group("g064");
        let path = "/1.0/auth/groups/g064";
        let tag = w.admin.get(path).expect(200).header("etag").expect("it has one").to_owned();
        let body = json!({ "description": "first", "permissions": [] }).to_string();
        w.admin.send("PUT", path, &[("if-match", &tag)], Some(&body)).expect(200);
        w.admin.send("PUT", path, &[("if-match", &tag)], Some(&body)).refused(412, "");
    }),
    ("auth-065", |w| {
        Http::socket(&w.east)
            .get("/1.0/auth/identities/current")
            .refused(400, "Current identity information must be requested via the HTTPS API");
    }),
];

fn refused(w: &World, group: &str, kind: &str, url: &str, entitlement: &str) {
    w.group(group);
    w.permissions(group, &[(kind, url, entitlement)]).refused(400, "");
}

fn volume(w: &World, name: &str) {
    let body = json!({ "name": name, "config": {} });
    w.admin.post("/1.0/storage-pools/default/volumes/custom", &body).expect(201);
}

/// An identity provider that east takes the word of.
fn logins(w: &World) -> Hostile {
    let provider = Hostile::start();
    let config = json!({ "oidc.issuer": provider.issuer(), "oidc.client.id": "comity" });
    w.admin.patch("/1.0", &json!({ "config": config })).expect(200);
    provider
}

fn no_logins(w: &World) {
    let config = json!({ "oidc.issuer": "", "oidc.client.id": "" });
    w.admin.patch("/1.0", &json!({ "config": config })).expect(200);
}

/// A bearer identity without a token, and where it is.
fn bearer(w: &World, name: &str) -> String {
    let body = json!({ "type": "Client token bearer", "name": name, "groups": [] });
    w.admin.post("/1.0/auth/identities/bearer", &body).expect(201);
    format!("/1.0/auth/identities/bearer/{name}")
}

/// What a bearer sends with its requests, its token fresh.
fn issued(w: &World, place: &str) -> String {
    let token = w.admin.post(&format!("{place}/token"), &json!({ "expiry": "1d" })).expect(200).metadata();
    format!("Bearer {}", token["token"].as_str().expect("a token"))
}
