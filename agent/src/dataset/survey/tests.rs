//! Trees read: the same as by other means, faster the second time, and never fooled.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use super::*;
use crate::dataset::manifest::{Content, Meta, Node};
use crate::dataset::packed::open::open;
use crate::dataset::tests::odd_tree;

fn read(tree: &Path, index: Option<&Path>) -> Survey {
    Survey::read(tree, Manner { index, ..Manner::default() }, &Unwatched).unwrap()
}

/// Every entry as one line, with the other names of the same file: as the manifest says. What the chunks say is compared
/// with what the file holds.
fn told(packed: &Packed, tree: &Path) -> Vec<String> {
    let entries = open(packed);
    let first = |at: usize| if let Node::HardLink(to) = entries[at].node { to as usize } else { at };
    let mut names: BTreeMap<usize, BTreeSet<PathBuf>> = BTreeMap::new();
    let path = |at: usize| PathBuf::from(OsStr::from_bytes(entries[at].path.as_bytes()));
    for at in 0..entries.len() {
        names.entry(first(at)).or_default().insert(path(at));
    }
    let mut lines: Vec<String> = (0..entries.len())
        .map(|at| {
            let of = &entries[first(at)];
            let (kind, what) = match &of.node {
                Node::Directory => (0o040, String::new()),
                Node::File(content) => (0o100, pieced(content, &tree.join(path(at)))),
                Node::Symlink(to) => (0o120, to.escape_ascii().to_string()),
                Node::HardLink(_) => panic!("a link to a link"),
                Node::Fifo => (0o010, String::new()),
                Node::Socket => (0o140, String::new()),
                Node::Device { block, major, minor } => {
                    (if *block { 0o060 } else { 0o020 }, rustix::fs::makedev(*major, *minor).to_string())
                }
            };
            let Meta { mode, uid, gid, mtime, xattrs } = &of.meta;
            let (mode, time) = (u32::from(*mode) | kind << 9, (mtime.seconds, i64::from(mtime.nanoseconds)));
            format!("{:?} {mode:o} {uid} {gid} {time:?} {xattrs:?} {:?} {what}", path(at), names[&first(at)])
        })
        .collect();
    lines.sort();
    lines
}

/// What a file holds by its chunks, each of which is compared with what is there; holes are zeros.
fn pieced(content: &Content, at: &Path) -> String {
    let there = fs::read(at).unwrap();
    let mut told = vec![0; usize::try_from(content.size).unwrap()];
    for extent in &content.extents {
        let mut at = usize::try_from(extent.offset).unwrap();
        for chunk in &extent.chunks {
            let end = at + chunk.len as usize;
            assert_eq!(ChunkRef::of(&there[at..end]), *chunk);
            told[at..end].copy_from_slice(&there[at..end]);
            at = end;
        }
    }
    blake3::hash(&told).to_string()
}

/// The same by other means than the code under test.
fn seen(tree: &Path) -> Vec<String> {
    let mut names: BTreeMap<(u64, u64), BTreeSet<PathBuf>> = BTreeMap::new();
    let entries: Vec<_> = walkdir::WalkDir::new(tree)
        .into_iter()
        .map(|entry| {
            let entry = entry.unwrap();
            let (meta, path) =
                (entry.metadata().unwrap(), entry.path().strip_prefix(tree).unwrap().to_owned());
            names.entry((meta.dev(), meta.ino())).or_default().insert(path.clone());
            (path, meta)
        })
        .collect();
    let mut lines: Vec<String> = entries
        .into_iter()
        .map(|(path, meta)| {
            let (at, kind) = (tree.join(&path), meta.file_type());
            let what = if kind.is_file() {
                blake3::hash(&fs::read(&at).unwrap()).to_string()
            } else if kind.is_symlink() {
                fs::read_link(&at).unwrap().as_os_str().as_bytes().escape_ascii().to_string()
            } else if kind.is_char_device() || kind.is_block_device() {
                meta.rdev().to_string()
            } else {
                String::new()
            };
            let mut xattrs: Vec<(Vec<u8>, Vec<u8>)> = xattr::list(&at)
                .unwrap()
                .filter(|name| name != "security.selinux")
                .map(|name| (name.as_bytes().to_vec(), xattr::get(&at, &name).unwrap().unwrap()))
                .collect();
            xattrs.sort();
            let time = (meta.mtime(), meta.mtime_nsec());
            let names = &names[&(meta.dev(), meta.ino())];
            format!(
                "{path:?} {:o} {} {} {time:?} {xattrs:?} {names:?} {what}",
                meta.mode(),
                meta.uid(),
                meta.gid()
            )
        })
        .collect();
    lines.sort();
    lines
}

