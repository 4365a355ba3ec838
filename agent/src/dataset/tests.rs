//! Trees with everything odd in them, and what there is to see of a tree.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, mknodat, utimensat};

use super::chunk::tests::noise;

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
