//! From a tar into trees in a staging area.

use std::borrow::Cow;
use std::collections::{BTreeMap, btree_map};
use std::io::Read;
use std::path::PathBuf;

use schema::name::SnapshotName;
use tar::{Archive, Entry, EntryType};

use super::super::manifest::{MAX_ENTRIES, Time, TreePath};
use super::guard::Guard;
use super::place::{Given, Kind, Target};
use super::records::Records;
use super::{ArchiveError, INSTANCE_INDEX};

/// Largest index that is read.
const LARGEST_INDEX: u64 = 4 * 1024 * 1024;
/// Most bytes of files, holes counted: more than any disk has, so that what never ends is noticed.
const LARGEST: u64 = 1 << 46;

/// What a backup is of, by the names of its folders (LXD's).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contents {
    Volume,
    Instance,
}

impl Contents {
    /// The folder of the tree itself.
    pub fn main(self) -> &'static str {
        match self {
            Contents::Volume => "backup/volume",
            Contents::Instance => "backup/container",
        }
    }

    /// The folder of its snapshots' trees.
    pub fn snapshots(self) -> &'static str {
        match self {
            Contents::Volume => "backup/volume-snapshots",
            Contents::Instance => "backup/snapshots",
        }
    }
}

/// The trees that an archive held, whole, in staging; and what of them could not be made or set, in sentences.
#[derive(Debug, Default)]
pub struct Unpacked {
    pub main: bool,
    pub snapshots: Vec<SnapshotName>,
    pub unset: Vec<String>,
}

/// Reads an archive, decompressed, whose first file is its index: `index` is given that, and says what the archive is of
/// and where its trees are to be made. They are made as `STAGING/main` and `STAGING/snapshot-NAME`. `stopped` is asked now
/// and then whether anybody still waits for it.
pub fn unpack<E: From<ArchiveError>>(
    from: impl Read,
    stopped: &dyn Fn() -> bool,
    index: impl FnOnce(&[u8]) -> Result<(Contents, PathBuf), E>,
) -> Result<Unpacked, E> {
    let guard = Guard::new(from);
    let said = guard.said();
    let mut archive = Archive::new(guard);
    let mut entries = archive.entries().map_err(ArchiveError::Input)?;
    let (contents, staging) = loop {
        let mut entry = entries.next().ok_or(ArchiveError::NoIndex)?.map_err(ArchiveError::Input)?;
        let path = path_of(&entry, &said.take().map_err(ArchiveError::Input)?);
        let path = TreePath::new(path).map_err(ArchiveError::from)?;
        match (path.as_bytes(), entry.header().entry_type()) {
            (b"" | b"backup", EntryType::Directory) | (_, EntryType::XGlobalHeader) => {}
            (b"backup/index.yaml", EntryType::Regular) => break index(&read_index(&mut entry)?)?,
            _ => return Err(ArchiveError::NoIndex.into()),
        }
    };
    let mut into = Into { contents, staging, trees: BTreeMap::new(), entries: 0, bytes: 0 };
    for entry in entries {
        let mut entry = entry.map_err(ArchiveError::Input)?;
        into.entry(&mut entry, &said.take().map_err(ArchiveError::Input)?, stopped)?;
    }
    Ok(into.finish()?)
}

fn read_index(entry: &mut Entry<'_, impl Read>) -> Result<Vec<u8>, ArchiveError> {
    if entry.size() > LARGEST_INDEX {
        return Err(ArchiveError::LargeIndex(LARGEST_INDEX));
    }
    let mut text = Vec::new();
    entry.read_to_end(&mut text).map_err(ArchiveError::Input)?;
    Ok(text)
}

/// The path of an entry.
fn path_of(entry: &Entry<'_, impl Read>, said: &Records) -> Vec<u8> {
    match said.get(b"path") {
        Some(path) => plain(path).to_vec(),
        None => plain(&entry.path_bytes()).to_vec(),
    }
}

/// A path as it is meant: without `./` before it or `/` behind.
fn plain(path: &[u8]) -> &[u8] {
    let path = path.strip_prefix(b"./").unwrap_or(path);
    if path == b"." { b"" } else { path.strip_suffix(b"/").unwrap_or(path) }
}

/// Where a path of the archive is: in which tree, and where in that.
type Spot = (Option<SnapshotName>, TreePath);

struct Into {
    contents: Contents,
    staging: PathBuf,
    trees: BTreeMap<Option<SnapshotName>, Target>,
    entries: usize,
    bytes: u64,
}

