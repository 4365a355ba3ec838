//! From a tree into a tar.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io::{self, Read as _, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use tar::{Builder, Header, HeaderMode};

use super::super::beneath::Root;
use super::super::manifest::TreePath;
use super::super::scan::{names, xattrs};
use super::ArchiveError;

/// Longest target of a link that fits into a header.
const LINK: usize = 100;

/// An archive that is being written.
pub struct Pack<W: Write> {
    tar: Builder<W>,
    sockets: usize,
    attributes: usize,
}

impl<W: Write> Pack<W> {
    pub fn new(into: W) -> Self {
        let mut tar = Builder::new(into);
        tar.mode(HeaderMode::Complete);
        tar.follow_symlinks(false);
        tar.sparse(true);
        Self { tar, sockets: 0, attributes: 0 }
    }

    /// Adds a file that is nobody's.
    pub fn file(&mut self, name: &str, bytes: &[u8]) -> Result<(), ArchiveError> {
        let mut header = plain(0o644);
        header.set_size(bytes.len() as u64);
        self.tar.append_data(&mut header, name, bytes).map_err(ArchiveError::output)
    }

    /// Adds the tree at `tree`, under `prefix`, but for `without` in its root. It may be in use: a file that changes while it
    /// is read is refused.
    pub fn tree(&mut self, prefix: &str, tree: &Path, without: Option<&str>) -> Result<(), ArchiveError> {
        let top = TreePath::root();
        let root = Root::open(tree).map_err(|e| ArchiveError::read(&top, e))?;
        let mut walk = Walk { pack: self, root, prefix, links: HashMap::new() };
        let within = |root: &mut Root, path: &TreePath| match names(root, path) {
            Ok(names) => Ok(names.into_iter()),
            Err(error) => Err(ArchiveError::read(path, error)),
        };
        let mut open = Vec::new();
        if walk.entry(&top)? {
            open.push((within(&mut walk.root, &top)?, top));
        }
        // All that is in a directory comes together: who unpacks it sets its times when the next is outside.
        while let Some((left, directory)) = open.last_mut() {
            let Some(name) = left.next() else {
                open.pop();
                continue;
            };
            let path = directory.join(&name)?;
            let left_out = without.is_some_and(|without| path.as_bytes() == without.as_bytes());
            if !left_out && walk.entry(&path)? {
                open.push((within(&mut walk.root, &path)?, path));
            }
        }
        Ok(())
    }

    /// Ends the archive: what it was written to, and what could not be put into it, in sentences.
    pub fn finish(self) -> Result<(W, Vec<String>), ArchiveError> {
        let mut left_out = Vec::new();
        if self.sockets > 0 {
            left_out.push(format!("{} sockets are left out: a tar cannot hold them", self.sockets));
        }
        if self.attributes > 0 {
            left_out.push(format!(
                "{} extended attributes are left out: a tar cannot hold their names",
                self.attributes
            ));
        }
        Ok((self.tar.into_inner().map_err(ArchiveError::output)?, left_out))
    }
}

