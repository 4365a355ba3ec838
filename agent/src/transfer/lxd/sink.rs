//! The target's side of LXD's migration: everything is built in staging, and put in its place in one step.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use schema::kind::transfer::Mode;
use schema::name::SnapshotName;

use super::index::{self, Answer};
use super::message::{CHUNK_STREAM, Header, INDEX_VERSION, RsyncFeatures, Type, type_name};
use super::rsync::Reading;
use super::socket::{ControlSocket, FsSocket};
use super::{LxdError, rsync};
use crate::dataset::pool::{Arrived, Held, Switch, remove_tree};
use crate::dataset::{Owner, PoolError};
use crate::transfer::TransferError;
use crate::transfer::shipment::{Chosen, Incoming};

/// Largest index header that is taken.
const MAX_INDEX: usize = 16 << 20;
/// Where this protocol builds, within staging.
const AREA: &str = "lxd";
/// Within it: the tree that rsync writes to, and what it is made of.
const MAIN: &str = "main";
const OF: &str = "of";
/// What LXD writes beside an instance's tree about its records. Ours are in the store; the source's are not ours.
const BACKUP: &str = "backup.yaml";

/// What the source has offered.
pub enum Offered {
    /// It is one of ours, and was told that the chunk stream goes over `fs`.
    ChunkStream,
    Files(Header),
}

/// Hears the source's offer.
pub async fn hear(control: &mut ControlSocket) -> Result<Offered, TransferError> {
    let offer = control.header().await?;
    if offer.chunk_stream == Some(CHUNK_STREAM) {
        let answer = Header { chunk_stream: Some(CHUNK_STREAM), ..Header::default() };
        control.send(&answer).await?;
        return Ok(Offered::ChunkStream);
    }
    Ok(Offered::Files(offer))
}

/// Takes what is offered. `from` is what is known of who the source is: what another has left is not gone on with. Whatever goes wrong is told to the source, and the target is what it was.
pub async fn receive(
    control: &mut ControlSocket,
    fs: &mut FsSocket,
    held: &Arc<Held>,
    offer: &Header,
    incoming: Incoming,
    from: &str,
    told: &mut (dyn FnMut(u64) + Send),
) -> Result<(), TransferError> {
    let done = match agree(control, offer, incoming).await {
        Ok(agreed) => tokio::select! {
            done = take(fs, held, agreed, from, told) => done,
            // It says nothing, unless it fails.
            said = control.verdict() => Err(match said {
                Ok(()) => LxdError::Malformed("it acknowledges what it sends itself"),
                Err(e) => e,
            }.into()),
        },
        Err(e) => Err(e),
    };
    match &done {
        // From here on the target has it, whether or not the source learns so.
        Ok(()) => {
            if let Err(reason) = control.tell(Ok(())).await {
                tracing::info!(%reason, "the source could not be told that its tree has arrived");
            }
        }
        Err(TransferError::Lxd(LxdError::Theirs { .. } | LxdError::Broken(_))) => {}
        Err(e) => {
            let _ = control.tell(Err(&e.to_string())).await;
        }
    }
    done
}

/// What comes, and what is done with it.
struct Agreed {
    answer: Header,
    chosen: Chosen,
    refresh: bool,
    instance: bool,
    record: crate::transfer::shipment::Record,
}

async fn agree(
    control: &mut ControlSocket,
    offer: &Header,
    incoming: Incoming,
) -> Result<Agreed, TransferError> {
    // Whatever a pool prefers, every LXD offers rsync as well, unless what it sends is no tree of files.
    let Some(theirs) = offer.rsync_features else {
        return Err(LxdError::NoCommonType(type_name(offer.fs)).into());
    };
    if matches!(Type::try_from(offer.fs), Ok(Type::BlockAndRsync | Type::RbdAndRsync)) {
        return Err(LxdError::NoCommonType(type_name(offer.fs)).into());
    }
    let instance = matches!(incoming.dataset.owner, Owner::Instance { .. });
    let names = index::names(offer)?;
    let header = serde_json::to_value(index::header_of(offer, instance))
        .map_err(|_| LxdError::Malformed("an offer that cannot be told of"))?;
    let chosen = (incoming.choose)(header, names.clone()).await.map_err(TransferError::Refused)?;
    let refresh = incoming.mode == Mode::Refresh;
    let taken: BTreeSet<&str> = chosen.take.iter().map(SnapshotName::as_str).collect();
    let answer = Header {
        fs: Type::Rsync.into(),
        snapshot_names: chosen.take.iter().map(ToString::to_string).collect(),
        snapshots: offer.snapshots.iter().filter(|s| taken.contains(s.name.as_str())).cloned().collect(),
        rsync_features: Some(RsyncFeatures::OURS.common(theirs)),
        // A source sends what it is asked for alone where it is told that this is a refresh.
        refresh: Some(refresh || chosen.take != names),
        index_header_version: Some(offer.index_header_version.unwrap_or(0).min(INDEX_VERSION)),
        ..Header::default()
    };
    control.send(&answer).await?;
    Ok(Agreed { answer, chosen, refresh, instance, record: incoming.record })
}

