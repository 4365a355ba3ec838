//! `/v1/config`: entries whole, put together from the parts that their writers own.
//!
//! A body that does not begin with `{` is read as HCL, which Consul leaves to its command: pages of Consul's own send
//! it with curl. Many entries go in one commit through `/control/v1/config`.

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequest as _, Path, Request, State};
use axum::routing::{get, put};
use http::StatusCode;
use schema::config::entry::{self, Stage};
use schema::kind::Kind;

use super::answer::{Answer, ConsulError};
use super::asked::Asked;
use super::blocking::{self, Found};
use super::body::{ENTRY_BODY, Sent};
use super::filter::Shape;
use super::watched::Watched;
use crate::api::ApiState;
use crate::api::entries::{self, Unfit};
use crate::apply::{EntryChange, EntryEdit, EntryOutcome};
use crate::authorize::{Entitlement, require_trust};
use crate::observe::ObserveError;
use crate::observe::entry::{EntryKey, LiveEntry};
use crate::store::keys;
use crate::trust::Caller;
use crate::wire::consul::config::{ConfigEntry, Revisions};

pub fn router() -> Router<ApiState> {
    Router::new()
        .route("/config", put(write))
        .route("/config/", get(every_kind))
        .route("/config/{kind}", get(list).delete(nameless))
        .route("/config/{kind}/{*name}", get(read).delete(delete))
}

/// What a filter may ask of service-defaults, the one kind that Consul filters.
const DEFAULTS: Shape = Shape::Struct(&[
    ("Kind", Shape::Text),
    ("Name", Shape::Text),
    ("Protocol", Shape::Text),
    ("Meta", Shape::Map(&Shape::Text)),
    ("CreateIndex", Shape::Int),
    ("ModifyIndex", Shape::Int),
]);

async fn write(
    State(state): State<ApiState>,
    asked: Asked,
    request: Request<Body>,
) -> Result<Answer, ConsulError> {
    // Before a large body is read.
    require_trust(&asked.caller)?;
    let cas = cas(&asked)?;
    let Sent(body) = Sent::<ENTRY_BODY>::from_request(request, &()).await?;
    let (entry, records) = entries::one(body).await?;
    let permit = state.permit(&asked.caller, Entitlement::CanEdit, entry.entity())?;
    let edit = EntryEdit { entry, change: EntryChange::Whole(records), only_at: cas };
    let outcome = entries::write(&state, vec![(permit, edit)]).await?;
    Answer::new(&asked, &!outcome.contains(&EntryOutcome::Stale))
}

async fn delete(
    State(state): State<ApiState>,
    asked: Asked,
    Path((kind, name)): Path<(String, String)>,
) -> Result<Answer, ConsulError> {
    require_trust(&asked.caller)?;
    let cas = cas(&asked)?;
    let kind = known(&kind).map_err(|NoKind| ConsulError::bad_request(no_kind(&kind)))?;
    let outcome = match kind.and_then(|kind| EntryKey::new(kind, &name)) {
        // There can be no such entry.
        None => EntryOutcome::Same,
        Some(entry) => {
            let permit = state.permit(&asked.caller, Entitlement::CanEdit, entry.entity())?;
            let edit = EntryEdit { entry, change: EntryChange::Gone, only_at: cas };
            let outcomes = entries::write(&state, vec![(permit, edit)]).await?;
            outcomes.first().copied().unwrap_or(EntryOutcome::Same)
        }
    };
    match cas {
        None => Answer::new(&asked, &serde_json::json!({})),
        Some(_) => Answer::new(&asked, &(outcome != EntryOutcome::Stale)),
    }
}

async fn nameless(State(_): State<ApiState>, asked: Asked) -> Result<Answer, ConsulError> {
    require_trust(&asked.caller)?;
    Err(ConsulError::not_found("Must provide both a kind and name to delete"))
}

async fn read(
    State(state): State<ApiState>,
    asked: Asked,
    Path((kind, name)): Path<(String, String)>,
) -> Result<Answer, ConsulError> {
    require_trust(&asked.caller)?;
    let taken = known(&kind).map_err(|NoKind| ConsulError::refused(no_kind(&kind)))?;
    let absent = || {
        let message = format!("Config entry not found for \"{kind}\" / \"{name}\"");
        ConsulError { index: None, ..ConsulError::not_found(message) }
    };
    let Some(entry) = taken.and_then(|kind| EntryKey::new(kind, &name)) else {
        return Err(absent().index(1));
    };
    let watched = Watched::begin(&state, &asked, keys::head(&entry.own_record())).await?;
    blocking::answer_read(&state, &asked, watched, |caller| {
        let (state, entry) = (state.clone(), &entry);
        async move {
            state.permit(&caller, Entitlement::CanView, entry.entity())?;
            let live = state.observe.entry(entry).await?;
            let index = live.modified().0;
            Ok(match shown(entry, &live) {
                Some(shown) => Found::new(index, shown),
                None => Found::absent(index, absent()),
            })
        }
    })
    .await
}

