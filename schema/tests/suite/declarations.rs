//! Declarations from files to desired state: the same in three syntaxes, the seeds' files, and many at once.

use std::path::Path;
use std::sync::Arc;

use schema::config::{Inputs, Loaded, NoInputs, SourceFile, dangling, load};
use schema::diagnostic::{Diagnostic, Severity};
use schema::render::Colour;
use schema::render::diagnostic::text;

use crate::support::{files_beneath, source, testdata};

fn shown(loaded: &Loaded, more: &[Diagnostic]) -> String {
    let all: Vec<Diagnostic> = loaded.diagnostics.iter().chain(more).cloned().collect();
    text(&all, &loaded.sources, Colour::Never)
}

/// What is desired, without the places.
fn meaning(loaded: &Loaded) -> serde_json::Value {
    loaded
        .desired
        .iter()
        .map(|desired| {
            let records: serde_json::Map<String, serde_json::Value> = desired
                .records
                .iter()
                .map(|(key, declared)| (key.to_string(), serde_json::to_value(&declared.record).unwrap()))
                .collect();
            serde_json::json!({
                "name": desired.name,
                "manifest": desired.manifest,
                "records": records,
                "tokens": format!("{:?}", desired.token_sources),
            })
        })
        .collect()
}

fn load_folder(folder: &Path) -> Loaded {
    load(&files_beneath(folder), &NoInputs)
}

#[test]
fn three_syntaxes_mean_the_same() {
    let [hcl, toml, json] =
        ["hcl", "toml", "json"].map(|syntax| load_folder(&testdata().join("formats").join(syntax)));
    for loaded in [&hcl, &toml, &json] {
        let loose = dangling(loaded, |_| None);
        assert_eq!(shown(loaded, &loose), "");
        assert_eq!(loaded.desired.len(), 2);
    }
    assert_eq!(meaning(&hcl), meaning(&toml));
    assert_eq!(meaning(&hcl), meaning(&json));
    let keys: Vec<String> = hcl.desired[0].records.keys().map(ToString::to_string).collect();
    assert_eq!(
        keys,
        [
            "auth_group/clusters",
            "cluster_link/west",
            "service/backend",
            "exported_services/default/backend",
            "service_intentions/backend/@/*",
            "service_intentions/backend/west/frontend",
            "volume/default/orders",
            "transfer/monday-to-west",
            "transfer/orders-to-west",
            "transfer/web-to-west",
        ]
    );
    // What is shown of a record declares it again.
    let records = &hcl.desired[0].records;
    let text: String =
        records.iter().map(|(key, desired)| schema::render::record::hcl(key, &desired.record)).collect();
    let transfers = text.split_inclusive("\n}\n").filter(|block| block.starts_with("transfer "));
    let manifest = "manifest \"shop\" {\n  cluster = \"east\"\n}\n";
    let again = format!("{manifest}{}volume \"default/orders\" {{}}\n", transfers.collect::<String>());
    let again = load(&[source("again.hcl", &again)], &NoInputs);
    assert_eq!(shown(&again, &[]), "");
    for (key, desired) in records.iter().filter(|(key, _)| key.kind() == schema::kind::Kind::Transfer) {
        assert_eq!(again.desired[0].records[key].record, desired.record);
    }
}

#[test]
fn consul_entries_are_taken_as_they_are() {
    let loaded = load_folder(&testdata().join("seeds/001"));
    assert_eq!(shown(&loaded, &[]), "");
    assert_eq!(loaded.desired.len(), 1);
    assert_eq!(loaded.desired[0].name.as_str(), "default");
    let keys: Vec<String> = loaded.desired[0].records.keys().map(ToString::to_string).collect();
    assert_eq!(
        keys,
        [
            "exported_services/default/service-name",
            "service_intentions/backend-service/cluster-02/frontend-service"
        ]
    );
    // The peer is not declared here: Consul takes that, and so do we, but it is said.
    let loose = dangling(&loaded, |_| None);
    assert_eq!(loose.len(), 2);
    assert!(loose.iter().all(|diagnostic| diagnostic.severity == Severity::Warning));
}