async fn take(
    fs: &mut FsSocket,
    held: &Arc<Held>,
    agreed: Agreed,
    from: &str,
    told: &mut (dyn FnMut(u64) + Send),
) -> Result<(), TransferError> {
    let _place = super::place()?;
    let mut index = Vec::new();
    if agreed.answer.index_header_version.unwrap_or(0) > 0 {
        index = fs.take(MAX_INDEX).await?;
        let answer = Answer { refresh: agreed.answer.refresh, ..Answer::default() };
        fs.send(serde_json::to_vec(&answer).unwrap_or_default()).await?;
    }
    let features = agreed.answer.rsync_features.unwrap_or_default();
    let area = held.staging()?.join(AREA);
    let base = held.tree().filter(|_| agreed.refresh);
    let of = of(from, &index, base.as_deref(), features)?;
    let (main, mut reading) = prepare(held, &area, of.as_deref(), base).await?;
    let (mut snapshots, mut before) = (Vec::new(), None);
    for name in &agreed.chosen.take {
        rsync::receive(fs, &main, features, reading, told).await?;
        settle(&main, agreed.instance)?;
        // Each is what was there at its time: the next ones are sent as what differs from it.
        let (tree, earlier) = (main.clone(), before.clone());
        let freeze = |held: Arc<Held>| async move { held.freeze(&tree, earlier.as_ref()).await };
        let kept = to_the_end(held, freeze).await?;
        before = Some(kept.clone());
        snapshots.push((name.clone(), Arrived::Kept(kept)));
        reading = Reading::WhatDiffers;
    }
    rsync::receive(fs, &main, features, reading, told).await?;
    settle(&main, agreed.instance)?;
    switch(held, main, snapshots, agreed.chosen.drop).await?;
    (agreed.record)().await.map_err(TransferError::NotRecorded)
}

/// What tells whether a tree in staging is an earlier attempt at the same: where it comes from, under which name, upon
/// which tree of ours, and how it is sent. Where rsync deletes nothing or leaves attributes alone, no attempt is like
/// another, since what is left over would stay.
pub(super) fn of(
    from: &str,
    index: &[u8],
    base: Option<&Path>,
    features: RsyncFeatures,
) -> Result<Option<String>, TransferError> {
    if features.delete != Some(true) || features.xattrs != Some(true) {
        return Ok(None);
    }
    let index: serde_json::Value = serde_json::from_slice(index).unwrap_or_default();
    let name = |kind: &str| index["config"][kind]["name"].as_str().unwrap_or_default().to_owned();
    let base = match base {
        // A switch puts another folder in its place.
        Some(base) => {
            fs::metadata(base).map(|meta| format!("{}:{}", meta.dev(), meta.ino())).map_err(LxdError::Io)?
        }
        None => String::new(),
    };
    let of = serde_json::json!({
        "from": from, "instance": name("Container"), "volume": name("Volume"), "base": base,
    });
    Ok(Some(of.to_string()))
}

/// The tree that rsync writes to: what an attempt at the same that was cut off has left, the present tree's copy, or
/// nothing yet. Of what was left nothing is believed that was not read.
async fn prepare(
    held: &Arc<Held>,
    area: &Path,
    of: Option<&str>,
    base: Option<PathBuf>,
) -> Result<(PathBuf, Reading), TransferError> {
    make(area, 0o700)?;
    let (main, noted) = (area.join(MAIN), area.join(OF));
    let goes_on = of.is_some() && main.is_dir() && fs::read_to_string(&noted).ok().as_deref() == of;
    for left in fs::read_dir(area).map_err(LxdError::Io)? {
        let left = left.map_err(LxdError::Io)?;
        let path = left.path();
        if !left.file_type().map_err(LxdError::Io)?.is_dir() {
            fs::remove_file(&path).map_err(LxdError::Io)?;
        } else if path != main || !goes_on {
            remove_tree(&path)?;
        }
    }
    if !goes_on {
        match base {
            Some(present) => {
                let copy = area.join("copy");
                let to = copy.clone();
                let clone = |held: Arc<Held>| async move { held.pools().clone_tree(&present, &to).await };
                to_the_end(held, clone).await?;
                fs::rename(&copy, &main).map_err(LxdError::Io)?;
            }
            None => make(&main, 0o711)?,
        }
    }
    if let Some(of) = of {
        fs::write(&noted, of).map_err(LxdError::Io)?;
    }
    Ok((main, if goes_on { Reading::Everything } else { Reading::WhatDiffers }))
}

/// Work on the disk, which goes on to its end when nobody waits for it any more: until then the dataset is held.
pub(super) async fn to_the_end<T, F>(
    held: &Arc<Held>,
    work: impl FnOnce(Arc<Held>) -> F,
) -> Result<T, TransferError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, PoolError>> + Send + 'static,
{
    let (holding, work) = (held.clone(), work(held.clone()));
    let done = tokio::spawn(async move {
        let done = work.await;
        drop(holding);
        done
    });
    done.await.map_err(|_| TransferError::Stopped)?.map_err(TransferError::Pool)
}

async fn switch(
    held: &Arc<Held>,
    main: PathBuf,
    snapshots: Vec<(SnapshotName, Arrived)>,
    drop: Vec<SnapshotName>,
) -> Result<(), TransferError> {
    let held = held.clone();
    let switch = Switch { snapshots, drop, ..Switch::main(main) };
    let switched = tokio::task::spawn_blocking(move || held.switch_in(switch)).await;
    switched.map_err(|_| TransferError::Stopped)?.map_err(TransferError::Pool)
}

fn make(path: &Path, mode: u32) -> Result<(), LxdError> {
    Ok(fs::DirBuilder::new().recursive(true).mode(mode).create(path)?)
}

/// What every tree that has come is still in need of.
fn settle(tree: &Path, instance: bool) -> Result<(), LxdError> {
    if !rustix::process::geteuid().is_root() {
        // The folder of a container is closed to all but root (mode 0100), and would be to this agent as well.
        let mode = fs::metadata(tree)?.permissions().mode();
        fs::set_permissions(tree, fs::Permissions::from_mode(mode & 0o7777 | 0o700))?;
    }
    if !instance {
        return Ok(());
    }
    match fs::remove_file(tree.join(BACKUP)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
        _ => Ok(()),
    }
}
