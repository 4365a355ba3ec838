use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use super::*;

/// Unpacks into `staging`, whatever the index says.
fn unpack_all(bytes: &[u8], staging: &Path) -> Result<Unpacked, ArchiveError> {
    unpack(decompressed(bytes)?, &|| false, |_| Ok((Contents::Volume, staging.to_owned())))
}

fn packed(tree: &Path, how: Compression) -> Vec<u8> {
    let mut pack = Pack::new(Compressor::new(Vec::new(), how).unwrap());
    pack.file("backup/index.yaml", b"name: x\n").unwrap();
    pack.tree("backup/volume-snapshots/s0", tree, None).unwrap();
    pack.tree("backup/volume", tree, None).unwrap();
    let (compressor, left_out) = pack.finish().unwrap();
    assert!(left_out.is_empty(), "{left_out:?}");
    compressor.finish().unwrap()
}

fn listing(tree: &Path) -> Vec<String> {
    let mut all: Vec<String> = walkdir::WalkDir::new(tree)
        .sort_by_file_name()
        .into_iter()
        .map(|entry| {
            let entry = entry.unwrap();
            let meta = fs::symlink_metadata(entry.path()).unwrap();
            let relative = entry.path().strip_prefix(tree).unwrap().to_owned();
            let data = if meta.is_file() { fs::read(entry.path()).unwrap() } else { Vec::new() };
            let link = fs::read_link(entry.path()).ok();
            let mode = if meta.is_symlink() { 0 } else { meta.mode() };
            let size = if meta.is_dir() { 0 } else { meta.size() };
            format!(
                "{relative:?} {mode:o} {}:{} {}.{:09} {size} {:?} {link:?} {}",
                meta.uid(),
                meta.gid(),
                meta.mtime(),
                meta.mtime_nsec(),
                blake3::hash(&data),
                if meta.is_dir() { 1 } else { meta.nlink() },
            )
        })
        .collect();
    all.sort();
    all
}

