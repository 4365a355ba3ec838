//! Compression where it pays: a look at a part of the data says whether it is tried.

use std::io;

use zstd::bulk::{Compressor, Decompressor};

use super::frame::MAX_BATCH;

/// zstd's fastest usual level: about as fast as the link it saves, and most of what higher ones gain.
const LEVEL: i32 = 1;
/// A batch is sent packed if that takes a sixteenth off.
const WORTH: usize = 16;
/// How much of the data is looked at: so many bytes at each of so many places.
const LOOK: usize = 1024;
const PLACES: usize = 4;

/// Whether data is likely to get smaller. Where every byte is as frequent as any other, two bytes taken at random are
/// equal once in 256 times; in what compresses they are more often.
pub fn worth(data: &[u8]) -> bool {
    let mut counts = [0_u64; 256];
    let mut seen = 0;
    let step = (data.len() / PLACES).max(LOOK);
    for part in data.chunks(step).take(PLACES) {
        for byte in &part[..part.len().min(LOOK)] {
            counts[usize::from(*byte)] += 1;
            seen += 1;
        }
    }
    let pairs: u64 = counts.iter().map(|n| n * n).sum();
    let even = seen + seen * seen / 256;
    pairs > even + even / 6
}

/// Packs batches.
pub struct Packer {
    zstd: Compressor<'static>,
}

impl Packer {
    pub fn new() -> io::Result<Self> {
        Ok(Self { zstd: Compressor::new(LEVEL)? })
    }

    /// The batch packed, if that makes it smaller.
    pub fn pack(&mut self, data: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let packed = self.zstd.compress(data)?;
        Ok((packed.len() + data.len() / WORTH < data.len()).then_some(packed))
    }
}

/// Unpacks batches, never to more than a batch may be.
pub struct Unpacker {
    zstd: Decompressor<'static>,
    batch: Vec<u8>,
}

impl Unpacker {
    pub fn new() -> io::Result<Self> {
        Ok(Self { zstd: Decompressor::new()?, batch: Vec::with_capacity(MAX_BATCH) })
    }

    pub fn unpack(&mut self, packed: &[u8]) -> io::Result<&[u8]> {
        self.batch.clear();
        self.zstd.decompress_to_buffer(packed, &mut self.batch)?;
        Ok(&self.batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::chunk::tests::noise;

    #[test]
    fn a_look_tells_text_from_noise() {
        let text = b"the same words again and again; ".repeat(1000);
        for len in [300, 5000, 32_000] {
            assert!(worth(&text[..len]) && !worth(&noise(len)), "{len}");
        }
        assert!(!worth(b""));
    }

    #[test]
    fn packs_what_shrinks_and_unpacks_no_more_than_a_batch() {
        let (mut packer, mut unpacker) = (Packer::new().unwrap(), Unpacker::new().unwrap());
        let text = b"the same words again and again; ".repeat(1000);
        let packed = packer.pack(&text).unwrap().unwrap();
        assert!(packed.len() < text.len() / 10);
        assert_eq!(unpacker.unpack(&packed).unwrap(), text);
        assert!(packer.pack(&noise(50_000)).unwrap().is_none());
        let bomb = packer.pack(&vec![0; MAX_BATCH + 1]).unwrap().unwrap();
        assert!(unpacker.unpack(&bomb).is_err());
    }
}
