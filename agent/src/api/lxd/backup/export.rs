//! Making a backup: the index, the snapshots in the order in which they were taken, and what they are of.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use schema::name::SnapshotName;
use schema::record::Record as Declared;
use serde_json::{Value, json};

use super::stream::Watched;
use super::tell;
use crate::api::ApiState;
use crate::api::volume;
use crate::audit::Action;
use crate::authorize::Permit;
use crate::dataset::archive::{ArchiveError, Compression, Compressor, Contents, INSTANCE_INDEX, Pack};
use crate::dataset::pool::{Frozen, Held, Use};
use crate::dataset::{Dataset, PoolError};
use crate::operation::Handle;
use crate::storage::backup_index::{Index, IndexError, ordered};
use crate::storage::backups::{Backup, BackupError, Making, Of};
use crate::storage::volume_snapshots::All;

/// A backup to be made.
pub struct Export {
    pub of: Of,
    pub name: SnapshotName,
    pub backup: Backup,
    pub compression: Compression,
    pub permit: Permit,
}

/// Why it was not.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("it is there no more")]
    Gone,
    #[error("the agent is ending")]
    Ended,
    #[error("{0}")]
    Records(String),
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Backup(#[from] BackupError),
}

/// What is put into the archive, and keeps it from changing meanwhile.
struct Packed {
    index: Index,
    dataset: Dataset,
    contents: Contents,
    snapshots: Vec<SnapshotName>,
}

impl Export {
    pub async fn run(self, state: ApiState, begun: (File, Making), handle: Handle) -> Result<Value, String> {
        self.export(&state, begun, handle).await.map_err(|error| error.to_string())
    }

    async fn export(
        mut self,
        state: &ApiState,
        (file, making): (File, Making),
        handle: Handle,
    ) -> Result<Value, ExportError> {
        let packed = self.what(state).await?;
        let held = state.pools.hold(&packed.dataset, Use::Reading)?;
        let tree = held.tree().ok_or(ExportError::Gone)?;
        let mut frozen = Vec::new();
        for name in &packed.snapshots {
            frozen.push((name.clone(), state.pools.snapshot(&packed.dataset, name)?));
        }
        let (of, name, compression) = (self.of.clone(), self.name.clone(), self.compression);
        let stop = handle.cancelled();
        let written = tokio::task::spawn_blocking(move || {
            // The name first, as LXD's clients print it.
            let tell = |bytes: u64| {
                let text = format!("{name}: {:.2}MB", megabytes(bytes));
                handle.progress(json!({ "create_backup_progress": text }));
            };
            let file = Watched::new(file, stop, tell);
            write(file, compression, &packed, &frozen, &tree, held)
                .map(|(file, left_out)| (file, left_out, making))
        });
        let (file, left_out, making) = written.await.map_err(|_| ExportError::Ended)??;
        self.backup.left_out.clone_from(&left_out);
        let backup = self.backup.clone();
        let kept = tokio::task::spawn_blocking(move || making.keep(&file, &backup));
        kept.await.map_err(|_| ExportError::Ended)??;
        tell(state, &self.permit, Action::StorageVolumeBackupCreated, &of, &self.name);
        Ok(if left_out.is_empty() { Value::Null } else { json!({ "left_out": left_out.join("; ") }) })
    }

    async fn what(&self, state: &ApiState) -> Result<Packed, ExportError> {
        let records = |error: &dyn std::fmt::Display| ExportError::Records(error.to_string());
        match &self.of {
            Of::Volume(pool, name) => {
                let found = volume::find(&state.store, pool, name).await.map_err(|e| records(&e))?;
                let Some((Declared::Volume(volume), _)) = found.map(|(of, at)| (of.record, at)) else {
                    return Err(ExportError::Gone);
                };
                let snapshots = if self.backup.alone {
                    All::new()
                } else {
                    state.volume_snapshots.get(pool, name).await.map_err(|e| records(&e))?
                };
                Ok(Packed {
                    index: Index::of_volume(pool, name, &volume, &snapshots),
                    dataset: Dataset::volume(pool, name),
                    contents: Contents::Volume,
                    snapshots: ordered(&snapshots).map(|(name, _)| name.clone()).collect(),
                })
            }
            Of::Instance(project, name) => {
                let found = state.instances.get(project, name).await.map_err(|e| records(&e))?;
                let instance = found.ok_or(ExportError::Gone)?.instance;
                let mut taken: Vec<_> = instance.snapshots.iter().collect();
                taken.sort_by_key(|(_, snapshot)| snapshot.times.created_at);
                if self.backup.alone {
                    taken.clear();
                }
                Ok(Packed {
                    index: Index::of_instance(project, name, &instance, !self.backup.alone),
                    dataset: Dataset::instance(&instance.pool, project, name),
                    contents: Contents::Instance,
                    snapshots: taken.into_iter().map(|(name, _)| name.clone()).collect(),
                })
            }
        }
    }
}

/// Writes the archive. Whoever would change the tree is held off until it is whole.
fn write<F: FnMut(u64)>(
    file: Watched<F>,
    compression: Compression,
    packed: &Packed,
    frozen: &[(SnapshotName, Frozen)],
    tree: &Path,
    held: Held,
) -> Result<(File, Vec<String>), ExportError> {
    let buffered = BufWriter::with_capacity(256 * 1024, file);
    let mut pack = Pack::new(Compressor::new(buffered, compression)?);
    pack.file("backup/index.yaml", packed.index.text()?.as_bytes())?;
    let without = (packed.contents == Contents::Instance).then_some(INSTANCE_INDEX);
    for (name, frozen) in frozen {
        pack.tree(&format!("{}/{name}", packed.contents.snapshots()), &frozen.tree(), without)?;
    }
    pack.tree(packed.contents.main(), tree, without)?;
    if packed.contents == Contents::Instance {
        // LXD makes the instance of this one.
        let text = packed.index.config_text()?;
        pack.file(&format!("{}/{INSTANCE_INDEX}", packed.contents.main()), text.as_bytes())?;
    }
    drop(held);
    let (compressor, left_out) = pack.finish()?;
    let buffered = compressor.finish()?;
    let file = buffered.into_inner().map_err(|error| ArchiveError::Output(error.into_error()))?;
    Ok((file.into_file(), left_out))
}

#[allow(clippy::cast_precision_loss)] // for people
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
