//! The chunks that a target has, as it tells them to a source whose tree is read once: such a source cannot say first
//! what is in its tree, and be asked for it then.
//!
//! What is told is of the target's own dataset alone, and the beginning of each hash: enough to find what is then hashed
//! again.

use std::path::PathBuf;
use std::sync::Arc;

use schema::name::SnapshotName;

use super::exchange::Other;
use super::frame::{FrameError, Kind};
use super::lane::Lane;
use super::reading::Seen;
use crate::dataset::chunk::ChunkRef;
use crate::dataset::pool::Arrived;
use crate::dataset::stock::{Share, Stock, Useful, short};
use crate::dataset::survey::{Manner, Survey};

/// Most chunks that are told of: some two hundred gigabytes of data.
const MOST: usize = 4 << 20;

/// The beginnings of hashes, sorted.
#[derive(Debug, Default)]
pub struct Stocked(Vec<u64>);

impl Stocked {
    pub fn of(useful: &Useful<'_>) -> Self {
        let mut shorts: Vec<u64> = useful.shorts().take(MOST).collect();
        shorts.sort_unstable();
        Self(shorts)
    }

    pub fn tell(&self, first: &Lane) -> Result<(), FrameError> {
        let list: Vec<u8> = self.0.iter().flat_map(|short| short.to_be_bytes()).collect();
        first.send_list(Kind::Stock, Kind::StockEnd, &list)
    }

    pub fn hear(first: &Lane) -> Result<Self, FrameError> {
        let list = first.receive_list(Kind::Stock, Kind::StockEnd, MOST * 8)?;
        let (shorts, rest) = list.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(FrameError::Malformed("a list of chunks that is cut off"));
        }
        let mut shorts: Vec<u64> = shorts.iter().map(|short| u64::from_be_bytes(*short)).collect();
        shorts.sort_unstable();
        Ok(Self(shorts))
    }

    pub fn has(&self, chunk: ChunkRef) -> bool {
        self.0.binary_search(&short(chunk.hash)).is_ok()
    }
}

/// The dataset's own trees: what is in its place, what interrupted attempts left of it, the snapshots that have just come
/// and those that it had. What cannot be read is not used.
pub fn own(
    present: Option<&(PathBuf, Arc<Survey>)>,
    unfinished: &[PathBuf],
    arrived: &[(SnapshotName, Arrived)],
    others: &[Other],
) -> Stock {
    let mut own = Stock::default();
    if let Some((tree, survey)) = present {
        let _ = own.add_live(tree, survey, Share::Data);
    }
    for tree in unfinished {
        if let Ok(survey) = Survey::read(tree, Manner::default(), &Seen) {
            let _ = own.add(tree, survey.packed().clone(), Share::Data);
        }
    }
    for (_, snapshot) in arrived {
        let (tree, packed) = match snapshot {
            Arrived::Known { tree, packed } => (tree.clone(), packed.clone()),
            Arrived::Kept(kept) => match kept.packed() {
                Ok(packed) => (kept.tree(), packed),
                Err(_) => continue,
            },
            Arrived::Built(_) => continue,
        };
        let _ = own.add(&tree, packed, Share::Data);
    }
    for other in others.iter().filter(|other| other.own) {
        let _ = own.add(&other.tree, other.packed.clone(), Share::Data);
    }
    own
}
