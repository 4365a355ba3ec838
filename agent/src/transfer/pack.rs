//! Compression where it pays: each chunk is tried, until some have not got smaller; then fewer and fewer are.

use std::io;

use zstd::bulk::{Compressor, Decompressor};

use super::frame::Packed;
use crate::dataset::chunk::ChunkRef;

/// zstd's fastest usual level: about as fast as the link it saves, and most of what higher ones gain.
const LEVEL: i32 = 1;
/// A chunk is sent packed if that takes a sixteenth off.
const WORTH: usize = 16;
/// Most chunks that are sent untried after one that did not shrink.
const MAX_SKIP: u32 = 32;

/// Packs a run of chunks.
pub struct Packer {
    zstd: Compressor<'static>,
    skip: u32,
    next_skip: u32,
}

impl Packer {
    pub fn new() -> io::Result<Self> {
        Ok(Self { zstd: Compressor::new(LEVEL)?, skip: 0, next_skip: 1 })
    }

    pub fn pack(&mut self, data: &[u8]) -> io::Result<(Packed, Vec<u8>)> {
        if self.skip > 0 {
            self.skip -= 1;
            return Ok((Packed::Plain, data.to_vec()));
        }
        let packed = self.zstd.compress(data)?;
        if packed.len() + data.len() / WORTH < data.len() {
            self.next_skip = 1;
            Ok((Packed::Zstd, packed))
        } else {
            self.skip = self.next_skip;
            self.next_skip = (self.next_skip * 2).min(MAX_SKIP);
            Ok((Packed::Plain, data.to_vec()))
        }
    }
}

/// Unpacks chunks, never to more than the chunk that was asked for.
pub struct Unpacker {
    zstd: Decompressor<'static>,
}

impl Unpacker {
    pub fn new() -> io::Result<Self> {
        Ok(Self { zstd: Decompressor::new()? })
    }

    pub fn unpack(&mut self, packed: Packed, data: Vec<u8>, chunk: ChunkRef) -> io::Result<Vec<u8>> {
        match packed {
            Packed::Plain => Ok(data),
            Packed::Zstd => self.zstd.decompress(&data, chunk.len as usize),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::chunk::tests::noise;

    #[test]
    fn packs_what_shrinks_and_soon_leaves_the_rest() {
        let mut packer = Packer::new().unwrap();
        let mut unpacker = Unpacker::new().unwrap();
        let text = b"the same words again and again; ".repeat(1000);
        let (packed, data) = packer.pack(&text).unwrap();
        assert!(packed == Packed::Zstd && data.len() < text.len() / 10);
        let chunk = ChunkRef::of(&text);
        assert_eq!(unpacker.unpack(packed, data.clone(), chunk).unwrap(), text);
        let short = ChunkRef { len: chunk.len - 1, ..chunk };
        assert!(unpacker.unpack(packed, data, short).is_err(), "more than was asked for");
        let noise = noise(50_000);
        for _ in 0..10 {
            assert_eq!(packer.pack(&noise).unwrap().0, Packed::Plain);
        }
        assert!(packer.skip > 0 || packer.next_skip > 1);
    }
}
