use super::*;
use crate::plan::tests::{desired, live};
use crate::plan::{Data, plan};
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
