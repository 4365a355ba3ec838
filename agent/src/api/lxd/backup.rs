//! Backups of custom volumes and of instances: made as a tar file that waits to be fetched, and imported from one.

use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, Query, RawPathParams, State};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use jiff::Timestamp;
use schema::name::SnapshotName;
use serde::Serialize;
use serde_json::Value;

use super::answer::{self, LxdError};
use super::body;
use super::operation::body as operation_body;
use super::volume::{Asked, declared};
use crate::api::ApiState;
use crate::api::volume::entity;
use crate::audit::{Action, Record};
use crate::authorize::{Entitlement, Entity, Permit};
use crate::dataset::archive::{ArchiveError, Compression};
use crate::operation::{Class, Start};
use crate::storage::backups::{Backup, BackupError, Of};
use crate::storage::{InstanceError, instances, volume_snapshots};
use crate::trust::Caller;
use crate::wire::storage::{BackupsPost, StorageVolumePost, go_time};

mod export;
pub mod import;
mod stream;

pub fn router() -> Router<ApiState> {
    let router = Router::new();
    ["/storage-pools/{pool}/volumes/custom/{volume}", "/instances/{name}"].into_iter().fold(
        router,
        |router, of| {
            router
                .route(&format!("{of}/backups"), get(list).post(create))
                .route(&format!("{of}/backups/{{backup}}"), get(show).post(rename).delete(remove))
                .route(&format!("{of}/backups/{{backup}}/export"), get(fetch))
        },
    )
}

impl From<BackupError> for LxdError {
    fn from(error: BackupError) -> Self {
        let status = match error {
            BackupError::NotFound => StatusCode::NOT_FOUND,
            BackupError::Exists(_) => StatusCode::CONFLICT,
            BackupError::TooMany => StatusCode::BAD_REQUEST,
            BackupError::Io { .. } => return Self::internal(&error),
        };
        Self::new(status, error.to_string())
    }
}

impl From<ArchiveError> for LxdError {
    fn from(error: ArchiveError) -> Self {
        let status = match error {
            ArchiveError::Full => StatusCode::INSUFFICIENT_STORAGE,
            ArchiveError::Read { .. } | ArchiveError::Write { .. } | ArchiveError::Output(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            _ => StatusCode::BAD_REQUEST,
        };
        Self::new(status, error.to_string())
    }
}

/// What a request about backups is about, by its path and its project.
struct Subject {
    of: Of,
    backup: Option<SnapshotName>,
}

impl FromRequestParts<ApiState> for Subject {
    type Rejection = LxdError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, LxdError> {
        let not_found = || LxdError::plain(StatusCode::NOT_FOUND);
        let params = RawPathParams::from_request_parts(parts, state).await.map_err(|_| not_found())?;
        let param = |key: &str| params.iter().find(|(name, _)| *name == key).map(|(_, value)| value);
        let asked = Query::<Asked>::try_from_uri(&parts.uri).map_err(|_| not_found())?.0;
        let of = match (param("pool"), param("volume"), param("name")) {
            (Some(pool), Some(volume), _) => {
                asked.check()?;
                Of::Volume(pool.parse().map_err(|_| not_found())?, volume.parse().map_err(|_| not_found())?)
            }
            (_, _, Some(name)) => {
                let project = asked.project_name().ok_or_else(not_found)?;
                Of::Instance(project, name.parse().map_err(|_| not_found())?)
            }
            _ => return Err(not_found()),
        };
        let backup = match param("backup") {
            Some(name) => Some(name.parse().map_err(|_| LxdError::from(BackupError::NotFound))?),
            None => None,
        };
        Ok(Self { of, backup })
    }
}

impl Subject {
    fn backup(&self) -> Result<&SnapshotName, LxdError> {
        self.backup.as_ref().ok_or_else(|| BackupError::NotFound.into())
    }

