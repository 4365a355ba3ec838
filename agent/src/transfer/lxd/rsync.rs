//! rsync as LXD runs it: a process on each side, whose conversation goes over `fs` until the barriers.
//!
//! The sender is an rsync client, since the receiver is `rsync --server`. A client makes its connection by a command,
//! which is given the pipes; ours joins these to the client's own standard input and output, which are pipes of ours.
//! The command ends when its input does, and rsync with it: that is when the other side's barrier has come.
//!
//! What a hostile sender can do to a receiver is rsync's to prevent: it refuses names that are absolute or have `..` in
//! them (`ABORTING due to unsafe pathname from sender`), and works in a staging area whose only content it has written
//! itself. Symlinks are made as they come, as a container's tree has many that are absolute, and never followed here.
//!
//! Of what a copy should keep, LXD's flags leave out hard links (each name gets a copy of its own) and ACLs.

use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{ChildStderr, Command};
use tokio::sync::Notify;

use super::LxdError;
use super::message::RsyncFeatures;
use super::socket::FsSocket;
use crate::transfer::shipment::Consistency;

/// What both sides are told by LXD.
const ALIKE: [&str; 4] = ["--numeric-ids", "--devices", "--partial", "--sparse"];
/// Joins the pipes of a client to the standard input and output of rsync itself, its parent.
const JOIN: &str = "sh -c 'exec 3<&0; cat <&3 >/proc/$PPID/fd/1 & exec cat </proc/$PPID/fd/0 3<&-'";
/// How much is read of rsync at a time.
const PART: usize = 128 * 1024;
/// How much of what rsync complains of is told.
const SAID: u64 = 2048;
/// LXD copies what came before to a snapshot, whole on some of its pools, before it begins with the next tree.
const BEGINNING: u32 = 5;
/// Bytes that are to go over or through rsync here in each of [`Patience::span`]: a connection that only drips is left.
const LEAST: u64 = 256 * 1024;
/// How often it is looked, in a silence, whether rsync works here meanwhile.
const LOOKS: u32 = 4;
/// rsync's word for files that vanished while it read.
const VANISHED: i32 = 24;

/// Sends the tree at `tree`. `told` learns how many bytes more have gone.
pub async fn send(
    fs: &mut FsSocket,
    tree: &Path,
    features: RsyncFeatures,
    vanishing: Consistency,
    told: &mut (dyn FnMut(u64) + Send),
) -> Result<(), LxdError> {
    let mut command = Command::new("rsync");
    command.arg("-ar").args(ALIKE).args(feature_args(features));
    // The target makes its own.
    command.arg("--exclude=/backup.yaml");
    let mut from = tree.as_os_str().to_owned();
    from.push("/");
    command.arg(from).arg("localhost:/tmp/foo").arg("-e").arg(JOIN);
    let lenient = vanishing == Consistency::AllowInconsistent;
    converse(fs, command, told, |code| lenient && code == VANISHED).await
}

/// Which files of a tree that is there are compared with the source's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// Those whose size or time differs.
    WhatDiffers,
    /// Each of them: a tree that was cut off may have been written by a machine that stopped, and have the size and time
    /// of a file without its data.
    Everything,
}

/// Receives a tree into `tree`, which is there and in staging. `told` learns how many bytes more have come.
pub async fn receive(
    fs: &mut FsSocket,
    tree: &Path,
    features: RsyncFeatures,
    reading: Reading,
    told: &mut (dyn FnMut(u64) + Send),
) -> Result<(), LxdError> {
    let mut command = Command::new("rsync");
    command.args(["--server", "-vlogDtpre.iLsfx"]).args(ALIKE).arg("--modify-window=-1");
    if reading == Reading::Everything {
        command.arg("--ignore-times");
    }
    command.args(feature_args(features)).args([".", "."]);
    // Names are resolved from within: there is no way out by a name.
    command.current_dir(tree);
    converse(fs, command, told, |_| false).await
}

fn feature_args(features: RsyncFeatures) -> Vec<&'static str> {
    let mut args = Vec::new();
    if features.xattrs == Some(true) {
        args.extend(["--xattrs", "--filter=-x security.selinux"]);
    }
    if features.delete == Some(true) {
        args.push("--delete");
    }
    if features.compress == Some(true) {
        args.extend(["--compress", "--compress-level=2"]);
    }
    args
}

