use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::*;
use crate::config::SourceFile;
use crate::diagnostic::has_errors;
use crate::plan::tests::{desired, live};
use crate::plan::{Data, LiveManifest, plan};
use crate::record::{LiveRecord, Record, RecordKey};

fn group(entitlements: &[&str]) -> Record {
    let permissions: Vec<Value> = entitlements
        .iter()
        .map(|entitlement| json!({ "entity_type": "server", "entitlement": entitlement }))
        .collect();
    serde_json::from_value(json!({ "auth_group": { "permissions": permissions } })).unwrap()
}

/// Words that differ within a changed line are marked, the rest of the line is not.
#[test]
fn colours_what_differs() {
    let key: RecordKey = "auth_group/clusters".parse().unwrap();
    let held = LiveRecord {
        owner: Some("shop".parse().unwrap()),
        file: None,
        modify_revision: 1,
        record: group(&["can_view_metrics", "can_edit"]),
    };
    let live = live([(key.clone(), held)]);
    let desired = desired("shop", [(key, group(&["can_view_metrics", "can_view"]))]);
    let plan = plan(&desired, &live, Data::Keep).unwrap();
    let text = text(&[Section::new("east", &plan, &live)], Colour::Always);
    assert!(text.contains("\u{1b}[31m\"can_edit\"\u{1b}[0m"), "{text:?}");
    assert!(text.contains("\u{1b}[32m\"can_view\"\u{1b}[0m"), "{text:?}");
    assert!(text.contains("# (1 unchanged element hidden)"), "{text:?}");
}

/// Each folder of `testdata/plans` holds declarations (`declared`), the live state of the clusters they name (`live.json`, by
/// remote), and what the plan looks like. `COMITY_BLESS=1` writes the latter anew.
#[test]
fn golden_plans() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/plans");
    let mut names: Vec<PathBuf> =
        std::fs::read_dir(cases).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let differ: Vec<String> = names.iter().flat_map(|case| golden(case)).collect();
    assert!(differ.is_empty(), "{}\n(COMITY_BLESS=1 writes the files anew)", differ.join("\n"));
}

fn golden(case: &Path) -> Vec<String> {
    let mut files = Vec::new();
    let declared = case.join("declared");
    read(&declared, &declared, &mut files);
    let loaded = crate::config::load(&files, &crate::config::NoInputs);
    assert!(!has_errors(&loaded.diagnostics), "{}: {:?}", case.display(), loaded.diagnostics);
    let live = std::fs::read(case.join("live.json")).unwrap();
    let mut live: BTreeMap<String, Live> = serde_json::from_slice(&live).unwrap();

    let plans: Vec<(String, Plan)> = loaded
        .desired
        .iter()
        .map(|desired| {
            let remote = desired.manifest.cluster.as_ref().unwrap().to_string();
            let plan = plan(desired, &live[&remote], Data::Keep).unwrap();
            (remote, plan)
        })
        .collect();
    let sections: Vec<Section<'_>> =
        plans.iter().map(|(remote, plan)| Section::new(remote, plan, &live[remote])).collect();
    let pretty = serde_json::to_string_pretty(&json(&sections)).unwrap() + "\n";
    let differ = [("expected.txt", text(&sections, Colour::Never)), ("expected.json", pretty)]
        .into_iter()
        .filter_map(|(name, got)| compare(&case.join(name), &got))
        .collect();

    // What was applied plans to nothing but the trust that is not made by it.
    for ((remote, plan), desired) in plans.iter().zip(&loaded.desired) {
        let live = live.get_mut(remote).unwrap();
        apply(plan, live);
        let again = crate::plan::plan(desired, live, Data::Keep).unwrap();
        assert!(again.changes.is_empty() && again.owners_before.is_none(), "{}: {again:?}", case.display());
    }
    differ
}

fn read(case: &Path, folder: &Path, files: &mut Vec<SourceFile>) {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            read(case, &path, files);
        } else if path.extension().is_some_and(|extension| extension == "hcl") {
            let name = path.strip_prefix(case).unwrap().to_str().unwrap();
            let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
            files.push(SourceFile {
                path: name.into(),
                folder: folder.into(),
                bytes: std::fs::read(&path).unwrap().into(),
            });
        }
    }
}

fn compare(path: &Path, got: &str) -> Option<String> {
    if std::env::var_os("COMITY_BLESS").is_some() {
        std::fs::write(path, got).unwrap();
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    (expected != got).then(|| {
        let diff = similar::TextDiff::from_lines(expected.as_str(), got);
        format!("{}:\n{}", path.display(), diff.unified_diff())
    })
}

fn apply(plan: &Plan, live: &mut Live) {
    live.revision += 1;
    for change in &plan.changes {
        match &change.after {
            None => live.records.remove(&change.key),
            Some(record) => {
                let owner = Some(plan.manifest.clone());
                let record =
                    LiveRecord { owner, file: None, modify_revision: live.revision, record: record.clone() };
                live.records.insert(change.key.clone(), record)
            }
        };
    }
    let manifest = LiveManifest {
        modify_revision: live.revision,
        bound_to: "laptop".to_owned(),
        owners: plan.declared.owners.clone(),
    };
    live.manifests.insert(plan.manifest.clone(), manifest);
}
