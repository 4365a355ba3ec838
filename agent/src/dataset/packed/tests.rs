//! Trees of every shape, and bytes of none.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::dataset::chunk::Hash;
use crate::dataset::manifest::{Content, Extent, Node};

/// A tree as tests think of it.
#[derive(Debug, Clone)]
pub struct Folder {
    meta: Meta,
    entries: BTreeMap<Vec<u8>, Thing>,
}

#[derive(Debug, Clone)]
enum Thing {
    Folder(Folder),
    Node(Node, Meta),
    /// Another name of an earlier entry, chosen by this number, if there is one.
    Link(u32),
}

impl Folder {
    fn bytes(&self) -> Vec<u8> {
        let mut out = write::begin(&self.meta);
        let (mut number, mut linkable) = (1, Vec::new());
        self.write(&mut out, &mut number, &mut linkable);
        out
    }

    fn write(&self, out: &mut Vec<u8>, number: &mut u32, linkable: &mut Vec<u32>) {
        for (name, thing) in &self.entries {
            match thing {
                Thing::Folder(folder) => {
                    write::record(out, name, &Node::Directory, &folder.meta);
                    *number += 1;
                    folder.write(out, number, linkable);
                    continue;
                }
                Thing::Node(node, meta) => {
                    write::record(out, name, node, meta);
                    linkable.push(*number);
                }
                Thing::Link(at) if !linkable.is_empty() => {
                    let to = linkable[*at as usize % linkable.len()];
                    write::hard_link(out, name, *number - to);
                }
                Thing::Link(_) => continue,
            }
            *number += 1;
        }
        out.push(END);
    }
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>().prop_map(|b| if b == b'/' || b == 0 { b'x' } else { b }), 1..12)
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
    let extent = (0..3_u64, proptest::collection::vec(chunk, 1..4));
    (proptest::collection::vec(extent, 0..3), prop_oneof![Just(0), 0..100_000_u64]).prop_map(
        |(parts, tail)| {
            let (mut end, mut extents) = (0, Vec::<Extent>::new());
            for (gap, chunks) in parts {
                // Extents that touch are one.
                let offset = end + if extents.is_empty() { gap } else { gap + 1 };
                end = offset + chunks.iter().map(|c| u64::from(c.len)).sum::<u64>();
                extents.push(Extent { offset, chunks });
            }
            Content { size: end + tail, extents }
        },
    )
}

fn thing() -> impl Strategy<Value = Thing> {
    let node = prop_oneof![
        content().prop_map(Node::File),
        name().prop_map(Node::Symlink),
        Just(Node::Fifo),
        Just(Node::Socket),
        (any::<bool>(), any::<u32>(), any::<u32>()).prop_map(|(block, major, minor)| Node::Device {
            block,
            major,
            minor
        }),
    ];
    prop_oneof![
        4 => (node, meta()).prop_map(|(node, meta)| Thing::Node(node, meta)),
        1 => any::<u32>().prop_map(Thing::Link),
    ]
}

