//! `comity volume import` and `export`: trees between a volume and a folder of this machine.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::StatusCode;
use indicatif::BinaryBytes;
use schema::kind::transfer::VolumeAddress;
use schema::name::SnapshotName;
use serde_json::{Value, json};

use super::found;
use crate::cli::progress::Bar;
use crate::cli::{CliError, Context, Format};
use crate::client::{Client, ClientError};
use crate::dataset::PoolError;
use crate::dataset::chunk::Hash;
use crate::dataset::pool::{Frozen, Switch, remove_tree};
use crate::dataset::survey::Survey;
use crate::transfer::connections::Connections;
use crate::transfer::exchange::{Destination, Other, receive_trees, send_folder};
use crate::transfer::reading::Seen;
use crate::transfer::shipment::Chosen;
use crate::transfer::{Report as Told, TransferError};

pub async fn import(
    context: &Context,
    volume: &VolumeAddress,
    client: &Client,
    folder: &Path,
) -> Result<(), CliError> {
    let folder = fs::canonicalize(folder).map_err(|e| unusable(folder, &e))?;
    if !folder.is_dir() {
        return Err(CliError::failed(format!("{} is no folder", folder.display())).code("folder"));
    }
    let stream = client.import_volume(&volume.pool, &volume.volume).await;
    takes_folders(volume, client, &stream).await?;
    let stream = found(context, client, &volume.into(), stream).await?;
    let bar = Bar::new(context);
    let sent = send_folder(Connections::single(Box::new(stream)), &folder, shown(&bar)).await;
    bar.clear();
    let sent = sent.map_err(|error| failed(context, error))?;
    let report = Report { total: sent.total, moved: sent.moved, unset: &sent.unset };
    report.print(context, volume, &folder, "Imported", "into");
    Ok(())
}

pub async fn export(
    context: &Context,
    volume: &VolumeAddress,
    client: &Client,
    folder: &Path,
) -> Result<(), CliError> {
    let destination = NewFolder::at(folder)?;
    let stream = client.export_volume(&volume.pool, &volume.volume).await;
    takes_folders(volume, client, &stream).await?;
    let stream = found(context, client, &volume.into(), stream).await?;
    let bar = Bar::new(context);
    let received = receive_trees(Connections::single(Box::new(stream)), destination, shown(&bar)).await;
    bar.clear();
    let received = received.map_err(|error| failed(context, error))?;
    let report = Report { total: received.total, moved: received.moved, unset: &received.unset };
    report.print(context, volume, folder, "Exported", "to");
    Ok(())
}

/// A server that is not of ours has nothing at the place where folders go in and out.
async fn takes_folders<T>(
    volume: &VolumeAddress,
    client: &Client,
    asked: &Result<T, ClientError>,
) -> Result<(), CliError> {
    let absent = asked.as_ref().is_err_and(|error| error.status() == Some(StatusCode::NOT_FOUND));
    if !absent || !client.cluster_certificate().await.is_ok_and(|ours| ours.is_none()) {
        return Ok(());
    }
    let message = format!("{volume} is on an LXD server, which takes and gives tar files and no folders");
    Err(CliError::failed(message).code("folder").hint("Give a name that ends in .tar.gz."))
}

fn shown(bar: &Bar) -> Told {
    let bar = bar.clone();
    Arc::new(move |progress| bar.show(&progress.into()))
}

struct Report<'a> {
    total: u64,
    moved: u64,
    unset: &'a [String],
}

impl Report<'_> {
    fn print(&self, context: &Context, volume: &VolumeAddress, folder: &Path, verb: &str, way: &str) {
        for note in self.unset {
            context.output.note(format!("Warning: {note}"));
        }
        match context.output.format() {
            Format::Json => context.output.json(&json!({
                "volume": volume.to_string(), "folder": folder.display().to_string(),
                "total": self.total, "moved": self.moved, "unset": self.unset,
            })),
            Format::Text => {
                let (total, moved) = (BinaryBytes(self.total), BinaryBytes(self.moved));
                let (first, second) = match way {
                    "into" => (folder.display().to_string(), volume.to_string()),
                    _ => (volume.to_string(), folder.display().to_string()),
                };
                let line = format!("{verb} {first} {way} {second}: {total}, of which {moved} were sent.");
                context.output.line(line);
            }
        }
    }
}

/// A folder that does not exist yet, or is empty. The tree is built beside it, so that it appears whole or not at all.
#[derive(Debug)]
struct NewFolder {
    folder: PathBuf,
    staging: PathBuf,
}

impl NewFolder {
    fn at(folder: &Path) -> Result<Self, CliError> {
        match fs::read_dir(folder) {
            Ok(entries) => {
                if entries.count() > 0 {
                    return Err(CliError::failed(format!("{} is not empty", folder.display()))
                        .code("folder")
                        .hint("Give a folder that does not exist yet, or an empty one."));
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(unusable(folder, &e)),
        }
        let folder = std::path::absolute(folder).map_err(|e| unusable(folder, &e))?;
        let Some(name) = folder.file_name() else {
            return Err(CliError::usage(format!("{} cannot be made", folder.display())));
        };
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(".comity-partial");
        let staging = folder.with_file_name(hidden);
        if let Some(parent) = folder.parent().filter(|parent| !parent.is_dir()) {
            return Err(CliError::failed(format!("{} is no folder", parent.display())).code("folder"));
        }
        Ok(Self { folder, staging })
    }
}

impl Destination for NewFolder {
    fn staging(&self) -> Result<PathBuf, PoolError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.staging)
            .map_err(|source| PoolError::Io { path: self.staging.clone(), doing: "created", source })?;
        Ok(self.staging.clone())
    }

    fn has_present(&self) -> bool {
        false
    }

    fn present(&self, _: &Seen) -> Option<(PathBuf, Survey)> {
        None
    }

    fn others(&self) -> Vec<Other> {
        Vec::new()
    }

    fn frozen(&self, _: Hash) -> Option<Frozen> {
        None
    }
    fn choose(&self, _: Value, _: Vec<SnapshotName>) -> Result<Chosen, String> {
        Ok(Chosen::default())
    }

    fn room(&self) -> Result<(String, u64), PoolError> {
        let folder = self.folder.parent().unwrap_or(&self.folder);
        let stat = rustix::fs::statvfs(folder);
        let stat =
            stat.map_err(|e| PoolError::Io { path: folder.to_owned(), doing: "read", source: e.into() })?;
        Ok((format!("the file system of {}", folder.display()), stat.f_bavail * stat.f_frsize))
    }

    fn switch_in(&self, switch: Switch) -> Result<(), TransferError> {
        let io = |doing| move |source: io::Error| PoolError::Io { path: self.folder.clone(), doing, source };
        let staging = fs::File::open(&self.staging).map_err(io("made durable"))?;
        rustix::fs::syncfs(&staging).map_err(|e| io("made durable")(e.into()))?;
        let Some(tree) = switch.main else { return Ok(()) };
        // In place of an empty folder this is one step, too.
        fs::rename(&tree, &self.folder).map_err(io("put in place"))?;
        Ok(remove_tree(&self.staging)?)
    }
}

fn unusable(folder: &Path, error: &io::Error) -> CliError {
    CliError::failed(format!("{} cannot be used: {error}", folder.display())).code("folder")
}

fn failed(context: &Context, error: TransferError) -> CliError {
    CliError::failed(error).code("transfer-failed").hint(format!(
        "The target is as it was. What has arrived is kept: {} goes on with it.",
        context.again()
    ))
}
