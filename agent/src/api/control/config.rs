//! `POST /control/v1/config`: several config entries in one commit, written whole or not at all. Consul writes one at a
//! time. `GET /control/v1/config/KIND/NAME/owned` tells what of an entry its writers leave alone.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use http::StatusCode;
use schema::config::entry::MAX_ENTRY;
use schema::record::RecordKey;

use crate::api::ApiState;
use crate::api::entries::{self, Unfit};
use crate::api::problem::Problem;
use crate::apply::{EntryChange, EntryEdit, EntryOutcome};
use crate::authorize::{Entitlement, require_trust};
use crate::observe::entry::EntryKey;
use crate::trust::Caller;
use crate::wire::control::{OwnedParts, SentEntries, WrittenEntries, WrittenEntry};

pub fn router() -> Router<ApiState> {
    Router::new()
        // A byte more than is taken, so that what is too large is told with the limit.
        .route("/config", post(write).layer(DefaultBodyLimit::max(MAX_ENTRY + 1)))
        .route("/config/{kind}/{name}/owned", get(owned))
}

async fn write(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<WrittenEntries>, Problem> {
    require_trust(&caller)?;
    let body = body.map_err(|rejection| {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            let limit = MAX_ENTRY >> 20;
            let message = format!("config entries that are written at once have at most {limit} MiB");
            return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
                .hint("Divide them among several files.");
        }
        Problem::new(rejection.status(), "bad_request", "the request broke off")
    })?;
    let (mut edits, mut named) = (Vec::new(), Vec::new());
    for (entry, records) in entries::all(texts(&body)?).await? {
        let permit = state.permit(&caller, Entitlement::CanEdit, entry.entity())?;
        named.push((entry.word().to_owned(), entry.name()));
        edits.push((permit, EntryEdit { entry, change: EntryChange::Whole(records), only_at: None }));
    }
    let outcomes = entries::write(&state, edits).await?;
    let entries = named.into_iter().zip(outcomes).map(|((kind, name), outcome)| {
        let changed = matches!(outcome, EntryOutcome::Written(_));
        WrittenEntry { kind, name, changed }
    });
    Ok(Json(WrittenEntries { entries: entries.collect() }))
}

/// What manifests own of an entry, for who may see it.
async fn owned(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path((kind, name)): Path<(String, String)>,
) -> Result<Json<OwnedParts>, Problem> {
    require_trust(&caller)?;
    let known = EntryKey::KINDS.into_iter().find(|(word, _)| *word == kind);
    let entry = known.and_then(|(_, kind)| EntryKey::new(kind, &name)).ok_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND, "not_found", format!("there is no config entry {kind}/{name}"))
    })?;
    state.permit(&caller, Entitlement::CanView, entry.entity())?;
    let live = state.observe.entry(&entry).await.map_err(|error| Problem::internal(&error))?;
    let mut owned = OwnedParts::default();
    for (key, part) in live.parts {
        if let (RecordKey::Intention { .. } | RecordKey::Export(_), Some(owner)) = (key, part.owner) {
            *owned.manifests.entry(owner).or_default() += 1;
        }
    }
    Ok(Json(owned))
}

/// The entries one after the other, as a file has them.
fn texts(body: &[u8]) -> Result<Bytes, Problem> {
    let sent: SentEntries = serde_json::from_slice(body).map_err(|error| {
        // The error's own words may repeat what was sent.
        let (line, column) = (error.line(), error.column());
        let message = format!("the body is no list of config entries: line {line}, column {column}");
        Problem::new(StatusCode::BAD_REQUEST, "bad_request", message)
    })?;
    let texts: Vec<String> = sent.entries.iter().map(ToString::to_string).collect();
    Ok(texts.join("\n").into())
}

impl From<Unfit> for Problem {
    fn from(unfit: Unfit) -> Self {
        let text = match unfit.entry {
            Some((kind, name)) => format!("{kind}/{name}: {}", unfit.text),
            None => unfit.text,
        };
        Self::new(StatusCode::BAD_REQUEST, "bad_request", text)
    }
}