impl Into {
    fn entry(
        &mut self,
        entry: &mut Entry<'_, impl Read>,
        said: &Records,
        stopped: &dyn Fn() -> bool,
    ) -> Result<(), ArchiveError> {
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            return Ok(());
        }
        self.entries += 1;
        if self.entries > MAX_ENTRIES {
            return Err(ArchiveError::TooMany(MAX_ENTRIES));
        }
        let path = path_of(entry, said);
        let Some((tree, at)) = self.spot(&path, kind)? else { return Ok(()) };
        let shown = String::from_utf8_lossy(&path).chars().take(200).collect::<String>();
        let refuse = |what| Err(ArchiveError::Kind { path: shown, what });
        let given = given(entry, said)?;
        let link = || {
            said.get(b"linkpath").map(<[u8]>::to_vec).or_else(|| entry.link_name_bytes().map(Cow::into_owned))
        };
        let header = entry.header();
        let kind = match kind {
            EntryType::Directory => Kind::Directory,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
            EntryType::Symlink => match link() {
                Some(to) => Kind::Symlink(to),
                None => return refuse("a symlink to nothing"),
            },
            EntryType::Link => {
                let to = link().unwrap_or_default();
                match self.spot(plain(&to), EntryType::Link)? {
                    Some((of, to)) if of == tree => Kind::Link(to),
                    _ => return Err(ArchiveError::Link(at)),
                }
            }
            EntryType::Fifo => Kind::Fifo,
            EntryType::Char | EntryType::Block => {
                let number = |number: std::io::Result<Option<u32>>| number.ok().flatten().unwrap_or_default();
                let (major, minor) = (number(header.device_major()), number(header.device_minor()));
                Kind::Device { block: kind == EntryType::Block, major, minor }
            }
            _ => return refuse("of a kind of its own"),
        };
        let left = LARGEST.saturating_sub(self.bytes);
        // Whoever makes the instance knows better.
        let own = self.contents == Contents::Instance && at.as_bytes() == INSTANCE_INDEX.as_bytes();
        let target = self.tree(tree.as_ref())?;
        if own {
            return Ok(());
        }
        if matches!(kind, Kind::File) {
            let written = target.file(&at, &given, entry, left, stopped)?;
            self.bytes = self.bytes.saturating_add(written);
            return Ok(());
        }
        target.make(&at, given, &kind)
    }

    /// `None` for the folders that hold the trees.
    fn spot(&self, path: &[u8], kind: EntryType) -> Result<Option<Spot>, ArchiveError> {
        let whole = TreePath::new(path.to_vec())?;
        let stray = || ArchiveError::Stray(whole.to_string().chars().take(200).collect());
        let below = |folder: &str| match path.strip_prefix(folder.as_bytes()) {
            Some(b"") => Some(&b""[..]),
            Some(rest) => rest.strip_prefix(b"/"),
            None => None,
        };
        if let Some(rest) = below(self.contents.main()) {
            return Ok(Some((None, TreePath::new(rest.to_vec())?)));
        }
        if let Some(rest) = below(self.contents.snapshots()) {
            if rest.is_empty() {
                return Ok(None);
            }
            let end = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
            let name = std::str::from_utf8(&rest[..end]).ok().and_then(|name| name.parse().ok());
            let name = name.ok_or_else(stray)?;
            let rest = rest.get(end + 1..).unwrap_or_default();
            return Ok(Some((Some(name), TreePath::new(rest.to_vec())?)));
        }
        if matches!(path, b"" | b"backup") && kind == EntryType::Directory { Ok(None) } else { Err(stray()) }
    }

    fn tree(&mut self, snapshot: Option<&SnapshotName>) -> Result<&mut Target, ArchiveError> {
        Ok(match self.trees.entry(snapshot.cloned()) {
            btree_map::Entry::Occupied(there) => there.into_mut(),
            btree_map::Entry::Vacant(vacant) => {
                let folder = match snapshot {
                    Some(name) => self.staging.join(format!("snapshot-{name}")),
                    None => self.staging.join("main"),
                };
                vacant.insert(Target::new(&folder)?)
            }
        })
    }

    fn finish(self) -> Result<Unpacked, ArchiveError> {
        let mut unpacked = Unpacked::default();
        for (snapshot, target) in self.trees {
            unpacked.unset.extend(target.finish()?);
            match snapshot {
                Some(name) => unpacked.snapshots.push(name),
                None => unpacked.main = true,
            }
        }
        unpacked.unset.dedup();
        Ok(unpacked)
    }
}

/// What an entry says of itself.
fn given(entry: &Entry<'_, impl Read>, said: &Records) -> Result<Given, ArchiveError> {
    let header = entry.header();
    let number = |number: std::io::Result<u64>| {
        let number = number.map_err(ArchiveError::Input)?;
        u32::try_from(number)
            .map_err(|_| ArchiveError::Input(std::io::Error::other("an owner is out of range")))
    };
    let mut given = Given {
        mode: u16::try_from(header.mode().map_err(ArchiveError::Input)? & 0o7777).unwrap_or_default(),
        uid: number(header.uid())?,
        gid: number(header.gid())?,
        mtime: Time { seconds: header.mtime().unwrap_or_default().cast_signed(), nanoseconds: 0 },
        xattrs: Vec::new(),
    };
    for (key, value) in said.iter() {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            if name != b"security.selinux" {
                given.xattrs.push((name.to_vec(), value.to_vec()));
            }
        } else if key == b"mtime" {
            given.mtime = time(value).unwrap_or(given.mtime);
        } else if key == b"uid" || key == b"gid" {
            let text = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            let place = if key == b"uid" { &mut given.uid } else { &mut given.gid };
            *place = text.unwrap_or(*place);
        } else if key.starts_with(b"GNU.sparse.") {
            let path = String::from_utf8_lossy(&path_of(entry, said)).chars().take(200).collect();
            return Err(ArchiveError::Kind { path, what: "a file with holes in a form of POSIX tars" });
        }
    }
    Ok(given)
}

/// A time in decimal, as tars have it.
fn time(text: &[u8]) -> Option<Time> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if part.len() > 32 || !part.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = part.chars().chain(std::iter::repeat('0')).take(9).collect();
    let nanoseconds: u32 = digits.parse().ok()?;
    if whole.starts_with('-') && nanoseconds > 0 {
        // Half a second before 1970 is -0.5 here, and a second before with half a second more in the kernel.
        return Some(Time { seconds: seconds.checked_sub(1)?, nanoseconds: 1_000_000_000 - nanoseconds });
    }
    Some(Time { seconds, nanoseconds })
}
