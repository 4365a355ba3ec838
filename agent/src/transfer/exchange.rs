//! Sending and receiving, as the rest of the agent calls it: an async shell over threads that read disks, hash and
//! compress. Dropped, it stops; the target is then as it was.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use schema::kind::transfer::Mode;
use schema::name::{PoolName, SnapshotName};
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use super::TransferError;
use super::connections::{Connections, Opener};
use super::lane::Lane;
use super::progress::{Meter, Report, TOLD_EVERY};
use super::reading::{At, Seen};
use super::receive::{Received, receive as receive_half};
use super::send::{Sent, send as send_half};
use super::shipment::{Chosen, Incoming, Kin, Main, Outgoing};
use crate::dataset::chunk::Hash;
use crate::dataset::packed::Packed;
use crate::dataset::pool::{Frozen, Held, Switch, remove_tree};
use crate::dataset::survey::Survey;
use crate::dataset::{Consistency, PoolError, Pools};

/// What a source offers: its trees, snapshots first and oldest first, then its own.
#[derive(Debug)]
pub struct Source {
    pub header: Value,
    pub trees: Vec<Offered>,
    pub consistency: Consistency,
}

/// One tree of an offer.
#[derive(Debug)]
pub struct Offered {
    /// `None` for what arrives as the target's own tree.
    pub snapshot: Option<SnapshotName>,
    pub at: At,
}

/// Where trees arrive.
pub trait Destination: Send + Sync {
    /// A private directory beside the place, on the same file system; kept when the transfer fails, for resuming.
    fn staging(&self) -> Result<PathBuf, PoolError>;
    /// Whether there is anything in the place.
    fn has_present(&self) -> bool;
    /// What is in the place now, and what is in that: what a refresh begins from. It is read side by side with the
    /// source's.
    fn present(&self, watch: &Seen) -> Option<(PathBuf, Survey)>;
    /// Other trees that are here, in which there may be chunks of use.
    fn others(&self) -> Vec<Other>;
    /// What of an offer is taken. Called once; an error is told to both sides, and nothing is written.
    fn choose(&self, header: Value, offered: Vec<SnapshotName>) -> Result<Chosen, String>;
    /// A tree of that hash that is kept here already.
    fn frozen(&self, hash: Hash) -> Option<Frozen>;
    /// What is full when no space is left, as people call it, and how many bytes are free there.
    fn room(&self) -> Result<(String, u64), PoolError>;
    /// How many entries may still be made there, where that is counted.
    fn entries(&self) -> Result<Option<u64>, PoolError> {
        Ok(None)
    }
    /// Refuses a tree with so much data, if the place is to hold less.
    fn fits(&self, _data: u64) -> Result<(), PoolError> {
        Ok(())
    }
    /// Puts trees, which are in staging, in their places for good, as one step, and records them.
    fn switch_in(&self, switch: Switch) -> Result<(), TransferError>;
}

/// A tree that is here, besides the one that is replaced.
#[derive(Debug)]
pub struct Other {
    pub tree: PathBuf,
    pub packed: Packed,
    /// Keeps it, if it is a frozen one: then its files may be shared with other frozen trees.
    pub frozen: Option<Frozen>,
    /// It is a snapshot of the dataset that is received.
    pub own: bool,
}

/// Sends a dataset, which `held` keeps as it is, and waits until the target has it for good.
pub async fn send(
    pools: &Pools,
    held: Held,
    connections: Connections,
    outgoing: Outgoing,
    report: Report,
) -> Result<Sent, TransferError> {
    let mut trees = Vec::with_capacity(outgoing.snapshots.len() + 1);
    for name in outgoing.snapshots {
        let frozen = pools.snapshot(&outgoing.dataset, &name)?;
        trees.push(Offered { snapshot: Some(name), at: At::Frozen(frozen) });
    }
    trees.push(match outgoing.main {
        Main::Live => {
            pools.tree(&outgoing.dataset)?;
            Offered { snapshot: None, at: At::Live(pools.clone(), outgoing.dataset) }
        }
        Main::Snapshot(name) => {
            let frozen = pools.snapshot(&outgoing.dataset, &name)?;
            Offered { snapshot: None, at: At::Frozen(frozen) }
        }
    });
    let source = Source { header: outgoing.header, trees, consistency: outgoing.consistency };
    let sent = send_trees(connections, source, report).await;
    drop(held);
    sent
}

