//! `/v1/connect/intentions`: single intentions, each a source of its destination's entry.
//!
//! Consul's by-name calls find a source by its service alone, so that one of a peer's may be meant, and refuse to name
//! a peer. Here a source is always whole: `peer:west/web` and `web` are two, everywhere. Ids are made of the key, so
//! every intention has one, however it was written.

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;
use schema::access::Source;
use schema::kind::Kind;
use schema::origin::Origin;
use schema::record::{Record, RecordKey, ServiceMatch};
use serde::Serialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::answer::{Answer, ConsulError};
use super::asked::Asked;
use super::blocking::{self, Found};
use super::body::{Sent, USUAL_BODY};
use super::filter::Shape;
use super::watched::Watched;
use crate::api::{ApiState, entries};
use crate::apply::{EntryChange, EntryEdit, EntryOutcome, GivenMeta, PartEdit, Presence};
use crate::authorize::{Entitlement, require_trust};
use crate::observe::entry::{EntryKey, LiveEntries, LiveEntry};
use crate::store::keys;
use crate::trust::Caller;
use crate::wire::consul::intention::{self, Intention};

mod named;
mod sent;

use sent::SentIntention;

pub fn router() -> Router<ApiState> {
    Router::new()
        .route("/connect/intentions", get(list).post(create))
        .route("/connect/intentions/exact", get(read_exact).put(put_exact).delete(delete_exact))
        .route("/connect/intentions/match", get(matching))
        .route("/connect/intentions/check", get(check))
        .route("/connect/intentions/{id}", get(read).put(change).delete(delete))
}

/// What a filter may ask of an intention.
const ROW: Shape = Shape::Struct(&[
    ("ID", Shape::Text),
    ("Description", Shape::Text),
    ("SourceNS", Shape::Text),
    ("SourceName", Shape::Text),
    ("SourcePeer", Shape::Text),
    ("SourceSamenessGroup", Shape::Text),
    ("SourcePartition", Shape::Text),
    ("DestinationNS", Shape::Text),
    ("DestinationName", Shape::Text),
    ("DestinationPartition", Shape::Text),
    ("SourceType", Shape::Text),
    ("Action", Shape::Text),
    ("Meta", Shape::Map(&Shape::Text)),
    ("Precedence", Shape::Int),
    ("CreateIndex", Shape::Int),
    ("ModifyIndex", Shape::Int),
]);

/// Most names in one question for matches.
const MAX_NAMES: usize = 64;
/// Consul's words.
const NOT_FOUND: &str = "Intention not found";

async fn list(State(state): State<ApiState>, asked: Asked) -> Result<Answer, ConsulError> {
    require_trust(&asked.caller)?;
    let filter = asked.filter(&ROW)?;
    let watched = Watched::begin(&state, &asked, keys::heads(Kind::ServiceIntentions)).await?;
    blocking::answer_read(&state, &asked, watched, |caller| {
        let (state, filter) = (state.clone(), filter.as_ref());
        async move {
            let live = state.observe.entries(Kind::ServiceIntentions).await?;
            let (mut rows, hidden) = every(&state, &caller, &live, |_, _| true);
            let index = live.modified.0;
            if let Some(filter) = filter {
                filter.retain(&mut rows)?;
            }
            Ok(Found::new(index, rows).filtered(hidden))
        }
    })
    .await
}

/// The intentions that the caller may see and that `wanted` names, the deciding ones first, and whether there are
/// others.
fn every(
    state: &ApiState,
    caller: &Caller,
    live: &LiveEntries,
    wanted: impl Fn(&Origin, &ServiceMatch) -> bool,
) -> (Vec<Intention>, bool) {
    let (mut rows, mut hidden) = (Vec::new(), false);
    for (entry, live) in &live.entries {
        if state.permit(caller, Entitlement::CanView, entry.entity()).is_err() {
            hidden = true;
            continue;
        }
        rows.extend(of_entry(
            live,
            |key| matches!(key, RecordKey::Intention { origin, source, .. } if wanted(origin, source)),
        ));
    }
    (ordered(rows), hidden)
}

