//! A second tree like a first one, on the same machine.

use std::fs;
use std::path::Path;

use super::folder::{make_dir, remove_tree};
use super::{PoolError, Pools};
use crate::dataset::build::Build;
use crate::dataset::encoding;
use crate::dataset::scan::Scan;

impl Pools {
    /// Copies the tree at `from` to `to`, which must not be there, with everything that a copy keeps. Data is shared where
    /// the file system can share it, never by hard links.
    pub async fn clone_tree(&self, from: &Path, to: &Path) -> Result<(), PoolError> {
        let (from, to) = (from.to_owned(), to.to_owned());
        super::folder::blocking(move || clone_tree(&from, &to)).await
    }
}

pub(super) fn clone_tree(from: &Path, to: &Path) -> Result<(), PoolError> {
    let mut area = to.as_os_str().to_owned();
    area.push(".new");
    let area = Path::new(&area);
    make_dir(area)?;
    let scan = Scan::read(from, &mut |_| true)?;
    let encoded = encoding::encode(&scan.manifest);
    let mut build = Build::begin(area, scan.manifest, &encoded)?;
    build.reuse(Some(from), &mut |_| true)?;
    let built = build.finish(&mut |_| true)?;
    super::folder::loosen(&built.tree)?;
    fs::rename(&built.tree, to).map_err(|e| PoolError::io(to, "created", e))?;
    remove_tree(area)
}
