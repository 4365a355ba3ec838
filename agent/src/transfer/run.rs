//! Transfers as this agent runs them: offering, pulling, copying within, and taking what is uploaded.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use schema::kind::transfer::Mode;
use schema::name::{PoolName, VolumeName};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::bridge::{Bridge, Stream};
use super::frame::Frames;
use super::offer::{Claim, ClaimError, Offers, UNCONNECTED_LIFE};
use super::receive::{Destination, Received, receive};
use super::send::{Sent, send};
use super::{Progress, TransferError};
use crate::authorize::Permit;
use crate::client::Client;
use crate::dataset::pool::{Held, Switch, Use};
use crate::dataset::{Dataset, PoolError, Pools};
use crate::operation::{Class, Handle, Operation, Operations, Start};
use crate::task::Tasks;
use crate::trust::Fingerprint;
use crate::trust::cluster_identity::ClusterIdentity;
use crate::wire::token::Secret;
use crate::wire::volume::{RemoteSource, TRANSFER_PROTOCOL};

/// Progress is published this often: people read it.
const PUBLISHED_EVERY: Duration = Duration::from_millis(100);
/// A pipe within the process holds this much.
const PIPE: usize = 512 * 1024;

/// What is done once a tree is in its place, before its source is told: the record is written.
pub type Then = Box<dyn FnOnce() -> BoxFuture<'static, Result<(), String>> + Send>;

/// Moves volumes for this agent. Cheap to clone.
#[derive(Clone)]
pub struct Transfers {
    pools: Pools,
    operations: Operations,
    identity: Arc<ClusterIdentity>,
    offers: Arc<Offers>,
    tasks: Tasks,
}

/// A volume, and what to do if it has data already.
#[derive(Debug, Clone)]
pub struct Target {
    pub pool: PoolName,
    pub volume: VolumeName,
    pub mode: Mode,
}

impl Transfers {
    pub fn new(pools: Pools, operations: Operations, identity: Arc<ClusterIdentity>, tasks: Tasks) -> Self {
        Self { pools, operations, identity, offers: Arc::default(), tasks }
    }

    /// Offers a volume's tree to whoever comes with the secret, which is in this answer and nowhere else.
    pub fn offer(
        &self,
        permit: &Permit,
        pool: &PoolName,
        volume: &VolumeName,
        bound_to: Option<Fingerprint>,
    ) -> Result<(Operation, Secret), TransferError> {
        let held = self.pools.hold(&Dataset::volume(pool, volume), Use::Reading)?;
        let tree = self.pools.tree(&Dataset::volume(pool, volume))?;
        let secret = Secret::random();
        let start = Start {
            class: Class::Websocket,
            description: "Sending storage volume",
            by: permit.caller().clone(),
            resources: vec![format!("/1.0/storage-pools/{pool}/volumes/custom/{volume}")],
        };
        let (offers, digest) = (self.offers.clone(), secret.clone());
        let operation = self.operations.start(&self.tasks, start, move |handle| {
            let id = handle.id();
            let taken = offers.put(id, &digest, bound_to);
            async move {
                let withdraw = Withdraw { offers, id };
                let Ok(Ok(stream)) = tokio::time::timeout(UNCONNECTED_LIFE, taken).await else {
                    return Err(format!("nobody connected within {} s", UNCONNECTED_LIFE.as_secs()));
                };
                drop(withdraw);
                sending(stream, tree, Some(held), Some(handle))
                    .await
                    .map(|sent| json!({"total": sent.total, "sent": sent.moved}))
                    .map_err(|e| e.to_string())
            }
        });
        Ok((operation, secret))
    }

    /// Takes up an offer: the connection's end of it.
    pub fn claim(
        &self,
        id: Uuid,
        secret: &Secret,
        certificate: Option<Fingerprint>,
    ) -> Result<Claim, ClaimError> {
        self.offers.claim(id, secret, certificate)
    }

    /// Pulls a tree from another agent, which is dialled with its certificate pinned.
    pub async fn pull(
        &self,
        _permit: &Permit,
        source: &RemoteSource,
        target: &Target,
        handle: &Handle,
        then: Then,
    ) -> Result<Received, TransferError> {
        let held = self.claim_target(target)?;
        let pin = source
            .fingerprint
            .parse()
            .map_err(|_| TransferError::Unreachable("its certificate fingerprint is malformed".to_owned()))?;
        let client =
            Client::pinned("the source", source.addresses.clone(), pin, Some(self.identity.current()));
        let path = format!("/control/v1/transfers/{}/stream", source.operation);
        let stream = client
            .upgrade(&path, TRANSFER_PROTOCOL, Some(&source.secret))
            .await
            .map_err(|e| TransferError::Unreachable(e.to_string()))?;
        receiving(Box::new(stream), Arrival::new(held, then), Some(handle.clone())).await
    }

    /// Copies one volume of this agent to another of its own.
    pub async fn copy(
        &self,
        _permits: [&Permit; 2],
        source: (&PoolName, &VolumeName),
        target: &Target,
        handle: &Handle,
        then: Then,
    ) -> Result<Received, TransferError> {
        if source == (&target.pool, &target.volume) {
            return Err(TransferError::Itself);
        }
        let reading = self.pools.hold(&Dataset::volume(source.0, source.1), Use::Reading)?;
        let tree = self.pools.tree(&Dataset::volume(source.0, source.1))?;
        let held = self.claim_target(target)?;
        let (here, there) = tokio::io::duplex(PIPE);
        let (sent, received) = tokio::join!(
            sending(Box::new(here), tree, Some(reading), None),
            receiving(Box::new(there), Arrival::new(held, then), Some(handle.clone())),
        );
        match (sent, received) {
            // Whoever failed first told the other; its own words are the better ones.
            (Err(e), Err(TransferError::Connection(_))) => Err(e),
            (_, received) => received,
        }
    }

