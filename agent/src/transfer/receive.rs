//! The target's half: takes the manifest, finds what it can at home, asks for the rest, and switches the whole in.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::TransferError;
use super::exchange::Destination;
use super::frame::{Frame, FrameError, Frames};
use super::greeting::{Choice, Hello};
use super::pack::Unpacker;
use super::progress::{Meter, Stage};
use super::send::Alive;
use crate::dataset::PoolError;
use crate::dataset::build::{Build, Built};
use crate::dataset::chunk::Hash;
use crate::dataset::encoding::{decode, tree_hash};
use crate::dataset::pool::{Arrived, Switch};
use crate::task::crash;

/// Largest manifest, bytes, unpacked: enough for some 400 GiB of files without a repeat, or millions of small ones.
const MAX_MANIFEST: u64 = 256 << 20;

/// What arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Bytes of file data in the whole tree, and those of them that had to be sent.
    pub total: u64,
    pub moved: u64,
    /// What could not be set here, in sentences.
    pub unset: Vec<String>,
}

/// Receives trees. Whatever goes wrong is told to the other side, and leaves the place as it was.
pub fn receive(
    frames: &mut Frames,
    destination: &dyn Destination,
    meter: &Meter,
) -> Result<Received, TransferError> {
    converse(frames, destination, meter).inspect_err(|e| e.tell(frames))
}

fn converse(
    frames: &mut Frames,
    destination: &dyn Destination,
    meter: &Meter,
) -> Result<Received, TransferError> {
    let Frame::Hello(hello) = frames.receive()? else {
        return Err(FrameError::Malformed("expected an offer").into());
    };
    let hello = Hello::decode(&hello).ok_or(FrameError::Malformed("an offer that makes no sense"))?;
    let offered = hello.snapshots.clone();
    let chosen = destination.choose(hello.header, hello.snapshots).map_err(TransferError::Refused)?;
    let take: Vec<_> = offered.into_iter().filter(|name| chosen.take.contains(name)).collect();
    frames.send(&Frame::Choice(Choice { take: take.clone() }.encode()))?;
    frames.flush()?;
    let staging = destination.staging()?;
    let mut switch = Switch { drop: chosen.drop, ..Switch::default() };
    let mut bases: Vec<PathBuf> = destination.present().into_iter().collect();
    let (mut all, mut last) = (Received { total: 0, moved: 0, unset: Vec::new() }, None);
    for (at, name) in take.iter().map(Some).chain([None]).enumerate() {
        let area = staging.join(format!("tree-{at}"));
        fs::create_dir_all(&area).map_err(|source| PoolError::Io {
            path: area.clone(),
            doing: "created",
            source,
        })?;
        let (hash, built, received) = one_tree(frames, &area, &bases, meter)?;
        all.total += received.total;
        all.moved += received.moved;
        all.unset.extend(built.unset);
        bases.push(built.tree.clone());
        match name {
            Some(name) => switch.snapshots.push((name.clone(), Arrived::Built(built.tree))),
            None => switch.main = Some(built.tree),
        }
        last = Some(hash);
    }
    let Some(hash) = last else { return Err(TransferError::Stopped) };
    if frames.stopped() {
        return Err(TransferError::Stopped);
    }
    meter.stage(Stage::Switching);
    destination.switch_in(switch)?;
    // From here on the target has it, whether or not the source learns so.
    if let Err(e) =
        frames.send(&Frame::Ack { tree: hash, notes: all.unset.clone() }).and_then(|()| frames.flush())
    {
        tracing::info!(reason = %e, "the source could not be told that its tree has arrived");
    }
    Ok(all)
}

