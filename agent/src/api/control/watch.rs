//! `GET /control/v1/watch`: which declared records change, as server-sent events.
//!
//! An event's id names the store's epoch and a revision; given back as `Last-Event-ID` (or `?from=`) the watch goes
//! on after it. Where it cannot (history was dropped, the store is another, the reader was too slow) it says
//! `reset` and ends: read `state`, then watch from the revision that it tells. The events name records and not
//! their content, so that the stream is small and what may be seen is decided in one place.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::get;
use axum::{Extension, Router};
use futures::Stream;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use crate::api::ApiState;
use crate::api::problem::Problem;
use crate::store::value::{self, Declared};
use crate::store::{self, Batch, Revision, StoreError, Watch, keys};
use crate::trust::Caller;
use crate::wire::control::{ChangeKind, WatchChange, WatchCursor, WatchEvent};

const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub fn router() -> Router<ApiState> {
    Router::new().route("/watch", get(watch))
}

#[derive(Deserialize)]
struct From {
    #[serde(default)]
    from: Option<String>,
}

async fn watch(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Query(From { from }): Query<From>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    permitted(&state, &caller)?;
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
    let begin = match last.or(from) {
        None => {
            let now = state.store.range(keys::MANIFEST).await.map_err(|error| Problem::internal(&error))?;
            follow(&state, now.revision).await?
        }
        Some(text) => {
            let Some(cursor) = WatchCursor::parse(&text) else {
                let message = "a watch continues from EPOCH:REVISION, the id of an event";
                return Err(Problem::new(StatusCode::BAD_REQUEST, "bad_request", message));
            };
            if cursor.epoch == state.store.epoch() {
                follow(&state, Revision(cursor.revision)).await?
            } else {
                Begin::Reset("the store is another one than before")
            }
        }
    };
    let revoked = state.identities.changed();
    let ending = state.tasks.ending();
    let told = futures::stream::unfold(Some((begin, revoked, ending)), move |watching| {
        let (state, caller) = (state.clone(), caller.clone());
        async move {
            let (begin, mut revoked, ending) = watching?;
            let mut batches = match begin {
                Begin::At(batches) => batches,
                Begin::Reset(why) => return Some((Ok(reset(why)), None)),
            };
            loop {
                let batch = tokio::select! {
                    batch = batches.recv() => batch?,
                    changed = revoked.changed() => {
                        // Whoever may no longer look is told no more.
                        changed.ok()?;
                        permitted(&state, &caller).ok()?;
                        continue;
                    }
                    () = ending.cancelled() => return None,
                };
                return Some(match batch {
                    Ok(batch) => {
                        let event = event(state.store.epoch(), &batch);
                        (Ok(event), Some((Begin::At(batches), revoked, ending)))
                    }
                    Err(error) => (Ok(reset(&error.to_string())), None),
                });
            }
        }
    });
    Ok(Sse::new(told).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

enum Begin<'a> {
    At(Watch),
    Reset(&'a str),
}

async fn follow(state: &ApiState, from: Revision) -> Result<Begin<'static>, Problem> {
    match state.store.watch(keys::DECLARED, from).await {
        Ok(batches) => Ok(Begin::At(batches)),
        Err(StoreError::Compacted(_)) => Ok(Begin::Reset("that far back is no longer known")),
        Err(StoreError::Future { .. }) => Ok(Begin::Reset("that revision has not happened yet")),
        Err(error) => Err(Problem::internal(&error)),
    }
}

/// By what the caller is now: an identity may have been removed since the connection was made.
fn permitted(state: &ApiState, caller: &Caller) -> Result<(), Problem> {
    state.permit_reading(&state.now(caller))?;
    Ok(())
}

fn event(epoch: &str, batch: &Batch) -> Event {
    let revision = batch.revision.0;
    let changes = batch.events.iter().filter_map(change).collect();
    let id = WatchCursor { epoch: epoch.to_owned(), revision }.to_string();
    named("change", &WatchEvent { revision, changes }).id(id)
}

fn change(event: &store::Event) -> Option<WatchChange> {
    let key = keys::declared_record(event.key())?;
    Some(match event {
        store::Event::Put(entry) => WatchChange {
            key,
            change: ChangeKind::Put,
            owner: value::decode::<Declared>(entry).ok().and_then(|declared| declared.owner),
        },
        store::Event::Delete { .. } => WatchChange { key, change: ChangeKind::Delete, owner: None },
    })
}

fn reset(why: &str) -> Event {
    named("reset", &serde_json::json!({ "reason": why }))
}

fn named(name: &str, data: &impl serde::Serialize) -> Event {
    // Serialising fails only on maps whose keys are no strings; there are none here.
    let data = serde_json::to_string(data).unwrap_or_default();
    Event::default().event(name).data(data)
}
