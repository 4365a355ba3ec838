//! Making a volume or an instance of a backup: unpacked as it arrives into staging, switched in when it is whole, recorded
//! then. What is refused leaves nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use schema::kind::volume::Volume;
use schema::name::{ContainerName, PoolName, ProjectName, SnapshotName, VolumeName};
use schema::record::{Record, RecordKey};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::stream::reader_of;
use crate::api::ApiState;
use crate::api::lxd::answer::{self, LxdError};
use crate::api::lxd::operation::body as operation_body;
use crate::api::lxd::volume::{checked, name_of};
use crate::api::volume;
use crate::apply::Edit;
use crate::authorize::Permit;
use crate::dataset::archive::{Contents, Unpacked, decompressed, unpack};
use crate::dataset::pool::{Arrived, DEFAULT_POOL, Held, Switch, Use, remove_tree};
use crate::dataset::{Dataset, PoolError};
use crate::operation::{Class, Start};
use crate::storage::backup_index::{Index, IndexError};
use crate::storage::config as of_volume;
use crate::storage::instances::step::Step;
use crate::storage::instances::{self, Busy, config};
use crate::storage::volume_snapshots::{All, step as volume_step, url};
use crate::storage::{Instance, InstanceError};
use crate::trust::Caller;

/// Whether a request is an import: LXD tells by the body's type.
pub fn is_import(headers: &HeaderMap) -> bool {
    headers.get(http::header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes() == b"application/octet-stream")
}

impl From<IndexError> for LxdError {
    fn from(error: IndexError) -> Self {
        Self::bad_request(error.to_string())
    }
}

/// Where an archive's trees go. While it lives nobody else can make what it is of.
struct Destination {
    held: Held,
    folder: PathBuf,
    /// For an instance: who is at work on it.
    busy: Option<Busy>,
}

impl Destination {
    fn take(
        state: &ApiState,
        dataset: &Dataset,
        size: Option<u64>,
        busy: Option<Busy>,
    ) -> Result<Self, LxdError> {
        let held = state.pools.hold(dataset, Use::Replacing)?.of_size(size);
        if held.tree().is_some() {
            return Err(PoolError::Exists(dataset.clone()).into());
        }
        state.pools.room(&dataset.pool)?;
        let folder = held.staging()?.join(format!("import-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&folder).map_err(|source| PoolError::Io {
            path: folder.clone(),
            doing: "created",
            source,
        })?;
        Ok(Self { held, folder, busy })
    }

    /// Puts in place what was unpacked: snapshots in the order of `names`.
    fn switch_in(&self, names: Vec<SnapshotName>) -> Result<(), PoolError> {
        let mut switch = Switch::main(self.folder.join("main"));
        let trees = names.into_iter().map(|name| {
            let tree = self.folder.join(format!("snapshot-{name}"));
            (name, Arrived::Built(tree))
        });
        switch.snapshots = trees.collect();
        self.held.switch_in(switch)
    }
}

impl Drop for Destination {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.folder) {
            tracing::warn!(%error, "what was unpacked of a refused backup stays until it is swept");
        }
    }
}

