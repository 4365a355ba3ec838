//! Chunks: pieces of data whose borders depend on the data alone, so that an insertion moves few of them.
//!
//! The sizes are part of what agents say to each other: two trees are compared by their chunks. Changing them makes
//! everything look new once, which is safe, but slow; a test pins the borders, and the version of the index must rise with
//! them.
//!
//! The curve that they were chosen by: 420 MB in 10,000 small and 4 large files, then the change of one in a hundred that
//! `integration/benches/transfer` makes (2.5 MB of it do not compress, 1.5 MB leave 0.45), two processors, loopback.
//! Medians of three; the times are as noisy as the machine, the bytes are not.
//!
//! | smallest, usual, largest, KiB | full: time, processors | change: time, sent |
//! |---|---|---|
//! | 2, 8, 32 | 1.7 s, 2.5 s | 0.67 s, 3.37 MB |
//! | 4, 16, 64 | 1.5 s, 2.0 s | 0.68 s, 3.40 MB |
//! | **8, 32, 128** | 1.3 s, 1.8 s | 0.61 s, 3.44 MB |
//! | 16, 64, 256 | 1.5 s, 2.1 s | 0.57 s, 3.62 MB |
//! | 32, 128, 256 | 1.1 s, 1.6 s | 0.51 s, 3.95 MB |
//!
//! Below the usual 32 KiB the bytes hardly fall any more, and every chunk costs 36 bytes of manifest; above, what is
//! sent beyond the change itself grows with the chunk.

use std::fmt;
use std::io::{self, Read};
use std::iter::Peekable;

use fastcdc::v2020::FastCDC;
use serde::{Deserialize, Serialize};

/// Smallest, usual and largest chunk, bytes. Even numbers: the cutter looks at two bytes at a time.
pub const MIN_CHUNK: u32 = 8 * 1024;
pub const AVERAGE_CHUNK: u32 = 32 * 1024;
pub const MAX_CHUNK: u32 = 128 * 1024;

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
        Self { buffer: vec![0; 16 * MAX_CHUNK as usize] }
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
        data: impl Read,
        found: impl FnMut(ChunkRef, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        self.cut_along(data, 0, std::iter::empty(), found)
    }

    /// The same, of data that begins at `offset` and was cut `before`, by rising offsets. A border depends on nothing but
    /// the data since the border before it, so where that is the same as it was the border is: it is hashed, to know that
    /// it is, and not searched, which would take twice as long.
    pub fn cut_along(
        &mut self,
        mut data: impl Read,
        mut offset: u64,
        before: impl Iterator<Item = (u64, ChunkRef)>,
        mut found: impl FnMut(ChunkRef, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let (min, average, max) = (MIN_CHUNK as usize, AVERAGE_CHUNK as usize, MAX_CHUNK as usize);
        let (mut filled, mut ended) = (0, false);
        let mut before = Before { chunks: before.peekable() };
        while !ended || filled > 0 {
            while !ended && filled < self.buffer.len() {
                match data.read(&mut self.buffer[filled..]) {
                    Ok(0) => ended = true,
                    Ok(n) => filled += n,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            }
            let buffer = &self.buffer[..filled];
            let cutter = FastCDC::new(buffer, min, average, max);
            let mut at = 0;
            // Without a largest chunk's worth ahead the border could depend on where the buffer ends.
            while at < filled && (ended || filled - at >= max) {
                let chunk = match before.same(offset, &buffer[at..], ended) {
                    Some(chunk) => chunk,
                    None => ChunkRef::of(&buffer[at..cutter.cut(at, filled - at).1]),
                };
                let end = at + chunk.len as usize;
                found(chunk, &buffer[at..end])?;
                at = end;
                offset += u64::from(chunk.len);
            }
            self.buffer.copy_within(at..filled, 0);
            filled -= at;
        }
        Ok(())
    }
}

/// What data was cut into before.
struct Before<I: Iterator<Item = (u64, ChunkRef)>> {
    chunks: Peekable<I>,
}

impl<I: Iterator<Item = (u64, ChunkRef)>> Before<I> {
    /// The chunk that began at `offset`, if `data`, which begins there now, begins with it. `ended` if there is no more
    /// data: the last chunk ends where the data does, and is one only if that is so now and was so then.
    fn same(&mut self, offset: u64, data: &[u8], ended: bool) -> Option<ChunkRef> {
        while self.chunks.next_if(|(at, _)| *at < offset).is_some() {}
        let (_, chunk) = self.chunks.next_if(|(at, _)| *at == offset)?;
        let (len, end) = (chunk.len as usize, offset + u64::from(chunk.len));
        let was_last = self.chunks.peek().is_none_or(|(next, _)| *next != end);
        if was_last && !(ended && data.len() == len) {
            return None;
        }
        data.get(..len).filter(|data| Hash::of(data) == chunk.hash).map(|_| chunk)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

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
        assert_eq!(lens(&vec![0; 300_000]), [MAX_CHUNK, MAX_CHUNK, 300_000 - 2 * MAX_CHUNK]);
        assert!(cut(b"").is_empty());
        assert_eq!(cut(b"comity")[0].hash.to_string(), GOLDEN_HASH);
    }

    const GOLDEN: &[u32] = &[
        22033, 22717, 41059, 55968, 33907, 70353, 78316, 24953, 15531, 20675, 12408, 62609, 9743, 33833,
        9028, 19017, 35765, 23214, 43015, 53422, 76900, 61563, 35378, 12879, 83292, 39188, 21006, 14111,
        16693,
    ];
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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// What was known of data before saves work, and changes nothing.
        #[test]
        fn borders_do_not_depend_on_what_is_known(
            edits in proptest::collection::vec((0..1_200_000_usize, 0..90_000_usize, 0..90_000_usize), 0..4),
            length in 0..1_200_000_usize,
        ) {
            let before = noise(length);
            let mut after = before.clone();
            for (at, gone, new) in edits {
                let at = at.min(after.len());
                let end = (at + gone).min(after.len());
                after.splice(at..end, noise(new));
            }
            let mut offset = 0;
            let known = cut(&before).into_iter().map(|chunk| {
                offset += u64::from(chunk.len);
                (offset - u64::from(chunk.len), chunk)
            });
            let mut found = Vec::new();
            let add = |chunk, data: &[u8]| {
                assert_eq!(ChunkRef::of(data), chunk);
                found.push(chunk);
                Ok(())
            };
            Cutter::default().cut_along(&after[..], 0, known, add).unwrap();
            prop_assert_eq!(found, cut(&after));
        }
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