#[test]
fn a_block_and_an_entry_mean_the_same() {
    let entry = load(
        &[source(
            "e.hcl",
            "kind = \"service-intentions\"\n\"Name\" = \"db\"\nSources { name = \"web\" peer = \"west\" action = \"allow\" }\n\
             sources = [{ NAME = \"*\", Action = \"deny\" }]\n",
        )],
        &NoInputs,
    );
    let block = load(
        &[source(
            "b.hcl",
            "service_intentions \"db\" {\n  sources {\n    name = \"*\"\n    action = \"deny\"\n  }\n  sources {\n    \
             name = \"web\"\n    peer = \"west\"\n    action = \"allow\"\n  }\n}\n",
        )],
        &NoInputs,
    );
    let json = load(
        &[source(
            "e.json",
            r#"{"Kind":"service-intentions","Name":"db","CreateIndex":4,"Sources":[{"Name":"web","Peer":"west","Action":"allow","Precedence":9,"Type":"consul"},{"Name":"*","Action":"deny"}]}"#,
        )],
        &NoInputs,
    );
    assert_eq!(shown(&entry, &block.diagnostics), "");
    assert_eq!(shown(&json, &[]), "");
    assert_eq!(meaning(&entry), meaning(&block));
    assert_eq!(meaning(&entry), meaning(&json));
}

/// An environment of one variable and a folder of one file.
struct World;

impl Inputs for World {
    fn env(&self, name: &str) -> Result<String, String> {
        if name == "SITE" {
            Ok("${local.nothing} \"ort\"".to_owned())
        } else {
            Err(format!("{name} is not set"))
        }
    }

    fn file(&self, declaring: &str, wanted: &str) -> Result<String, String> {
        Ok(format!("{wanted} of {declaring}"))
    }
}

#[test]
fn values_are_worked_out_and_what_comes_from_outside_is_never_parsed() {
    let hcl = r#"
        locals {
          text  = "${local.words[1]} at ${env("SITE")}"
          words = ["a", "b"]
        }
        auth_group "g" { description = local.text }
        auth_group "h" { description = file("note.txt") }
        auth_group "i" { description = 1 + 1 == 2 ? "$${yes}" : "no" }
        auth_group "j" {
          description = <<-END
            two
              lines
          END
        }
    "#;
    let loaded = load(&[source("a.hcl", hcl)], &World);
    assert_eq!(shown(&loaded, &[]), "");
    let meaning = meaning(&loaded);
    let description =
        |name: &str| meaning[0]["records"][name]["auth_group"]["description"].as_str().unwrap().to_owned();
    assert_eq!(description("auth_group/g"), "b at ${local.nothing} \"ort\"");
    assert_eq!(description("auth_group/h"), "note.txt of a.hcl");
    assert_eq!(description("auth_group/i"), "${yes}");
    assert_eq!(description("auth_group/j"), "two\n  lines\n");
    let json =
        r#"{"auth_group": {"g": {"description": "${local.x} $${y}"}}, "locals": {"x": "${env(\"SITE\")}"}}"#;
    let loaded = load(&[source("a.json", json)], &World);
    assert_eq!(shown(&loaded, &[]), "");
    assert_eq!(
        self::meaning(&loaded)[0]["records"]["auth_group/g"]["auth_group"]["description"],
        "${local.nothing} \"ort\" ${y}"
    );
}

#[test]
fn nothing_means_nothing_and_a_manifest_alone_means_none() {
    assert!(load(&[], &NoInputs).desired.is_empty());
    assert!(load(&[source("east/empty.hcl", "# nothing\n")], &NoInputs).desired.is_empty());
    let loaded = load(&[source("east/m.hcl", "manifest \"shop\" {}\n")], &NoInputs);
    assert_eq!(loaded.desired.len(), 1);
    assert!(loaded.desired[0].records.is_empty());
}