/// Receives a dataset into its place, which `held` keeps for it.
pub async fn receive(
    held: Held,
    connections: Connections,
    incoming: Incoming,
    report: Report,
) -> Result<Received, TransferError> {
    let runtime = Handle::current();
    let present = held.tree().is_some();
    if incoming.mode == Mode::Copy && present {
        return Err(TransferError::Exists(incoming.dataset));
    }
    let Incoming { dataset, choose, record, kin, size, .. } = incoming;
    let (pools, settled) = (held.pools().clone(), Arc::new(AtomicBool::new(false)));
    let (choose, record) = (once(choose), once(record));
    let place = Place { held, runtime, kin, size, choose, record, settled: settled.clone() };
    tokio::select! {
        biased;
        received = receive_trees(connections, place, report) => received,
        short = short_of_room(&pools, &dataset.pool, &settled) => Err(short.into()),
    }
}

/// Ends when what arrives has taken as much space as it may, unless it is all there by then.
async fn short_of_room(pools: &Pools, pool: &PoolName, settled: &AtomicBool) -> PoolError {
    loop {
        tokio::time::sleep(ROOM_LOOKED_AT).await;
        if let Err(short @ PoolError::Reserved { .. }) = pools.room(pool)
            && !settled.load(Ordering::Relaxed)
        {
            return short;
        }
    }
}

/// Sends trees that stand anywhere.
pub async fn send_trees(
    connections: Connections,
    source: Source,
    report: Report,
) -> Result<Sent, TransferError> {
    converse(connections, report, &SENDING, move |first, opener, meter| {
        send_half(first, &opener, &source, meter)
    })
    .await
}

/// Sends the folder `at` of this machine.
pub async fn send_folder(connections: Connections, at: &Path, report: Report) -> Result<Sent, TransferError> {
    let trees = vec![Offered { snapshot: None, at: At::Folder(at.to_owned()) }];
    let source = Source { header: Value::Null, trees, consistency: Consistency::Strict };
    send_trees(connections, source, report).await
}

/// Receives trees into anything.
pub async fn receive_trees(
    connections: Connections,
    destination: impl Destination + 'static,
    report: Report,
) -> Result<Received, TransferError> {
    converse(connections, report, &RECEIVING, move |first, opener, meter| {
        receive_half(first, &opener, &destination, meter)
    })
    .await
}

/// Snapshots of the dataset that are looked through for chunks.
const MOST_SNAPSHOTS: usize = 16;
/// Trees that are sent, and that are received, at the same time. A copy within the agent is one of each.
const MOST_AT_ONCE: usize = 32;

static SENDING: Semaphore = Semaphore::const_new(MOST_AT_ONCE);
static RECEIVING: Semaphore = Semaphore::const_new(MOST_AT_ONCE);

/// Of the entries that a file system may have a fiftieth is left to others, and at most so many.
const MOST_ENTRIES_KEPT: u64 = 1000;

/// How often it is seen to it that what arrives leaves some space.
const ROOM_LOOKED_AT: Duration = Duration::from_secs(1);

/// Tells nobody.
pub fn unreported() -> Report {
    Arc::new(|_| {})
}

async fn converse<T: Send + 'static>(
    connections: Connections,
    report: Report,
    places: &'static Semaphore,
    half: impl FnOnce(Lane, Opener, &Meter) -> Result<T, TransferError> + Send + 'static,
) -> Result<T, TransferError> {
    let place = places.try_acquire().map_err(|_| TransferError::TooMany(MOST_AT_ONCE))?;
    let stop = CancellationToken::new();
    let guard = stop.clone().drop_guard();
    let first = Lane::new(connections.first, &stop);
    let opener = Opener { more: connections.more, stop, runtime: Handle::current() };
    let meter = Arc::new(Meter::default());
    let counted = Arc::clone(&meter);
    // Whoever waits for the end of a cancelled operation waits for that of the thread, which keeps its dataset until then.
    let part = report.clone();
    // A thread of its own: those of the runtime are few, and others wait for them.
    let (finished, work) = oneshot::channel();
    let runtime = Handle::current();
    std::thread::Builder::new()
        .name("transfer".to_owned())
        .spawn(move || {
            // What ends with a failed transfer may have more to do, as a task.
            let _tasks = runtime.enter();
            let done = half(first, opener, &counted);
            drop((place, part));
            // Nobody may wait any more.
            let _ = finished.send(done);
        })
        .map_err(TransferError::Packing)?;
    let done = told(work, &meter, &report).await;
    drop(guard);
    done.unwrap_or(Err(TransferError::Stopped))
}

/// Waits for `work`, and tells of it meanwhile.
async fn told<T>(work: impl Future<Output = T>, meter: &Meter, report: &Report) -> T {
    let mut tick = tokio::time::interval(TOLD_EVERY);
    tokio::pin!(work);
    let done = loop {
        tokio::select! {
            done = &mut work => break done,
            _ = tick.tick() => report(&meter.read(Instant::now())),
        }
    };
    report(&meter.read(Instant::now()));
    done
}