    /// The right to do something with it, if it is there.
    async fn permit(
        &self,
        state: &ApiState,
        caller: &Caller,
        entitlement: Entitlement,
    ) -> Result<Permit, LxdError> {
        match &self.of {
            Of::Volume(pool, volume) => {
                let permit = state.permit(caller, entitlement, entity(pool, volume))?;
                declared(state, pool, volume).await?;
                Ok(permit)
            }
            Of::Instance(project, name) => {
                let entity = Entity::Instance { project: project.clone(), name: name.to_string() };
                let permit = state.permit(caller, entitlement, entity)?;
                let found = state.instances.get(project, name).await;
                match found.map_err(|error| LxdError::internal(&error))? {
                    Some(_) => Ok(permit),
                    None => Err(LxdError::new(StatusCode::NOT_FOUND, InstanceError::NotFound.to_string())),
                }
            }
        }
    }
}

/// The path of a backup, or of what it is of.
fn url(of: &Of, backup: Option<&SnapshotName>) -> String {
    let (path, query) = match of {
        Of::Volume(pool, volume) => (volume_snapshots::url(pool, volume, None), String::new()),
        Of::Instance(project, name) => {
            let whole = instances::url((project, name));
            let (path, query) = whole.split_once('?').unwrap_or((&whole, ""));
            let query = if query.is_empty() { String::new() } else { format!("?{query}") };
            (path.to_owned(), query)
        }
    };
    match backup {
        Some(backup) => format!("{path}/backups/{backup}{query}"),
        None => format!("{path}{query}"),
    }
}

/// A backup among an operation's resources. It is not its path: lxc 5.0 takes off just this prefix to learn the name, and
/// later ones take the last part.
fn resource(name: &SnapshotName) -> String {
    format!("/1.0/backups/{name}")
}

/// A backup as LXD shows it: one of a volume says `volume_only`, one of an instance `instance_only`.
#[derive(Debug, Serialize)]
struct Shown {
    name: SnapshotName,
    created_at: Timestamp,
    #[serde(with = "go_time")]
    expires_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    volume_only: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance_only: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container_only: Option<bool>,
    optimized_storage: bool,
}

fn shown(of: &Of, name: SnapshotName, backup: &Backup) -> Shown {
    let (volume, instance) = match of {
        Of::Volume(..) => (Some(backup.alone), None),
        Of::Instance(..) => (None, Some(backup.alone)),
    };
    Shown {
        name,
        created_at: backup.created_at,
        expires_at: backup.expires_at,
        volume_only: volume,
        instance_only: instance,
        container_only: instance,
        optimized_storage: false,
    }
}

async fn list(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    subject: Subject,
    Query(asked): Query<Asked>,
) -> Result<Response, LxdError> {
    subject.permit(&state, &caller, Entitlement::CanView).await?;
    let all = state.backups.list(&subject.of)?;
    if asked.whole() {
        let shown = all.into_iter().map(|(name, backup)| shown(&subject.of, name, &backup));
        return Ok(answer::sync(shown.collect::<Vec<_>>()));
    }
    Ok(answer::sync(all.keys().map(|name| url(&subject.of, Some(name))).collect::<Vec<_>>()))
}

async fn show(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    subject: Subject,
) -> Result<Response, LxdError> {
    subject.permit(&state, &caller, Entitlement::CanView).await?;
    let name = subject.backup()?;
    let backup = state.backups.get(&subject.of, name)?;
    Ok(answer::sync(shown(&subject.of, name.clone(), &backup)))
}

async fn create(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    subject: Subject,
    bytes: Bytes,
) -> Result<Response, LxdError> {
    let permit = subject.permit(&state, &caller, Entitlement::CanManageBackups).await?;
    let wanted: BackupsPost = body::read(&bytes)?;
    if wanted.optimized_storage {
        let message = "A backup in the form of a storage driver is not offered: driver \"dir\" has none";
        return Err(LxdError::bad_request(message));
    }
    let compression: Compression = wanted.compression_algorithm.parse().map_err(
        |error: crate::dataset::archive::CompressionError| LxdError::bad_request(error.to_string()),
    )?;
    let name = match wanted.name.rsplit('/').next().unwrap_or_default() {
        "" => next_name(&state, &subject.of)?,
        name => name_of(name)?,
    };
    let now = Timestamp::now();
    let backup = Backup {
        created_at: now,
        expires_at: wanted.expires_at.and_then(|at| at.0),
        alone: wanted.volume_only || wanted.instance_only || wanted.container_only,
        left_out: Vec::new(),
    };
    // Begun before it is answered, so that a name that is taken is told at once.
    let begun = state.backups.begin(&subject.of, &name)?;
    let description = match subject.of {
        Of::Volume(..) => "Creating custom volume backup",
        Of::Instance(..) => "Backing up instance",
    };
    let resources = vec![url(&subject.of, None), resource(&name)];
    let start = Start { class: Class::Task, description, by: caller, resources };
    let work = export::Export { of: subject.of.clone(), name, backup, compression, permit };
    let exported = state.clone();
    let operation = state.operations.start(&state.tasks, start, |handle| work.run(exported, begun, handle));
    Ok(answer::operation(&format!("/1.0/operations/{}", operation.id), operation_body(&operation)))
}

async fn rename(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    subject: Subject,
    bytes: Bytes,
) -> Result<Response, LxdError> {
    let permit = subject.permit(&state, &caller, Entitlement::CanManageBackups).await?;
    let wanted: StorageVolumePost = body::read(&bytes)?;
    let (from, to) = (subject.backup()?.clone(), name_of(&wanted.name)?);
    state.backups.rename(&subject.of, &from, &to)?;
    tell(&state, &permit, Action::StorageVolumeBackupRenamed, &subject.of, &to);
    let description = match subject.of {
        Of::Volume(..) => "Renaming custom volume backup",
        Of::Instance(..) => "Renaming instance backup",
    };
    Ok(done(&state, caller, description, vec![url(&subject.of, None), resource(&to)]))
}

async fn remove(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    subject: Subject,
) -> Result<Response, LxdError> {
    let permit = subject.permit(&state, &caller, Entitlement::CanManageBackups).await?;
    let name = subject.backup()?.clone();
    state.backups.delete(&subject.of, &name)?;
    tell(&state, &permit, Action::StorageVolumeBackupDeleted, &subject.of, &name);
    let description = match subject.of {
        Of::Volume(..) => "Deleting custom volume backup",
        Of::Instance(..) => "Deleting instance backup",
    };
    Ok(done(&state, caller, description, vec![url(&subject.of, None), resource(&name)]))
}

/// The tar itself.
async fn fetch(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    subject: Subject,
) -> Result<Response, LxdError> {
    let permit = subject.permit(&state, &caller, Entitlement::CanManageBackups).await?;
    let name = subject.backup()?;
    let (file, size) = state.backups.open_tar(&subject.of, name)?;
    tell(&state, &permit, Action::StorageVolumeBackupRetrieved, &subject.of, name);
    let mut response = Response::new(Body::from_stream(stream::of_file(file)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(size));
    Ok(response)
}

fn tell(state: &ApiState, permit: &Permit, action: Action, of: &Of, name: &SnapshotName) {
    // LXD has words of its own for each.
    let action = match (of, action) {
        (Of::Instance(..), Action::StorageVolumeBackupCreated) => Action::InstanceBackupCreated,
        (Of::Instance(..), Action::StorageVolumeBackupRenamed) => Action::InstanceBackupRenamed,
        (Of::Instance(..), Action::StorageVolumeBackupRetrieved) => Action::InstanceBackupRetrieved,
        (Of::Instance(..), Action::StorageVolumeBackupDeleted) => Action::InstanceBackupDeleted,
        (_, action) => action,
    };
    state.audit.record(Record::new(permit.caller(), action, Timestamp::now()).on(url(of, Some(name))));
}

/// An operation for what is done already: LXD's clients wait for one.
fn done(state: &ApiState, by: Caller, description: &'static str, resources: Vec<String>) -> Response {
    let start = Start { class: Class::Task, description, by, resources };
    let operation = state.operations.start(&state.tasks, start, |_| async { Ok(Value::Null) });
    answer::operation(&format!("/1.0/operations/{}", operation.id), operation_body(&operation))
}

/// `backup0`, and so on (LXD's names).
fn next_name(state: &ApiState, of: &Of) -> Result<SnapshotName, LxdError> {
    let all = state.backups.list(of)?;
    let numbers = all.keys().filter_map(|name| name.as_str().strip_prefix("backup")?.parse::<u64>().ok());
    let next = numbers.max().map_or(0, |last| last.saturating_add(1));
    name_of(&format!("backup{next}"))
}

fn name_of(text: &str) -> Result<SnapshotName, LxdError> {
    // The name may be a token in the wrong place: the message does not repeat it.
    text.parse().map_err(|error| LxdError::bad_request(format!("Invalid backup name: {error}")))
}