async fn list(
    State(state): State<ApiState>,
    asked: Asked,
    Path(kind): Path<String>,
) -> Result<Answer, ConsulError> {
    require_trust(&asked.caller)?;
    let taken = known(&kind).map_err(|NoKind| ConsulError::refused(no_kind(&kind)))?;
    if !asked.get("filter").is_empty() && taken != Some(Kind::ServiceDefaults) {
        return Err(ConsulError::refused(format!("filtering not supported for config entry kind={kind}")));
    }
    let filter = asked.filter(&DEFAULTS)?;
    let kinds: Vec<Kind> = taken.into_iter().collect();
    let watched = match taken {
        Some(kind) => Watched::begin(&state, &asked, keys::heads(kind)).await?,
        None => Watched::nothing(),
    };
    blocking::answer_read(&state, &asked, watched, |caller| {
        let (found, filter) = (all(state.clone(), caller, kinds.clone()), filter.as_ref());
        async move {
            let mut found = found.await?;
            if let (Some(filter), Ok(entries)) = (filter, &mut found.value) {
                filter.retain(entries)?;
            }
            Ok(found)
        }
    })
    .await
}

async fn every_kind(State(state): State<ApiState>, asked: Asked) -> Result<Answer, ConsulError> {
    require_trust(&asked.caller)?;
    let kinds = EntryKey::KINDS.map(|(_, kind)| kind);
    let watched = Watched::begin(&state, &asked, keys::HEAD.to_owned()).await?;
    blocking::answer_read(&state, &asked, watched, |caller| all(state.clone(), caller, kinds.to_vec())).await
}

/// Every entry of these kinds that the caller may see.
async fn all(
    state: ApiState,
    caller: Caller,
    kinds: Vec<Kind>,
) -> Result<Found<Vec<ConfigEntry>>, ConsulError> {
    let (mut entries, mut index, mut hidden) = (Vec::new(), 0, false);
    for kind in kinds {
        let live = state.observe.entries(kind).await?;
        index = index.max(live.modified.0);
        for (entry, live) in live.entries {
            if state.permit(&caller, Entitlement::CanView, entry.entity()).is_ok() {
                entries.extend(shown(&entry, &live));
            } else {
                hidden = true;
            }
        }
    }
    Ok(Found::new(index, entries).filtered(hidden))
}

/// The entry in Consul's form; `None` if there is none.
fn shown(entry: &EntryKey, live: &LiveEntry) -> Option<ConfigEntry> {
    if !live.exists() {
        return None;
    }
    let revisions = Revisions { created: live.created().0, modified: live.modified().0 };
    let parts = live.parts.iter().map(|(key, part)| (key, &part.record));
    ConfigEntry::of(entry.kind(), &entry.name(), parts, revisions)
}

/// What a word of Consul's means here: nothing for a kind that is not taken, and a fault where Consul knows no such kind.
fn known(word: &str) -> Result<Option<Kind>, NoKind> {
    let taken = EntryKey::KINDS.into_iter().find(|(known, _)| *known == word).map(|(_, kind)| kind);
    if taken.is_some() || entry::is_known_kind(word) { Ok(taken) } else { Err(NoKind) }
}

/// Consul knows no such kind.
struct NoKind;

fn no_kind(word: &str) -> String {
    format!("invalid config entry kind: {word}")
}

/// The revision that `?cas=` names.
fn cas(asked: &Asked) -> Result<Option<u64>, ConsulError> {
    if !asked.has("cas") {
        return Ok(None);
    }
    let text = asked.get("cas");
    text.parse()
        .map(Some)
        .map_err(|_| ConsulError::refused(format!("strconv.ParseUint: parsing {text:?}: invalid syntax")))
}

impl From<Unfit> for ConsulError {
    fn from(unfit: Unfit) -> Self {
        match unfit.stage {
            Stage::Decoding => {
                Self::new(StatusCode::BAD_REQUEST, format!("Request decoding failed: {}", unfit.text))
            }
            Stage::Validation => Self::refused(unfit.text),
        }
    }
}

impl From<ObserveError> for ConsulError {
    fn from(error: ObserveError) -> Self {
        Self::internal(&error)
    }
}
