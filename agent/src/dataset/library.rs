//! Where on this machine a chunk is: in the tree that is there, in its snapshots, in the other trees of the pools.
//!
//! A chunk takes 24 bytes here, sorted by the first eight of its hash. A manifest may tell of a tree as it was; so
//! nothing counts before it has been read and hashed, and a place that no longer holds what it did is passed over.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use schema::name::PoolName;

use super::Dataset;
use super::beneath::Root;
use super::chunk::{ChunkRef, Hash};
use super::manifest::TreePath;
use super::packed::{Directories, Packed, Step};
use super::pool::{Frozen, PoolError, Pools};
use super::survey::index;

/// Chunks of other datasets that are looked up: 48 MiB of them.
const MOST_OTHERS: usize = 2 << 20;
/// Bytes of other datasets' manifests.
const MOST_MANIFESTS: u64 = 64 << 20;
/// Places that are tried for one chunk.
const MOST_TRIED: usize = 8;

/// A tree with what is known of it.
#[derive(Debug)]
pub struct Shelf {
    tree: PathBuf,
    packed: Packed,
    directories: Directories,
    _keeps: Option<Frozen>,
}

impl Shelf {
    pub fn new(tree: &Path, packed: Packed) -> Self {
        Self { tree: tree.to_owned(), directories: Directories::of(&packed), packed, _keeps: None }
    }

    pub fn frozen(frozen: &Frozen) -> Result<Self, PoolError> {
        let packed = frozen.packed()?;
        Ok(Self { _keeps: Some(frozen.clone()), ..Self::new(&frozen.tree(), packed) })
    }
}

/// Trees, and where in them each chunk is.
#[derive(Debug, Default)]
pub struct Library {
    shelves: Vec<Shelf>,
    spots: Vec<Spot>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Spot {
    prefix: u64,
    /// Of the shelves the first is tried first.
    shelf: u32,
    /// The file's record, and where in the file.
    record: u32,
    offset: u64,
}

impl Library {
    pub fn of(shelves: Vec<Shelf>) -> Self {
        let chunks: u64 = shelves.iter().map(|shelf| shelf.packed.sums().chunks).sum();
        let mut spots = Vec::with_capacity(usize::try_from(chunks).unwrap_or(0));
        for (number, shelf) in (0..).zip(&shelves) {
            let mut walk = shelf.packed.walk();
            while let Some(step) = walk.next() {
                let Step::Entry(record) = step else { continue };
                let Some(content) = record.content() else { continue };
                spots.extend(content.chunks().map(|(offset, chunk)| Spot {
                    prefix: prefix(chunk.hash),
                    shelf: number,
                    record: record.at,
                    offset,
                }));
            }
        }
        spots.sort_unstable();
        Self { shelves, spots }
    }

    pub fn is_empty(&self) -> bool {
        self.spots.is_empty()
    }

    /// Whether a chunk is likely to be here; it is certain when it has been borrowed.
    pub fn may_have(&self, hash: Hash) -> bool {
        self.spots(hash).next().is_some()
    }

    /// Reads chunks. Each thread has its own.
    pub fn borrower(&self) -> Borrower<'_> {
        Borrower { library: self, roots: HashMap::new(), open: None, buffer: Vec::new() }
    }

    fn spots(&self, hash: Hash) -> impl Iterator<Item = &Spot> {
        let prefix = prefix(hash);
        let first = self.spots.partition_point(|spot| spot.prefix < prefix);
        self.spots[first..].iter().take_while(move |spot| spot.prefix == prefix)
    }
}

fn prefix(hash: Hash) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&hash.0[..8]);
    u64::from_be_bytes(first)
}

/// Reads chunks out of a library.
#[derive(Debug)]
pub struct Borrower<'a> {
    library: &'a Library,
    roots: HashMap<u32, Option<Root>>,
    open: Option<(u32, u32, File)>,
    buffer: Vec<u8>,
}

/// A chunk that was found, and where: a copy may be made by reference.
#[derive(Debug)]
pub struct Borrowed<'a> {
    pub data: &'a [u8],
    pub file: &'a File,
    pub offset: u64,
}

impl Borrower<'_> {
    /// Reads a chunk from wherever it is, if it is what it should be.
    pub fn borrow(&mut self, chunk: ChunkRef) -> Option<Borrowed<'_>> {
        let library = self.library;
        for spot in library.spots(chunk.hash).take(MOST_TRIED) {
            if self.open(spot).is_none() {
                continue;
            }
            self.buffer.resize(chunk.len as usize, 0);
            let Some((_, _, file)) = &self.open else { continue };
            if file.read_exact_at(&mut self.buffer, spot.offset).is_ok()
                && ChunkRef::of(&self.buffer) == chunk
            {
                let (_, _, file) = self.open.as_ref()?;
                return Some(Borrowed { data: &self.buffer, file, offset: spot.offset });
            }
        }
        None
    }

    /// Opens the file of a spot, if it is not the one that is open.
    fn open(&mut self, spot: &Spot) -> Option<()> {
        if self.open.as_ref().is_some_and(|(shelf, record, _)| (*shelf, *record) == (spot.shelf, spot.record))
        {
            return Some(());
        }
        self.open = None;
        let shelf = self.library.shelves.get(spot.shelf as usize)?;
        let root = self.roots.entry(spot.shelf).or_insert_with(|| Root::open(&shelf.tree).ok()).as_mut()?;
        // A file's record does not depend on its number.
        let record = shelf.packed.record(spot.record, u32::MAX)?;
        let directory = shelf.directories.around(spot.record)?;
        let path = TreePath::new(shelf.directories.path(&shelf.packed, directory, record.name)).ok()?;
        self.open = Some((spot.shelf, spot.record, root.file(&path).ok()?));
        Some(())
    }
}

