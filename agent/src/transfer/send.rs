//! The source's half: what the tree is, then the chunks that the target lacks.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::TransferError;
use super::exchange::{Offered, Source};
use super::frame::{Frame, FrameError, Frames, MAX_PIECE};
use super::greeting::{Choice, Hello, VERSION};
use super::pack::Packer;
use super::progress::{Meter, Stage};
use crate::dataset::chunk::{ChunkRef, Hash};
use crate::dataset::encoding::{encode, tree_hash};
use crate::dataset::scan::Scan;

/// How often a side that only works breaks the silence.
pub const SIGN_OF_LIFE: Duration = Duration::from_secs(5);
/// A manifest is text-like; this is what compresses it well at no cost that counts.
const MANIFEST_LEVEL: i32 = 3;

/// What was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Bytes of file data in the whole tree, and those of them that the target lacked.
    pub total: u64,
    pub moved: u64,
    /// What could not be set at the target, in sentences.
    pub unset: Vec<String>,
}

/// Sends what the target takes of `source`, and waits until it has it for good. Whatever goes wrong is told to the
/// other side.
pub fn send(frames: &mut Frames, source: &Source, meter: &Meter) -> Result<Sent, TransferError> {
    converse(frames, source, meter).inspect_err(|e| e.tell(frames))
}

fn converse(frames: &mut Frames, source: &Source, meter: &Meter) -> Result<Sent, TransferError> {
    let hello = Hello {
        version: VERSION,
        header: source.header.clone(),
        snapshots: source.trees.iter().filter_map(|tree| tree.snapshot.clone()).collect(),
    };
    frames.send(&Frame::Hello(hello.encode()))?;
    frames.flush()?;
    let Frame::Choice(choice) = frames.receive()? else {
        return Err(FrameError::Malformed("expected what it takes").into());
    };
    let choice = Choice::decode(&choice).ok_or(FrameError::Malformed("a choice that makes no sense"))?;
    let taken = |tree: &&Offered| tree.snapshot.as_ref().is_none_or(|name| choice.take.contains(name));
    let (mut total, mut moved, mut hash) = (0, 0, None);
    for tree in source.trees.iter().filter(taken) {
        let (of_tree, bytes, sent) = one_tree(frames, &tree.at, meter)?;
        (total, moved, hash) = (total + bytes, moved + sent, Some(of_tree));
    }
    match frames.receive()? {
        Frame::Ack { tree, notes } if Some(tree) == hash => Ok(Sent { total, moved, unset: notes }),
        _ => Err(FrameError::Malformed("expected its acknowledgement").into()),
    }
}

/// Sends what the target lacks of one tree: its hash, its bytes and those that were sent.
fn one_tree(frames: &mut Frames, tree: &Path, meter: &Meter) -> Result<(Hash, u64, u64), TransferError> {
    let mut alive = Alive::begin();
    meter.stage(Stage::Reading);
    let mut scan = Scan::read(tree, &mut |_| alive.sign(frames)).map_err(TransferError::Source)?;
    let encoded = encode(&scan.manifest);
    let hash = tree_hash(&encoded);
    send_manifest(frames, &encoded)?;
    frames.send(&Frame::ManifestEnd(hash))?;
    frames.flush()?;
    drop(encoded);

    let Frame::Want(bits) = frames.receive()? else {
        return Err(FrameError::Malformed("expected what it wants").into());
    };
    let wanted = wanted(&scan, &bits)?;
    let (all, total) =
        (scan.manifest.data_bytes(), wanted.iter().map(|(_, chunk, ..)| u64::from(chunk.len)).sum::<u64>());
    meter.stage(Stage::Sending);
    meter.expect(all, scan.manifest.files().count() as u64);
    meter.reused(all - total);
    let (mut sent, mut data, mut packer) = (0, Vec::new(), Packer::new().map_err(TransferError::Packing)?);
    for (number, chunk, entry, offset) in wanted {
        if frames.stopped() {
            return Err(TransferError::Stopped);
        }
        scan.chunk(entry, offset, chunk, &mut data).map_err(TransferError::Source)?;
        let (packed, data) = packer.pack(&data).map_err(TransferError::Packing)?;
        meter.sent(data.len() as u64);
        frames.send(&Frame::Chunk { number, packed, data })?;
        sent += u64::from(chunk.len);
        meter.done(chunk.len.into());
    }
    scan.unchanged().map_err(TransferError::Source)?;
    frames.send(&Frame::Done)?;
    frames.flush()?;
    Ok((hash, all, sent))
}

/// The chunks asked for, in the order of their numbers, which is the order of the files, with one place of each.
fn wanted(scan: &Scan, bits: &[u8]) -> Result<Vec<(u32, ChunkRef, usize, u64)>, FrameError> {
    let chunks = scan.manifest.distinct_chunks();
    if bits.len() != chunks.len().div_ceil(8) {
        return Err(FrameError::Malformed("a list of wants for another tree"));
    }
    let mut place: HashMap<ChunkRef, (usize, u64)> = HashMap::with_capacity(chunks.len());
    for (entry, content) in scan.manifest.files() {
        for (offset, chunk) in content.chunks() {
            place.entry(chunk).or_insert((entry, offset));
        }
    }
    let asked = |at: usize| bits[at / 8] & (1 << (at % 8)) != 0;
    (0_u32..)
        .zip(&chunks)
        .filter(|(number, _)| asked(*number as usize))
        .map(|(number, chunk)| {
            let (entry, offset) = place.get(chunk).ok_or(FrameError::Malformed("a chunk of no file"))?;
            Ok((number, *chunk, *entry, *offset))
        })
        .collect()
}

fn send_manifest(frames: &mut Frames, encoded: &[u8]) -> Result<(), FrameError> {
    let mut pieces = Pieces { frames, failed: None };
    let written = zstd::stream::write::Encoder::new(&mut pieces, MANIFEST_LEVEL).and_then(|mut zstd| {
        for part in encoded.chunks(MAX_PIECE) {
            zstd.write_all(part)?;
        }
        zstd.finish().map(|_| ())
    });
    match (written, pieces.failed) {
        (_, Some(failed)) => Err(failed),
        (written, None) => written.map_err(FrameError::Broken),
    }
}

struct Pieces<'a> {
    frames: &'a mut Frames,
    failed: Option<FrameError>,
}

impl Write for Pieces<'_> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        let len = from.len().min(MAX_PIECE);
        self.frames.send(&Frame::Manifest(from[..len].to_vec())).map_err(|e| {
            self.failed = Some(e);
            io::Error::other("the connection broke")
        })?;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Says `Working` every few seconds.
pub struct Alive {
    last: Instant,
}

impl Alive {
    pub fn begin() -> Self {
        Self { last: Instant::now() }
    }

    /// False once the work should stop: it was told to, or nobody listens any more.
    pub fn sign(&mut self, frames: &mut Frames) -> bool {
        if frames.stopped() {
            return false;
        }
        if self.last.elapsed() < SIGN_OF_LIFE {
            return true;
        }
        self.last = Instant::now();
        frames.send(&Frame::Working).and_then(|()| frames.flush()).is_ok()
    }
}
