//! Reads records, believing nothing.

use super::{
    ATTRIBUTES, BLOCK_DEVICE, CHARACTER_DEVICE, ContentRef, DIRECTORY, END, FIFO, FILE, HARD_LINK, Hash,
    Hostile, MAX_CHUNK, MAX_COMPONENT, MAX_FILE, MAX_TARGET, MAX_XATTR, MetaRef, NodeRef, Record, SOCKET,
    SYMLINK, Shape, Time, WHOLE,
};

/// What is left to be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    pub rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Hostile> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Hostile::Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    pub fn byte(&mut self) -> Result<u8, Hostile> {
        let (byte, rest) = self.rest.split_first().ok_or(Hostile::Malformed)?;
        self.rest = rest;
        Ok(*byte)
    }

    pub fn number(&mut self) -> Result<u64, Hostile> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                break;
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                // One number, one form: otherwise equal trees could have different bytes.
                return if byte == 0 && shift > 0 { Err(Hostile::Malformed) } else { Ok(value) };
            }
        }
        Err(Hostile::Malformed)
    }

    pub fn small<T: TryFrom<u64>>(&mut self) -> Result<T, Hostile> {
        T::try_from(self.number()?).map_err(|_| Hostile::Malformed)
    }

    pub fn blob(&mut self) -> Result<&'a [u8], Hostile> {
        let len = self.small()?;
        self.take(len)
    }

    pub fn hash(&mut self) -> Result<Hash, Hostile> {
        let mut hash = [0; 32];
        hash.copy_from_slice(self.take(32)?);
        Ok(Hash(hash))
    }

    /// The next record; `None` at the end of its directory. A directory's own records come after it. What depends on
    /// other entries (the order of names, what a hard link is to) is the caller's to check.
    pub fn record(&mut self, at: u32, number: u32) -> Result<Option<Record<'a>>, Hostile> {
        let kind = self.byte()?;
        if kind == END {
            return Ok(None);
        }
        let len = self.byte()?;
        let name = self.take(len.into())?;
        if name.is_empty() || name == b"." || name == b".." || name.iter().any(|b| matches!(b, b'/' | 0)) {
            return Err(Hostile::Malformed);
        }
        let body = self.rest;
        let record = |reader: &Self, node, meta| {
            let body = &body[..body.len() - reader.rest.len()];
            Ok(Some(Record { number, at, name, node, body, meta }))
        };
        if kind == HARD_LINK {
            let distance: u32 = self.small()?;
            let to = number.checked_sub(distance).filter(|to| *to < number).ok_or(Hostile::Malformed)?;
            return record(self, NodeRef::HardLink(to), MetaRef::default());
        }
        let meta = self.meta(kind & ATTRIBUTES != 0)?;
        let node = match kind & !ATTRIBUTES {
            DIRECTORY => NodeRef::Directory,
            WHOLE => {
                let size = self.number()?;
                if size == 0 || size > MAX_CHUNK.into() {
                    return Err(Hostile::Malformed);
                }
                NodeRef::File(ContentRef { size, shape: Shape::Whole, rest: self.take(32)? })
            }
            FILE => NodeRef::File(self.content()?),
            SYMLINK => {
                let target = self.blob()?;
                if target.is_empty() || target.len() > MAX_TARGET || target.contains(&0) {
                    return Err(Hostile::Malformed);
                }
                NodeRef::Symlink(target)
            }
            FIFO => NodeRef::Fifo,
            SOCKET => NodeRef::Socket,
            kind @ (CHARACTER_DEVICE | BLOCK_DEVICE) => {
                NodeRef::Device { block: kind == BLOCK_DEVICE, major: self.small()?, minor: self.small()? }
            }
            _ => return Err(Hostile::Malformed),
        };
        record(self, node, meta)
    }

    pub fn meta(&mut self, attributes: bool) -> Result<MetaRef<'a>, Hostile> {
        let (mode, uid, gid): (u16, _, _) = (self.small()?, self.small()?, self.small()?);
        let zigzag = self.number()?;
        let seconds = (zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed();
        let mtime = Time { seconds, nanoseconds: self.small()? };
        if mode > 0o7777 || mtime.nanoseconds >= 1_000_000_000 {
            return Err(Hostile::Malformed);
        }
        let count = if attributes { self.small()? } else { 0 };
        if attributes && count == 0 {
            return Err(Hostile::Malformed);
        }
        let rest = self.rest;
        let mut before: &[u8] = b"";
        for _ in 0..count {
            let (name, value) = (self.blob()?, self.blob()?);
            let fit = name.len() <= MAX_COMPONENT && !name.contains(&0) && value.len() <= MAX_XATTR;
            if !fit || name <= before {
                return Err(Hostile::Malformed);
            }
            before = name;
        }
        let rest = &rest[..rest.len() - self.rest.len()];
        Ok(MetaRef { mode, uid, gid, mtime, attributes: count, rest })
    }

    fn content(&mut self) -> Result<ContentRef<'a>, Hostile> {
        let size = self.number()?;
        let count: usize = self.small()?;
        let rest = self.rest;
        let (mut end, mut first) = (0_u64, None);
        for extent in 0..count {
            let gap = self.number()?;
            // Two extents that touch would be one, and one without chunks none: one tree, one form.
            if gap == 0 && extent > 0 {
                return Err(Hostile::Malformed);
            }
            end = end.checked_add(gap).ok_or(Hostile::Malformed)?;
            let chunks: usize = self.small()?;
            if chunks == 0 {
                return Err(Hostile::Malformed);
            }
            for _ in 0..chunks {
                self.take(32)?;
                let len: u32 = self.small()?;
                if len == 0 || len > MAX_CHUNK {
                    return Err(Hostile::Malformed);
                }
                end = end.checked_add(len.into()).ok_or(Hostile::Malformed)?;
            }
            if extent == 0 && gap == 0 && chunks == 1 {
                first = Some(end);
            }
        }
        let whole = count == 1 && first == Some(size);
        if end > size || size > MAX_FILE || whole {
            return Err(Hostile::Malformed);
        }
        let rest = &rest[..rest.len() - self.rest.len()];
        Ok(ContentRef { size, shape: Shape::Extents(count), rest })
    }
}
