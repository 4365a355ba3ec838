//! Bounds what a tar makes its reader hold in memory: records that say more of the next entry are read whole by it,
//! however large they claim to be.

use std::io::{self, Read};

/// Larger than every attribute of a file together that a kernel keeps.
const MOST: u64 = 1024 * 1024;
const BLOCK: usize = 512;

/// Passes a tar on as long as its records about entries are of a size that makes sense.
pub struct Guard<R> {
    from: R,
    /// The block that is being looked at, as far as it has come.
    block: Vec<u8>,
    /// Whole blocks of data until the next header.
    data: u64,
    /// The next block goes on with the header of a file with holes.
    extends: bool,
}

impl<R: Read> Guard<R> {
    pub fn new(from: R) -> Self {
        Self { from, block: Vec::with_capacity(BLOCK), data: 0, extends: false }
    }

    fn look(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.block.is_empty() && self.data > 0 && !self.extends {
                // Whole blocks of data are not looked at one by one.
                let whole = (bytes.len() / BLOCK).min(usize::try_from(self.data).unwrap_or(usize::MAX));
                self.data -= whole as u64;
                bytes = &bytes[whole * BLOCK..];
                if bytes.is_empty() || self.data == 0 {
                    continue;
                }
            }
            let more = (BLOCK - self.block.len()).min(bytes.len());
            self.block.extend_from_slice(&bytes[..more]);
            bytes = &bytes[more..];
            if self.block.len() == BLOCK {
                self.whole()?;
                self.block.clear();
            }
        }
        Ok(())
    }

    fn whole(&mut self) -> io::Result<()> {
        if self.extends {
            self.extends = self.block[504] == 1;
            return Ok(());
        }
        if self.data > 0 {
            self.data -= 1;
            return Ok(());
        }
        if self.block.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        let header = tar::Header::from_byte_slice(&self.block);
        let size = header.entry_size()?;
        let kind = header.entry_type();
        let of_next = kind.is_pax_local_extensions()
            || kind.is_pax_global_extensions()
            || kind.is_gnu_longname()
            || kind.is_gnu_longlink();
        if of_next && size > MOST {
            return Err(io::Error::other("a record about an entry is too large"));
        }
        self.extends = kind.is_gnu_sparse() && self.block[482] == 1;
        self.data = size.div_ceil(BLOCK as u64);
        Ok(())
    }
}

impl<R: Read> Read for Guard<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(into)?;
        self.look(&into[..n])?;
        Ok(n)
    }
}
