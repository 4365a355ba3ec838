//! Trees with everything odd in them, read and built again.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, mknodat, utimensat};

use super::build::{Build, BuildError};
use super::chunk::tests::noise;
use super::encoding::encode;
use super::manifest::Node;
use super::scan::{Scan, ScanError};

/// Says to go on, whatever the progress.
fn go(_: u64) -> bool {
    true
}

fn root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A tree with one of everything that a copy must keep. Returns how many bytes it holds.
pub fn odd_tree(at: &Path) {
    let big = noise(1_500_000);
    fs::create_dir_all(at.join("a/empty")).unwrap();
    fs::create_dir_all(at.join("b")).unwrap();
    fs::write(at.join("a/big"), &big).unwrap();
    fs::write(at.join("a/same"), &big).unwrap();
    fs::write(at.join("a/nothing"), b"").unwrap();
    fs::write(at.join(OsStr::from_bytes(b"b/new\nline \xff\xfe 'quoted' *")), b"odd").unwrap();
    fs::write(at.join("b/-rf"), b"odd").unwrap();
    fs::hard_link(at.join("a/big"), at.join("b/linked")).unwrap();
    symlink("../a/big", at.join("b/link")).unwrap();
    symlink(OsStr::from_bytes(b"/no\xffwhere"), at.join("b/dangling")).unwrap();
    fs::hard_link(at.join("b/link"), at.join("b/link too")).unwrap();
    let sparse = File::create(at.join("b/sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    sparse.write_all_at(&big[..10_000], 20 << 20).unwrap();
    sparse.write_all_at(b"end", (60 << 20) + 1).unwrap();
    File::create(at.join("b/hole")).unwrap().set_len(1 << 20).unwrap();
    mknodat(CWD, at.join("b/fifo"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
    mknodat(CWD, at.join("b/socket"), FileType::Socket, Mode::from_raw_mode(0o600), 0).unwrap();
    // Not every file system takes them; where it does they must survive.
    let _ = xattr::set(at.join("a/big"), "user.colour", b"blue\0green");
    let _ = xattr::set(at.join("a"), "user.on-a-directory", b"");
    if root() {
        mknodat(CWD, at.join("b/null"), FileType::CharacterDevice, Mode::from_raw_mode(0o666), 0x103)
            .unwrap();
        std::os::unix::fs::lchown(at.join("b/link"), Some(1234), Some(4321)).unwrap();
        std::os::unix::fs::chown(at.join("b/-rf"), Some(1000), Some(1001)).unwrap();
        let _ = xattr::set(at.join("b/-rf"), "trusted.secret", b"x");
    }
    fs::set_permissions(at.join("a/same"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::set_permissions(at.join("a/nothing"), fs::Permissions::from_mode(0o400)).unwrap();
    fs::set_permissions(at.join("a/empty"), fs::Permissions::from_mode(0o1777)).unwrap();
    for (path, seconds) in
        [("b/link", -5), ("b/-rf", 1), ("a/empty", 4_000_000_000), ("b", 1_234_567_890), ("", 77)]
    {
        let time = Timespec { tv_sec: seconds, tv_nsec: 123_456_789 };
        let times = Timestamps { last_access: time, last_modification: time };
        utimensat(CWD, at.join(path), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
    fs::set_permissions(at.join("a"), fs::Permissions::from_mode(0o550)).unwrap();
}

/// Every entry as one line, by other means than the code under test.
pub fn listing(at: &Path) -> Vec<String> {
    let mut lines: Vec<String> = walkdir::WalkDir::new(at)
        .into_iter()
        .map(|entry| {
            let entry = entry.unwrap();
            let meta = entry.metadata().unwrap();
            let kind = meta.file_type();
            let what = if kind.is_file() {
                blake3::hash(&fs::read(entry.path()).unwrap()).to_string()
            } else if kind.is_symlink() {
                fs::read_link(entry.path()).unwrap().as_os_str().as_bytes().escape_ascii().to_string()
            } else {
                meta.rdev().to_string()
            };
            let xattrs: Vec<_> = xattr::list(entry.path())
                .unwrap()
                .filter(|name| name != "security.selinux")
                .map(|name| (name.clone(), xattr::get(entry.path(), name).unwrap()))
                .collect();
            let path = entry.path().strip_prefix(at).unwrap().as_os_str().as_bytes().escape_ascii();
            let links = if kind.is_dir() { 0 } else { meta.nlink() };
            let (owner, time) = ((meta.uid(), meta.gid()), (meta.mtime(), meta.mtime_nsec()));
            format!("{path} {:o} {owner:?} {links} {} {time:?} {xattrs:?} {what}", meta.mode(), meta.len())
        })
        .collect();
    lines.sort();
    lines
}

/// Builds what `scan` saw, and says how many bytes had to be fetched.
fn copy(scan: &mut Scan, area: &Path, from: Option<&Path>) -> Result<(PathBuf, usize), BuildError> {
    let encoded = encode(&scan.manifest);
    let mut build = Build::begin(area, scan.manifest.clone(), &encoded)?;
    build.reuse(from, &mut go)?;
    let fetched = fetch(scan, &mut build, usize::MAX)?;
    let built = build.finish(&mut go)?;
    assert!(built.unset.is_empty(), "{:?}", built.unset);
    Ok((built.tree, fetched))
}

/// Puts up to `limit` chunks that are missing.
fn fetch(scan: &mut Scan, build: &mut Build, limit: usize) -> Result<usize, BuildError> {
    let missing: Vec<_> = build.chunks().map(|(chunk, have)| (chunk, !have)).collect();
    let (mut data, mut fetched) = (Vec::new(), 0);
    for (number, (chunk, wanted)) in (0..).zip(missing).filter(|(_, (_, wanted))| *wanted).take(limit) {
        assert!(wanted);
        let (entry, offset) = scan
            .manifest
            .files()
            .find_map(|(at, c)| c.chunks().find(|(_, other)| *other == chunk).map(|(offset, _)| (at, offset)))
            .unwrap();
        scan.chunk(entry, offset, chunk, &mut data).unwrap();
        fetched += data.len();
        build.put(number, &data)?;
    }
    Ok(fetched)
}

#[test]
fn a_copy_is_the_same_in_everything() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, area) = (dir.path().join("tree"), dir.path().join("area"));
    fs::create_dir(&area).unwrap();
    odd_tree(&tree);
    let mut scan = Scan::read(&tree, &mut go).unwrap();
    assert_eq!(scan.manifest.entries().iter().filter(|e| matches!(e.node, Node::HardLink(_))).count(), 2);
    let (copied, fetched) = copy(&mut scan, &area, None).unwrap();
    // Two big files are the same, and holes hold nothing.
    assert!((1_500_000..1_600_000).contains(&fetched), "{fetched}");
    assert_eq!(listing(&copied), listing(&tree));
    let (is, was) =
        (fs::metadata(copied.join("b/sparse")).unwrap(), fs::metadata(tree.join("b/sparse")).unwrap());
    assert!(is.blocks() <= was.blocks() + 8, "{} blocks instead of {}", is.blocks(), was.blocks());
    scan.unchanged().unwrap();
    assert_eq!(encode(&Scan::read(&copied, &mut go).unwrap().manifest), encode(&scan.manifest));
    super::pool::remove_tree(&tree).unwrap();
}

#[test]
fn what_is_there_is_not_fetched_again() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, area, old) = (dir.path().join("tree"), dir.path().join("area"), dir.path().join("old"));
    fs::create_dir(&area).unwrap();
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), noise(3 << 20)).unwrap();
    fs::write(tree.join("other"), b"other").unwrap();
    let mut scan = Scan::read(&tree, &mut go).unwrap();
    let encoded = encode(&scan.manifest);

    // An attempt that stops half way is continued.
    let mut build = Build::begin(&area, scan.manifest.clone(), &encoded).unwrap();
    let first = fetch(&mut scan, &mut build, 20).unwrap();
    assert!(matches!(build.finish(&mut go), Err(BuildError::Incomplete(_))));
    // The journal tells more than what is there: the file loses its first bytes.
    let mut spoilt = File::options().write(true).open(area.join("1/tree/file")).unwrap();
    spoilt.write_all(b"spoilt").unwrap();
    let mut build = Build::begin(&area, scan.manifest.clone(), &encoded).unwrap();
    let second = fetch(&mut scan, &mut build, 10).unwrap();
    drop(build);

    // Another manifest takes what it can from the attempt, which goes.
    let mut data = noise(3 << 20);
    data.splice(0..0, *b"inserted");
    fs::write(tree.join("file"), &data).unwrap();
    assert!(matches!(scan.unchanged(), Err(ScanError::Changed(_))));
    let mut scan = Scan::read(&tree, &mut go).unwrap();
    let mut build = Build::begin(&area, scan.manifest.clone(), &encode(&scan.manifest)).unwrap();
    build.reuse(None, &mut go).unwrap();
    let third = fetch(&mut scan, &mut build, usize::MAX).unwrap();
    let built = build.finish(&mut go).unwrap();
    assert!(!area.join("1").exists());
    let total = 3 << 20;
    let again = usize::try_from(super::chunk::MAX_CHUNK).unwrap() * 3;
    assert!(first + second + third <= total + again, "{first} + {second} + {third} of {total}");
    assert_eq!(fs::read(built.tree.join("file")).unwrap(), data);

    // And so does a refresh from the tree that is there.
    fs::rename(&built.tree, &old).unwrap();
    super::pool::remove_tree(&area.join("2")).unwrap();
    data.truncate(2 << 20);
    fs::write(tree.join("file"), &data).unwrap();
    let mut scan = Scan::read(&tree, &mut go).unwrap();
    let (_, fetched) = copy(&mut scan, &area, Some(&old)).unwrap_or_else(|e| panic!("{e}"));
    assert!(fetched <= again, "{fetched}");
}

#[test]
fn wrong_chunks_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, area) = (dir.path().join("tree"), dir.path().join("area"));
    fs::create_dir(&area).unwrap();
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), b"content").unwrap();
    let scan = Scan::read(&tree, &mut go).unwrap();
    let mut build = Build::begin(&area, scan.manifest.clone(), &encode(&scan.manifest)).unwrap();
    assert!(matches!(build.put(0, b"Content"), Err(BuildError::Corrupt(0))));
    assert!(matches!(build.put(1, b"content"), Err(BuildError::NotAsked(1))));
    build.put(0, b"content").unwrap();
    assert!(matches!(build.put(0, b"content"), Err(BuildError::NotAsked(0))));
    // Spoilt behind our back, after the chunk was written: verification sees it.
    fs::write(area.join("1/tree/file"), b"c0ntent").unwrap();
    assert!(matches!(build.finish(&mut go), Err(BuildError::Verify(_))));
}

#[test]
fn a_file_that_changes_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, noise(2 << 20)).unwrap();
    // Written to while it is read.
    let mut writes = 0;
    let result = Scan::read(dir.path(), &mut |_| {
        writes += 1;
        File::options().append(true).open(&path).unwrap().write_all(b"more").is_ok()
    });
    assert!(matches!(result, Err(ScanError::Changed(_))) && writes > 0);
    // Replaced between the scan and the reading of its chunks.
    let mut scan = Scan::read(dir.path(), &mut go).unwrap();
    let (offset, chunk) = scan.manifest.files().next().unwrap().1.chunks().next().unwrap();
    fs::remove_file(&path).unwrap();
    symlink("/etc/passwd", &path).unwrap();
    assert!(scan.chunk(1, offset, chunk, &mut Vec::new()).is_err());
    assert!(matches!(Scan::read(dir.path(), &mut |_| true), Ok(scan) if scan.manifest.entries().len() == 2));
}
