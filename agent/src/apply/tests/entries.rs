//! Config entries written whole and by part, beside what manifests own.

use schema::config::entry::entries;
use schema::document::Syntax;

use super::*;
use crate::observe::entry::EntryKey;

impl Bench {
    async fn write(&self, only_at: Option<u64>, text: &str) -> Result<EntryOutcome, ApplyError> {
        let read = entries(&"entry".into(), text.as_bytes(), Syntax::Hcl);
        let entry = read.entries.into_iter().next().unwrap().entry;
        let key = EntryKey::new(entry.kind, &entry.name).unwrap();
        self.change(key, EntryChange::Whole(entry.records), only_at).await
    }

    async fn change(
        &self,
        entry: EntryKey,
        change: EntryChange,
        only_at: Option<u64>,
    ) -> Result<EntryOutcome, ApplyError> {
        let permit =
            decide(&Caller::local(0), Entitlement::CanEdit, entry.entity(), &Policy::default()).unwrap();
        let outcomes = self.apply.edit_entries(vec![(permit, EntryEdit { entry, change, only_at })]).await?;
        Ok(outcomes[0])
    }

    async fn at(&self, entry: &EntryKey) -> u64 {
        self.observe.entry(entry).await.unwrap().modified().0
    }
}

fn backend() -> EntryKey {
    EntryKey::new(Kind::ServiceIntentions, "backend").unwrap()
}

fn sources(list: &str) -> String {
    format!("Kind = \"service-intentions\"\nName = \"backend\"\nSources = [{list}]")
}

fn source(name: &str, action: &str) -> String {
    format!("{{ Name = \"{name}\", Action = \"{action}\" }},")
}

#[tokio::test]
async fn an_entry_is_guarded_whole_and_a_write_of_the_same_is_none() {
    let bench = bench();
    let one = sources(&source("a", "allow"));
    assert_eq!(bench.write(Some(5), &one).await.unwrap(), EntryOutcome::Stale, "there is none to be at 5");
    let EntryOutcome::Written(first) = bench.write(Some(0), &one).await.unwrap() else { panic!() };
    assert_eq!(bench.at(&backend()).await, first.0);
    // Saying the same again is true whatever the index, and moves nothing.
    assert_eq!(bench.write(Some(0), &one).await.unwrap(), EntryOutcome::Same);
    assert_eq!(bench.at(&backend()).await, first.0);
    let two = sources(&(source("a", "allow") + &source("b", "deny")));
    assert_eq!(bench.write(Some(0), &two).await.unwrap(), EntryOutcome::Stale);
    assert!(matches!(bench.write(Some(first.0), &two).await.unwrap(), EntryOutcome::Written(_)));
    assert_eq!(bench.keys().await, ["service_intentions/backend/@/a", "service_intentions/backend/@/b"]);
    let third = bench.at(&backend()).await;
    assert_eq!(bench.change(backend(), EntryChange::Gone, Some(first.0)).await.unwrap(), EntryOutcome::Stale);
    let gone = bench.change(backend(), EntryChange::Gone, Some(third)).await.unwrap();
    assert!(matches!(gone, EntryOutcome::Written(_)));
    assert!(bench.keys().await.is_empty());
    assert_eq!(bench.change(backend(), EntryChange::Gone, Some(7)).await.unwrap(), EntryOutcome::Same);
    assert!(bench.at(&backend()).await > third, "the head tells when it went");
}

#[tokio::test]
async fn parts_that_a_manifest_owns_stay_what_they_are() {
    let bench = bench();
    bench.make("shop", &[("service_intentions/backend/@/mine", intention(Verdict::Allow))]).await.unwrap();
    // Beside it, with and without naming it.
    bench.write(None, &sources(&source("theirs", "deny"))).await.unwrap();
    let both = sources(&(source("mine", "allow") + &source("theirs", "allow")));
    bench.write(None, &both).await.unwrap();
    assert_eq!(
        bench.keys().await,
        ["service_intentions/backend/@/mine", "service_intentions/backend/@/theirs"]
    );
    assert_eq!(bench.write(Some(1), &both).await.unwrap(), EntryOutcome::Same);

    let before = bench.at(&backend()).await;
    let refused = bench.write(None, &sources(&source("mine", "deny"))).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "source \"mine\" of service_intentions \"backend\" belongs to manifest \"shop\""
    );
    assert!(matches!(bench.change(backend(), EntryChange::Gone, None).await, Err(ApplyError::OwnedPart(..))));
    assert_eq!(bench.at(&backend()).await, before, "nothing was written");
    // What no manifest owns goes when it is not named any more.
    bench.write(None, &sources(&source("mine", "allow"))).await.unwrap();
    assert_eq!(bench.keys().await, ["service_intentions/backend/@/mine"]);
}

