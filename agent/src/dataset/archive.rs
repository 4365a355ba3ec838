//! Trees as one tar file: what exports are made of and imports are read from.
//!
//! What a tar can hold of a tree it holds: owners, modes, times to the nanosecond, extended attributes (ACLs among them),
//! hard links, holes, fifos and devices, in the forms that GNU tar reads and writes. Sockets it cannot hold. What is read
//! comes from anybody: it is written beneath a folder that is held open and nowhere else, and bounded in what it takes.

use std::io::{self, BufReader, Read, Write};

mod guard;
mod pack;
mod place;
mod records;
#[cfg(test)]
mod tests;
mod unpack;

pub use pack::Pack;
pub use unpack::{Contents, Unpacked, unpack};

/// LXD's index of an instance, in its tree.
pub const INSTANCE_INDEX: &str = "backup.yaml";

use super::manifest::{Hostile, TreePath};

/// Why a tree could not be put into an archive, or an archive not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("{path} could not be read: {source}")]
    Read { path: TreePath, source: io::Error },
    #[error("{0} changed while it was read; try again when nothing writes to it")]
    Changed(TreePath),
    #[error("{path} could not be written: {source}")]
    Write { path: TreePath, source: io::Error },
    #[error("no space left on the file system")]
    Full,
    #[error("the archive could not be written: {0}")]
    Output(io::Error),
    #[error("the archive could not be read: {0}")]
    Input(io::Error),
    #[error("the archive holds a path that is not within a tree: {0}")]
    Path(#[from] Hostile),
    #[error("{0} is in the archive twice")]
    Twice(TreePath),
    #[error("{0} is linked to something that is not before it in its tree")]
    Link(TreePath),
    #[error("{path} is {what}, which cannot be unpacked here")]
    Kind { path: String, what: &'static str },
    #[error("the archive holds {0:?}, which no backup does")]
    Stray(String),
    #[error(
        "the archive does not begin with backup/index.yaml: it is no backup, or not one that LXD or this agent made"
    )]
    NoIndex,
    #[error("the archive's index is larger than {0} bytes")]
    LargeIndex(u64),
    #[error("the archive holds more than {0} entries")]
    TooMany(usize),
    #[error("the archive's files would be larger than {0} bytes together")]
    TooLarge(u64),
    #[error("the archive is compressed by {0}, which is not read here; unpack it first, or use gzip or zstd")]
    Compression(&'static str),
    #[error("stopped")]
    Stopped,
}

impl ArchiveError {
    fn read(path: &TreePath, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        match source.kind() {
            // It was there a moment ago, when its directory was listed.
            io::ErrorKind::NotFound => Self::Changed(path.clone()),
            _ => Self::Read { path: path.clone(), source },
        }
    }

    fn write(path: &TreePath, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Write { path: path.clone(), source },
        }
    }

    fn output(source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Output(source),
        }
    }
}

/// How an archive is made smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    /// With a level of 1 to 9.
    Gzip(u32),
    /// With a level of 1 to 19.
    Zstd(i32),
}

/// A text that names no compression that there is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Unsupported compression: use none, gzip or zstd, perhaps with a level such as \"zstd -3\"")]
pub struct CompressionError;

impl std::str::FromStr for Compression {
    type Err = CompressionError;

    /// As LXD has it: the name of a program, perhaps with a level. Nothing is `gzip`.
    fn from_str(text: &str) -> Result<Self, CompressionError> {
        let mut words = text.split_whitespace();
        let name = words.next().unwrap_or("gzip");
        let level = match (words.next(), words.next()) {
            (None, _) => None,
            (Some(level), None) => {
                let level = level.strip_prefix('-').ok_or(CompressionError)?;
                Some(level.parse::<u8>().map_err(|_| CompressionError)?)
            }
            (Some(_), Some(_)) => return Err(CompressionError),
        };
        match (name, level) {
            ("none", None) => Ok(Self::None),
            ("gzip" | "pigz", None) => Ok(Self::Gzip(6)),
            ("gzip" | "pigz", Some(level @ 1..=9)) => Ok(Self::Gzip(level.into())),
            ("zstd", None) => Ok(Self::Zstd(3)),
            ("zstd", Some(level @ 1..=19)) => Ok(Self::Zstd(level.into())),
            _ => Err(CompressionError),
        }
    }
}

/// Compresses what is written to it.
pub enum Compressor<W: Write> {
    None(W),
    Gzip(flate2::write::GzEncoder<W>),
    Zstd(zstd::Encoder<'static, W>),
}

impl<W: Write> Compressor<W> {
    pub fn new(into: W, how: Compression) -> Result<Self, ArchiveError> {
        Ok(match how {
            Compression::None => Self::None(into),
            Compression::Gzip(level) => {
                Self::Gzip(flate2::write::GzEncoder::new(into, flate2::Compression::new(level)))
            }
            Compression::Zstd(level) => {
                Self::Zstd(zstd::Encoder::new(into, level).map_err(ArchiveError::Output)?)
            }
        })
    }

    /// Writes what is left, and gives back what it was written to.
    pub fn finish(self) -> Result<W, ArchiveError> {
        match self {
            Self::None(into) => Ok(into),
            Self::Gzip(encoder) => encoder.finish().map_err(ArchiveError::output),
            Self::Zstd(encoder) => encoder.finish().map_err(ArchiveError::output),
        }
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::None(into) => into.write(bytes),
            Self::Gzip(encoder) => encoder.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::None(into) => into.flush(),
            Self::Gzip(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }
}

/// What `from` holds, decompressed: how it is compressed its first bytes tell.
pub fn decompressed<'a>(mut from: impl Read + 'a) -> Result<Box<dyn Read + 'a>, ArchiveError> {
    let mut first = Vec::with_capacity(8);
    from.by_ref().take(8).read_to_end(&mut first).map_err(ArchiveError::Input)?;
    let whole = BufReader::with_capacity(256 * 1024, io::Cursor::new(first.clone()).chain(from));
    Ok(match &first[..] {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(whole)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            Box::new(zstd::Decoder::with_buffer(whole).map_err(ArchiveError::Input)?)
        }
        [b'B', b'Z', b'h', ..] => return Err(ArchiveError::Compression("bzip2")),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => return Err(ArchiveError::Compression("xz")),
        [0x5d, 0, 0, ..] => return Err(ArchiveError::Compression("lzma")),
        [b'h', b's', b'q', b's', ..] => return Err(ArchiveError::Compression("squashfs")),
        _ => Box::new(whole),
    })
}