#[test]
fn a_tree_survives_whichever_way_it_is_compressed() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("deep/er")).unwrap();
    fs::write(tree.join("a\nb"), b"odd name").unwrap();
    fs::write(tree.join("n".repeat(200)), b"long name").unwrap();
    fs::write(tree.join("deep/er/script"), b"#!/bin/sh\n").unwrap();
    fs::set_permissions(tree.join("deep/er/script"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::hard_link(tree.join("deep/er/script"), tree.join("z")).unwrap();
    symlink("/etc/passwd", tree.join("out")).unwrap();
    symlink("x/".repeat(300), tree.join("far")).unwrap();
    symlink("./a//b/../", tree.join("untidy")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        tree.join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o640),
        0,
    )
    .unwrap();
    let holes = fs::File::create(tree.join("holes")).unwrap();
    holes.set_len(64 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&holes, b"data", 32 << 20).unwrap();
    xattr::set(tree.join("z"), "user.colour", b"\0blue=\n").unwrap();
    fs::set_permissions(tree.join("deep"), fs::Permissions::from_mode(0o555)).unwrap();
    let before = listing(&tree);
    for how in [Compression::None, Compression::Gzip(1), Compression::Zstd(1)] {
        let bytes = packed(&tree, how);
        assert!(bytes.len() < 1 << 20, "the hole is written out: {}", bytes.len());
        let staging = tempfile::tempdir().unwrap();
        let unpacked = unpack_all(&bytes, staging.path()).unwrap();
        assert!(unpacked.main && unpacked.snapshots.len() == 1 && unpacked.unset.is_empty(), "{unpacked:?}");
        for tree in ["main", "snapshot-s0"] {
            let tree = staging.path().join(tree);
            assert_eq!(listing(&tree), before);
            assert_eq!(
                xattr::get(tree.join("deep/er/script"), "user.colour").unwrap().unwrap(),
                b"\0blue=\n"
            );
            assert!(fs::metadata(tree.join("holes")).unwrap().blocks() < 64);
            fs::set_permissions(tree.join("deep"), fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    fs::set_permissions(tree.join("deep"), fs::Permissions::from_mode(0o755)).unwrap();
}

/// An archive of entries that no honest program writes.
struct Evil(tar::Builder<Vec<u8>>);

impl Evil {
    fn new() -> Self {
        let mut evil = Self(tar::Builder::new(Vec::new()));
        evil.entry("backup/index.yaml", tar::EntryType::Regular, "", b"name: x\n");
        evil
    }

    fn entry(&mut self, name: &str, kind: tar::EntryType, link: &str, data: &[u8]) -> &mut Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(data.len() as u64);
        let raw = header.as_gnu_mut().unwrap();
        raw.name[..name.len()].copy_from_slice(name.as_bytes());
        raw.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.append(&header, data).unwrap();
        self
    }

    fn refused(self) -> String {
        let dir = tempfile::tempdir().unwrap();
        let staging = dir.path().join("staging");
        fs::create_dir(&staging).unwrap();
        let error = unpack_all(&self.0.into_inner().unwrap(), &staging).unwrap_err().to_string();
        let outside: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(outside.len(), 1, "something was written outside: {outside:?}");
        error
    }
}

#[test]
fn paths_that_lead_out_are_refused() {
    use tar::EntryType::{Link, Regular, Symlink};
    for name in ["backup/volume/../../../evil", "/etc/evil", "backup/volume//x", "backup/volume/./x", ".."] {
        let mut evil = Evil::new();
        evil.entry(name, Regular, "", b"x");
        let error = evil.refused();
        assert!(error.contains("not within a tree") || error.contains("not a path"), "{name}: {error}");
    }
    let mut evil = Evil::new();
    evil.entry("backup/volume/out", Symlink, "../../", b"").entry(
        "backup/volume/out/evil",
        Regular,
        "",
        b"x",
    );
    assert!(evil.refused().contains("out"));
    for to in ["/etc/passwd", "../../etc/passwd"] {
        let mut evil = Evil::new();
        evil.entry("backup/volume/hard", Link, to, b"");
        evil.refused();
    }
    for to in ["backup/volume/none", "backup/volume-snapshots/s0/x", "backup/volume"] {
        let mut evil = Evil::new();
        evil.entry("backup/volume/hard", Link, to, b"");
        assert!(evil.refused().contains("is linked to something"), "{to}");
    }
}

#[test]
fn what_no_backup_holds_is_refused() {
    use tar::EntryType::{Directory, Regular};
    let refused = |name: &str| {
        let mut evil = Evil::new();
        evil.entry(name, Regular, "", b"x");
        evil.refused()
    };
    for stray in
        ["backup/virtual-machine.img", "backup/container.bin", "else", "backup/volume-snapshots/a b/x"]
    {
        assert!(refused(stray).contains("which no backup does"), "{stray}");
    }
    let mut twice = Evil::new();
    twice.entry("backup/volume/x", Regular, "", b"x").entry("backup/volume/x", Regular, "", b"y");
    assert!(twice.refused().contains("twice"));
    let mut turned = Evil::new();
    turned.entry("backup/volume/x", Regular, "", b"x").entry("backup/volume/x", Directory, "", b"");
    assert!(turned.refused().contains("twice"));
    assert!(refused("backup/volume").contains("root"));
}

#[test]
fn a_large_record_and_a_torn_end_are_noticed() {
    let mut evil = Evil::new();
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::XHeader);
    header.set_size(1 << 40);
    header.set_cksum();
    let mut bytes = std::mem::replace(&mut evil.0, tar::Builder::new(Vec::new())).into_inner().unwrap();
    bytes.truncate(bytes.len() - 1024);
    let torn = bytes.clone();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend(vec![b'x'; 4096]);
    let staging = tempfile::tempdir().unwrap();
    let error = unpack_all(&bytes, staging.path()).unwrap_err().to_string();
    assert!(error.contains("too large"), "{error}");

    let mut file = tar::Header::new_gnu();
    file.set_size(1 << 20);
    file.set_mode(0o600);
    file.set_path("backup/volume/x").unwrap();
    file.set_cksum();
    let torn = [&torn[..], file.as_bytes(), &[b'x'; 1000]].concat();
    let staging = tempfile::tempdir().unwrap();
    assert!(unpack_all(&torn, staging.path()).is_err());

    for not_one in [&b""[..], b"hello", &[0; 2048], b"\x1f\x8bxx", b"BZh91AY"] {
        assert!(unpack_all(not_one, staging.path()).is_err());
    }
}

#[test]
fn what_is_no_archive_is_never_repeated() {
    let staging = tempfile::tempdir().unwrap();
    let lines = "root:x:0:0:secret:/root:/bin/bash\n".repeat(40);
    for text in [&lines[..], &lines[..20]] {
        let error = unpack_all(text.as_bytes(), staging.path()).unwrap_err().to_string();
        assert!(error.contains("no tar archive") && !error.contains("root"), "{error}");
    }
    // One that begins well and goes on with something else.
    let mut begun = Evil::new().0.into_inner().unwrap();
    begun.truncate(begun.len() - 1024);
    begun.extend_from_slice(lines.as_bytes());
    let error = unpack_all(&begun, staging.path()).unwrap_err().to_string();
    assert!(error.contains("damaged") && !error.contains("root"), "{error}");
}

#[test]
fn compressions_are_read_as_lxd_writes_them() {
    assert_eq!("".parse(), Ok(Compression::Gzip(6)));
    assert_eq!("gzip -9".parse(), Ok(Compression::Gzip(9)));
    assert_eq!("none".parse(), Ok(Compression::None));
    assert_eq!("zstd -3".parse(), Ok(Compression::Zstd(3)));
    for wrong in ["xz", "gzip -x", "gzip 9", "none -1", "gzip -0", "zstd -1 -T4", "sh -c"] {
        assert_eq!(wrong.parse::<Compression>(), Err(CompressionError), "{wrong}");
    }
}
