//! The source's half: what its trees are, then what the target lacks of them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::TransferError;
use super::connections::{Opener, ticket};
use super::exchange::{Offered, Source};
use super::frame::{self, FrameError, Kind};
use super::greeting::{Choice, Hello, VERSION};
use super::lane::{Bits, Lane, alive};
use super::outbox::{Gathering, Outbox, sending};
use super::progress::{Meter, Stage};
use super::reading::{At, Reading, Seen, expectation};
use super::stocked::Stocked;
use crate::dataset::Consistency;
use crate::dataset::chunk::{ChunkRef, Hash};
use crate::dataset::packed::{Packed, Step, pieces};
use crate::dataset::survey::Watch;

/// A manifest is text-like; this is what compresses it well at no cost that counts.
const MANIFEST_LEVEL: i32 = 3;
/// Threads that may read at once, each with data of its own in hand.
const HANDS: usize = 8;

/// What was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Bytes of file data in all trees, and those of them that the target lacked.
    pub total: u64,
    pub moved: u64,
    /// What could not be set at the target, in sentences.
    pub unset: Vec<String>,
}

/// Sends what the target takes of `source`, and waits until it has it for good. Whatever goes wrong is told to the
/// other side.
pub fn send(first: Lane, opener: &Opener, source: &Source, meter: &Meter) -> Result<Sent, TransferError> {
    let mut lanes = vec![first];
    converse(&mut lanes, opener, source, meter)
        .map_err(|e| match (e, lanes.first()) {
            // Where the connection broke the other side may have said why.
            (TransferError::Connection(FrameError::Broken(e)), Some(first)) => {
                first.last_words().unwrap_or(FrameError::Broken(e)).into()
            }
            (e, _) => e,
        })
        .inspect_err(|e| lanes.iter().take(1).for_each(|first| e.tell(first)))
}

fn converse(
    lanes: &mut Vec<Lane>,
    opener: &Opener,
    source: &Source,
    meter: &Meter,
) -> Result<Sent, TransferError> {
    let choice = greet(lanes, opener, source)?;
    let taken = |tree: &&Offered| tree.snapshot.as_ref().is_none_or(|name| choice.take.contains(name));
    let mut sent = Sent { total: 0, moved: 0, unset: Vec::new() };
    let mut last = Hash::of(b"");
    for (at, tree) in source.trees.iter().filter(taken).enumerate() {
        if opener.stop.is_cancelled() {
            return Err(TransferError::Stopped);
        }
        let stocked = if source.reads_once(tree) { Some(Stocked::hear(&lanes[0])?) } else { None };
        let (packed, moved) = if stocked.is_some() || at == 0 && choice.eager {
            eagerly(lanes, tree, source.consistency, (&stocked.unwrap_or_default(), meter))?
        } else {
            as_asked(lanes, tree, source.consistency, meter)?
        };
        sent.total += packed.sums().data;
        sent.moved += moved;
        last = packed.hash();
    }
    let (tree, notes) = frame::acknowledged(&lanes[0].expect(Kind::Ack)?)?;
    if tree != last {
        return Err(FrameError::Malformed("it acknowledges another tree").into());
    }
    sent.unset = notes;
    Ok(sent)
}

fn greet(lanes: &mut Vec<Lane>, opener: &Opener, source: &Source) -> Result<Choice, TransferError> {
    let first = &lanes[0];
    let pending = opener.give_tickets(first)?;
    let hello = Hello {
        version: VERSION,
        header: source.header.clone(),
        snapshots: source.trees.iter().filter_map(|tree| tree.snapshot.clone()).collect(),
        once: source.trees.iter().any(|tree| source.reads_once(tree)),
    };
    first.say(Kind::Hello, &hello.encode())?;
    let (mut tickets, mut payload) = (Vec::new(), Vec::new());
    let choice = loop {
        match first.receive(&mut payload)? {
            Kind::Ticket if tickets.len() < HANDS => tickets.push(ticket(&payload)?),
            Kind::Choice => break Choice::decode(&payload),
            _ => return Err(FrameError::Malformed("expected what it takes").into()),
        }
    };
    let choice = choice.ok_or(FrameError::Malformed("a choice that makes no sense"))?;
    let mut more = opener.dial(first, tickets)?;
    more.extend(opener.collect(first, pending)?);
    lanes.extend(more);
    Ok(choice)
}

impl Source {
    /// Whether a tree may change while it is read. It is sent as it is read, then, each chunk with the hash that it had.
    fn reads_once(&self, tree: &Offered) -> bool {
        self.consistency == Consistency::AllowInconsistent && !matches!(tree.at, At::Frozen(_))
    }
}