/// The intentions of an entry that `wanted` names.
fn of_entry(
    live: &LiveEntry,
    wanted: impl Fn(&RecordKey) -> bool,
) -> impl Iterator<Item = (RecordKey, Intention)> {
    let rest = live.rest();
    let parts = live.parts.iter().filter(move |(key, _)| wanted(key));
    parts.filter_map(move |(key, part)| match &part.record {
        Record::ServiceIntentions(rule) => {
            let shown = Intention::of(key, rule, rest, part.created.0, part.modified.0)?;
            Some((key.clone(), shown))
        }
        _ => None,
    })
}

/// In Consul's order: by precedence, then local, of a peer, of a group, then by source and destination.
fn ordered(mut rows: Vec<(RecordKey, Intention)>) -> Vec<Intention> {
    rows.sort_by(|(a, one), (b, other)| {
        other.precedence.cmp(&one.precedence).then_with(|| match (a, b) {
            (
                RecordKey::Intention { destination: a_to, origin: a_of, source: a_from },
                RecordKey::Intention { destination: b_to, origin: b_of, source: b_from },
            ) => (a_of, a_from, a_to).cmp(&(b_of, b_from, b_to)),
            _ => a.cmp(b),
        })
    });
    rows.into_iter().map(|(_, shown)| shown).collect()
}

/// The intention that `source` and `destination` name.
fn exact(asked: &Asked) -> Result<RecordKey, ConsulError> {
    let (source, destination) = (required(asked, "source")?, required(asked, "destination")?);
    let (origin, source) = named::source(source)?;
    Ok(RecordKey::Intention { destination: named::destination(destination)?, origin, source })
}

fn required<'a>(asked: &'a Asked, name: &str) -> Result<&'a str, ConsulError> {
    match asked.get(name) {
        "" => Err(ConsulError::refused(format!("required query parameter '{name}' not set"))),
        text => Ok(text),
    }
}

fn entry_of(key: &RecordKey) -> Result<EntryKey, ConsulError> {
    // Each intention is part of an entry.
    EntryKey::of(key).ok_or_else(|| ConsulError::internal(&format_args!("{key} is part of no entry")))
}

async fn read_exact(State(state): State<ApiState>, asked: Asked) -> Result<Answer, ConsulError> {
    require_trust(&asked.caller)?;
    let key = exact(&asked)?;
    one(&state, &asked, key).await
}

/// Answers with one intention.
async fn one(state: &ApiState, asked: &Asked, key: RecordKey) -> Result<Answer, ConsulError> {
    let entry = entry_of(&key)?;
    let watched = Watched::begin(state, asked, keys::head(&key)).await?;
    blocking::answer_read(state, asked, watched, |caller| {
        let (state, entry, key) = (state.clone(), &entry, &key);
        async move {
            state.permit(&caller, Entitlement::CanView, entry.entity())?;
            let live = state.observe.entry(entry).await?;
            let index = live.modified().0;
            Ok(match of_entry(&live, |known| known == key).next() {
                Some((_, shown)) => Found::new(index, shown),
                None => Found::absent(index, ConsulError::not_found(NOT_FOUND)),
            })
        }
    })
    .await
}

async fn put_exact(
    State(state): State<ApiState>,
    asked: Asked,
    body: Sent<USUAL_BODY>,
) -> Result<Answer, ConsulError> {
    require_trust(&asked.caller)?;
    let key = exact(&asked)?;
    let sent: SentIntention = body.strict("Failed to decode request body")?;
    let meta = GivenMeta::Same(sent.meta.clone().unwrap_or_default());
    let meta = if sent.meta.as_ref().is_none_or(std::collections::BTreeMap::is_empty) {
        GivenMeta::Nothing
    } else {
        meta
    };
    let to = Some(sent.record(&key)?);
    write(&state, &asked, PartEdit { key, to, presence: Presence::Either, meta }).await?;
    Answer::new(&asked, &true)
}

async fn delete_exact(State(state): State<ApiState>, asked: Asked) -> Result<Answer, ConsulError> {
    require_trust(&asked.caller)?;
    let key = exact(&asked)?;
    let edit = PartEdit { key, to: None, presence: Presence::Either, meta: GivenMeta::Nothing };
    write(&state, &asked, edit).await?;
    Answer::new(&asked, &true)
}