/// Any tree.
pub fn folder() -> impl Strategy<Value = Folder> {
    let leaf = (meta(), proptest::collection::btree_map(name(), thing(), 0..5))
        .prop_map(|(meta, entries)| Folder { meta, entries });
    leaf.prop_recursive(4, 40, 4, |inner| {
        let below = prop_oneof![2 => thing(), 1 => inner.prop_map(Thing::Folder)];
        (meta(), proptest::collection::btree_map(name(), below, 0..5))
            .prop_map(|(meta, entries)| Folder { meta, entries })
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(folder in folder()) {
        let bytes = folder.bytes();
        let packed = Packed::decode(bytes.clone()).unwrap();
        let entries = open::open(&packed);
        prop_assert_eq!(open::fault(&entries), None);
        prop_assert_eq!(entries.len(), packed.sums().entries as usize);
        prop_assert_eq!(open::data(&entries), packed.sums().data);
        // From its open form it is the same again.
        let mut out = write::begin(&entries[0].meta);
        let mut depth = 0;
        for (number, entry) in (0_u32..).zip(&entries).skip(1) {
            let (parent, name) = entry.path.split().unwrap();
            let at = if parent.is_root() { 0 } else { parent.as_bytes().split(|b| *b == b'/').count() };
            while depth > at {
                out.push(END);
                depth -= 1;
            }
            match &entry.node {
                Node::HardLink(to) => write::hard_link(&mut out, name, number - to),
                node => write::record(&mut out, name, node, &entry.meta),
            }
            depth += usize::from(entry.node == Node::Directory);
        }
        out.extend(std::iter::repeat_n(END, depth + 1));
        prop_assert_eq!(out, bytes);
    }

    #[test]
    fn every_place_leads_back_to_its_path(folder in folder()) {
        let packed = Packed::decode(folder.bytes()).unwrap();
        let directories = Directories::of(&packed);
        let mut walk = packed.walk();
        let mut seen = Vec::new();
        while let Some(step) = walk.next() {
            let (Step::Entry(record) | Step::Enter(record)) = step else { continue };
            seen.push((walk.path().to_vec(), record.number));
            if record.number == 0 {
                continue;
            }
            let around = directories.around(record.at).unwrap();
            prop_assert_eq!(directories.path(&packed, around, record.name), walk.path());
            prop_assert_eq!(packed.record(record.at, record.number).unwrap().body, record.body);
        }
        let mut listed = vec![(Vec::new(), 0)];
        for at in 0..u32::try_from(directories.all().len()).unwrap() {
            for child in directories.children(&packed, at) {
                listed.push((directories.path(&packed, at, child.record.name), child.record.number));
            }
        }
        listed.sort_by_key(|(_, number)| *number);
        prop_assert_eq!(listed, seen);
    }

    #[test]
    fn a_cut_or_spoilt_manifest_is_an_error_or_another_manifest(
        folder in folder(), at in any::<prop::sample::Index>(), bit in 0..8_u8,
    ) {
        let bytes = folder.bytes();
        prop_assert!(Packed::decode(bytes[..at.index(bytes.len())].to_vec()).is_err());
        let mut longer = bytes.clone();
        longer.push(END);
        prop_assert!(Packed::decode(longer).is_err());
        let mut spoilt = bytes;
        let at = at.index(spoilt.len());
        spoilt[at] ^= 1 << bit;
        if let Ok(other) = Packed::decode(spoilt) {
            prop_assert_eq!(open::fault(&open::open(&other)), None, "what passes is safe to build");
        }
    }

    #[test]
    fn noise_is_refused_without_fuss(noise in any::<Vec<u8>>()) {
        let _ = Packed::decode([&MAGIC[..], &noise].concat());
    }

    #[test]
    fn pieces_are_the_whole(folder in folder()) {
        let packed = Packed::decode(folder.bytes()).unwrap();
        let mut end = 0;
        for (piece, range) in pieces(&packed) {
            prop_assert_eq!(range.start, end);
            prop_assert_eq!(usize::from(piece.len), range.len());
            end = range.end;
        }
        prop_assert_eq!(end, packed.bytes().len());
    }
}

fn small(name: &[u8], seed: u64) -> Vec<u8> {
    let chunk = ChunkRef::of(&seed.to_le_bytes());
    let content = Content { size: 8, extents: vec![Extent { offset: 0, chunks: vec![chunk] }] };
    let meta =
        Meta { mode: 0o644, mtime: Time { seconds: 1_700_000_000, nanoseconds: 5 }, ..Meta::default() };
    let mut out = Vec::new();
    write::record(&mut out, name, &Node::File(content), &meta);
    out
}

#[test]
fn the_encoding_is_what_other_agents_expect() {
    let mut out = write::begin(&Meta { mode: 0o755, uid: 1, gid: 2, ..Meta::default() });
    write::record(&mut out, b"d", &Node::Directory, &Meta::default());
    out.extend(small(b"file", 7));
    write::hard_link(&mut out, b"other", 1);
    out.push(END);
    write::record(&mut out, b"link", &Node::Symlink(b"d/file".to_vec()), &Meta::default());
    out.push(END);
    let packed = Packed::decode(out).unwrap();
    assert_eq!(packed.hash().to_string(), GOLDEN, "{:?}", packed.bytes());
    assert_eq!(packed.sums(), Sums { entries: 5, files: 1, chunks: 1, data: 8 });
}

const GOLDEN: &str = "35c7c3fb94fa25b2346e3e49bb60686be97417061f7447161092de500ef348c8";

#[test]
fn a_folder_that_moves_changes_few_pieces_and_a_file_takes_few_bytes() {
    let tree = |first: &[u8], second: &[u8]| {
        let mut out = write::begin(&Meta::default());
        for (name, seed) in [(first, 1_u64), (second, 2)] {
            write::record(&mut out, name, &Node::Directory, &Meta::default());
            for at in 0..2000 {
                out.extend(small(format!("file-{at:05}").as_bytes(), seed << 32 | at));
            }
            out.push(END);
        }
        out.push(END);
        Packed::decode(out).unwrap()
    };
    let (old, new) = (tree(b"a", b"b"), tree(b"b", b"moved"));
    assert!(old.bytes().len() / 4000 < 65, "{}", old.bytes().len() / 4000);
    let known: std::collections::HashSet<Piece> = pieces(&old).map(|(piece, _)| piece).collect();
    let fresh = pieces(&new).filter(|(piece, _)| !known.contains(piece)).count();
    assert!(fresh <= 6, "{fresh} of {}", pieces(&new).count());
}

#[test]
fn a_hostile_manifest_is_refused_by_name() {
    let tree = |records: &[&[u8]]| {
        let mut out = write::begin(&Meta::default());
        out.extend(records.concat());
        out.push(END);
        Packed::decode(out).map(|_| ())
    };
    let link = |distance| {
        let mut out = Vec::new();
        write::hard_link(&mut out, b"z", distance);
        out
    };
    let folder = |name: &[u8]| {
        let mut out = Vec::new();
        write::record(&mut out, name, &Node::Directory, &Meta::default());
        out.push(END);
        out
    };
    assert_eq!(tree(&[&small(b"a", 1), &small(b"b", 1), &link(1)]), Ok(()));
    for name in [&b".."[..], b".", b"a/b", b"/etc", b"", b"a\0"] {
        assert_eq!(tree(&[&small(name, 1)]), Err(Hostile::Malformed), "{}", name.escape_ascii());
    }
    assert!(matches!(tree(&[&small(b"b", 1), &small(b"a", 1)]), Err(Hostile::Duplicate(_))));
    assert!(matches!(tree(&[&small(b"a", 1), &small(b"a", 1)]), Err(Hostile::Duplicate(_))));
    assert_eq!(tree(&[&small(b"a", 1), &link(0)]), Err(Hostile::Malformed));
    assert_eq!(tree(&[&small(b"a", 1), &link(9)]), Err(Hostile::Malformed));
    assert!(matches!(tree(&[&folder(b"a"), &link(1)]), Err(Hostile::BadLink(_))));
    assert!(matches!(tree(&[&folder(b"a"), &link(2)]), Err(Hostile::BadLink(_))));
    let content = |size, offset, len| {
        let chunk = ChunkRef { hash: Hash([0; 32]), len };
        let content = Content { size, extents: vec![Extent { offset, chunks: vec![chunk] }] };
        let mut out = Vec::new();
        write::record(&mut out, b"f", &Node::File(content), &Meta::default());
        tree(&[&out])
    };
    assert_eq!(content(10, 0, 10), Ok(()));
    for (size, offset, len) in [
        (9, 0, 10),
        (10, 1, 10),
        (10, 0, 0),
        (1 << 40, 0, MAX_CHUNK + 1),
        (10, u64::MAX - 2, 2),
        (u64::MAX, 0, 2),
    ] {
        assert_eq!(content(size, offset, len), Err(Hostile::Malformed), "{size} {offset} {len}");
    }
    // A path longer than any limit, out of names that are not.
    let mut deep = write::begin(&Meta::default());
    for _ in 0..300 {
        write::record(&mut deep, &[b'd'; 255], &Node::Directory, &Meta::default());
    }
    assert_eq!(Packed::decode(deep).map(|_| ()), Err(Hostile::LongPath));
    let nested = |depth: usize| {
        let mut bytes = write::begin(&Meta::default());
        for _ in 0..depth {
            write::record(&mut bytes, b"a", &Node::Directory, &Meta::default());
        }
        bytes.extend(vec![super::END; depth + 1]);
        Packed::decode(bytes).map(|packed| packed.sums().entries as usize)
    };
    assert_eq!(nested(MAX_DEPTH), Ok(MAX_DEPTH + 1));
    assert_eq!(nested(MAX_DEPTH + 1), Err(Hostile::TooDeep));
    assert_eq!(nested(30_000), Err(Hostile::TooDeep));
}