    /// Takes a tree that the caller sends over its own connection.
    pub async fn import(
        &self,
        _permit: &Permit,
        target: &Target,
        stream: Box<dyn Stream>,
        then: Then,
    ) -> Result<Received, TransferError> {
        receiving(stream, Arrival::new(self.claim_target(target)?, then), None).await
    }

    /// Sends a volume's tree over the caller's own connection.
    pub async fn export(
        &self,
        _permit: &Permit,
        pool: &PoolName,
        volume: &VolumeName,
        stream: Box<dyn Stream>,
    ) -> Result<Sent, TransferError> {
        let held = self.pools.hold(&Dataset::volume(pool, volume), Use::Reading)?;
        let tree = self.pools.tree(&Dataset::volume(pool, volume))?;
        sending(stream, tree, Some(held), None).await
    }

    /// Checks, before anything is moved, that the target may be written.
    pub fn check_target(&self, target: &Target) -> Result<(), TransferError> {
        self.claim_target(target).map(drop)
    }

    fn claim_target(&self, target: &Target) -> Result<Held, TransferError> {
        let held = self.pools.hold(&Dataset::volume(&target.pool, &target.volume), Use::Replacing)?;
        if !self.pools.exists(&target.pool) {
            return Err(PoolError::NoSuchPool(target.pool.clone()).into());
        }
        if target.mode == Mode::Copy && held.tree().is_some() {
            return Err(TransferError::Exists(target.pool.clone(), target.volume.clone()));
        }
        Ok(held)
    }
}

struct Withdraw {
    offers: Arc<Offers>,
    id: Uuid,
}

impl Drop for Withdraw {
    fn drop(&mut self) {
        self.offers.withdraw(self.id);
    }
}

/// Sends a tree over `stream`, from a thread of its own. Dropped, it stops.
pub async fn sending(
    stream: Box<dyn Stream>,
    tree: PathBuf,
    held: Option<Held>,
    handle: Option<Handle>,
) -> Result<Sent, TransferError> {
    let mut publish = publisher(handle);
    converse(stream, move |frames| {
        let _held = held;
        send(frames, &tree, &mut publish)
    })
    .await
}

/// Receives a tree over `stream`, on a thread of its own. Dropped, it stops, and the target is as it was.
pub async fn receiving(
    stream: Box<dyn Stream>,
    destination: impl Destination + Send + 'static,
    handle: Option<Handle>,
) -> Result<Received, TransferError> {
    let publish = publisher(handle);
    receiving_with(stream, destination, publish).await
}

/// The same, with somewhere else to tell progress.
pub async fn receiving_with(
    stream: Box<dyn Stream>,
    destination: impl Destination + Send + 'static,
    mut progress: impl FnMut(Progress) + Send + 'static,
) -> Result<Received, TransferError> {
    converse(stream, move |frames| receive(frames, &destination, &mut progress)).await
}

/// Sends, with somewhere else to tell progress.
pub async fn sending_with(
    stream: Box<dyn Stream>,
    tree: PathBuf,
    mut progress: impl FnMut(Progress) + Send + 'static,
) -> Result<Sent, TransferError> {
    converse(stream, move |frames| send(frames, &tree, &mut progress)).await
}

async fn converse<T: Send + 'static>(
    stream: Box<dyn Stream>,
    half: impl FnOnce(&mut Frames) -> Result<T, TransferError> + Send + 'static,
) -> Result<T, TransferError> {
    let stop = CancellationToken::new();
    let guard = stop.clone().drop_guard();
    let bridge = Bridge::new(stream, stop);
    let done = tokio::task::spawn_blocking(move || half(&mut Frames::new(bridge))).await;
    drop(guard);
    done.unwrap_or(Err(TransferError::Stopped))
}

fn publisher(handle: Option<Handle>) -> impl FnMut(Progress) + Send {
    let mut last: Option<Instant> = None;
    move |progress| {
        let Some(handle) = &handle else { return };
        if last.is_none_or(|at| at.elapsed() >= PUBLISHED_EVERY) {
            last = Some(Instant::now());
            handle.progress(progress_value(progress));
        }
    }
}

fn progress_value(progress: Progress) -> Value {
    json!({"stage": progress.stage.as_str(), "done": progress.done, "total": progress.total})
}

/// A volume that a tree arrives in.
struct Arrival {
    held: Held,
    then: Mutex<Option<Then>>,
}

impl Arrival {
    fn new(held: Held, then: Then) -> Self {
        Self { held, then: Mutex::new(Some(then)) }
    }
}

impl Destination for Arrival {
    fn staging(&self) -> Result<PathBuf, PoolError> {
        self.held.staging()
    }

    fn present(&self) -> Option<PathBuf> {
        self.held.tree()
    }

    fn switch_in(&self, tree: &Path) -> Result<(), TransferError> {
        self.held.switch_in(Switch::main(tree.to_owned()))?;
        let then = self.then.lock().unwrap_or_else(PoisonError::into_inner).take();
        match then {
            Some(then) => {
                tokio::runtime::Handle::current().block_on(then()).map_err(TransferError::NotRecorded)
            }
            None => Ok(()),
        }
    }
}