/// One tree on its way in.
struct Walk<'a, W: Write> {
    pack: &'a mut Pack<W>,
    root: Root,
    prefix: &'a str,
    /// First name of each inode that has several.
    links: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> Walk<'_, W> {
    /// Adds one entry; true if it is a directory.
    fn entry(&mut self, path: &TreePath) -> Result<bool, ArchiveError> {
        let at = |e: io::Error| ArchiveError::read(path, e);
        let name = self.name(path);
        let place = self.root.place(path).map_err(at)?;
        let meta = if path.is_root() {
            // Its last part is `.`, which the folder's own path stands for.
            fs::metadata(place.proc_path()).map_err(at)?
        } else {
            fs::symlink_metadata(place.proc_path()).map_err(at)?
        };
        let kind = meta.file_type();
        if kind.is_socket() {
            self.pack.sockets += 1;
            return Ok(false);
        }
        if !kind.is_dir() && meta.nlink() > 1 {
            let first = self.links.entry((meta.dev(), meta.ino())).or_insert_with(|| name.clone());
            if *first != name {
                let mut header = header_of(&meta);
                header.set_entry_type(tar::EntryType::Link);
                let first = first.clone();
                return self.add_link(&mut header, &name, &first).map(|()| false);
            }
        }
        let attributes = xattrs(place).map_err(at)?;
        self.pack.attributes(&meta, &attributes)?;
        if kind.is_file() {
            let mut file = place.open(OFlags::RDONLY).map_err(at)?;
            if stamp(&file.metadata().map_err(at)?) != stamp(&meta) {
                return Err(ArchiveError::Changed(path.clone()));
            }
            self.pack.tar.append_file(&name, &mut file).map_err(ArchiveError::output)?;
            if stamp(&file.metadata().map_err(at)?) != stamp(&meta) {
                return Err(ArchiveError::Changed(path.clone()));
            }
            return Ok(false);
        }
        let mut header = header_of(&meta);
        if kind.is_symlink() {
            let to = fs::read_link(place.proc_path()).map_err(at)?;
            self.add_link(&mut header, &name, &to)?;
        } else {
            self.pack.tar.append_data(&mut header, &name, io::empty()).map_err(ArchiveError::output)?;
        }
        Ok(kind.is_dir())
    }

    /// Adds an entry that leads to `to`, byte for byte: tar's own way would tidy it up as a path.
    fn add_link(&mut self, header: &mut Header, name: &Path, to: &Path) -> Result<(), ArchiveError> {
        let tar = &mut self.pack.tar;
        let target = to.as_os_str().as_bytes();
        if target.len() > LINK {
            let mut long = plain(0o644);
            let name = b"././@LongLink";
            long.as_old_mut().name[..name.len()].copy_from_slice(name);
            long.set_entry_type(tar::EntryType::GNULongLink);
            long.set_size(target.len() as u64 + 1);
            long.set_cksum();
            // It ends with a zero.
            tar.append(&long, target.chain(&[0_u8][..])).map_err(ArchiveError::output)?;
        } else {
            header.set_link_name_literal(target).map_err(ArchiveError::output)?;
        }
        tar.append_data(header, name, io::empty()).map_err(ArchiveError::output)
    }

    fn name(&self, path: &TreePath) -> PathBuf {
        let prefix = Path::new(self.prefix);
        if path.is_root() { prefix.to_owned() } else { prefix.join(OsStr::from_bytes(path.as_bytes())) }
    }
}

impl<W: Write> Pack<W> {
    /// Says of the next entry what a plain header cannot: its attributes, and its time to the nanosecond.
    fn attributes(&mut self, meta: &Metadata, attributes: &[(Vec<u8>, Vec<u8>)]) -> Result<(), ArchiveError> {
        let mut records: Vec<(String, &[u8])> = Vec::new();
        let time = time(meta.mtime(), meta.mtime_nsec());
        if meta.mtime_nsec() != 0 || meta.mtime() < 0 {
            records.push(("mtime".to_owned(), time.as_bytes()));
        }
        for (name, value) in attributes {
            match std::str::from_utf8(name) {
                Ok(name) if !name.contains('=') => records.push((format!("SCHILY.xattr.{name}"), value)),
                _ => self.attributes += 1,
            }
        }
        if records.is_empty() {
            return Ok(());
        }
        let records = records.iter().map(|(name, value)| (name.as_str(), *value));
        self.tar.append_pax_extensions(records).map_err(ArchiveError::output)
    }
}

/// A header for what is nobody's.
fn plain(mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// A time in decimal, as tars have it.
fn time(seconds: i64, nanoseconds: i64) -> String {
    if seconds < 0 && nanoseconds > 0 {
        // Half a second before 1970 is -0.5, not -1 and a half more.
        let (seconds, nanoseconds) = (seconds + 1, 1_000_000_000 - nanoseconds);
        return format!("-{}.{nanoseconds:09}", -seconds);
    }
    format!("{seconds}.{nanoseconds:09}")
}

fn header_of(meta: &Metadata) -> Header {
    let mut header = Header::new_gnu();
    header.set_metadata(meta);
    header.set_size(0);
    let kind = meta.file_type();
    if kind.is_block_device() || kind.is_char_device() {
        // A GNU header has a place for them, so neither can fail.
        let _ = header.set_device_major(rustix::fs::major(meta.rdev()));
        let _ = header.set_device_minor(rustix::fs::minor(meta.rdev()));
    }
    header
}

/// What shows that a file is still as it was.
fn stamp(meta: &Metadata) -> (u64, u64, u64, i64, i64, i64, i64) {
    (meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec())
}
