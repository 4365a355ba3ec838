//! Copies and migrations as LXD's clients ask for them: `POST` with a `source` to what is to be made, and with
//! `migration: true` to what is to be sent.
//!
//! The collections hand such requests over. What is said here of a request's shape is LXD's; what moves the data is
//! `transfer`, and the records are written when it says that everything is in its place.

use axum::response::Response;
use http::StatusCode;
use jiff::Timestamp;
use schema::name::SnapshotName;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::answer::{self, LxdError};
use super::body;
use super::operation::body as operation_body;
use crate::api::ApiState;
use crate::api::upgrade::end_if_revoked;
use crate::authorize::Permit;
use crate::operation::Operation;
use crate::transfer::shipment::{Consistency, Origin};
use crate::transfer::{Remote, Secrets, TransferError};
use crate::trust::Fingerprint;
use crate::wire::lxd::migration::{IndexHeader, MigrationPost, MigrationTarget, Source};

mod compare;
mod instance;
mod making;
mod volume;

pub use instance::{create_instance, migrate_instance};
pub use volume::{create_volume, migrate_volume};

/// Reads a body of a Go client, in which what is not there may be null, at any depth.
fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, LxdError> {
    let mut value: Value = body::read(bytes)?;
    drop_nulls(&mut value);
    // The values may be secrets: they are not repeated.
    T::deserialize(value)
        .map_err(|_| LxdError::bad_request("Invalid request body: a value has the wrong type"))
}

fn drop_nulls(value: &mut Value) {
    if let Value::Object(fields) = value {
        fields.retain(|_, value| !value.is_null());
        fields.values_mut().for_each(drop_nulls);
    }
}

/// What is to be made of a source.
enum Way {
    Copy,
    Pull(Remote),
    Push,
}

impl Way {
    fn of(source: &Source) -> Result<Self, LxdError> {
        match (source.kind.as_str(), source.mode.as_str()) {
            ("copy", _) => Ok(Self::Copy),
            ("migration", _) if source.live => Err(no_live()),
            ("migration", "" | "pull") => Ok(Self::Pull(Remote {
                operations: vec![source.operation.clone()],
                secrets: source.secrets.clone().into(),
                certificate: source.certificate.clone(),
            })),
            ("migration", "push") => Ok(Self::Push),
            ("migration", mode) => {
                let mode: String = mode.chars().take(40).collect();
                let message = format!("Mode {mode:?} not implemented");
                Err(LxdError::new(StatusCode::NOT_IMPLEMENTED, message))
            }
            (kind, _) => {
                let kind: String = kind.chars().take(40).collect();
                Err(LxdError::bad_request(format!("Unknown source type {kind:?}")))
            }
        }
    }
}

/// Longest name of a source that is kept.
const MAX_FROM: usize = 400;

/// What the history is to know of the source: what the client calls it, else what can be told of it from here.
fn origin(source: &Source) -> Origin {
    let within = if source.within.is_empty() { &source.name } else { &source.within };
    let called = match source.kind.as_str() {
        _ if !source.from.is_empty() => source.from.clone(),
        "copy" if source.pool.is_empty() => within.clone(),
        "copy" => format!("{}/{within}", source.pool),
        // A stock client tells the address alone.
        _ => source.operation.split('/').nth(2).unwrap_or_default().to_owned(),
    };
    let called: String = called.chars().filter(|c| !c.is_control()).take(MAX_FROM).collect();
    Origin { source: (!called.is_empty()).then_some(called), transfer: source.transfer.parse().ok() }
}

fn no_live() -> LxdError {
    LxdError::bad_request("Live migration is not supported for containers")
}

/// Where something is pushed to.
fn pushed_to(target: MigrationTarget) -> Remote {
    Remote {
        operations: vec![target.operation],
        secrets: target.secrets.into(),
        certificate: target.certificate,
    }
}

/// Whom an offer is for, if the client says.
fn bound_to(asked: &MigrationPost) -> Result<Option<Fingerprint>, LxdError> {
    if asked.target_fingerprint.is_empty() {
        return Ok(None);
    }
    let message = "\"target_fingerprint\" is 64 hexadecimal digits (SHA-256)";
    asked.target_fingerprint.parse().map(Some).map_err(|_| LxdError::bad_request(message))
}

fn consistency(allow_inconsistent: bool) -> Consistency {
    if allow_inconsistent { Consistency::AllowInconsistent } else { Consistency::Strict }
}

/// `c1/snap0`: what is copied, and which snapshot of it.
fn parted(source: &str) -> Result<(&str, Option<SnapshotName>), LxdError> {
    match source.split_once('/') {
        None => Ok((source, None)),
        Some((name, snapshot)) => {
            let snapshot = snapshot.parse();
            let snapshot =
                snapshot.map_err(|_| LxdError::new(StatusCode::NOT_FOUND, "Snapshot not found"))?;
            Ok((name, Some(snapshot)))
        }
    }
}

/// 202: the operation, which ends when the right to it does, with the secrets where it waits for somebody. They are in this answer and nowhere else; it holds
/// texts alone, since clients take every value for one.
fn begun(
    state: &ApiState,
    permits: &[&Permit],
    operation: &Operation,
    secrets: Option<&Secrets>,
) -> Response {
    end_if_revoked(state, permits, operation);
    let mut shown = operation_body(operation);
    shown.metadata = secrets.map_or(Value::Null, |secrets| json!(secrets));
    answer::operation(&format!("/1.0/operations/{}", operation.id), shown)
}

/// What a source told, as its own version writes it. One that says nothing is LXD in an old version.
fn header(value: Value) -> IndexHeader {
    serde_json::from_value(value).unwrap_or_default()
}

/// The snapshots of a record, oldest first.
fn oldest_first<'a>(all: impl Iterator<Item = (&'a SnapshotName, Timestamp)>) -> Vec<SnapshotName> {
    let mut all: Vec<_> = all.collect();
    all.sort_by(|(a, first), (b, second)| first.cmp(second).then_with(|| a.cmp(b)));
    all.into_iter().map(|(name, _)| name.clone()).collect()
}

impl From<TransferError> for LxdError {
    fn from(error: TransferError) -> Self {
        match error {
            TransferError::Pool(error) => error.into(),
            TransferError::Exists(_) => Self::new(StatusCode::CONFLICT, error.to_string()),
            TransferError::Itself | TransferError::Remote(_) | TransferError::Refused(_) => {
                Self::bad_request(error.to_string())
            }
            error => Self::internal(&error),
        }
    }
}
