//! Chunks: pieces of data whose borders depend on the data alone, so that an insertion moves few of them.
//!
//! The sizes are part of what agents say to each other: two trees are compared by their chunks. Changing them makes
//! everything look new once, which is safe, but slow; a test pins the borders.

use std::fmt;
use std::io::{self, Read};

use fastcdc::v2020::FastCDC;
use serde::{Deserialize, Serialize};

/// Smallest, usual and largest chunk, bytes. Even numbers: the cutter looks at two bytes at a time.
pub const MIN_CHUNK: u32 = 16 * 1024;
pub const AVERAGE_CHUNK: u32 = 64 * 1024;
pub const MAX_CHUNK: u32 = 256 * 1024;

/// A BLAKE3 hash. In JSON, hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hash(pub [u8; 32]);

impl Hash {
    pub fn of(data: &[u8]) -> Self {
        Self(*blake3::hash(data).as_bytes())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl std::str::FromStr for Hash {
    type Err = blake3::HexError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(*blake3::Hash::from_hex(text)?.as_bytes()))
    }
}

impl TryFrom<String> for Hash {
    type Error = blake3::HexError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> Self {
        hash.to_string()
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A chunk by what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChunkRef {
    pub hash: Hash,
    pub len: u32,
}

impl ChunkRef {
    pub fn of(data: &[u8]) -> Self {
        // A chunk is at most MAX_CHUNK long; anything longer matches no reference.
        Self { hash: Hash::of(data), len: u32::try_from(data.len()).unwrap_or(u32::MAX) }
    }
}

/// Cuts data into chunks, with one buffer for many files: most files are far smaller than it.
#[derive(Debug)]
pub struct Cutter {
    buffer: Vec<u8>,
}

impl Default for Cutter {
    fn default() -> Self {
        // Several of the largest chunks, so that what is left over at its end is seldom moved.
        Self { buffer: vec![0; 8 * MAX_CHUNK as usize] }
    }
}

impl Cutter {
    /// Cuts all of `data`.
    pub fn cut(&mut self, data: impl Read) -> io::Result<Vec<ChunkRef>> {
        let mut chunks = Vec::new();
        self.cut_each(data, |chunk, _| {
            chunks.push(chunk);
            Ok(())
        })?;
        Ok(chunks)
    }

    /// Cuts all of `data`, and gives each chunk on as it is found.
    pub fn cut_each(
        &mut self,
        mut data: impl Read,
        mut found: impl FnMut(ChunkRef, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let (min, average, max) = (MIN_CHUNK as usize, AVERAGE_CHUNK as usize, MAX_CHUNK as usize);
        let (mut filled, mut ended) = (0, false);
        while !ended || filled > 0 {
            while !ended && filled < self.buffer.len() {
                match data.read(&mut self.buffer[filled..]) {
                    Ok(0) => ended = true,
                    Ok(n) => filled += n,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            }
            let mut at = 0;
            for piece in FastCDC::new(&self.buffer[..filled], min, average, max) {
                // Without a largest chunk's worth ahead the border could depend on where the buffer ends.
                if !ended && filled - piece.offset < max {
                    break;
                }
                at = piece.offset + piece.length;
                let data = &self.buffer[piece.offset..at];
                found(ChunkRef::of(data), data)?;
            }
            self.buffer.copy_within(at..filled, 0);
            filled -= at;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A fixed stream of bytes without pattern (xorshift).
    pub fn noise(len: usize) -> Vec<u8> {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend_from_slice(&state.to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }

    fn cut(data: &[u8]) -> Vec<ChunkRef> {
        Cutter::default().cut(data).unwrap()
    }

    #[test]
    fn borders_are_what_other_agents_expect() {
        let lens = |data: &[u8]| cut(data).iter().map(|c| c.len).collect::<Vec<_>>();
        assert_eq!(lens(&noise(1 << 20)), GOLDEN);
        assert_eq!(lens(&vec![0; 600_000]), [MAX_CHUNK, MAX_CHUNK, 600_000 - 2 * MAX_CHUNK]);
        assert!(cut(b"").is_empty());
        assert_eq!(cut(b"comity")[0].hash.to_string(), GOLDEN_HASH);
    }

    const GOLDEN: &[u32] =
        &[44750, 219_962, 100_125, 28400, 91429, 28467, 19017, 114_735, 88164, 66867, 152_283, 94377];
    const GOLDEN_HASH: &str = "d8321aa16d816aed899009015db868434d7477387184a40e0f7dd4adb4a415d3";

    #[test]
    fn borders_do_not_depend_on_how_the_data_is_read() {
        struct Dribble<'a>(&'a [u8]);
        impl Read for Dribble<'_> {
            fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
                let n = into.len().min(self.0.len()).min(70_001);
                into[..n].copy_from_slice(&self.0[..n]);
                self.0 = &self.0[n..];
                Ok(n)
            }
        }
        let data = noise(5 << 20);
        let whole: Vec<ChunkRef> =
            FastCDC::new(&data, MIN_CHUNK as usize, AVERAGE_CHUNK as usize, MAX_CHUNK as usize)
                .map(|piece| ChunkRef::of(&data[piece.offset..piece.offset + piece.length]))
                .collect();
        assert_eq!(Cutter::default().cut(Dribble(&data)).unwrap(), whole);
    }

    #[test]
    fn an_insertion_moves_few_chunks() {
        let before = noise(2 << 20);
        let mut after = before.clone();
        after.splice(700_000..700_000, *b"a few words");
        let old = cut(&before);
        let new = cut(&after).into_iter().filter(|chunk| !old.contains(chunk)).count();
        assert!(new <= 3, "{new} of {} are new", old.len());
    }
}
