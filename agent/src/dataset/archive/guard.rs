//! Stands before the reader of a tar. It bounds what a tar makes that hold in memory: records that say more of the next
//! entry are read whole by it, however large they claim to be. And it keeps those of a POSIX tar as they are, since the
//! reader takes them for lines, which a name or an attribute with a line feed in it breaks.

use std::cell::RefCell;
use std::io::{self, Read};
use std::rc::Rc;

use super::records::Records;

/// Larger than every attribute of a file together that a kernel keeps.
const MOST: u64 = 1024 * 1024;
const BLOCK: usize = 512;

/// What is read is none. The reader's own words for it would repeat what is there.
#[derive(Debug, thiserror::Error)]
#[error("it is no tar archive, nor one that gzip or zstd made smaller")]
struct NoTar;

/// Passes a tar on as long as its records about entries are of a size that makes sense.
pub struct Guard<R> {
    from: R,
    /// Whether anything has been read that was a header.
    begun: bool,
    /// The block that is being looked at, as far as it has come.
    block: Vec<u8>,
    /// Whole blocks of data until the next header.
    data: u64,
    /// The next block goes on with the header of a file with holes.
    extends: bool,
    /// Bytes of a record about the next entry that are still to come.
    of_next: usize,
    said: Said,
}

/// What a tar said of its next entry before that came.
#[derive(Clone, Default)]
pub struct Said(Rc<RefCell<Vec<u8>>>);

impl Said {
    /// What was said of the entry that the reader has just come to.
    pub fn take(&self) -> io::Result<Records> {
        Records::decode(&self.0.take())
    }
}

impl<R: Read> Guard<R> {
    pub fn new(from: R) -> Self {
        let block = Vec::with_capacity(BLOCK);
        Self { from, begun: false, block, data: 0, extends: false, of_next: 0, said: Said::default() }
    }

    pub fn said(&self) -> Said {
        self.said.clone()
    }

    fn look(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.block.is_empty() && self.data > 0 && !self.extends && self.of_next == 0 {
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
            let kept = self.of_next.min(BLOCK);
            self.of_next -= kept;
            self.said.0.borrow_mut().extend_from_slice(&self.block[..kept]);
            return Ok(());
        }
        if self.block.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        let header = tar::Header::from_byte_slice(&self.block);
        if !is_header(&self.block) {
            return Err(if self.begun {
                io::Error::other("it is damaged: there is no header where one belongs")
            } else {
                io::Error::other(NoTar)
            });
        }
        self.begun = true;
        let size = header.entry_size().map_err(|_| io::Error::other("a header says no size"))?;
        let kind = header.entry_type();
        let of_next = kind.is_pax_local_extensions()
            || kind.is_pax_global_extensions()
            || kind.is_gnu_longname()
            || kind.is_gnu_longlink();
        if of_next && size > MOST {
            return Err(io::Error::other("a record about an entry is too large"));
        }
        if kind.is_pax_local_extensions() {
            self.of_next = usize::try_from(size).map_err(io::Error::other)?;
            self.said.0.borrow_mut().clear();
        }
        self.extends = kind.is_gnu_sparse() && self.block[482] == 1;
        self.data = size.div_ceil(BLOCK as u64);
        Ok(())
    }
}

/// Whether a block has the sum of its bytes where a header has it, counted as if that were spaces.
fn is_header(block: &[u8]) -> bool {
    const SUM: std::ops::Range<usize> = 148..156;
    let Some(written) = block.get(SUM) else { return false };
    let digits = written.iter().copied().skip_while(|byte| *byte == b' ').take_while(u8::is_ascii_digit);
    let written = digits.fold(0_u32, |sum, digit| sum.wrapping_mul(8).wrapping_add(u32::from(digit & 7)));
    let counted =
        block.iter().enumerate().map(|(at, byte)| u32::from(if SUM.contains(&at) { b' ' } else { *byte }));
    counted.sum::<u32>() == written
}

impl<R: Read> Read for Guard<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(into)?;
        if n == 0 && !into.is_empty() && !self.begun && !self.block.is_empty() {
            return Err(io::Error::other(NoTar));
        }
        self.look(&into[..n])?;
        Ok(n)
    }
}