/// Sends all of a tree but what is `stocked`, while it is read if it was never read before.
fn eagerly(
    lanes: &[Lane],
    tree: &Offered,
    consistency: Consistency,
    (stocked, meter): (&Stocked, &Meter),
) -> Result<(Packed, u64), TransferError> {
    meter.stage(Stage::Sending);
    let (first, spared) = (&lanes[0], AtomicU64::new(0));
    let reading = thread::scope(|scope| {
        scope.spawn(|| {
            let (bytes, files) = expectation(&tree.at);
            meter.expect(bytes, files);
            let payload = [bytes.to_be_bytes(), files.to_be_bytes()].concat();
            // If it cannot be told the sending fails, too.
            let _ = first.say(Kind::Expect, &payload);
        });
        sending(lanes, meter, |outbox| {
            if let Some(reading) = alive(lanes, || tree.at.known(consistency))? {
                send_known(&reading, outbox)?;
                return Ok(reading);
            }
            let tap = Tap::new(outbox, stocked, (&spared, meter));
            let reading = tree.at.read_anew(consistency, &tap)?;
            tap.flush();
            Ok(reading)
        })
    })?;
    if consistency == Consistency::Strict {
        reading.unchanged()?;
    }
    let packed = reading.packed.clone();
    meter.correct(packed.sums().data, packed.sums().files.into());
    first.say(Kind::Tree, &packed.hash().0)?;
    first.send_packed(Kind::Manifest, Kind::ManifestEnd, packed.bytes(), MANIFEST_LEVEL)?;
    first.say(Kind::Whole, &packed.hash().0)?;
    let moved = packed.sums().data.saturating_sub(spared.into_inner());
    Ok((packed, moved))
}

/// Sends all data of a tree of which it is known what is in it.
fn send_known(reading: &Reading, outbox: &Outbox<'_>) -> Result<(), TransferError> {
    let (mut files, mut gathering, mut data) = (reading.files()?, Gathering::default(), Vec::new());
    let (mut directories, mut open) = (0_u32, Vec::new());
    let mut walk = reading.packed.walk();
    while let Some(step) = walk.next() {
        match step {
            Step::Enter(_) => {
                open.push(directories);
                directories += 1;
            }
            Step::Leave => drop(open.pop()),
            Step::Entry(record) => {
                let Some(content) = record.content() else { continue };
                let directory = open.last().copied().unwrap_or(0);
                let above = walk.path().len().saturating_sub(record.name.len() + 1);
                for (offset, chunk) in content.chunks() {
                    if outbox.broken.load(Relaxed) {
                        return Err(TransferError::Stopped);
                    }
                    files.chunk(walk.path(), offset, chunk, &mut data)?;
                    gathering.add_in(
                        directory,
                        || walk.path()[..above].to_vec(),
                        &data,
                        outbox,
                        |batch| batch.named(record.name, offset, chunk, &data),
                    );
                }
            }
        }
    }
    gathering.flush(outbox);
    Ok(())
}

/// Takes what a survey reads, and gathers it.
struct Tap<'a> {
    outbox: &'a Outbox<'a>,
    /// What the target has, and bytes that were not sent for that.
    stocked: &'a Stocked,
    spared: &'a AtomicU64,
    meter: &'a Meter,
    /// Parent and name of every directory.
    directories: Mutex<Vec<(u32, Vec<u8>)>>,
    hands: Vec<Mutex<Gathering>>,
}

impl<'a> Tap<'a> {
    fn new(
        outbox: &'a Outbox<'a>,
        stocked: &'a Stocked,
        (spared, meter): (&'a AtomicU64, &'a Meter),
    ) -> Self {
        let hands = (0..HANDS).map(|_| Mutex::default()).collect();
        Self { outbox, stocked, spared, meter, directories: Mutex::default(), hands }
    }

    fn path(&self, directory: u32) -> Vec<u8> {
        let directories = self.directories.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut names, mut at) = (Vec::new(), directory);
        while at != 0 {
            let Some((parent, name)) = directories.get(at as usize) else { break };
            names.push(name.as_slice());
            at = *parent;
        }
        names.reverse();
        names.join(&b'/')
    }

    fn flush(&self) {
        for hand in &self.hands {
            hand.lock().unwrap_or_else(PoisonError::into_inner).flush(self.outbox);
        }
    }
}