/// Runs rsync with its standard input and output over `fs`, until both sides have said that they are done. Dropped, it is
/// killed.
async fn converse(
    fs: &mut FsSocket,
    mut command: Command,
    told: &mut (dyn FnMut(u64) + Send),
    forgiven: impl Fn(i32) -> bool,
) -> Result<(), LxdError> {
    command.env_clear().env("LC_ALL", "C");
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(LxdError::NoRsync)?;
    let (Some(stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(LxdError::Malformed("rsync without pipes"));
    };
    let told = std::sync::Mutex::new(told);
    let (pace, begun) = (Pace::of(child.id()), AtomicBool::new(false));
    let count = |bytes: usize| {
        pace.count(bytes);
        if let Ok(mut told) = told.lock() {
            told(bytes as u64);
        }
    };
    let patience = fs.patience;
    let (mut sender, mut receiver) = fs.split();
    let up = async {
        let mut stdout = stdout;
        let mut part = BytesMut::new();
        loop {
            part.reserve(PART);
            let read = stdout.read_buf(&mut part).await?;
            if read == 0 {
                return sender.barrier().await;
            }
            count(read);
            sender.send(part.split().freeze()).await?;
        }
    };
    let down = async {
        let mut stdin = Some(stdin);
        while let Some(bytes) = receiver.next().await? {
            begun.store(true, Ordering::Relaxed);
            count(bytes.len());
            // What comes after rsync has gone is of no use to anybody; why it has gone, its status tells.
            if let Some(pipe) = &mut stdin
                && pipe.write_all(&bytes).await.is_err()
            {
                stdin = None;
            }
        }
        Ok::<(), LxdError>(())
    };
    let ended = async {
        let said = said(stderr).await;
        let status = child.wait().await?;
        match status.code() {
            Some(0) => Ok(()),
            Some(code) if forgiven(code) => Ok(()),
            _ => Err(LxdError::Rsync { status, said }),
        }
    };
    // rsync's own words come first: if it fails, what becomes of the connection is the consequence.
    tokio::select! {
        (up, down, ended) = join(up, down, ended) => ended.and(up).and(down),
        gone = pace.too_slow(&begun, patience) => Err(gone),
    }
}

type Done = Result<(), LxdError>;

/// How long a connection is waited on that does little.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Nothing at all moves, in either direction.
    pub standstill: Duration,
    /// Less than 256 KiB does.
    pub span: Duration,
}

/// What a conversation does.
struct Pace {
    /// rsync here, which may have much to read and write without a word to the other side.
    rsync: Option<u32>,
    /// The most that it was seen to have read and written: once it has ended nothing tells.
    worked: AtomicU64,
    moved: Notify,
    bytes: AtomicU64,
}

impl Pace {
    fn of(rsync: Option<u32>) -> Self {
        Self { rsync, worked: AtomicU64::new(0), moved: Notify::new(), bytes: AtomicU64::new(0) }
    }

    /// So many bytes have gone over.
    fn count(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.moved.notify_one();
    }

    /// What has gone over, and what rsync has read and written.
    fn done(&self) -> u64 {
        let now = self.rsync.map_or(0, worked);
        let worked = self.worked.fetch_max(now, Ordering::Relaxed).max(now);
        self.bytes.load(Ordering::Relaxed).saturating_add(worked)
    }

    /// Ends when nothing has moved for too long, [`BEGINNING`] times that until the other side has begun, or when hardly
    /// anything does.
    async fn too_slow(&self, begun: &AtomicBool, patience: Patience) -> LxdError {
        let Patience { standstill, span } = patience;
        let mut since = Instant::now();
        // Neither is looked at for every byte: what was done when the span began, and at the last look in a silence.
        let (mut known, mut silent) = (self.done(), 0);
        let mut looks = 0;
        loop {
            let has_begun = begun.load(Ordering::Relaxed);
            let limit = if has_begun { standstill } else { standstill * BEGINNING };
            if tokio::time::timeout(limit / LOOKS, self.moved.notified()).await.is_ok() {
                looks = 0;
            } else {
                let done = self.done();
                let works = looks == 0 || done.saturating_sub(silent) >= LEAST;
                looks = if works { 1 } else { looks + 1 };
                silent = done;
                if looks >= LOOKS {
                    return LxdError::Silent(limit);
                }
            }
            if !has_begun {
                since = Instant::now();
            } else if since.elapsed() >= span {
                let done = self.done();
                if done.saturating_sub(known) < LEAST {
                    return LxdError::Slow { least: LEAST, span };
                }
                (since, known) = (Instant::now(), done);
            }
        }
    }
}

