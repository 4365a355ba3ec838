//! Folders that hold what a copy must keep, and whether two of them are the same: by other programs' eyes than ours.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, lchown, symlink};
use std::path::Path;
use std::process::Command;

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, makedev, mknodat, utimensat};

use crate::process;

/// Bytes without a pattern, the same each time for a seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// What anybody may make: modes, times, links, holes, odd names, extended attributes and ACLs of one's own.
pub fn odd(at: &Path) {
    let deep = at.join("a/b/c");
    fs::create_dir_all(at.join("a/empty")).unwrap();
    fs::create_dir_all(&deep).unwrap();
    fs::create_dir(at.join("z")).unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(at.join(name), bytes).unwrap();
    write("a/big", &noise(1, 3_000_000));
    write("a/nothing", b"");
    write("z/same", &noise(1, 3_000_000));
    for (number, length) in [1_usize, 4095, 4096, 4097, 65_535, 65_537, 1 << 20].into_iter().enumerate() {
        write(&format!("z/length-{length}"), &noise(10 + number as u64, length));
    }
    for name in [
        &b"odd \xff\n name"[..],
        b"-rf",
        b" leading and trailing ",
        b"back\\slash \"quotes\" 'and' $(more)",
        b"...",
        b"tab\there\rreturn\x1bescape",
        "Übergröße 漢字 🙂".as_bytes(),
        &[b'n'; 255],
    ] {
        fs::write(at.join("a").join(OsStr::from_bytes(name)), name).unwrap();
    }
    fs::create_dir(at.join(OsStr::from_bytes(b"a/dir \xfe\n"))).unwrap();
    fs::write(at.join(OsStr::from_bytes(b"a/dir \xfe\n/in it")), b"in it").unwrap();

    fs::hard_link(at.join("a/big"), at.join("linked")).unwrap();
    fs::hard_link(at.join("a/big"), deep.join("linked too")).unwrap();
    symlink("a/big", at.join("link")).unwrap();
    fs::hard_link(at.join("link"), at.join("z/the same link")).unwrap();
    symlink("nowhere", at.join("dangling")).unwrap();
    symlink("/etc/passwd", at.join("absolute")).unwrap();
    symlink("loop", at.join("loop")).unwrap();
    symlink("x/".repeat(2000), at.join("long")).unwrap();

    let sparse = File::create(at.join("sparse")).unwrap();
    sparse.set_len(32 << 20).unwrap();
    sparse.write_all_at(b"data", 9 << 20).unwrap();
    sparse.write_all_at(&noise(3, 300_000), 20 << 20).unwrap();
    File::create(at.join("only a hole")).unwrap().set_len(8 << 20).unwrap();

    for (name, kind) in [("fifo", FileType::Fifo), ("socket", FileType::Socket)] {
        mknodat(CWD, at.join(name), kind, Mode::from_raw_mode(0o640), 0).unwrap();
    }
    fs::hard_link(at.join("fifo"), at.join("z/the same fifo")).unwrap();

    attribute(&at.join("a/big"), "user.mime", b"application/octet-stream");
    attribute(&at.join("a/big"), "user.binary", &noise(5, 2000));
    attribute(&at.join("a/nothing"), "user.empty", b"");
    attribute(&at.join("a/empty"), "user.on a folder", b"\x00\xff\n");
    acl(&at.join("a/nothing"), "u:12345:rw,g:54321:r,m::rw");
    acl(&at.join("z"), "u:12345:rwx");
    acl(&at.join("z"), "d:u:12345:rx,d:g:54321:rwx");

    for (name, mode) in [
        ("a/empty", 0o1777),
        ("a/big", 0o4750),
        ("a/b", 0o2755),
        ("z/length-1", 0o000),
        ("z/length-4095", 0o2711),
        ("fifo", 0o600),
    ] {
        fs::set_permissions(at.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    times(at);
}

/// What only root may make besides: owners, devices, attributes of the system.
pub fn odd_of_root(at: &Path) {
    odd(at);
    for (name, kind, number) in [
        ("a/null", FileType::CharacterDevice, makedev(1, 3)),
        ("a/disk", FileType::BlockDevice, makedev(259, 70_000)),
    ] {
        mknodat(CWD, at.join(name), kind, Mode::from_raw_mode(0o660), number).unwrap();
    }
    fs::hard_link(at.join("a/null"), at.join("z/null")).unwrap();
    fs::write(at.join("a/capable"), b"#!/bin/sh\n").unwrap();
    for (name, uid, gid) in [
        ("a/capable", 0, 0),
        ("a/b", 12_345, 54_321),
        ("a/b/c", 4_000_000_000, 4_000_000_001),
        ("z/length-4096", 65_534, 65_534),
        ("dangling", 33, 33),
        ("fifo", 7, 8),
        ("a/null", 0, 6),
    ] {
        lchown(at.join(name), Some(uid), Some(gid)).unwrap();
    }
    // Set-id bits go when the owner changes.
    fs::set_permissions(at.join("a/b"), fs::Permissions::from_mode(0o2755)).unwrap();
    // Version 2, CAP_NET_RAW effective and permitted: what ping has.
    let raw = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    attribute(&at.join("a/capable"), "security.capability", &raw);
    attribute(&at.join("a/b"), "trusted.overlay.opaque", b"y");
    times(at);
}

/// Sets times that a clock never shows; folders last, since what is in them changes theirs.
fn times(at: &Path) {
    for (name, seconds, nanoseconds) in [
        ("a/big", 1_000_000_000, 123_456_789),
        ("a/nothing", -1_000_000, 999_999_999),
        ("z/length-4096", 4_102_444_800, 1),
        ("link", 1_234_567_890, 987_654_321),
        ("dangling", 0, 0),
        ("fifo", 5, 5),
        ("socket", 6, 6),
        ("a/empty", 1_111_111_111, 111_111_111),
        ("a", 1_600_000_000, 7),
        ("", 1_500_000_000, 42),
    ] {
        let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
        let times = Timestamps { last_access: time, last_modification: time };
        utimensat(CWD, at.join(name), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

fn attribute(path: &Path, name: &str, value: &[u8]) {
    use std::fmt::Write as _;
    let hex = value.iter().fold("0x".to_owned(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    let value = if value.is_empty() { "" } else { &hex };
    process::run(Command::new("setfattr").args(["-n", name, "-v", value]).arg(path), "setfattr", "")
        .success();
}

fn acl(path: &Path, entries: &str) {
    process::run(Command::new("setfacl").args(["-m", entries]).arg(path), "setfacl", "").success();
}

/// What a program tells of a tree, in lines.
type Look = fn(&Path) -> Vec<String>;

/// How two trees differ, if they do: by rsync with checksums, by getfattr, getfacl and stat, by which names share a file,
/// and by whether holes stayed holes.
pub fn difference(one: &Path, other: &Path) -> Option<String> {
    by_rsync(one, other).or_else(|| {
        let looks: [(&str, Look); 4] =
            [("stat", stat), ("getfattr", attributes), ("getfacl", acls), ("hard links", links)];
        looks.into_iter().find_map(|(name, look)| first_difference(name, &look(one), &look(other)))
    })
}

/// Two trees are the same.
#[track_caller]
pub fn assert_same(one: &Path, other: &Path) {
    if let Some(difference) = difference(one, other) {
        panic!("{} and {} differ: {difference}", one.display(), other.display());
    }
}

fn by_rsync(one: &Path, other: &Path) -> Option<String> {
    let mut rsync = Command::new("rsync");
    rsync.args(["-naHAXc", "--delete", "--numeric-ids", "--itemize-changes"]);
    rsync.arg(format!("{}/", one.display())).arg(format!("{}/", other.display()));
    let done = process::run(&mut rsync, "rsync", "").success();
    let lines: Vec<&str> = done.stdout.lines().take(10).collect();
    (!lines.is_empty()).then(|| format!("rsync says {lines:?}"))
}

fn first_difference(name: &str, one: &[String], other: &[String]) -> Option<String> {
    let missing = one.iter().find(|line| !other.contains(line));
    let added = other.iter().find(|line| !one.contains(line));
    (one != other).then(|| format!("{name}: {missing:?} became {added:?}"))
}

/// Everything that stat says and a copy keeps, one line a name. A folder's size is its file system's; how many names a file
/// has counts those in staging areas and snapshots as well: which of them are in the tree is looked at by itself.
fn stat(at: &Path) -> Vec<String> {
    let shell = "find . -type d -print0 | sort -z | xargs -0 stat -c '%n %f %u %g %y'; \
                 find . ! -type d -print0 | sort -z | xargs -0 -r stat -c '%N %f %u %g %y %s %t:%T'";
    lines(Command::new("sh").args(["-c", shell]).current_dir(at), "stat")
}

/// Attributes of all names but those that are ACLs, which have their own look.
fn attributes(at: &Path) -> Vec<String> {
    blocks(
        Command::new("getfattr").args(["-R", "-h", "-P", "-d", "-m", "-", "-e", "hex", "."]).current_dir(at),
        "getfattr",
    )
}

fn acls(at: &Path) -> Vec<String> {
    blocks(Command::new("getfacl").args(["-R", "-n", "-P", "."]).current_dir(at), "getfacl")
}

/// For each name that is not a file's only one, the first of its names; and holes, roughly: a file of which less than
/// half is there.
fn links(at: &Path) -> Vec<String> {
    let (mut lines, mut first, mut todo) = (Vec::new(), HashMap::new(), vec![at.to_owned()]);
    let mut names = Vec::new();
    while let Some(path) = todo.pop() {
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            names.push(path);
        }
    }
    names.sort();
    for path in names {
        let meta = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(at).unwrap().as_os_str().as_bytes().escape_ascii().to_string();
        let first = first.entry((meta.dev(), meta.ino())).or_insert_with(|| name.clone());
        if *first != name {
            lines.push(format!("{name} is {first}"));
        }
        if meta.is_file() && meta.len() > 1 << 20 && meta.blocks() * 512 < meta.len() / 2 {
            lines.push(format!("{name} is sparse"));
        }
    }
    lines
}

fn lines(command: &mut Command, named: &str) -> Vec<String> {
    process::run(command, named, "").success().stdout.lines().map(str::to_owned).collect()
}

/// Paragraphs, sorted: these programs visit a folder in its own order.
fn blocks(command: &mut Command, named: &str) -> Vec<String> {
    let said = process::run(command, named, "").success().stdout;
    let mut blocks: Vec<String> = said.split("\n\n").map(|block| block.trim().to_owned()).collect();
    blocks.sort();
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_difference_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        let copy = || {
            let _ = fs::remove_dir_all(&other);
            process::run(Command::new("cp").arg("-a").args([&one, &other]), "cp", "").success();
        };
        fs::create_dir(&one).unwrap();
        if rustix::process::geteuid().is_root() {
            odd_of_root(&one);
        } else {
            odd(&one);
        }
        copy();
        assert_same(&one, &other);
        let changes: [fn(&Path); 6] = [
            |at| fs::write(at.join("a/nothing"), b"x").unwrap(),
            |at| attribute(&at.join("a/empty"), "user.another", b"1"),
            |at| acl(&at.join("z"), "d:u:12345:rwx"),
            |at| fs::set_permissions(at.join("a/b"), fs::Permissions::from_mode(0o755)).unwrap(),
            |at| {
                fs::remove_file(at.join("linked")).unwrap();
                process::run(
                    Command::new("cp").arg("-a").args([at.join("a/big"), at.join("linked")]),
                    "cp",
                    "",
                )
                .success();
            },
            |at| {
                let time = Timespec { tv_sec: 1_234_567_890, tv_nsec: 1 };
                let times = Timestamps { last_access: time, last_modification: time };
                utimensat(CWD, at.join("link"), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
            },
        ];
        for (number, change) in changes.into_iter().enumerate() {
            copy();
            change(&other);
            assert!(difference(&one, &other).is_some(), "change {number} is not seen");
        }
    }
}
