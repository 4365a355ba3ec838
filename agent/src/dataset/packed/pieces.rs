//! A packed manifest in pieces, cut by content: two trees that are much alike have most pieces in common.
//!
//! The list of the pieces' hashes tells another agent what it lacks at some two hundredths of the manifest's size. Borders
//! fall anywhere, also within a record: that of a file of many gigabytes is itself long.

use std::ops::Range;

use fastcdc::v2020::FastCDC;

use super::Packed;
use crate::dataset::chunk::Hash;

/// Shortest piece but the last, bytes.
pub const MIN_PIECE: usize = 512;
const AVERAGE_PIECE: usize = 2048;
/// Longest piece, bytes.
pub const MAX_PIECE: usize = 8192;

/// One piece of a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Piece {
    pub hash: Hash,
    /// At most [`MAX_PIECE`].
    pub len: u16,
}

/// The pieces of a manifest, in order: together they are all of its bytes.
pub fn pieces(packed: &Packed) -> impl Iterator<Item = (Piece, Range<usize>)> + '_ {
    let bytes = packed.bytes();
    FastCDC::new(bytes, MIN_PIECE, AVERAGE_PIECE, MAX_PIECE).map(|cut| {
        let range = cut.offset..cut.offset + cut.length;
        // No piece is longer than the longest, which fits.
        let len = u16::try_from(cut.length).unwrap_or(u16::MAX);
        (Piece { hash: Hash::of(&bytes[range.clone()]), len }, range)
    })
}