/// Imports a custom volume. `permit` is to make volumes.
pub async fn volume(
    state: &ApiState,
    caller: Caller,
    permit: Permit,
    pool: PoolName,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, LxdError> {
    let named = header(headers, "x-lxd-name")?.map(|name| name_of(&name)).transpose()?;
    let prepared = state.clone();
    let of_pool = pool.clone();
    let (destination, (name, volume, snapshots, begun), unset) =
        receive(body, Contents::Volume, async move |index| {
            let name = match named {
                Some(name) => name,
                None => name_of(&index.name)?,
            };
            let (mut volume, mut snapshots) = index.volume()?;
            volume.config = checked(&name, volume.config)?;
            for snapshot in snapshots.values_mut() {
                snapshot.config = checked(&name, std::mem::take(&mut snapshot.config))?;
            }
            if volume::find(&prepared.store, &of_pool, &name).await?.is_some() {
                return Err(LxdError::new(StatusCode::CONFLICT, "Volume by that name already exists"));
            }
            let dataset = Dataset::volume(&of_pool, &name);
            let size = of_volume::size(&volume.config);
            let destination = Destination::take(&prepared, &dataset, size, None)?;
            // From here on what a crash leaves is known to be nobody's.
            let begun = prepared.volume_snapshots.begin(&of_pool, &name, &volume_step::Step::Make).await?;
            let names = in_order(snapshots.iter().map(|(name, of)| (name, of.times.created_at)));
            Ok((destination, names, (name, volume, snapshots, begun)))
        })
        .await?;
    let resources = vec![url(&pool, &name, None)];
    let recorded = state.clone();
    let work = async move {
        let done = record_volume(&recorded, &permit, (&pool, &name), volume, snapshots).await;
        // Held until here, so that nobody comes in between.
        drop(destination);
        if done.is_err()
            && let Err(error) = recorded.volume_snapshots.settle(&begun, Timestamp::now()).await
        {
            tracing::warn!(%error, %pool, %name, "the data of a volume that was not imported goes at the next start");
        }
        done
    };
    Ok(begin(state, caller, "Restoring custom volume backup", resources, unset, work))
}

async fn record_volume(
    state: &ApiState,
    permit: &Permit,
    (pool, name): (&PoolName, &VolumeName),
    volume: Volume,
    snapshots: All,
) -> Result<(), LxdError> {
    // Said before the volume is there, so that it is never listed without them.
    state.volume_snapshots.set(permit, pool, name, snapshots, Timestamp::now()).await?;
    let key = RecordKey::Volume { pool: pool.clone(), volume: name.clone() };
    let edit = Edit::put(key, Record::Volume(volume)).only_at(0);
    state.apply.edit(permit, vec![edit]).await?;
    Ok(())
}

/// Imports an instance into a project. `permit` is to make instances there.
pub async fn instance(
    state: &ApiState,
    caller: Caller,
    permit: Permit,
    project: ProjectName,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, LxdError> {
    let named = header(headers, "x-lxd-name")?.map(|name| instance_name(&name)).transpose()?;
    let pool = header(headers, "x-lxd-pool")?;
    let prepared = state.clone();
    let of_project = project.clone();
    let (destination, (name, instance), unset) = receive(body, Contents::Instance, async move |index| {
        let name = match named {
            Some(name) => name,
            None => instance_name(&index.name)?,
        };
        let pool = pool_of(&prepared, pool.as_deref(), &index.pool)?;
        let mut instance = index.instance(pool.clone(), Timestamp::now())?;
        put_root(&mut instance.shape.devices, &pool);
        let root = prepared.instances.check(&instance.shape).await.map_err(said)?;
        debug_assert_eq!(root, pool);
        fit_snapshots(&mut instance)?;
        let place = (&of_project, &name);
        let busy = prepared.instances.hold(place, "create").map_err(said)?;
        if prepared.instances.get(&of_project, &name).await.map_err(said)?.is_some() {
            return Err(said(InstanceError::Exists(name)));
        }
        let dataset = Dataset::instance(&pool, &of_project, &name);
        prepared.instances.make_room(place, &dataset).await.map_err(said)?;
        let size = config::size(&instance.shape);
        let destination = Destination::take(&prepared, &dataset, size, Some(busy))?;
        // From here on what a crash leaves is known to be nobody's.
        prepared.instances.begin(&pool, &of_project, &name, &Step::Remove).await.map_err(said)?;
        let names = in_order(instance.snapshots.iter().map(|(name, of)| (name, of.times.created_at)));
        Ok((destination, names, (name, instance)))
    })
    .await?;
    let resources = vec![instances::url((&project, &name))];
    let recorded = state.clone();
    let work =
        async move { record_instance(&recorded, &permit, destination, (project, name), instance).await };
    Ok(begin(state, caller, "Restoring backup", resources, unset, work))
}

async fn record_instance(
    state: &ApiState,
    permit: &Permit,
    mut destination: Destination,
    (project, name): (ProjectName, ContainerName),
    instance: Instance,
) -> Result<(), LxdError> {
    let busy = destination.busy.take();
    let dataset = Dataset::instance(&instance.pool, &project, &name);
    let recorded = state.instances.create(permit, &project, &name, instance, Timestamp::now()).await;
    // Held until here, so that nobody comes in between.
    drop(destination);
    if recorded.is_err() {
        state.instances.sweep((&project, &name), &dataset).await;
    }
    drop(busy);
    recorded.map_err(said)
}

/// Unpacks a body. `prepare` is given its index, and says where it goes and what it is.
async fn receive<T: Send + 'static>(
    body: Body,
    contents: Contents,
    prepare: impl AsyncFnOnce(Index) -> Result<(Destination, Vec<SnapshotName>, T), LxdError> + Send + 'static,
) -> Result<(Destination, T, Vec<String>), LxdError> {
    let (reader, passing) = reader_of(body);
    let runtime = tokio::runtime::Handle::current();
    // Whoever goes away meanwhile does not want it any more.
    let waiting = CancellationToken::new();
    let _waits = waiting.clone().drop_guard();
    let unpacking = tokio::task::spawn_blocking(move || {
        let mut prepared = None;
        let unpacked: Unpacked = unpack(decompressed(reader)?, &|| waiting.is_cancelled(), |index| {
            let (destination, names, what) = runtime.block_on(prepare(Index::read(index)?))?;
            let folder = destination.folder.clone();
            prepared = Some((destination, names, what));
            Ok::<_, LxdError>((contents, folder))
        })?;
        let (destination, names, what) = prepared.ok_or_else(|| LxdError::from(IndexError::Empty))?;
        let complete = unpacked.main
            && unpacked.snapshots.len() == names.len()
            && names.iter().all(|name| unpacked.snapshots.contains(name));
        if !complete {
            return Err(LxdError::bad_request("The backup does not hold all that its index says"));
        }
        destination.switch_in(names)?;
        Ok((destination, what, unpacked.unset))
    });
    let (unpacked, ()) = tokio::join!(unpacking, passing);
    unpacked.map_err(|error| LxdError::internal(&error))?
}

fn begin(
    state: &ApiState,
    by: Caller,
    description: &'static str,
    resources: Vec<String>,
    unset: Vec<String>,
    work: impl Future<Output = Result<(), LxdError>> + Send + 'static,
) -> Response {
    let start = Start { class: Class::Task, description, by, resources };
    // Whoever cancels the operation is too late: half a record is of no use to anybody.
    let (reply, answer) = tokio::sync::oneshot::channel();
    state.tasks.spawn("recording an import", async move {
        let _ = reply.send(work.await);
    });
    let operation = state.operations.start(&state.tasks, start, |_| async move {
        match answer.await {
            Ok(Ok(())) if unset.is_empty() => Ok(Value::Null),
            Ok(Ok(())) => Ok(json!({ "unset": unset.join("; ") })),
            Ok(Err(error)) => Err(error.message),
            Err(_) => Err("the agent is ending".to_owned()),
        }
    });
    answer::operation(&format!("/1.0/operations/{}", operation.id), operation_body(&operation))
}

/// The pool of an imported instance: the one that is asked for, else that of the backup if there is one of that name, else
/// the default.
fn pool_of(state: &ApiState, asked: Option<&str>, was: &str) -> Result<PoolName, LxdError> {
    let not_found = || LxdError::new(StatusCode::NOT_FOUND, "Storage pool not found");
    let pool: PoolName = match asked {
        Some(asked) => asked.parse().map_err(|_| not_found())?,
        None => match was.parse() {
            Ok(pool) if state.pools.exists(&pool) => pool,
            _ => DEFAULT_POOL.parse().map_err(|_| not_found())?,
        },
    };
    if state.pools.exists(&pool) { Ok(pool) } else { Err(not_found()) }
}

/// Says which pool the root disk is in.
fn put_root(devices: &mut BTreeMap<String, BTreeMap<String, String>>, pool: &PoolName) {
    let is_root = |device: &BTreeMap<String, String>| {
        device.get("type").is_some_and(|kind| kind == "disk")
            && device.get("path").is_some_and(|path| path == "/")
    };
    if let Some(root) = devices.values_mut().find(|device| is_root(device)) {
        root.insert("pool".to_owned(), pool.to_string());
    } else if pool.as_str() != DEFAULT_POOL {
        // That of the profile is in the default pool.
        let root = [("type", "disk"), ("path", "/"), ("pool", pool.as_str())];
        let root = root.map(|(key, value)| (key.to_owned(), value.to_owned()));
        devices.insert("root".to_owned(), BTreeMap::from(root));
    }
}

/// Makes the snapshots such as could be set here.
fn fit_snapshots(instance: &mut Instance) -> Result<(), LxdError> {
    for (name, snapshot) in &mut instance.snapshots {
        config::fit(&mut snapshot.shape, &instance.shape, &instance.pool);
        config::check(&snapshot.shape)
            .map_err(|error| LxdError::bad_request(format!("snapshot {name}: {error}")))?;
    }
    Ok(())
}

fn in_order<'a>(taken: impl Iterator<Item = (&'a SnapshotName, Timestamp)>) -> Vec<SnapshotName> {
    let mut taken: Vec<_> = taken.collect();
    taken.sort_by_key(|(_, at)| *at);
    taken.into_iter().map(|(name, _)| name.clone()).collect()
}

fn header(headers: &HeaderMap, name: &str) -> Result<Option<String>, LxdError> {
    let value = headers.get(name).map(|value| value.to_str());
    let value = value.transpose().map_err(|_| LxdError::bad_request(format!("Invalid header {name}")))?;
    Ok(value.filter(|value| !value.is_empty()).map(str::to_owned))
}

fn instance_name(text: &str) -> Result<ContainerName, LxdError> {
    // The name may be a token in the wrong place: the message does not repeat it.
    text.parse().map_err(|error| LxdError::bad_request(format!("Invalid instance name: {error}")))
}

fn said(error: InstanceError) -> LxdError {
    match error {
        InstanceError::Exists(_) | InstanceError::Busy(_) | InstanceError::InTheWay(_) => {
            LxdError::new(StatusCode::CONFLICT, error.to_string())
        }
        InstanceError::Pool(error) => error.into(),
        InstanceError::Store(_) | InstanceError::Value(_) | InstanceError::Commit(_) => {
            LxdError::internal(&error)
        }
        _ => LxdError::bad_request(error.to_string()),
    }
}