impl Pools {
    /// What there is to look for chunks in when `dataset` is built: its own tree first (as `main` knows it, or as it was
    /// last seen), then its snapshots, then whatever else the pools hold, as far as memory allows.
    pub fn library(&self, dataset: &Dataset, main: Option<Packed>) -> Library {
        let mut shelves = Vec::new();
        if let Ok(tree) = self.tree(dataset)
            && let Some(packed) = main.or_else(|| self.remembered(dataset))
        {
            shelves.push(Shelf::new(&tree, packed));
        }
        let mut own: Vec<Hash> = Vec::new();
        for name in self.snapshots(dataset).unwrap_or_default().iter().rev() {
            if let Ok(frozen) = self.snapshot(dataset, name)
                && !own.contains(&frozen.hash())
            {
                own.push(frozen.hash());
                shelves.extend(Shelf::frozen(&frozen));
            }
        }
        let (mut manifests, mut chunks) = (0, 0);
        for pool in self.list().unwrap_or_default() {
            for other in self.others(&pool, dataset, &own) {
                let Some(shelf) = other.read(self, &pool, &mut manifests) else { continue };
                chunks += usize::try_from(shelf.packed.sums().chunks).unwrap_or(usize::MAX);
                if chunks > MOST_OTHERS {
                    return Library::of(shelves);
                }
                shelves.push(shelf);
            }
        }
        Library::of(shelves)
    }

    /// Every other tree of a pool that something is known of.
    fn others(&self, pool: &PoolName, but: &Dataset, own: &[Hash]) -> Vec<Other> {
        let mut others = Vec::new();
        let Ok(base) = self.base(pool) else { return others };
        for area in ["custom", "containers"] {
            for index in fs::read_dir(base.join(".index").join(area)).into_iter().flatten().flatten() {
                let same = pool == &but.pool
                    && area == but.owner.area()
                    && *index.file_name() == *but.owner.folder();
                let tree = base.join(area).join(index.file_name());
                if !same && tree.is_dir() {
                    others.push(Other::Live { tree, index: index.path() });
                }
            }
        }
        for frozen in fs::read_dir(base.join(".frozen")).into_iter().flatten().flatten() {
            if let Some(hash) = frozen.file_name().to_str().and_then(|name| name.parse().ok())
                && !(pool == &but.pool && own.contains(&hash))
            {
                others.push(Other::Frozen(hash, frozen.path().join("manifest")));
            }
        }
        others
    }
}

enum Other {
    Live { tree: PathBuf, index: PathBuf },
    Frozen(Hash, PathBuf),
}

impl Other {
    /// Reads what is known of it, while there is room.
    fn read(&self, pools: &Pools, pool: &PoolName, manifests: &mut u64) -> Option<Shelf> {
        let (Other::Live { index: file, .. } | Other::Frozen(_, file)) = self;
        *manifests += fs::metadata(file).ok()?.len();
        if *manifests > MOST_MANIFESTS {
            return None;
        }
        match self {
            Other::Live { tree, index } => Some(Shelf::new(tree, index::manifest(index)?)),
            Other::Frozen(hash, _) => Shelf::frozen(&pools.frozen_by_hash(pool, *hash).ok()??).ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Consistency;
    use crate::dataset::chunk::tests::noise;
    use crate::dataset::survey::Unwatched;

    #[tokio::test]
    async fn chunks_are_found_wherever_they_are_and_never_believed() {
        let dir = tempfile::tempdir().unwrap();
        let pools = Pools::open(dir.path()).unwrap();
        let pool: PoolName = "default".parse().unwrap();
        let [orders, sibling] =
            ["orders", "sibling"].map(|name| Dataset::volume(&pool, &name.parse().unwrap()));
        for dataset in [&orders, &sibling] {
            pools.ensure(dataset).await.unwrap();
        }
        let (big, own) = (noise(2 << 20), pools.tree(&orders).unwrap());
        fs::create_dir(own.join("folder")).unwrap();
        fs::write(own.join("folder/big"), &big).unwrap();
        pools.take_snapshot(&orders, &"kept".parse().unwrap()).await.unwrap();
        fs::write(pools.tree(&sibling).unwrap().join("small"), b"of the sibling").unwrap();
        pools.survey(&sibling, Consistency::Strict, &Unwatched).unwrap();

        let library = pools.library(&orders, None);
        let mut borrower = library.borrower();
        let packed = pools.remembered(&orders).unwrap();
        let mut walk = packed.walk();
        let mut wanted = Vec::new();
        while let Some(step) = walk.next() {
            let Step::Entry(record) = step else { continue };
            wanted.extend(record.content().unwrap().chunks());
        }
        assert!(wanted.len() > 10);
        for (offset, chunk) in &wanted {
            let at = usize::try_from(*offset).unwrap();
            assert_eq!(borrower.borrow(*chunk).unwrap().data, &big[at..at + chunk.len as usize]);
        }
        assert_eq!(borrower.borrow(ChunkRef::of(b"of the sibling")).unwrap().data, b"of the sibling");
        assert!(
            borrower.borrow(ChunkRef::of(b"nobody's")).is_none() && !library.may_have(Hash::of(b"nobody's"))
        );

        // The live tree is another by now; the snapshot still has it.
        fs::write(own.join("folder/big"), b"short").unwrap();
        let mut borrower = library.borrower();
        assert!(wanted.iter().all(|(_, chunk)| borrower.borrow(*chunk).is_some()));
        // The sibling's has changed, and nobody else has it.
        fs::write(pools.tree(&sibling).unwrap().join("small"), b"Of the sibling").unwrap();
        assert!(library.borrower().borrow(ChunkRef::of(b"of the sibling")).is_none());
    }
}
