//! `GET /control/v1/audit`: who did what, for who may edit the server. One JSON object a line; with `follow` the lines
//! go on as things happen, until the caller goes or may no longer.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use futures::{StreamExt as _, stream};
use http::{HeaderValue, header};
use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;

use crate::api::problem::Problem;
use crate::api::{ApiState, upgrade};
use crate::audit::{self, Record};
use crate::authorize::{Entitlement, Entity};
use crate::trust::Caller;

/// Most records that one answer has, and how many it has unless asked otherwise.
const MOST: usize = 100_000;
const USUAL: usize = 1000;

pub fn router() -> Router<ApiState> {
    Router::new().route("/audit", get(read))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    since: Option<Timestamp>,
    who: Option<String>,
    limit: Option<usize>,
    #[serde(default)]
    follow: bool,
}

async fn read(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let permit = state.permit(&caller, Entitlement::CanEdit, Entity::Server)?;
    // Before the file is read, so that nothing is missed between the two.
    let told = state.audit.subscribe();
    let query = audit::Query {
        since: asked.since,
        who: asked.who.filter(|who| !who.is_empty()),
        limit: asked.limit.unwrap_or(USUAL).min(MOST),
    };
    let (log, wanted) = (state.audit.clone(), query.clone());
    let read = tokio::task::spawn_blocking(move || log.read(&wanted)).await;
    let read = read.map_err(|error| Problem::internal(&error))?.map_err(|error| Problem::internal(&error))?;
    let last = read.last().cloned();
    let lines = stream::iter(read.into_iter().map(|record| Ok::<_, Infallible>(line(&record))));
    let body = if asked.follow {
        // What was told while the file was read is in it already.
        let later = move |record: &Arc<Record>| {
            let record = &**record;
            let known = last.as_ref().is_some_and(|last| record == last || record.time < last.time);
            query.wants(record) && !known
        };
        let more = stream::unfold(told, |mut told| async move {
            match told.recv().await {
                Ok(record) => Some((record, told)),
                // A reader that missed some must not think that it has all: it hears the end.
                Err(RecvError::Lagged(_) | RecvError::Closed) => None,
            }
        });
        let more = more.filter(move |record| futures::future::ready(later(record)));
        let ending = state.tasks.ending();
        let until = async move {
            tokio::select! {
                () = upgrade::revoked(&state, &permit) => {}
                () = ending.cancelled_owned() => {}
            }
        };
        let more = more.map(|record| Ok(line(&record))).take_until(Box::pin(until));
        Body::from_stream(lines.chain(more))
    } else {
        Body::from_stream(lines)
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    Ok(response)
}

fn line(record: &Record) -> Bytes {
    let mut line = serde_json::to_vec(record).unwrap_or_default();
    line.push(b'\n');
    line.into()
}
