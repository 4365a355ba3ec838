//! What a source has gathered and its connections take: batches in, bounded, out over whichever is free.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use super::TransferError;
use super::batch::Batch;
use super::frame::Kind;
use super::lane::Lane;
use super::pack::{Packer, Scales, worth};
use super::progress::Meter;

/// Batches that wait for each connection.
const WAITING: usize = 3;

/// Where batches go.
pub struct Outbox<'a> {
    queue: SyncSender<Ready>,
    /// Somebody cannot go on: no more is gathered.
    pub broken: &'a AtomicBool,
}

struct Ready {
    batch: Batch,
    pack: bool,
}

/// Gathers data of one thread: what compresses apart from what does not.
#[derive(Debug, Default)]
pub struct Gathering {
    plain: Open,
    packing: Open,
}

#[derive(Debug, Default)]
struct Open {
    batch: Batch,
    directory: Option<u32>,
}

impl Gathering {
    /// Adds one more piece of data with `put`, and hands on what is full.
    pub fn add(&mut self, data: &[u8], outbox: &Outbox<'_>, put: impl FnOnce(&mut Batch)) {
        let (open, pack) = self.open_for(data);
        put(&mut open.batch);
        open.hand_on(pack, outbox);
    }

    /// The same for data in a directory, whose path goes before it unless the batch is in it already.
    pub fn add_in(
        &mut self,
        directory: u32,
        path: impl FnOnce() -> Vec<u8>,
        data: &[u8],
        outbox: &Outbox<'_>,
        put: impl FnOnce(&mut Batch),
    ) {
        let (open, pack) = self.open_for(data);
        if open.directory != Some(directory) {
            open.batch.directory(&path());
            open.directory = Some(directory);
        }
        put(&mut open.batch);
        open.hand_on(pack, outbox);
    }

    fn open_for(&mut self, data: &[u8]) -> (&mut Open, bool) {
        let pack = worth(data);
        (if pack { &mut self.packing } else { &mut self.plain }, pack)
    }

    pub fn flush(&mut self, outbox: &Outbox<'_>) {
        for (open, pack) in [(&mut self.plain, false), (&mut self.packing, true)] {
            outbox.give(std::mem::take(open).batch, pack);
        }
    }
}

impl Open {
    fn hand_on(&mut self, pack: bool, outbox: &Outbox<'_>) {
        if self.batch.is_full() {
            outbox.give(std::mem::take(self).batch, pack);
        }
    }
}

impl Outbox<'_> {
    fn give(&self, batch: Batch, pack: bool) {
        // Whoever takes them takes them all, if only to throw them away.
        if !batch.bytes.is_empty() && self.queue.send(Ready { batch, pack }).is_err() {
            self.broken.store(true, Relaxed);
        }
    }
}

/// Runs `gather`, while every lane sends what is gathered, and then that it was all.
pub fn sending<T>(
    lanes: &[Lane],
    meter: &Meter,
    gather: impl FnOnce(&Outbox<'_>) -> Result<T, TransferError>,
) -> Result<T, TransferError> {
    let (queue, waiting) = sync_channel(WAITING * lanes.len());
    let (waiting, broken, unweighed) = (Mutex::new(waiting), AtomicBool::new(false), AtomicU64::new(0));
    let (gathered, sent) = thread::scope(|scope| {
        let senders: Vec<_> = lanes
            .iter()
            .map(|lane| scope.spawn(|| send_all(lane, &waiting, &broken, Scales::new(&unweighed), meter)))
            .collect();
        let outbox = Outbox { queue, broken: &broken };
        let gathered = gather(&outbox);
        // Then nobody says that this was all: the other side would look for what is missing, and is to hear the reason.
        broken.fetch_or(gathered.is_err(), Relaxed);
        drop(outbox);
        let sent = senders
            .into_iter()
            .map(|sender| sender.join().unwrap_or(Err(TransferError::Stopped)))
            // Every one is waited for, and the first that failed tells why.
            .fold(Ok(()), Result::and);
        (gathered, sent)
    });
    // A connection that broke is why the rest stopped.
    sent.and(gathered)
}

fn send_all(
    lane: &Lane,
    waiting: &Mutex<Receiver<Ready>>,
    broken: &AtomicBool,
    mut scales: Scales<'_>,
    meter: &Meter,
) -> Result<(), TransferError> {
    let mut packer = Packer::new().map_err(TransferError::Packing)?;
    let mut result = Ok(());
    loop {
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Ready { batch, pack }) = next else { break };
        if result.is_ok() {
            let pack = pack && scales.pays(batch.bytes.len());
            result = send_one(lane, &batch, pack.then_some(&mut packer), &mut scales, meter);
            if result.is_err() {
                broken.store(true, Relaxed);
            }
        }
    }
    result?;
    if broken.load(Relaxed) {
        return Ok(());
    }
    Ok(lane.say(Kind::End, b"")?)
}

fn send_one(
    lane: &Lane,
    batch: &Batch,
    packer: Option<&mut Packer>,
    scales: &mut Scales<'_>,
    meter: &Meter,
) -> Result<(), TransferError> {
    let packed = match packer {
        Some(packer) => {
            let begun = Instant::now();
            let packed = packer.pack(&batch.bytes).map_err(TransferError::Packing)?;
            let after = packed.as_ref().map_or(batch.bytes.len(), Vec::len);
            scales.packed(batch.bytes.len(), after, begun.elapsed());
            packed
        }
        None => None,
    };
    let (kind, payload) = match &packed {
        Some(packed) => (Kind::PackedData, packed),
        None => (Kind::Data, &batch.bytes),
    };
    let begun = Instant::now();
    lane.writer().send(kind, payload)?;
    scales.sent(payload.len(), begun.elapsed());
    meter.sent(payload.len() as u64);
    meter.done(batch.data);
    Ok(())
}