async fn write(state: &ApiState, asked: &Asked, edit: PartEdit) -> Result<(), ConsulError> {
    let entry = entry_of(&edit.key)?;
    let permit = state.permit(&asked.caller, Entitlement::CanEdit, entry.entity())?;
    let edit = EntryEdit { entry, change: EntryChange::Part(Box::new(edit)), only_at: None };
    let outcomes = entries::write(state, vec![(permit, edit)]).await?;
    debug_assert!(!outcomes.contains(&EntryOutcome::Stale), "no revision was asked for");
    Ok(())
}

#[derive(Debug, Serialize)]
struct Made {
    #[serde(rename = "ID")]
    id: String,
}

async fn create(
    State(state): State<ApiState>,
    asked: Asked,
    body: Sent<USUAL_BODY>,
) -> Result<Answer, ConsulError> {
    require_trust(&asked.caller)?;
    let sent: SentIntention = body.strict("Failed to decode request body")?;
    if !sent.id.is_empty() {
        return Err(ConsulError::refused("ID must be empty when creating a new intention"));
    }
    let key = sent.key()?;
    let made = Made { id: intention::id(&key).to_string() };
    let to = Some(sent.record(&key)?);
    let meta = sent.meta.map_or(GivenMeta::Nothing, GivenMeta::First);
    write(&state, &asked, PartEdit { key, to, presence: Presence::Absent, meta }).await?;
    Answer::new(&asked, &made)
}

/// The intention of an id.
async fn by_id(state: &ApiState, id: &str) -> Result<Option<RecordKey>, ConsulError> {
    let id = Uuid::try_parse(id).ok().filter(|_| id.len() == 36).ok_or_else(|| {
        ConsulError::bad_request("failed intention lookup: index error: UUID must be 36 characters")
    })?;
    let prefix = keys::declared_kind(Kind::ServiceIntentions);
    let entries = state.store.range(&prefix).await?.entries;
    let keys = entries.iter().filter_map(|entry| keys::declared_record(&entry.key));
    Ok(keys.filter(|key| matches!(key, RecordKey::Intention { .. })).find(|key| intention::id(key) == id))
}

async fn read(
    State(state): State<ApiState>,
    asked: Asked,
    Path(id): Path<String>,
) -> Result<Answer, ConsulError> {
    require_trust(&asked.caller)?;
    match by_id(&state, &id).await? {
        Some(key) => one(&state, &asked, key).await,
        None => Err(ConsulError::not_found(NOT_FOUND).index(1)),
    }
}

async fn change(
    State(state): State<ApiState>,
    asked: Asked,
    Path(id): Path<String>,
    body: Sent<USUAL_BODY>,
) -> Result<Answer, ConsulError> {
    require_trust(&asked.caller)?;
    let sent: SentIntention = body.strict("Failed to decode request body")?;
    let Some(key) = by_id(&state, &id).await? else {
        return Err(ConsulError::refused(format!("Cannot modify non-existent intention: '{id}'")));
    };
    let named = sent.key()?;
    if named != key {
        let message = "cannot modify the source or the destination of an intention once it exists: its ID is made of \
                       them; create another one";
        return Err(ConsulError::refused(message));
    }
    let to = Some(sent.record(&key)?);
    let meta = sent.meta.filter(|meta| !meta.is_empty()).map_or(GivenMeta::Nothing, GivenMeta::Same);
    write(&state, &asked, PartEdit { key, to, presence: Presence::Either, meta }).await?;
    Answer::new(&asked, &Made { id })
}

async fn delete(
    State(state): State<ApiState>,
    asked: Asked,
    Path(id): Path<String>,
) -> Result<Answer, ConsulError> {
    require_trust(&asked.caller)?;
    let Some(key) = by_id(&state, &id).await? else {
        return Err(ConsulError::refused(format!("Cannot delete non-existent intention: '{id}'")));
    };
    let edit = PartEdit { key, to: None, presence: Presence::Either, meta: GivenMeta::Nothing };
    write(&state, &asked, edit).await?;
    Answer::new(&asked, &true)
}

/// Which end of an intention `match` looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Source,
    Destination,
}