#[tokio::test]
async fn the_last_source_takes_the_rest_of_its_entry_along() {
    let bench = bench();
    let key = |name: &str| format!("service_intentions/backend/@/{name}").parse::<RecordKey>().unwrap();
    let part = |name: &str, to: Option<Verdict>, presence, meta| {
        EntryChange::Part(Box::new(PartEdit { key: key(name), to: to.map(intention), presence, meta }))
    };
    let meta = || BTreeMap::from([("team".to_owned(), "a".to_owned())]);
    let allow = Some(Verdict::Allow);
    let refused =
        bench.change(backend(), part("a", allow, Presence::Either, GivenMeta::Same(meta())), None).await;
    assert!(matches!(refused, Err(ApplyError::MetaGiven)));
    bench
        .change(backend(), part("a", allow, Presence::Absent, GivenMeta::First(meta())), None)
        .await
        .unwrap();
    bench.change(backend(), part("b", allow, Presence::Either, GivenMeta::Same(meta())), None).await.unwrap();
    let twice = bench
        .change(backend(), part("b", allow, Presence::Absent, GivenMeta::Nothing), None)
        .await
        .unwrap_err();
    assert_eq!(twice.to_string(), "Sources[2] defines \"b\" more than once");
    let none = bench.change(backend(), part("c", None, Presence::Present, GivenMeta::Nothing), None).await;
    assert!(matches!(none, Err(ApplyError::NoSuchPart(_))));
    for name in ["a", "b"] {
        assert_eq!(bench.keys().await[0], "service_intentions/backend");
        bench.change(backend(), part(name, None, Presence::Either, GivenMeta::Nothing), None).await.unwrap();
    }
    assert!(bench.keys().await.is_empty());
}

#[tokio::test]
async fn permissions_need_a_protocol_that_has_them_both_ways() {
    let bench = bench();
    let asking =
        sources("{ Name = \"a\", Permissions = [{ Action = \"allow\", HTTP { PathPrefix = \"/\" } }] }");
    let speaks = |protocol: &str| {
        format!("Kind = \"service-defaults\"\nName = \"backend\"\nProtocol = \"{protocol}\"")
    };
    let refused = bench.write(None, &asking).await.unwrap_err().to_string();
    let expected =
        "service \"backend\" has protocol \"tcp\", which is incompatible with L7 intentions permissions";
    assert_eq!(refused, expected);
    bench.write(None, &speaks("http")).await.unwrap();
    bench.write(None, &asking).await.unwrap();
    assert_eq!(bench.write(None, &speaks("tcp")).await.unwrap_err().to_string(), expected);
    let defaults = EntryKey::new(Kind::ServiceDefaults, "backend").unwrap();
    assert!(bench.change(defaults.clone(), EntryChange::Gone, None).await.is_err());
    bench.write(None, &sources(&source("a", "deny"))).await.unwrap();
    bench.change(defaults, EntryChange::Gone, None).await.unwrap();
}

#[tokio::test]
async fn many_entries_are_written_at_once_or_not_at_all() {
    let bench = bench();
    let edit = |name: &str, record: Record| {
        let entry = EntryKey::new(Kind::ServiceIntentions, name).unwrap();
        let key = format!("service_intentions/{name}/@/a").parse().unwrap();
        let permit =
            decide(&Caller::local(0), Entitlement::CanEdit, entry.entity(), &Policy::default()).unwrap();
        (permit, EntryEdit { entry, change: EntryChange::Whole([(key, record)].into()), only_at: None })
    };
    bench.make("shop", &[("service_intentions/s7/@/a", intention(Verdict::Allow))]).await.unwrap();
    let all = |verdict| (0..100).map(|n| edit(&format!("s{n}"), intention(verdict))).collect();
    assert!(matches!(bench.apply.edit_entries(all(Verdict::Deny)).await, Err(ApplyError::OwnedPart(..))));
    assert_eq!(bench.keys().await.len(), 1);
    let outcomes = bench.apply.edit_entries(all(Verdict::Allow)).await.unwrap();
    let written: Vec<_> = outcomes.iter().filter(|outcome| **outcome != EntryOutcome::Same).collect();
    assert!(written.len() == 99 && written.iter().all(|outcome| *outcome == written[0]), "{outcomes:?}");

    // A permit is for its entry and no other.
    let (permit, _) = edit("s1", intention(Verdict::Deny));
    let (_, other) = edit("s2", intention(Verdict::Deny));
    assert!(matches!(bench.apply.edit_entries(vec![(permit, other)]).await, Err(ApplyError::NotPermitted)));
}
