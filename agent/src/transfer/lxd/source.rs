//! The source's side of LXD's migration.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::index::{self, Answer};
use super::message::{CHUNK_STREAM, Header, INDEX_VERSION, RsyncFeatures, Type, type_name};
use super::socket::{ControlSocket, FsSocket};
use super::{LxdError, rsync};
use crate::dataset::Pools;
use crate::dataset::chunk::Hash;
use crate::transfer::TransferError;
use crate::transfer::bridge::MAX_SILENCE;
use crate::transfer::shipment::{Consistency, Main, Outgoing};
use crate::wire::lxd::migration::IndexHeader;

/// How long the last word of a side that hung up may still be on its way.
const LAST_WORD: std::time::Duration = std::time::Duration::from_secs(2);
/// Largest answer to an index header.
const MAX_ANSWER: usize = 64 * 1024;

/// What the target has answered with.
pub enum Agreed {
    /// It is one of ours: the chunk stream goes over `fs`.
    ChunkStream,
    Files(Header),
}

/// Offers what there is, and hears what of it is taken.
pub async fn negotiate(control: &mut ControlSocket, outgoing: &Outgoing) -> Result<Agreed, TransferError> {
    let header = header(outgoing);
    let offer = Header {
        fs: Type::Rsync.into(),
        snapshot_names: outgoing.snapshots.iter().map(ToString::to_string).collect(),
        snapshots: index::offered(&header, &outgoing.snapshots),
        rsync_features: Some(RsyncFeatures::OURS),
        index_header_version: Some(INDEX_VERSION),
        chunk_stream: Some(CHUNK_STREAM),
        ..Header::default()
    };
    control.send(&offer).await?;
    let answer = control.header().await?;
    if answer.chunk_stream == Some(CHUNK_STREAM) {
        return Ok(Agreed::ChunkStream);
    }
    if answer.fs != i32::from(Type::Rsync) {
        return Err(LxdError::NoCommonType(type_name(answer.fs)).into());
    }
    Ok(Agreed::Files(answer))
}

/// Sends everything that was agreed on, and waits until the target has it for good. Whatever goes wrong is told to the
/// other side.
pub async fn send(
    control: &mut ControlSocket,
    fs: &mut FsSocket,
    pools: &Pools,
    outgoing: &Outgoing,
    answer: &Header,
    told: &mut (dyn FnMut(u64) + Send),
) -> Result<(), TransferError> {
    let sent = {
        let files = files(fs, pools, outgoing, answer, told);
        tokio::pin!(files);
        tokio::select! {
            biased;
            said = control.verdict() => match said {
                // It has everything, and is quicker than our own rsync's end. It may hang up at once.
                Ok(()) => match tokio::time::timeout(MAX_SILENCE, files).await {
                    Ok(Ok(()) | Err(TransferError::Lxd(LxdError::Broken(_)))) => Ok(Verdict::Said),
                    Ok(Err(e)) => Err(e),
                    Err(_) => Err(LxdError::Malformed("it acknowledges what it does not have").into()),
                },
                Err(e) => Err(e.into()),
            },
            sent = &mut files => sent.map(|()| Verdict::Awaited),
        }
    };
    let sent = match sent {
        // Whoever hangs up may have said before that it has everything, or why it does not want it.
        Err(TransferError::Lxd(LxdError::Broken(why))) => {
            match tokio::time::timeout(LAST_WORD, control.verdict()).await {
                Ok(Ok(())) => Ok(Verdict::Said),
                Ok(Err(e @ LxdError::Theirs { .. })) => Err(e.into()),
                _ => Err(LxdError::Broken(why).into()),
            }
        }
        sent => sent,
    };
    match sent {
        Ok(Verdict::Said) => Ok(()),
        Ok(Verdict::Awaited) => Ok(control.last_verdict().await?),
        Err(e) => {
            if !matches!(e, TransferError::Lxd(LxdError::Theirs { .. } | LxdError::Broken(_))) {
                let _ = control.tell(Err(&e.to_string())).await;
            }
            Err(e)
        }
    }
}

/// Whether the target has said what it makes of the whole.
enum Verdict {
    Said,
    Awaited,
}

fn header(outgoing: &Outgoing) -> IndexHeader {
    serde_json::from_value(outgoing.header.clone()).unwrap_or_default()
}

async fn files(
    fs: &mut FsSocket,
    pools: &Pools,
    outgoing: &Outgoing,
    answer: &Header,
    told: &mut (dyn FnMut(u64) + Send),
) -> Result<(), TransferError> {
    let _place = super::place()?;
    let mut wanted = outgoing.snapshots.clone();
    if answer.refresh == Some(true) {
        wanted.retain(|name| answer.snapshot_names.iter().any(|asked| asked == name.as_str()));
    }
    if answer.index_header_version.unwrap_or(0) > 0 {
        fs.send(index::encode(&header(outgoing), &wanted)).await?;
        let said = fs.take(MAX_ANSWER).await?;
        let said: Answer = serde_json::from_slice(&said)
            .map_err(|_| LxdError::Malformed("an answer to the index header that is no answer"))?;
        said.check()?;
    }
    let features = RsyncFeatures::OURS.common(answer.rsync_features.unwrap_or_default());
    for name in &wanted {
        let frozen = pools.snapshot(&outgoing.dataset, name)?;
        rsync::send(fs, &frozen.tree(), features, Consistency::Strict, told).await?;
    }
    match &outgoing.main {
        Main::Snapshot(name) => {
            let frozen = pools.snapshot(&outgoing.dataset, name)?;
            rsync::send(fs, &frozen.tree(), features, Consistency::Strict, told).await?;
        }
        Main::Live => {
            let tree = pools.tree(&outgoing.dataset)?;
            let strict = outgoing.consistency == Consistency::Strict;
            let before = if strict { Some(signature(&tree).await?) } else { None };
            let sent = rsync::send(fs, &tree, features, outgoing.consistency, told).await;
            let changed = match before {
                Some(before) => signature(&tree).await? != before,
                None => false,
            };
            if changed {
                return Err(LxdError::Changed(tree).into());
            }
            sent?;
        }
    }
    Ok(())
}

/// What tells whether anything in a tree was written: rsync reads it as it finds it.
async fn signature(tree: &Path) -> Result<Hash, TransferError> {
    let tree = tree.to_owned();
    let walk = move || -> io::Result<Hash> {
        let mut seen: Vec<u8> = Vec::new();
        let mut sum = [0; 32];
        for entry in walkdir::WalkDir::new(&tree).sort_by_file_name() {
            let entry = entry.map_err(io::Error::other)?;
            let meta = entry.metadata().map_err(io::Error::other)?;
            seen.clear();
            seen.extend_from_slice(&sum);
            seen.extend_from_slice(entry.path().as_os_str().as_encoded_bytes());
            for part in [meta.ino(), meta.size(), u64::from(meta.mode())] {
                seen.extend_from_slice(&part.to_be_bytes());
            }
            for part in [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()] {
                seen.extend_from_slice(&part.to_be_bytes());
            }
            sum = Hash::of(&seen).0;
        }
        Ok(Hash(sum))
    };
    let walked = tokio::task::spawn_blocking(walk).await.unwrap_or_else(|e| Err(io::Error::other(e)));
    Ok(walked.map_err(LxdError::Io)?)
}