async fn matching(State(state): State<ApiState>, asked: Asked) -> Result<Answer, ConsulError> {
    require_trust(&asked.caller)?;
    let by = match required(&asked, "by")? {
        "source" => By::Source,
        "destination" => By::Destination,
        _ => return Err(ConsulError::refused("'by' parameter must be one of 'source' or 'destination'")),
    };
    required(&asked, "name")?;
    let names: Vec<String> = asked.all("name").map(str::to_owned).collect();
    if names.len() > MAX_NAMES {
        let message = format!("at most {MAX_NAMES} names are matched at once, and these are {}", names.len());
        return Err(ConsulError::bad_request(message));
    }
    let watched = Watched::begin(&state, &asked, keys::heads(Kind::ServiceIntentions)).await?;
    blocking::answer_read(&state, &asked, watched, |caller| matched(state.clone(), caller, by, names.clone()))
        .await
}

async fn matched(
    state: ApiState,
    caller: Caller,
    by: By,
    names: Vec<String>,
) -> Result<Found<Map<String, Value>>, ConsulError> {
    let (mut answer, mut index, mut hidden) = (Map::new(), 0, false);
    let all = match by {
        By::Source => state.observe.entries(Kind::ServiceIntentions).await?,
        By::Destination => LiveEntries::default(),
    };
    for name in names {
        let rows = match by {
            By::Source => {
                let (origin, source) = named::source(&name)?;
                let groups = state.catalog.view();
                let of = |other: &Origin| match (&origin, other) {
                    (Origin::Peer(peer), Origin::Group(group)) => groups.intentions.groups().has(group, peer),
                    (Origin::Peer(_), Origin::AnyPeer) => true,
                    (origin, other) => origin == other,
                };
                let matches = |other: &Origin, from: &ServiceMatch| {
                    of(other) && (*from == source || *from == ServiceMatch::Any)
                };
                let (rows, some_hidden) = every(&state, &caller, &all, matches);
                index = all.modified.0;
                hidden |= some_hidden;
                rows
            }
            By::Destination => {
                let destination = named::destination(&name)?;
                let any = Some(ServiceMatch::Any).filter(|any| *any != destination);
                let mut rows = Vec::new();
                for destination in [Some(destination), any].into_iter().flatten() {
                    let entry = EntryKey::ServiceIntentions(destination);
                    let live = state.observe.entry(&entry).await?;
                    index = index.max(live.modified().0);
                    if state.permit(&caller, Entitlement::CanView, entry.entity()).is_ok() {
                        rows.extend(of_entry(&live, |_| true));
                    } else {
                        hidden |= live.exists();
                    }
                }
                ordered(rows)
            }
        };
        // Go's empty list.
        answer.insert(name, if rows.is_empty() { Value::Null } else { json!(rows) });
    }
    Ok(Found::new(index, answer).filtered(hidden))
}

async fn check(State(state): State<ApiState>, asked: Asked) -> Result<Answer, ConsulError> {
    require_trust(&asked.caller)?;
    let (source, destination) = (required(&asked, "source")?, required(&asked, "destination")?);
    let (origin, source) = named::source(source)?;
    let destination = named::destination(destination)?;
    if !matches!(asked.get("source-type"), "" | "consul") {
        return Err(ConsulError::refused(format!("unsupported SourceType: {:?}", asked.get("source-type"))));
    }
    let peer = match origin {
        Origin::Local => None,
        Origin::Peer(peer) => Some(peer),
        Origin::Group(_) | Origin::AnyPeer => {
            return Err(ConsulError::refused(
                "a connection comes from one peer: name it, as peer:PEER/SERVICE",
            ));
        }
    };
    let (ServiceMatch::Named(service), ServiceMatch::Named(destination)) = (source, destination) else {
        return Err(ConsulError::refused("a connection has one source and one destination: '*' is neither"));
    };
    let entry = EntryKey::ServiceIntentions(ServiceMatch::Named(destination.clone()));
    state.permit(&asked.caller, Entitlement::CanView, entry.entity())?;
    let decision = state.catalog.view().intentions.decide(&Source { peer, service }, &destination);
    Answer::new(&asked, &json!({ "Allowed": decision.is_allowed() }))
}
