//! `PUT` and `PATCH /1.0/cluster/links/{name}`: the description and the free keys.

use std::collections::BTreeMap;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use schema::kind::cluster_link::ClusterLink;
use schema::record::{Record, RecordKey};

use super::request::{patch_config, put_config};
use super::shown::{config, editable};
use super::{TRIES, seen};
use crate::api::ApiState;
use crate::api::lxd::answer::{LxdError, empty};
use crate::api::lxd::{body, etag};
use crate::apply::{ApplyError, Edit};
use crate::authorize::Entitlement;
use crate::store::keys;
use crate::store::value::{self, Declared};
use crate::trust::Caller;
use crate::wire::cluster_link::LinkPut;

/// Longest description.
const MAX_DESCRIPTION: usize = 4096;

pub async fn put(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, LxdError> {
    let change = |current: &BTreeMap<String, String>, link: &mut ClusterLink, put: LinkPut| {
        link.config = put_config(current, &put.config.unwrap_or_default())?;
        link.description = put.description.unwrap_or_default();
        Ok(())
    };
    update(&state, &caller, &name, &headers, &bytes, change).await
}

pub async fn patch(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, LxdError> {
    let change = |current: &BTreeMap<String, String>, link: &mut ClusterLink, patch: LinkPut| {
        link.config = patch_config(current, &patch.config.unwrap_or_default())?;
        if let Some(description) = patch.description {
            link.description = description;
        }
        Ok(())
    };
    update(&state, &caller, &name, &headers, &bytes, change).await
}

async fn update(
    state: &ApiState,
    caller: &Caller,
    name: &str,
    headers: &HeaderMap,
    bytes: &[u8],
    change: impl Fn(&BTreeMap<String, String>, &mut ClusterLink, LinkPut) -> Result<(), LxdError>,
) -> Result<Response, LxdError> {
    for _ in 0..TRIES {
        let (report, permit) = seen(state, caller, name, Entitlement::CanEdit).await?;
        let wanted: LinkPut = body::decode(bytes, &LinkPut::KEYS)?;
        let key = RecordKey::ClusterLink(report.name.clone());
        let stored = state.store.get(&keys::declared(&key)).await.map_err(|e| LxdError::internal(&e))?;
        let Some(entry) = stored else { continue };
        let declared: Declared = value::decode(&entry).map_err(|error| LxdError::internal(&error))?;
        let Record::ClusterLink(mut link) = declared.record else { continue };
        etag::check(headers, &editable(&report))?;
        change(&config(&report), &mut link, wanted)?;
        if link.description.len() > MAX_DESCRIPTION {
            return Err(LxdError::bad_request(format!("A description has at most {MAX_DESCRIPTION} bytes")));
        }
        let edit = Edit::put(key, Record::ClusterLink(link)).only_at(entry.modify_revision.0);
        match state.apply.edit(&permit, vec![edit]).await {
            Ok(_) => return Ok(empty()),
            // Somebody else was faster: his change is looked at first, and a given ETag then says no.
            Err(ApplyError::Moved(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(LxdError::new(StatusCode::CONFLICT, "The cluster link is changing; try again"))
}
