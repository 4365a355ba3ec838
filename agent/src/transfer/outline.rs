//! A manifest as a target comes by it: the pieces that it has not are sent, the others are its own.

use super::TransferError;
use super::frame::{FrameError, Kind};
use super::lane::{Bits, Lane};
use crate::dataset::chunk::Hash;
use crate::dataset::packed::{MAX_PIECE, MIN_PIECE, Packed, pieces};

/// Largest manifest, bytes: some five million small files, or a terabyte of large ones.
pub const MAX_MANIFEST: usize = 512 << 20;
/// Bytes of an outline for each piece: its hash and its length.
const OUTLINED: usize = 34;

/// What the pieces of a manifest are, as the source sent it: all is looked up in that.
struct Outline(Vec<u8>);

impl Outline {
    fn receive(first: &Lane) -> Result<Self, TransferError> {
        let most = MAX_MANIFEST.div_ceil(MIN_PIECE) * OUTLINED;
        let outline = Self(first.receive_list(Kind::Outline, Kind::OutlineEnd, most)?);
        if !outline.0.len().is_multiple_of(OUTLINED) {
            return Err(FrameError::Malformed("an outline that is cut off").into());
        }
        // Each piece costs memory here, so that none comes for nothing.
        let last = outline.count().saturating_sub(1);
        let least = |at| if at == last { 1 } else { MIN_PIECE };
        if (0..outline.count()).any(|at| !(least(at)..=MAX_PIECE).contains(&outline.len(at))) {
            return Err(FrameError::Malformed("an outline with a piece of impossible length").into());
        }
        if outline.size() > MAX_MANIFEST {
            return Err(TransferError::TooLarge(MAX_MANIFEST as u64));
        }
        Ok(outline)
    }

    fn count(&self) -> usize {
        self.0.len() / OUTLINED
    }

    /// The hash of a piece, as far as there is one.
    fn hash(&self, at: usize) -> &[u8] {
        self.0.get(at * OUTLINED..at * OUTLINED + 32).unwrap_or_default()
    }

    fn len(&self, at: usize) -> usize {
        match self.0.get(at * OUTLINED + 32..(at + 1) * OUTLINED) {
            Some(&[high, low]) => usize::from(u16::from_be_bytes([high, low])),
            _ => 0,
        }
    }

    fn size(&self) -> usize {
        (0..self.count()).map(|at| self.len(at)).sum()
    }

    /// Where each piece is here: in which manifest, from which byte on.
    fn found(&self, manifests: &[&Packed]) -> Vec<Option<(u32, u32)>> {
        // An outline has far fewer pieces than 32 bits count, and a manifest fewer bytes.
        let mut order: Vec<u32> = (0..u32::try_from(self.count()).unwrap_or(u32::MAX)).collect();
        order.sort_unstable_by(|a, b| self.hash(*a as usize).cmp(self.hash(*b as usize)));
        let mut found = vec![None; self.count()];
        for (packed, which) in manifests.iter().zip(0..) {
            for (piece, range) in pieces(packed) {
                let hash = &piece.hash.0[..];
                let first = order.partition_point(|at| self.hash(*at as usize) < hash);
                let same = order[first..].iter().map(|at| *at as usize);
                for at in same.take_while(|at| self.hash(*at) == hash) {
                    if found[at].is_some() || self.len(at) != usize::from(piece.len) {
                        break;
                    }
                    found[at] = u32::try_from(range.start).ok().map(|start| (which, start));
                }
            }
        }
        found
    }
}

/// Asks for the manifest of that hash: for what none of `manifests` has of it.
pub fn manifest(first: &Lane, manifests: &[&Packed], hash: Hash) -> Result<Packed, TransferError> {
    first.say(Kind::Outline, b"")?;
    let outline = Outline::receive(first)?;
    let found = outline.found(manifests);
    let (mut wants, mut lacking) = (Bits::zeros(outline.count()), 0);
    for at in (0..outline.count()).filter(|at| found[*at].is_none()) {
        wants.set(at);
        lacking += outline.len(at);
    }
    let size = outline.size();
    // A few bytes of outline must not become a manifest of any size by naming one piece again and again.
    let known: usize = manifests.iter().map(|packed| packed.bytes().len()).sum();
    if size - lacking > known.saturating_mul(2) + (1 << 20) {
        return Err(FrameError::Malformed("an outline that repeats itself").into());
    }
    first.send_list(Kind::Pieces, Kind::PiecesEnd, &wants.0)?;
    let sent = first.receive_packed(Kind::Manifest, Kind::ManifestEnd, lacking)?;
    let (mut bytes, mut rest) = (Vec::with_capacity(size), &sent[..]);
    let cut_off = || FrameError::Malformed("a manifest that is cut off");
    for (at, place) in found.iter().enumerate() {
        let len = outline.len(at);
        let piece = if let Some((which, start)) = place {
            let start = *start as usize;
            manifests[*which as usize].bytes().get(start..start + len).ok_or_else(cut_off)?
        } else {
            let (piece, more) = rest.split_at_checked(len).ok_or_else(cut_off)?;
            rest = more;
            piece
        };
        bytes.extend_from_slice(piece);
    }
    Packed::decode_as(bytes, hash).map_err(TransferError::Hostile)
}
