//! `/1.0/instances/{name}/state`: always stopped, and why.

use std::collections::BTreeMap;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::Response;

use super::{Asked, find, named, shown};
use crate::api::ApiState;
use crate::api::lxd::answer::{LxdError, sync};
use crate::api::lxd::body;
use crate::authorize::{Entitlement, require_trust};
use crate::storage::instances::config::{expanded_devices, root_disk};
use crate::storage::instances::dataset;
use crate::trust::Caller;
use crate::wire::lxd::instance::{DiskUsage, StatePut};

/// Why nothing starts.
pub const NO_RUNTIME: &str = "Instances do not run here yet: this server keeps, snapshots, copies and moves them. Copy \
                              or move it to a server that runs instances (LXD) and start it there";

/// Why no single file of one is read or written.
const NO_FILES: &str = "The files of an instance are not reached one by one here: export the instance, which gives all \
                        of them as one tar file, or import it from one";
/// Why there is no image to look at or to make an instance of.
const NO_IMAGES: &str = "There are no images here: make an empty instance (init --empty), or copy or import one that \
                         exists";

pub(super) async fn show(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Response, LxdError> {
    let (project, name) = (asked.project()?, named(&name)?);
    let (_, held) = find(&state, &caller, Entitlement::CanView, (&project, &name)).await?;
    let mut disk = BTreeMap::new();
    // What cannot be counted is not shown.
    if let Ok(usage) = state.pools.usage(&dataset((&project, &name), &held.instance.pool)).await
        && let Ok((root, _)) = root_disk(&expanded_devices(&held.instance.shape))
    {
        disk.insert(root.to_owned(), DiskUsage { usage, total: 0 });
    }
    Ok(sync(shown::state(disk)))
}

pub(super) async fn put(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Query(asked): Query<Asked>,
    bytes: Bytes,
) -> Result<Response, LxdError> {
    let (project, name) = (asked.project()?, named(&name)?);
    let wanted: StatePut = body::read(&bytes)?;
    find(&state, &caller, Entitlement::CanUpdateState, (&project, &name)).await?;
    Err(refusal(&wanted.action))
}

/// The same for all instances at once (LXD: bulk state change).
pub(super) async fn put_all(
    Extension(caller): Extension<Caller>,
    bytes: Bytes,
) -> Result<Response, LxdError> {
    #[derive(serde::Deserialize)]
    struct All {
        #[serde(default)]
        state: StatePut,
    }
    require_trust(&caller)?;
    let wanted: All = body::read(&bytes)?;
    Err(refusal(&wanted.state.action))
}

/// What needs an instance that runs: commands in it, its console.
pub(super) async fn runs(
    state: State<ApiState>,
    caller: Extension<Caller>,
    name: Path<String>,
    asked: Query<Asked>,
) -> Result<Response, LxdError> {
    not_offered(state, caller, name, asked, NO_RUNTIME).await
}

/// Single files of an instance.
pub(super) async fn files(
    state: State<ApiState>,
    caller: Extension<Caller>,
    name: Path<String>,
    asked: Query<Asked>,
) -> Result<Response, LxdError> {
    not_offered(state, caller, name, asked, NO_FILES).await
}

/// Making it anew of an image.
pub(super) async fn images(
    state: State<ApiState>,
    caller: Extension<Caller>,
    name: Path<String>,
    asked: Query<Asked>,
) -> Result<Response, LxdError> {
    not_offered(state, caller, name, asked, NO_IMAGES).await
}

/// Says why something is not offered, of an instance that there is.
async fn not_offered(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Query(asked): Query<Asked>,
    why: &str,
) -> Result<Response, LxdError> {
    let (project, name) = (asked.project()?, named(&name)?);
    find(&state, &caller, Entitlement::CanView, (&project, &name)).await?;
    Err(LxdError::bad_request(why))
}

/// The same of images.
pub(super) async fn no_images(Extension(caller): Extension<Caller>) -> Result<Response, LxdError> {
    require_trust(&caller)?;
    Err(LxdError::bad_request(NO_IMAGES))
}

/// LXD's words, where it has some for what is stopped.
fn refusal(action: &str) -> LxdError {
    LxdError::bad_request(match action {
        "start" => NO_RUNTIME.to_owned(),
        "stop" | "restart" => "The instance is already stopped".to_owned(),
        "freeze" | "unfreeze" => "The container isn't running".to_owned(),
        other => {
            let shown: String = other.chars().filter(char::is_ascii_alphanumeric).take(32).collect();
            format!("Unknown action: '{shown}'")
        }
    })
}