fn one_tree(
    frames: &mut Frames,
    area: &Path,
    bases: &[PathBuf],
    meter: &Meter,
) -> Result<(Hash, Built, Received), TransferError> {
    let (encoded, hash) = receive_manifest(frames)?;
    let manifest = decode(&encoded).map_err(TransferError::Hostile)?;
    let (total, files) = (manifest.data_bytes(), manifest.files().count());
    let mut build = Build::begin(area, manifest, &encoded)?;
    drop(encoded);

    let mut alive = Alive::begin();
    meter.stage(Stage::Comparing);
    build.reuse(None, &mut |_| alive.sign(frames))?;
    for base in bases {
        build.reuse(Some(base), &mut |_| alive.sign(frames))?;
    }
    let (bits, wanted, wanted_bytes) = wants(&build);
    frames.send(&Frame::Want(bits))?;
    frames.flush()?;

    meter.stage(Stage::Receiving);
    meter.expect(total, files as u64);
    meter.reused(total - wanted_bytes);
    let (mut received, mut left) = (0, wanted);
    let mut unpacker = Unpacker::new().map_err(TransferError::Packing)?;
    loop {
        match frames.receive()? {
            Frame::Chunk { number, packed, data } => {
                let chunk = build.chunk(number).ok_or(FrameError::Malformed("a chunk of no tree"))?;
                meter.sent(data.len() as u64);
                let data = unpacker
                    .unpack(packed, data, chunk)
                    .map_err(|_| FrameError::Malformed("a chunk that does not unpack"))?;
                build.put(number, &data)?;
                received += u64::from(chunk.len);
                left = left.saturating_sub(1);
                if left == wanted / 2 {
                    crash::point("transfer-half");
                }
                meter.done(chunk.len.into());
            }
            Frame::Done if left == 0 => break,
            Frame::Done => return Err(FrameError::Malformed("chunks are missing").into()),
            _ => return Err(FrameError::Malformed("expected chunks").into()),
        }
    }
    meter.stage(Stage::Verifying);
    let built = build.finish(&mut |_| alive.sign(frames))?;
    meter.files(files as u64);
    Ok((hash, built, Received { total, moved: received, unset: Vec::new() }))
}

/// One bit a chunk, how many are set, and their bytes.
fn wants(build: &Build) -> (Vec<u8>, usize, u64) {
    let (mut bits, mut count, mut bytes) = (Vec::new(), 0, 0);
    for (at, (chunk, have)) in build.chunks().enumerate() {
        if at % 8 == 0 {
            bits.push(0);
        }
        if !have {
            bits[at / 8] |= 1 << (at % 8);
            count += 1;
            bytes += u64::from(chunk.len);
        }
    }
    (bits, count, bytes)
}

fn receive_manifest(frames: &mut Frames) -> Result<(Vec<u8>, Hash), TransferError> {
    let mut pieces = Pieces { frames, piece: io::Cursor::default(), end: None, failed: None };
    let mut encoded = Vec::new();
    let read = zstd::stream::read::Decoder::new(&mut pieces)
        .and_then(|zstd| zstd.take(MAX_MANIFEST + 1).read_to_end(&mut encoded));
    if let Some(failed) = pieces.failed.take() {
        return Err(failed.into());
    }
    read.map_err(|_| FrameError::Malformed("a manifest that does not unpack"))?;
    if encoded.len() as u64 > MAX_MANIFEST {
        return Err(TransferError::TooLarge(MAX_MANIFEST));
    }
    // Whatever the decompressor left unread must be the end.
    let mut rest = [0];
    if pieces.end.is_none() && pieces.read(&mut rest).is_ok_and(|n| n > 0) {
        return Err(FrameError::Malformed("a manifest with more behind it").into());
    }
    match (pieces.failed, pieces.end) {
        (Some(failed), _) => Err(failed.into()),
        (None, Some(hash)) if hash == tree_hash(&encoded) => Ok((encoded, hash)),
        (None, _) => Err(FrameError::Malformed("a manifest that is not what its hash says").into()),
    }
}

struct Pieces<'a> {
    frames: &'a mut Frames,
    piece: io::Cursor<Vec<u8>>,
    end: Option<Hash>,
    failed: Option<FrameError>,
}

impl Read for Pieces<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let n = self.piece.read(into)?;
            if n > 0 || self.end.is_some() || into.is_empty() {
                return Ok(n);
            }
            match self.frames.receive() {
                Ok(Frame::Manifest(piece)) => self.piece = io::Cursor::new(piece),
                Ok(Frame::ManifestEnd(hash)) => self.end = Some(hash),
                Ok(_) => self.failed = Some(FrameError::Malformed("expected a manifest")),
                Err(e) => self.failed = Some(e),
            }
            if self.failed.is_some() {
                return Err(io::Error::other("the manifest broke off"));
            }
        }
    }
}