/// Waits until what was written is clearly older than a survey that begins now.
fn settle(tree: &Path) {
    let newest = walkdir::WalkDir::new(tree)
        .into_iter()
        .filter_map(|entry| {
            let meta = entry.ok()?.metadata().ok()?;
            Some(meta.ctime() * 1_000_000_000 + meta.ctime_nsec())
        })
        .max()
        .unwrap();
    while now() < newest + 60_000_000 {
        std::thread::yield_now();
    }
}

#[test]
fn an_odd_tree_is_read_whole_and_once() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, index) = (dir.path().join("tree"), dir.path().join("index"));
    odd_tree(&tree);
    fs::create_dir(tree.join("many")).unwrap();
    for at in 0..1300 {
        fs::write(tree.join(format!("many/{at}")), at.to_string()).unwrap();
    }
    fs::create_dir(tree.join("many/600 is a folder")).unwrap();
    fs::write(tree.join("many/600 is a folder/file"), b"in it").unwrap();
    settle(&tree);
    let first = read(&tree, Some(&index));
    assert_eq!(told(first.packed(), &tree), seen(&tree));
    first.unchanged().unwrap();
    first.write_index(&index).unwrap();
    assert!(first.bytes_read() > 1_500_000);

    let again = read(&tree, Some(&index));
    assert_eq!(again.packed().hash(), first.packed().hash());
    assert_eq!(again.bytes_read(), 0);
    // A folder that is renamed is known again; what is new is read.
    fs::rename(tree.join("many"), tree.join("moved")).unwrap();
    fs::write(tree.join("moved/new"), b"12345").unwrap();
    let moved = read(&tree, Some(&index));
    assert_eq!(moved.bytes_read(), 5);
    assert_eq!(moved.packed().hash(), read(&tree, None).packed().hash());
    assert!(first.unchanged().is_err());

    // Of no use: damaged, of another device.
    let bytes = fs::read(&index).unwrap();
    for at in [0, 9, 20, 50, bytes.len() / 2, bytes.len() - 1] {
        let mut spoilt = bytes.clone();
        spoilt[at] ^= 1;
        fs::write(&index, &spoilt).unwrap();
        assert!(Known::load(&index, first.device).is_none(), "{at}");
        fs::write(&index, &bytes[..at]).unwrap();
        assert!(Known::load(&index, first.device).is_none(), "{at}");
    }
    fs::write(&index, &bytes).unwrap();
    assert!(Known::load(&index, first.device).is_some());
    assert!(Known::load(&index, first.device + 1).is_none());
    crate::dataset::pool::remove_tree(&tree).unwrap();
}

#[test]
fn a_rewrite_within_the_same_moment_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, index) = (dir.path().join("tree"), dir.path().join("index"));
    fs::create_dir(&tree).unwrap();
    let path = tree.join("file");
    for round in 0..20 {
        fs::write(&path, format!("old {round:03}")).unwrap();
        let (meta, before) = (fs::metadata(&path).unwrap(), read(&tree, Some(&index)));
        before.write_index(&index).unwrap();
        // At once, with the same size, and the times put back.
        fs::write(&path, format!("new {round:03}")).unwrap();
        let time = Timespec { tv_sec: meta.mtime(), tv_nsec: meta.mtime_nsec() };
        let times = Timestamps { last_access: time, last_modification: time };
        utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mtime_nsec(), meta.mtime_nsec());
        let after = read(&tree, Some(&index));
        assert_ne!(after.packed().hash(), before.packed().hash());
        assert_eq!(after.packed().hash(), read(&tree, None).packed().hash());
    }
    // The same when the index was settled.
    settle(&tree);
    let before = read(&tree, Some(&index));
    before.write_index(&index).unwrap();
    let meta = fs::metadata(&path).unwrap();
    File::options().write(true).open(&path).unwrap().write_all_at(b"xyz", 0).unwrap();
    let time = Timespec { tv_sec: meta.mtime(), tv_nsec: meta.mtime_nsec() };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    assert_ne!(read(&tree, Some(&index)).packed().hash(), before.packed().hash());
}