#[test]
fn a_file_belongs_to_the_nearest_manifest_upward() {
    let group = |name: &str| format!("auth_group \"{name}\" {{}}\n");
    let loaded = load(
        &[
            source("./a/m.hcl", "manifest \"a\" {}"),
            source("a/b/c/x.hcl", &group("x")),
            source("a/b/m.toml", "[manifest.b]\n"),
            source("a/d/y.hcl", &group("y")),
            source("z.hcl", &group("z")),
        ],
        &NoInputs,
    );
    assert_eq!(shown(&loaded, &[]), "");
    let owned: Vec<(String, Vec<String>)> = loaded
        .desired
        .iter()
        .map(|desired| (desired.name.to_string(), desired.records.keys().map(ToString::to_string).collect()))
        .collect();
    let one = |name: &str, key: &str| (name.to_owned(), vec![key.to_owned()]);
    assert_eq!(owned, [one("a", "auth_group/y"), one("b", "auth_group/x"), one("default", "auth_group/z")]);
}

#[test]
fn thousands_of_faults_are_all_told_and_quickly() {
    let block = |n| format!("service \"s{n}\" {{\n  prot = {n}\n  é = \"ü\"\n}}\n");
    let hcl = (0..5000).map(block).collect::<Vec<_>>().concat();
    let loaded = load(&[source("many.hcl", &hcl)], &NoInputs);
    assert_eq!(loaded.diagnostics.len(), 10_000);
    let shown = shown(&loaded, &[]);
    assert!(shown.contains("many.hcl:19998:3"), "{}", &shown[shown.len() - 600..]);
}

#[test]
fn hostile_files_are_refused_without_harm() {
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(10_000), close.repeat(10_000));
    let mut cases: Vec<(&str, Vec<u8>)> = vec![
        ("big.hcl", vec![b'{'; 10 * 1024 * 1024]),
        ("braces.hcl", vec![b'{'; 4 * 1024 * 1024]),
        ("braces.json", vec![b'{'; 4 * 1024 * 1024]),
        ("braces.toml", vec![b'{'; 4 * 1024 * 1024]),
        ("lists.json", vec![b'['; 4 * 1024 * 1024]),
        ("latin.hcl", b"auth_group \"a\" { description = \"\xe9\" }".to_vec()),
        ("wide.hcl", "\u{feff}service \"\" {}".encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("zeroes.hcl", vec![0; 1000]),
        ("blocks.hcl", deep("service \"a\" {\n", "}\n").into_bytes()),
        ("nested.hcl", format!("service \"a\" {{\n{}}}\n", deep(" b {\n", " }\n")).into_bytes()),
    ];
    for syntax in ["hcl", "json", "toml"] {
        for (open, close) in [
            ("[", "]"),
            ("{a=", "}"),
            ("(", ")"),
            ("{\"a\":", "}"),
            ("\"${", "}\""),
            ("a.", ""),
            ("!", ""),
            ("x ? 1 : ", ""),
        ] {
            let (start, end) = if syntax == "json" { ("{\"service\": ", "}") } else { ("service = ", "") };
            let text = format!("{start}{}{end}", deep(open, close));
            let name: &'static str = Box::leak(format!("deep.{syntax}").into_boxed_str());
            cases.push((name, text.into_bytes()));
        }
    }
    for (name, bytes) in cases {
        let start: String = String::from_utf8_lossy(&bytes[..40.min(bytes.len())]).into_owned();
        let file = SourceFile { path: Arc::from(name), folder: Arc::from(""), bytes: bytes.into() };
        let loaded = load(&[file], &NoInputs);
        assert!(loaded.diagnostics.iter().any(|d| d.severity == Severity::Error), "{name} {start}");
        assert!(shown(&loaded, &[]).len() < 1_000_000, "{name} {start}");
    }
}