type Once<T> = std::sync::Mutex<Option<T>>;

fn once<T>(value: T) -> Once<T> {
    std::sync::Mutex::new(Some(value))
}

fn take<T>(once: &Once<T>) -> Option<T> {
    once.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
}

/// A dataset's place in a pool.
struct Place {
    held: Held,
    kin: Kin,
    /// Most bytes of data that its tree may have.
    size: Option<u64>,
    runtime: Handle,
    choose: Once<super::shipment::Choose>,
    record: Once<super::shipment::Record>,
    /// All has arrived, and is put in its place.
    settled: Arc<AtomicBool>,
}

impl Destination for Place {
    fn staging(&self) -> Result<PathBuf, PoolError> {
        self.held.staging()
    }

    fn has_present(&self) -> bool {
        self.held.tree().is_some()
    }

    fn present(&self, watch: &Seen) -> Option<(PathBuf, Survey)> {
        let tree = self.held.tree()?;
        match self.held.pools().survey(self.held.dataset(), Consistency::AllowInconsistent, watch) {
            Ok(survey) => Some((tree, survey)),
            // Not worth failing for: then everything is fetched.
            Err(e) => {
                tracing::info!(reason = %e, "the present tree gives no chunks");
                None
            }
        }
    }

    fn others(&self) -> Vec<Other> {
        others(&self.held, self.kin)
    }

    fn choose(&self, header: Value, offered: Vec<SnapshotName>) -> Result<Chosen, String> {
        match take(&self.choose) {
            Some(choose) => self.runtime.block_on(choose(header, offered)),
            None => Err("the offer was made twice".to_owned()),
        }
    }

    fn frozen(&self, hash: Hash) -> Option<Frozen> {
        let (pools, own) = (self.held.pools(), self.held.dataset());
        // A pool that cannot be read now says so when it is written to.
        let frozen = pools.frozen_by_hash(&own.pool, hash).ok().flatten()?;
        let is_own = || {
            let names = pools.snapshots(own).unwrap_or_default();
            names.iter().any(|name| pools.snapshot(own, name).is_ok_and(|frozen| frozen.hash() == hash))
        };
        (self.kin == Kin::All || is_own()).then_some(frozen)
    }

    fn room(&self) -> Result<(String, u64), PoolError> {
        let pool = &self.held.dataset().pool;
        Ok((format!("storage pool {pool}"), self.held.pools().usable(pool)?))
    }

    fn entries(&self) -> Result<Option<u64>, PoolError> {
        let staging = self.held.staging()?;
        let stat = rustix::fs::statvfs(&staging);
        let stat = stat.map_err(|e| PoolError::Io { path: staging, doing: "read", source: e.into() })?;
        // Some file systems have no such limit, and say 0 of it. Where there is one, others are left some.
        let kept = (stat.f_files / 50).min(MOST_ENTRIES_KEPT);
        Ok((stat.f_files > 0).then(|| stat.f_favail.saturating_sub(kept)))
    }

    fn fits(&self, data: u64) -> Result<(), PoolError> {
        match self.size {
            Some(size) if data > size => {
                Err(PoolError::TooSmall { dataset: self.held.dataset().clone(), size, data })
            }
            _ => Ok(()),
        }
    }

    fn switch_in(&self, switch: Switch) -> Result<(), TransferError> {
        self.settled.store(true, Ordering::Relaxed);
        if switch.main.is_some() || !switch.snapshots.is_empty() || !switch.drop.is_empty() {
            self.held.switch_in(switch)?;
        } else {
            remove_tree(&self.held.staging()?)?;
        }
        match take(&self.record) {
            Some(record) => self.runtime.block_on(record()).map_err(TransferError::NotRecorded),
            None => Ok(()),
        }
    }
}

/// Trees whose contents are known without reading them: the dataset's snapshots, and where that is allowed all others.
fn others(held: &Held, kin: Kin) -> Vec<Other> {
    let (pools, own) = (held.pools(), held.dataset());
    let names = pools.snapshots(own).unwrap_or_default();
    let newest = names.into_iter().rev().take(MOST_SNAPSHOTS);
    let mut others: Vec<Other> = newest
        .filter_map(|name| {
            let frozen = pools.snapshot(own, &name).ok()?;
            Some(Other {
                tree: frozen.tree(),
                packed: frozen.packed().ok()?,
                frozen: Some(frozen),
                own: true,
            })
        })
        .collect();
    if kin == Kin::All {
        // Another pool may be on another file system: its files cannot be shared.
        others.extend(pools.other_trees(own).into_iter().map(|known| Other {
            tree: known.tree,
            packed: known.packed,
            frozen: known.frozen,
            own: false,
        }));
    }
    others
}
