//! What holds for any input: no panic, every span within its text, no secret shown, meaning independent of order.

use proptest::prelude::*;
use schema::config::{Loaded, NoInputs, SourceFile, dangling, load};
use schema::render::Colour;
use schema::render::diagnostic::{json, text};
use serde_json::{Map, Value, json};

use crate::support::source;

fn survives(name: &str, bytes: &[u8]) -> Loaded {
    let file = SourceFile { path: name.into(), folder: "".into(), bytes: bytes.into() };
    let loaded = load(&[file], &NoInputs);
    let shown = &loaded.sources.0[name];
    for diagnostic in &loaded.diagnostics {
        for at in diagnostic.location.iter().chain(diagnostic.related.iter().map(|(at, _)| at)) {
            assert!(at.span.start <= at.span.end && at.span.end <= shown.len(), "{diagnostic:?}");
            assert!(shown.get(at.span.clone()).is_some(), "{diagnostic:?}");
        }
    }
    let mut all = loaded.diagnostics.clone();
    all.extend(dangling(&loaded, |_| None));
    text(&all, &loaded.sources, Colour::Always);
    json(&all, &loaded.sources);
    loaded
}

/// Fragments of all three syntaxes, so that random files get past the first character.
fn fragments() -> impl Strategy<Value = String> {
    let fragment = prop_oneof![
        Just("service \"a\" {\n".to_owned()),
        Just("cluster_link \"west\" {".to_owned()),
        Just("locals {\n".to_owned()),
        Just("Kind = \"service-intentions\"\n".to_owned()),
        Just("Name = \"a\"\nSources = [{ ".to_owned()),
        Just("[service.a]\n".to_owned()),
        Just("{\"service\": {\"a\": {".to_owned()),
        Just("\"Kind\": \"exported-services\",".to_owned()),
        Just("checks = [{ tcp = \"127.0.0.1:1\" }]\n".to_owned()),
        Just("\"${env(\"X\")} ${local.a}\"".to_owned()),
        Just("<<-END\n a ${\n END\n".to_owned()),
        Just("a = local.b\n".to_owned()),
        Just("/* # //".to_owned()),
        prop::sample::select(vec![
            "{", "}", "[", "]", "(", ")", "\"", "'", "=", ":", ",", "\n", "\r\n", "\\", "${", "%{", "$${",
            "-", "0x", "1e9", "!", "?", "é", "\u{feff}", "\0", ".", "*", "true", "null", "port", " ", "\t",
            "#", "//", "/*", "*/", "<<E\n", "E\n"
        ])
        .prop_map(str::to_owned),
        any::<String>().prop_map(|text| text.chars().take(8).collect()),
    ];
    prop::collection::vec(fragment, 0..40).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for name in ["a.hcl", "a.toml", "a.json"] {
            survives(name, &bytes);
        }
    }

    #[test]
    fn no_text_does_harm(text in fragments()) {
        for name in ["a.hcl", "a.toml", "a.json"] {
            survives(name, text.as_bytes());
        }
    }

    #[test]
    fn three_syntaxes_mean_the_same(service in service()) {
        let document = json!({ "service": { "a": service }, "volume": { "default/v": {} } });
        let from_json = survives("a.json", document.to_string().as_bytes());
        let from_toml = survives("a.toml", toml::to_string(&document).unwrap().as_bytes());
        let mut hcl = String::from("service \"a\" {\n");
        for (key, value) in service.as_object().unwrap() {
            let value: hcl::Value = serde_json::from_value(value.clone()).unwrap();
            hcl.extend(["  ", key, " = ", &hcl::format::to_string(&value).unwrap(), "\n"]);
        }
        hcl.push_str("}\nvolume \"default/v\" {}\n");
        let from_hcl = survives("a.hcl", hcl.as_bytes());
        prop_assert_eq!(&from_json.diagnostics, &Vec::new());
        prop_assert_eq!(meaning(&from_json), meaning(&from_toml));
        prop_assert_eq!(meaning(&from_json), meaning(&from_hcl));
        // Normalised once is normalised for good: a record reads back as it was written.
        let again = json!({ "service": { "a": as_declared(&meaning(&from_json)) }, "volume": { "default/v": {} } });
        prop_assert_eq!(meaning(&survives("b.json", again.to_string().as_bytes())), meaning(&from_json));
    }

    #[test]
    fn tokens_are_never_shown(token in "[A-Za-z0-9+/]{30}[0-9][A-Za-z]{1,40}[0-9][a-z]{10}", place in 0_usize..8) {
        let hcl = match place {
            // Twice, as a short token without `+` and `/` is a name like any other.
            0 => format!("cluster_link \"{token}{token}\" {{}}"),
            1 => format!("service \"a\" {{ port = \"{token}\" }}"),
            2 => format!("service \"a\" {{ \"{token}\" = 1 }}"),
            3 => format!("cluster_link \"a\" {{ token = \"{token}\" }}"),
            4 => format!("auth_group \"a\" {{ permissions = [{{ entity_type = \"{token}\", entitlement = \"x\" }}] }}"),
            5 => format!("transfer \"a\" {{\n source = \"{token}\"\n prot = \"{token}\" }}"),
            6 => format!("Kind = \"{token}\"\nName = \"{token}\""),
            _ => format!("service \"a\" {{ prot = 1 }} # {token}\nservice \"a\" {{ tags = [ \"{token}\" \"b\" ] }}"),
        };
        let loaded = load(&[source("a.hcl", &hcl)], &NoInputs);
        prop_assert!(!loaded.diagnostics.is_empty());
        let shown = text(&loaded.diagnostics, &loaded.sources, Colour::Never);
        let value = json(&loaded.diagnostics, &loaded.sources).to_string();
        let part = &token[10..30];
        prop_assert!(!shown.contains(part), "{}", shown);
        prop_assert!(!value.contains(part), "{}", value);
    }
}