/// Does something when the first bytes have been read.
struct Meanwhile<'a>(AtomicU64, &'a (dyn Fn() + Sync));

impl Watch for Meanwhile<'_> {
    fn progress(&self, _bytes: u64) -> bool {
        if self.0.fetch_add(1, Ordering::Relaxed) == 0 {
            (self.1)();
        }
        true
    }
}

#[test]
fn what_changes_meanwhile_is_refused_or_read_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let big = crate::dataset::chunk::tests::noise(3 << 20);
    let file = dir.path().join("a");
    let write = || {
        fs::write(&file, &big).unwrap();
    };
    let append = || File::options().append(true).open(&file).unwrap().write_all(b"more").unwrap();
    let cut = || File::options().write(true).open(&file).unwrap().set_len(1 << 20).unwrap();
    for change in [&append as &(dyn Fn() + Sync), &cut] {
        write();
        let watch = Meanwhile(AtomicU64::new(0), change);
        let strict = Survey::read(dir.path(), Manner::default(), &watch);
        assert!(matches!(strict, Err(ScanError::Changed(_))), "{strict:?}");
        write();
        let manner = Manner { consistency: Consistency::AllowInconsistent, index: None };
        let watch = Meanwhile(AtomicU64::new(0), change);
        let found = Survey::read(dir.path(), manner, &watch).unwrap();
        assert_eq!(found.packed().sums().entries, 2);
    }
    let watch = Stop;
    assert!(matches!(Survey::read(dir.path(), Manner::default(), &watch), Err(ScanError::Stopped)));
}

struct Stop;

impl Watch for Stop {
    fn progress(&self, _bytes: u64) -> bool {
        false
    }
}

#[test]
fn trees_deeper_than_any_path_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut at = File::open(dir.path()).map(std::os::fd::OwnedFd::from).unwrap();
    for _ in 0..60 {
        let name = "d".repeat(200);
        rustix::fs::mkdirat(&at, &*name, rustix::fs::Mode::RWXU).unwrap();
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
        at = rustix::fs::openat(&at, &*name, flags, rustix::fs::Mode::empty()).unwrap();
    }
    let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
    let file = rustix::fs::openat(&at, "file", flags, rustix::fs::Mode::RWXU).unwrap();
    File::from(file).write_all(b"down here").unwrap();
    let found = read(dir.path(), None);
    assert_eq!((found.packed().sums().entries, found.packed().sums().data), (62, 9));
    found.unchanged().unwrap();
}

#[test]
fn flags_that_no_copy_keeps_are_told_of() {
    use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

    let dir = tempfile::tempdir().unwrap();
    let (tree, index) = (dir.path().join("tree"), dir.path().join("index"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("log"), b"line").unwrap();
    let file = File::open(tree.join("log")).unwrap();
    let Ok(flags) = ioctl_getflags(&file) else { return };
    if ioctl_setflags(&file, flags | IFlags::APPEND).is_err() {
        eprintln!("no flags can be set here; not tried");
        return;
    }
    settle(&tree);
    for _ in 0..2 {
        let found = read(&tree, Some(&index));
        assert_eq!(found.notes(), ["immutable and append-only flags are not copied: log"]);
        found.write_index(&index).unwrap();
    }
    crate::dataset::pool::remove_tree(&tree).unwrap();
    assert!(!tree.exists());
}

#[test]
fn no_index_is_believed_of_a_file_system_in_memory() {
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else { return };
    let (tree, index) = (dir.path().join("tree"), dir.path().join("index"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), b"AAAA").unwrap();
    let root = crate::dataset::beneath::Root::open(&tree).unwrap();
    let stat = rustix::fs::fstatfs(root.as_fd()).unwrap();
    if stat.f_type != 0x0102_1994 {
        eprintln!("no file system in memory here; not tried");
        return;
    }
    settle(&tree);
    for _ in 0..2 {
        let found = read(&tree, Some(&index));
        assert_eq!(found.bytes_read(), 4);
        found.write_index(&index).unwrap();
    }
}