/// Bytes that a process and its children have read and written, as far as this system tells.
fn worked(pid: u32) -> u64 {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = children.split_whitespace().filter_map(|child| child.parse::<u32>().ok());
    std::iter::once(pid).chain(children).map(worked_alone).fold(0, u64::saturating_add)
}

fn worked_alone(pid: u32) -> u64 {
    let counts = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let count = |line: &str| {
        let (name, count) = line.split_once(": ")?;
        if matches!(name, "rchar" | "wchar") { count.trim().parse::<u64>().ok() } else { None }
    };
    counts.lines().filter_map(count).fold(0, u64::saturating_add)
}

/// All three; but once rsync has failed, or the connection has, the others are not waited for.
async fn join(
    up: impl Future<Output = Done>,
    down: impl Future<Output = Done>,
    ended: impl Future<Output = Done>,
) -> (Done, Done, Done) {
    tokio::pin!(up, down, ended);
    let (mut sent, mut taken, mut outcome) = (None, None, None);
    loop {
        tokio::select! {
            done = &mut up, if sent.is_none() => sent = Some(done),
            done = &mut down, if taken.is_none() => taken = Some(done),
            done = &mut ended, if outcome.is_none() => outcome = Some(done),
        }
        let failed = [&sent, &taken, &outcome].into_iter().flatten().any(Result::is_err);
        if failed || (sent.is_some() && taken.is_some() && outcome.is_some()) {
            return (sent.unwrap_or(Ok(())), taken.unwrap_or(Ok(())), outcome.unwrap_or(Ok(())));
        }
    }
}

/// The first of what rsync complains of, in one line.
async fn said(stderr: ChildStderr) -> String {
    let mut stderr = stderr;
    let mut said = Vec::new();
    let _ = (&mut stderr).take(SAID).read_to_end(&mut said).await;
    // The rest is read as well, so that it does not wait for a reader.
    let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
    let text = String::from_utf8_lossy(&said);
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience =
        Patience { standstill: Duration::from_secs(5), span: Duration::from_millis(50) };

    #[tokio::test]
    async fn what_only_drips_is_left_and_what_flows_is_not() {
        let (pace, begun) = (Pace::of(None), AtomicBool::new(true));
        let drip = async {
            loop {
                pace.count(1);
                tokio::time::sleep(PATIENCE.span / 50).await;
            }
        };
        let gone = tokio::select! {
            gone = pace.too_slow(&begun, PATIENCE) => gone,
            () = drip => unreachable!(),
        };
        assert!(matches!(gone, LxdError::Slow { .. }), "{gone}");

        let flow = async {
            for _ in 0..20 {
                pace.count(1 << 20);
                tokio::time::sleep(PATIENCE.span / 10).await;
            }
        };
        let stayed = tokio::select! {
            gone = pace.too_slow(&begun, PATIENCE) => Err(gone),
            () = flow => Ok(()),
        };
        stayed.unwrap();
    }

    #[tokio::test]
    async fn what_has_not_begun_has_longer_and_what_rsync_does_here_counts() {
        let patience = Patience { standstill: Duration::from_millis(20), ..PATIENCE };
        let silent = Pace::of(None).too_slow(&AtomicBool::new(false), patience).await;
        assert!(matches!(silent, LxdError::Silent(limit) if limit == patience.standstill * BEGINNING));
        // This process has read and written something, and what it reads from now on is counted.
        let own = std::process::id();
        let before = worked(own);
        std::fs::read("/proc/self/exe").unwrap();
        assert!(worked(own) > before + LEAST);
        assert_eq!(worked(u32::MAX), 0);
    }
}