impl Watch for Tap<'_> {
    fn progress(&self, _bytes: u64) -> bool {
        !self.outbox.broken.load(Relaxed)
    }

    fn directory(&self, directory: u32, parent: u32, name: &[u8]) {
        let mut directories = self.directories.lock().unwrap_or_else(PoisonError::into_inner);
        let at = directory as usize;
        if directories.len() <= at {
            directories.resize(at + 1, (0, Vec::new()));
        }
        directories[at] = (parent, name.to_vec());
    }

    fn chunk(&self, directory: u32, name: &[u8], offset: u64, chunk: ChunkRef, data: &[u8]) {
        // Any hand that is free will do; there are more than threads.
        let free = self.hands.iter().find_map(|hand| hand.try_lock().ok());
        let mut hand = match free {
            Some(hand) => hand,
            None => self.hands[0].lock().unwrap_or_else(PoisonError::into_inner),
        };
        let path = || self.path(directory);
        if self.stocked.has(chunk) {
            self.spared.fetch_add(chunk.len.into(), Relaxed);
            self.meter.reused(chunk.len.into());
            hand.add_in(directory, path, b"", self.outbox, |batch| batch.stocked(name, offset, chunk));
        } else {
            hand.add_in(directory, path, data, self.outbox, |batch| batch.named(name, offset, chunk, data));
        }
    }
}

/// Says what a tree is, and sends what the target asks for.
fn as_asked(
    lanes: &[Lane],
    tree: &Offered,
    consistency: Consistency,
    meter: &Meter,
) -> Result<(Packed, u64), TransferError> {
    let first = &lanes[0];
    meter.stage(Stage::Reading);
    let seen = Seen;
    let reading = alive(lanes, || tree.at.read(consistency, &seen))?;
    let packed = reading.packed.clone();
    let sums = packed.sums();
    meter.expect(sums.data, sums.files.into());
    first.say(Kind::Tree, &packed.hash().0)?;
    let mut payload = Vec::new();
    match first.receive(&mut payload)? {
        Kind::Have => {
            meter.reused(sums.data);
            meter.files(sums.files.into());
            return Ok((packed, 0));
        }
        Kind::Outline => {}
        _ => return Err(FrameError::Malformed("expected whether it has the tree").into()),
    }
    send_manifest(first, &packed)?;
    let most = usize::try_from(sums.chunks / 8 + 1).unwrap_or(usize::MAX);
    let wants = Bits(first.receive_list(Kind::Chunks, Kind::ChunksEnd, most)?);
    meter.stage(Stage::Sending);
    let moved = AtomicU64::new(0);
    sending(lanes, meter, |outbox| send_wanted(&reading, &wants, outbox, &moved))?;
    let moved = moved.into_inner();
    meter.reused(sums.data.saturating_sub(moved));
    meter.files(sums.files.into());
    if consistency == Consistency::Strict {
        reading.unchanged()?;
    }
    first.say(Kind::Whole, &packed.hash().0)?;
    Ok((packed, moved))
}

/// Sends the pieces of the manifest that the target lacks.
fn send_manifest(first: &Lane, packed: &Packed) -> Result<(), TransferError> {
    let cut: Vec<_> = pieces(packed).collect();
    let mut outline = Vec::with_capacity(cut.len() * 34);
    for (piece, _) in &cut {
        outline.extend_from_slice(&piece.hash.0);
        outline.extend_from_slice(&piece.len.to_be_bytes());
    }
    first.send_list(Kind::Outline, Kind::OutlineEnd, &outline)?;
    let wants = Bits(first.receive_list(Kind::Pieces, Kind::PiecesEnd, cut.len() / 8 + 1)?);
    let mut bytes = Vec::new();
    for (at, (_, range)) in cut.into_iter().enumerate() {
        if wants.get(at) {
            bytes.extend_from_slice(&packed.bytes()[range]);
        }
    }
    first.send_packed(Kind::Manifest, Kind::ManifestEnd, &bytes, MANIFEST_LEVEL)
}

fn send_wanted(
    reading: &Reading,
    wants: &Bits,
    outbox: &Outbox<'_>,
    moved: &AtomicU64,
) -> Result<(), TransferError> {
    let (mut files, mut gathering, mut data) = (reading.files()?, Gathering::default(), Vec::new());
    let mut number = 0;
    let mut walk = reading.packed.walk();
    while let Some(step) = walk.next() {
        let Step::Entry(record) = step else { continue };
        let Some(content) = record.content() else { continue };
        for (offset, chunk) in content.chunks() {
            // A manifest has fewer chunks than memory has bytes.
            if usize::try_from(number).is_ok_and(|at| wants.get(at)) {
                if outbox.broken.load(Relaxed) {
                    return Err(TransferError::Stopped);
                }
                files.chunk(walk.path(), offset, chunk, &mut data)?;
                gathering.add(&data, outbox, |batch| batch.numbered(number, &data));
                moved.fetch_add(chunk.len.into(), Relaxed);
            }
            number += 1;
        }
    }
    gathering.flush(outbox);
    Ok(())
}
