//! A manifest as bytes, for the wire and for resuming.
//!
//! Our own compact form, because paths are bytes (JSON would have to escape them) and because every length is checked
//! against what is left before anything is allocated for it. Numbers are LEB128; a path is told as what it shares
//! with the one before and the rest. It is compressed by whoever stores or sends it.

use super::chunk::{ChunkRef, Hash};
use super::manifest::{Content, Entry, Extent, Hostile, MAX_ENTRIES, Manifest, Meta, Node, Time, TreePath};

/// Begins every encoded manifest: what it is, and the version.
const MAGIC: &[u8; 8] = b"cmtytre1";

/// The manifest as bytes. Equal trees give equal bytes.
pub fn encode(manifest: &Manifest) -> Vec<u8> {
    let mut out = Writer { bytes: MAGIC.to_vec() };
    out.number(manifest.entries().len() as u64);
    let mut before: &[u8] = b"";
    for entry in manifest.entries() {
        let path = entry.path.as_bytes();
        let shared = before.iter().zip(path).take_while(|(a, b)| a == b).count();
        out.number(shared as u64);
        out.blob(&path[shared..]);
        out.node(&entry.node);
        if !matches!(entry.node, Node::HardLink(_)) {
            out.meta(&entry.meta);
        }
        before = path;
    }
    out.bytes
}

/// What names a whole tree: the hash of its encoded manifest.
pub fn tree_hash(encoded: &[u8]) -> Hash {
    Hash::of(encoded)
}

/// Reads bytes from anywhere; what comes back is safe to build.
pub fn decode(bytes: &[u8]) -> Result<Manifest, Hostile> {
    decode_within(bytes, MAX_PATHS)
}

fn decode_within(bytes: &[u8], max_paths: usize) -> Result<Manifest, Hostile> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(Hostile::Malformed)?;
    let mut input = Reader { rest };
    let count = input.count(MIN_ENTRY)?;
    if count > MAX_ENTRIES {
        return Err(Hostile::TooMany);
    }
    // A count is only a claim until the entries are there.
    let mut entries: Vec<Entry> = Vec::with_capacity(count.min(AHEAD));
    let mut paths = 0;
    for _ in 0..count {
        let before = entries.last().map_or(&b""[..], |e| e.path.as_bytes());
        let shared = input.small()?;
        let mut path = before.get(..shared).ok_or(Hostile::Malformed)?.to_vec();
        path.extend_from_slice(input.blob()?);
        paths += path.len();
        if paths > max_paths {
            return Err(Hostile::TooMany);
        }
        let path = TreePath::new(path)?;
        let node = input.node()?;
        let meta = if matches!(node, Node::HardLink(_)) { Meta::default() } else { input.meta()? };
        entries.push(Entry { path, node, meta });
    }
    if !input.rest.is_empty() {
        return Err(Hostile::Malformed);
    }
    Manifest::new(entries)
}

/// Longest paths of all entries together, bytes. A path that shares all but a byte with the one before takes five
/// bytes here and four thousand once it is read: without a bound a few kilobytes could fill any memory.
const MAX_PATHS: usize = 1 << 30;
/// Entries that room is made for before they are read.
const AHEAD: usize = 64 * 1024;

/// Fewest bytes that an entry, an extent, a chunk and an attribute take: what bounds their count.
const MIN_ENTRY: usize = 4;
const MIN_EXTENT: usize = 2;
const MIN_CHUNK_REF: usize = 33;
const MIN_XATTR: usize = 2;

const DIRECTORY: u8 = 0;
const FILE: u8 = 1;
const SYMLINK: u8 = 2;
const HARD_LINK: u8 = 3;
const FIFO: u8 = 4;
const SOCKET: u8 = 5;
const CHARACTER_DEVICE: u8 = 6;
const BLOCK_DEVICE: u8 = 7;

struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push((value & 0x7f) as u8);
    }

    fn blob(&mut self, blob: &[u8]) {
        self.number(blob.len() as u64);
        self.bytes.extend_from_slice(blob);
    }

    fn node(&mut self, node: &Node) {
        match node {
            Node::Directory => self.bytes.push(DIRECTORY),
            Node::File(content) => {
                self.bytes.push(FILE);
                self.number(content.size);
                self.number(content.extents.len() as u64);
                let mut end = 0;
                for extent in &content.extents {
                    self.number(extent.offset - end);
                    end = extent.offset;
                    self.number(extent.chunks.len() as u64);
                    for chunk in &extent.chunks {
                        self.bytes.extend_from_slice(&chunk.hash.0);
                        self.number(chunk.len.into());
                        end += u64::from(chunk.len);
                    }
                }
            }
            Node::Symlink(to) => {
                self.bytes.push(SYMLINK);
                self.blob(to);
            }
            Node::HardLink(to) => {
                self.bytes.push(HARD_LINK);
                self.number((*to).into());
            }
            Node::Fifo => self.bytes.push(FIFO),
            Node::Socket => self.bytes.push(SOCKET),
            Node::Device { block, major, minor } => {
                self.bytes.push(if *block { BLOCK_DEVICE } else { CHARACTER_DEVICE });
                self.number((*major).into());
                self.number((*minor).into());
            }
        }
    }

    fn meta(&mut self, meta: &Meta) {
        self.number(meta.mode.into());
        self.number(meta.uid.into());
        self.number(meta.gid.into());
        let seconds = meta.mtime.seconds;
        self.number(((seconds << 1) ^ (seconds >> 63)).cast_unsigned());
        self.number(meta.mtime.nanoseconds.into());
        self.number(meta.xattrs.len() as u64);
        for (name, value) in &meta.xattrs {
            self.blob(name);
            self.blob(value);
        }
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Hostile> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Hostile::Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Hostile> {
        Ok(self.take(1)?[0])
    }

    fn number(&mut self) -> Result<u64, Hostile> {
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

    fn small<T: TryFrom<u64>>(&mut self) -> Result<T, Hostile> {
        T::try_from(self.number()?).map_err(|_| Hostile::Malformed)
    }

    /// How many things of at least `least` bytes follow.
    fn count(&mut self, least: usize) -> Result<usize, Hostile> {
        let count: usize = self.small()?;
        if count > self.rest.len() / least { Err(Hostile::Malformed) } else { Ok(count) }
    }

    fn blob(&mut self) -> Result<&'a [u8], Hostile> {
        let len = self.small()?;
        self.take(len)
    }

    fn node(&mut self) -> Result<Node, Hostile> {
        Ok(match self.byte()? {
            DIRECTORY => Node::Directory,
            FILE => Node::File(self.content()?),
            SYMLINK => Node::Symlink(self.blob()?.to_vec()),
            HARD_LINK => Node::HardLink(self.small()?),
            FIFO => Node::Fifo,
            SOCKET => Node::Socket,
            kind @ (CHARACTER_DEVICE | BLOCK_DEVICE) => {
                Node::Device { block: kind == BLOCK_DEVICE, major: self.small()?, minor: self.small()? }
            }
            _ => return Err(Hostile::Malformed),
        })
    }

    fn content(&mut self) -> Result<Content, Hostile> {
        let size = self.number()?;
        let count = self.count(MIN_EXTENT)?;
        let mut extents = Vec::with_capacity(count);
        let mut end = 0_u64;
        for _ in 0..count {
            let offset = end.checked_add(self.number()?).ok_or(Hostile::Malformed)?;
            end = offset;
            let count = self.count(MIN_CHUNK_REF)?;
            let mut chunks = Vec::with_capacity(count);
            for _ in 0..count {
                let mut hash = [0; 32];
                hash.copy_from_slice(self.take(32)?);
                let len: u32 = self.small()?;
                end = end.checked_add(len.into()).ok_or(Hostile::Malformed)?;
                chunks.push(ChunkRef { hash: Hash(hash), len });
            }
            extents.push(Extent { offset, chunks });
        }
        Ok(Content { size, extents })
    }

    fn meta(&mut self) -> Result<Meta, Hostile> {
        let (mode, uid, gid) = (self.small()?, self.small()?, self.small()?);
        let zigzag = self.number()?;
        let seconds = (zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed();
        let mtime = Time { seconds, nanoseconds: self.small()? };
        let count = self.count(MIN_XATTR)?;
        let mut xattrs = Vec::with_capacity(count);
        for _ in 0..count {
            xattrs.push((self.blob()?.to_vec(), self.blob()?.to_vec()));
        }
        Ok(Meta { mode, uid, gid, mtime, xattrs })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dataset::chunk::MAX_CHUNK;

    fn name() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>().prop_map(|b| if b == b'/' || b == 0 { b'x' } else { b }), 1..20)
            .prop_map(|name| if name == b"." || name == b".." { b"dots".to_vec() } else { name })
    }

    fn meta() -> impl Strategy<Value = Meta> {
        let xattrs = proptest::collection::btree_map(name(), any::<Vec<u8>>(), 0..3);
        (0..=0o7777_u16, any::<u32>(), any::<u32>(), any::<i64>(), 0..1_000_000_000_u32, xattrs).prop_map(
            |(mode, uid, gid, seconds, nanoseconds, xattrs)| Meta {
                mode,
                uid,
                gid,
                mtime: Time { seconds, nanoseconds },
                xattrs: xattrs.into_iter().collect(),
            },
        )
    }

    fn content() -> impl Strategy<Value = Content> {
        let chunk = (any::<[u8; 32]>(), 1..=MAX_CHUNK).prop_map(|(h, len)| ChunkRef { hash: Hash(h), len });
        let extent = (0..1_000_000_u64, proptest::collection::vec(chunk, 1..4));
        (proptest::collection::vec(extent, 0..3), 0..100_000_u64).prop_map(|(parts, tail)| {
            let (mut end, mut extents) = (0, Vec::new());
            for (gap, chunks) in parts {
                let offset = end + gap;
                end = offset + chunks.iter().map(|c| u64::from(c.len)).sum::<u64>();
                extents.push(Extent { offset, chunks });
            }
            Content { size: end + tail, extents }
        })
    }

    fn node() -> impl Strategy<Value = Node> {
        prop_oneof![
            Just(Node::Directory),
            content().prop_map(Node::File),
            name().prop_map(Node::Symlink),
            Just(Node::Fifo),
            Just(Node::Socket),
            (any::<bool>(), any::<u32>(), any::<u32>()).prop_map(|(block, major, minor)| Node::Device {
                block,
                major,
                minor
            }),
            // Stands for a hard link to the entry before, where that is possible.
            Just(Node::HardLink(u32::MAX)),
        ]
    }

    fn manifest() -> impl Strategy<Value = Manifest> {
        (meta(), proptest::collection::vec((name(), node(), meta(), any::<bool>()), 0..30)).prop_map(
            |(root, parts)| {
                let mut entries = vec![Entry { path: TreePath::root(), node: Node::Directory, meta: root }];
                let mut directory = TreePath::root();
                for (name, mut node, mut meta, enter) in parts {
                    let Ok(path) = directory.join(&name) else { continue };
                    if entries.iter().any(|e| e.path == path) {
                        continue;
                    }
                    if matches!(node, Node::HardLink(_)) {
                        let at = entries.len() - 1;
                        if matches!(entries[at].node, Node::Directory | Node::HardLink(_)) {
                            continue;
                        }
                        (node, meta) = (Node::HardLink(u32::try_from(at).unwrap()), Meta::default());
                    }
                    if node == Node::Directory && enter {
                        directory = path.clone();
                    }
                    entries.push(Entry { path, node, meta });
                }
                Manifest::new(entries).unwrap()
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(manifest in manifest()) {
            prop_assert_eq!(decode(&encode(&manifest)).unwrap(), manifest);
        }

        #[test]
        fn a_cut_or_spoilt_manifest_is_an_error_or_another_manifest(
            manifest in manifest(), at in any::<prop::sample::Index>(), bit in 0..8_u8,
        ) {
            let bytes = encode(&manifest);
            prop_assert!(decode(&bytes[..at.index(bytes.len())]).is_err());
            let mut spoilt = bytes;
            let at = at.index(spoilt.len());
            spoilt[at] ^= 1 << bit;
            if let Ok(other) = decode(&spoilt) {
                prop_assert_eq!(encode(&other), spoilt, "one form for one tree");
            }
        }

        #[test]
        fn noise_is_refused_without_fuss(noise in any::<Vec<u8>>()) {
            let _ = decode(&[&MAGIC[..], &noise].concat());
        }
    }

    #[test]
    fn long_paths_that_share_nearly_all_do_not_add_up_to_more_than_memory() {
        let entry = |path: Vec<u8>| Entry {
            path: TreePath::new(path).unwrap(),
            node: Node::Directory,
            meta: Meta::default(),
        };
        let mut entries = vec![entry(Vec::new()), entry(vec![b'd'; 250])];
        let last = (1..=200).filter(|byte| *byte != b'/');
        entries.extend(last.map(|byte| entry([&[b'd'; 250][..], b"/", &[b'x'; 250], &[byte]].concat())));
        let bytes = encode(&Manifest::new(entries).unwrap());
        assert!(bytes.len() < 4096, "{}", bytes.len());
        assert!(decode(&bytes).is_ok());
        assert_eq!(decode_within(&bytes, 16 * 1024), Err(Hostile::TooMany));
        let mut claim = Writer { bytes: MAGIC.to_vec() };
        claim.number(MAX_ENTRIES as u64 + 1);
        claim.bytes.resize(claim.bytes.len() + 5 * MAX_ENTRIES, 0);
        assert_eq!(decode(&claim.bytes), Err(Hostile::TooMany));
    }

    #[test]
    fn a_hostile_manifest_is_refused_by_name() {
        let entry = |path: &[u8], node: Node| {
            TreePath::new(path.to_vec()).map(|path| Entry { path, node, meta: Meta::default() })
        };
        for path in [&b"../x"[..], b"/etc/passwd", b"a//b", b"a/./b", b"a/..", b"a\0b", b"a/", &[b'x'; 256]] {
            assert!(
                matches!(TreePath::new(path.to_vec()), Err(Hostile::BadPath(_))),
                "{}",
                path.escape_ascii()
            );
        }
        assert_eq!(TreePath::new(b"x/".repeat(40_000)), Err(Hostile::LongPath));
        assert_eq!(TreePath::new([&b"x/".repeat(1024)[..], b"x"].concat()), Err(Hostile::TooDeep));
        assert!(TreePath::new([&b"x/".repeat(1023)[..], b"x"].concat()).is_ok());
        let root = || entry(b"", Node::Directory).unwrap();
        let tree = |rest: Vec<Entry>| Manifest::new([vec![root()], rest].concat()).map(|_| ());
        let file = |path: &[u8]| entry(path, Node::File(Content::default())).unwrap();
        let link = |to| entry(b"l", Node::HardLink(to)).unwrap();
        assert_eq!(Manifest::new(vec![file(b"a")]), Err(Hostile::NoRoot));
        assert!(matches!(tree(vec![file(b"a"), file(b"a")]), Err(Hostile::Duplicate(_))));
        assert!(matches!(tree(vec![root()]), Err(Hostile::Duplicate(_))));
        assert!(matches!(tree(vec![file(b"a/b")]), Err(Hostile::NoParent(_))));
        // The classic: a symlink, then a file through it.
        let out = entry(b"out", Node::Symlink(b"/etc".to_vec())).unwrap();
        assert!(matches!(tree(vec![out, file(b"out/passwd")]), Err(Hostile::NoParent(_))));
        for bad in [link(0), link(1), link(7)] {
            assert!(matches!(tree(vec![bad, file(b"b")]), Err(Hostile::BadLink(_))));
        }
        let content = |size, offset, len| {
            let chunk = ChunkRef { hash: Hash([0; 32]), len };
            let content = Content { size, extents: vec![Extent { offset, chunks: vec![chunk] }] };
            tree(vec![entry(b"f", Node::File(content)).unwrap()])
        };
        assert_eq!(content(10, 0, 10), Ok(()));
        for (size, offset, len) in
            [(9, 0, 10), (10, 1, 10), (10, 0, 0), (1 << 40, 0, MAX_CHUNK + 1), (10, u64::MAX, 2)]
        {
            assert!(matches!(content(size, offset, len), Err(Hostile::BadContent(_))));
        }
        // A count that would take all memory, with nothing behind it.
        let mut huge = Writer { bytes: MAGIC.to_vec() };
        huge.number(1 << 40);
        assert_eq!(decode(&huge.bytes), Err(Hostile::Malformed));
    }
}
