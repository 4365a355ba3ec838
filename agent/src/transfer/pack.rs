//! Compression where it pays: a look at a part of the data says whether it may be tried, and what it takes and gains
//! beside what sending takes says whether it is.
//!
//! Measured on two processors, 420 MB by loopback: packing whatever shrinks took 56 % of all processor time, and the copy
//! 2.3 s; weighed it takes 1.0 to 1.3 s. At what a link of 1 Gbit/s takes for a byte everything that shrinks is packed.
//! The first `ALWAYS` bytes are packed unweighed: of a link nothing is known yet, and a refresh seldom sends more.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use zstd::bulk::{Compressor, Decompressor};

use super::frame::MAX_BATCH;

/// zstd's usual level. Of words and digits it leaves 30 % at 130 MB/s; level 1 leaves 33 % at 150, level 6 31 % at 27.
const LEVEL: i32 = 3;
/// So much of a tree is packed whatever it takes.
const ALWAYS: u64 = 8 << 20;
/// Every so manyth batch is packed although it does not pay: the link may be another by now.
const TRIED: u32 = 32;
/// A new measurement counts for one in so many.
const MEMORY: f64 = 8.0;
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

/// What packing takes and gains, and what sending takes, on one connection.
#[derive(Debug)]
pub struct Scales<'a> {
    /// Bytes of the tree that were packed unweighed, on all connections.
    unweighed: &'a AtomicU64,
    /// Seconds a byte before it is packed, and the part of it that is gone then.
    packing: Option<(f64, f64)>,
    /// Seconds a byte that is sent.
    sending: Option<f64>,
    passed: u32,
}

impl<'a> Scales<'a> {
    pub fn new(unweighed: &'a AtomicU64) -> Self {
        Self { unweighed, packing: None, sending: None, passed: 0 }
    }

    /// Whether so many bytes, which may shrink, are to be packed.
    pub fn pays(&mut self, bytes: usize) -> bool {
        if self.unweighed.fetch_add(bytes as u64, Relaxed) < ALWAYS {
            return true;
        }
        let (Some((packing, gained)), Some(sending)) = (self.packing, self.sending) else { return true };
        self.passed = if sending * gained > packing { 0 } else { self.passed + 1 };
        self.passed.is_multiple_of(TRIED)
    }

    pub fn packed(&mut self, before: usize, after: usize, took: Duration) {
        let gained = 1.0 - (count(after) / count(before)).min(1.0);
        let now = (per_byte(took, before), gained);
        let (cost, gain) = self.packing.unwrap_or(now);
        self.packing = Some((moved(cost, now.0), moved(gain, now.1)));
    }

    pub fn sent(&mut self, bytes: usize, took: Duration) {
        let now = per_byte(took, bytes);
        self.sending = Some(moved(self.sending.unwrap_or(now), now));
    }
}

fn per_byte(took: Duration, bytes: usize) -> f64 {
    took.as_secs_f64() / count(bytes)
}

/// A batch is far shorter than what its length could not tell exactly.
fn count(bytes: usize) -> f64 {
    f64::from(u32::try_from(bytes.max(1)).unwrap_or(u32::MAX))
}

fn moved(before: f64, now: f64) -> f64 {
    before + (now - before) / MEMORY
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
    fn packing_is_weighed_against_the_link() {
        let batch = 1 << 20;
        for (link, expected) in [(Duration::from_millis(1), 1), (Duration::from_millis(100), 32)] {
            let unweighed = AtomicU64::new(0);
            let mut scales = Scales::new(&unweighed);
            let pack = |scales: &mut Scales<'_>| {
                let pays = scales.pays(batch);
                let sent = if pays { batch / 3 } else { batch };
                if pays {
                    scales.packed(batch, sent, Duration::from_millis(8));
                }
                scales.sent(sent, link * u32::try_from(sent).unwrap() / u32::try_from(batch).unwrap());
                pays
            };
            // Of an unknown link nothing is assumed.
            assert!((0..8).all(|_| pack(&mut scales)));
            assert_eq!((0..32).filter(|_| pack(&mut scales)).count(), expected, "{link:?}");
        }
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