fn meaning(loaded: &Loaded) -> Value {
    loaded
        .desired
        .iter()
        .flat_map(|desired| &desired.records)
        .map(|(key, declared)| (key.to_string(), serde_json::to_value(&declared.record).unwrap()))
        .collect::<Map<_, _>>()
        .into()
}

/// The record of service `a` as a file would declare it.
fn as_declared(meaning: &Value) -> Value {
    let mut service = meaning["service/a"]["service"].clone();
    for check in service["checks"].as_array_mut().into_iter().flatten() {
        for name in ["interval", "timeout"] {
            let ms = check.as_object_mut().unwrap().remove(&format!("{name}_ms")).unwrap();
            check[name] = format!("{ms}ms").into();
        }
    }
    if service["checks"].is_null() {
        service.as_object_mut().unwrap().remove("checks");
    }
    service
}

/// A service as a file may declare it, lists in any order.
fn service() -> impl Strategy<Value = Value> {
    let check = prop_oneof![
        (1_u16.., 1_u64..100)
            .prop_map(|(port, s)| json!({"tcp": format!("127.0.0.1:{port}"), "interval": format!("{s}s")})),
        "[a-z]{1,5}"
            .prop_map(|path| json!({"http": format!("http://localhost:80/{path}"), "timeout": "1m30s"})),
    ];
    // Longer than any destination: an upstream that falls back to its own is refused.
    let fallback = prop::collection::btree_set("[a-z]{6,8}", 0..3);
    let uids = prop::collection::vec(0_u32..9, 0..3);
    let upstream = ("[a-z]{1,5}", 1_u16.., fallback, uids, prop::bool::ANY).prop_map(
        |(name, port, fallback, uids, on_socket)| {
            let fallback: Vec<Value> = fallback.into_iter().map(|name| json!({"name": name})).collect();
            let mut upstream = json!({"destination_name": name, "failover": fallback});
            if on_socket {
                upstream["local_bind_socket_path"] = format!("/run/{port}.sock").into();
                upstream["local_bind_socket_mode"] = format!("{:04o}", port % 0o777 + 1).into();
            } else {
                upstream["local_bind_port"] = port.into();
                upstream["local_bind_address"] = "127.0.0.1".into();
            }
            if !uids.is_empty() {
                upstream["allowed_uids"] = uids.into();
            }
            upstream
        },
    );
    (
        prop::option::of(1_u16..),
        prop::collection::vec(
            "[a-z\"\\\\ $%{}é]{0,6}".prop_filter("no templates", |t| !t.contains("${") && !t.contains("%{")),
            0..4,
        ),
        prop::collection::vec(check, 0..4),
        prop::collection::btree_map("[a-z]{1,4}", upstream, 0..4),
    )
        .prop_map(|(port, tags, checks, upstreams)| {
            let mut seen = std::collections::BTreeSet::new();
            let upstreams: Vec<Value> = upstreams
                .into_values()
                .filter(|up| {
                    seen.insert((up["local_bind_port"].to_string(), up["local_bind_socket_path"].to_string()))
                })
                .collect();
            let mut service =
                json!({"tags": tags, "checks": checks, "upstreams": upstreams, "address": "127.0.0.1"});
            if let Some(port) = port {
                service["port"] = port.into();
            }
            service
        })
}
