//! Both sides of LXD's protocol against each other, with real rsync.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use schema::kind::transfer::Mode;
use schema::name::SnapshotName;
use serde_json::json;
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::message::Header;
use super::socket::{ControlSocket, FsSocket};
use super::{LxdError, sink, source};
use crate::dataset::pool::Use;
use crate::dataset::{Dataset, Pools};
use crate::transfer::TransferError;
use crate::transfer::bridge::Stream;
use crate::transfer::shipment::{Chosen, Consistency, Incoming, Main, Origin, Outgoing};

fn name(text: &str) -> SnapshotName {
    text.parse().unwrap()
}

fn dataset() -> Dataset {
    Dataset::volume(&"default".parse().unwrap(), &"v".parse().unwrap())
}

struct Side {
    _folder: TempDir,
    pools: Pools,
}

impl Side {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pools = Pools::open(folder.path()).unwrap();
        Self { _folder: folder, pools }
    }

    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.pools.tree(&dataset()).ok()?.join(path)).ok()
    }
}

fn outgoing(snapshots: &[&str]) -> Outgoing {
    Outgoing {
        dataset: dataset(),
        snapshots: snapshots.iter().map(|snapshot| name(snapshot)).collect(),
        main: Main::Live,
        consistency: Consistency::Strict,
        header: json!({"config": {"volume_snapshots": [{"name": "s0", "created_at": "2026-01-02T03:04:05Z"}]}}),
    }
}

/// What takes everything, and how often it recorded it.
fn incoming(mode: Mode, recorded: &Arc<Mutex<usize>>) -> Incoming {
    let recorded = recorded.clone();
    Incoming {
        dataset: dataset(),
        origin: Origin::default(),
        mode,
        kin: crate::transfer::shipment::Kin::Own,
        size: None,
        choose: Box::new(|header, offered| {
            Box::pin(async move {
                if offered.contains(&name("s0")) {
                    let told = &header["config"]["volume_snapshots"][0];
                    assert_eq!(
                        (told["name"].as_str(), told["created_at"].as_str()),
                        (Some("s0"), Some("2026-01-02T03:04:05Z"))
                    );
                }
                Ok(Chosen { take: offered, drop: Vec::new() })
            })
        }),
        record: Box::new(move || {
            Box::pin(async move {
                *recorded.lock().unwrap() += 1;
                Ok(())
            })
        }),
    }
}

fn wire() -> (Box<dyn Stream>, Box<dyn Stream>) {
    let (one, other) = tokio::io::duplex(64 * 1024);
    (Box::new(one), Box::new(other))
}

/// One migration: what both sides say of it. `spoil` is what becomes of the offer on its way.
async fn migrate(
    from: &Side,
    to: &Side,
    outgoing: Outgoing,
    incoming: Incoming,
    spoil: impl FnOnce(&mut Header),
) -> (Result<(), TransferError>, Result<(), TransferError>) {
    let ((control, their_control), (fs, their_fs)) = (wire(), wire());
    let sending = async {
        let mut control = ControlSocket::new(control, Role::Server, "target").await;
        let mut fs = FsSocket::new(fs, Role::Server).await;
        let source::Agreed::Files(answer) = source::negotiate(&mut control, &outgoing).await? else {
            panic!("nobody offered the chunk stream");
        };
        source::send(&mut control, &mut fs, &from.pools, &outgoing, &answer, &mut |_| {}).await
    };
    let receiving = async {
        let mut control = ControlSocket::new(their_control, Role::Client, "source").await;
        let mut fs = FsSocket::new(their_fs, Role::Client).await;
        let mut offer = control.header().await?;
        spoil(&mut offer);
        let held = Arc::new(to.pools.hold(&incoming.dataset, Use::Replacing)?);
        sink::receive(&mut control, &mut fs, &held, &offer, incoming, "a", &mut |_| {}).await
    };
    tokio::join!(sending, receiving)
}

fn there_is_rsync() -> bool {
    let there = std::process::Command::new("rsync").arg("--version").output().is_ok();
    if !there {
        eprintln!("not run: rsync is not installed");
    }
    there
}

fn write(side: &Side, path: &str, text: &str) {
    let tree = side.pools.tree(&dataset()).unwrap();
    fs::write(tree.join(path), text).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_goes_over_with_its_snapshots_and_then_what_has_changed() {
    if !there_is_rsync() {
        return;
    }
    let (from, to) = (Side::new(), Side::new());
    from.pools.ensure(&dataset()).await.unwrap();
    write(&from, "kept", "kept");
    write(&from, "gone", "gone");
    from.pools.take_snapshot(&dataset(), &name("s0")).await.unwrap();
    fs::remove_file(from.pools.tree(&dataset()).unwrap().join("gone")).unwrap();
    write(&from, "new", "new");

    let recorded = Arc::default();
    let done = migrate(&from, &to, outgoing(&["s0"]), incoming(Mode::Copy, &recorded), |_| {}).await;
    done.0.unwrap();
    done.1.unwrap();
    assert_eq!(
        (to.read("kept"), to.read("gone"), to.read("new")),
        (Some("kept".into()), None, Some("new".into()))
    );
    let frozen = to.pools.snapshot(&dataset(), &name("s0")).unwrap().tree();
    assert!(frozen.join("gone").exists() && !frozen.join("new").exists());

    write(&from, "new", "newer");
    let done = migrate(&from, &to, outgoing(&[]), incoming(Mode::Refresh, &recorded), |_| {}).await;
    done.0.unwrap();
    done.1.unwrap();
    assert_eq!(to.read("new").as_deref(), Some("newer"));
    assert_eq!(to.pools.snapshots(&dataset()).unwrap(), [name("s0")]);
    assert_eq!(*recorded.lock().unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_is_told_to_both_sides_and_nothing_is_there() {
    if !there_is_rsync() {
        return;
    }
    let (from, to) = (Side::new(), Side::new());
    from.pools.ensure(&dataset()).await.unwrap();
    let recorded = Arc::default();
    let mut refusing = incoming(Mode::Copy, &recorded);
    refusing.choose = Box::new(|_, _| Box::pin(async { Err("there is no room".to_owned()) }));
    let (source, target) = migrate(&from, &to, outgoing(&[]), refusing, |_| {}).await;
    let told = source.unwrap_err().to_string();
    assert_eq!(told, "Error from migration control target: there is no room");
    assert_eq!(target.unwrap_err().to_string(), "there is no room");

    let zfs = |offer: &mut Header| (offer.fs, offer.rsync_features) = (2, None);
    let (_, target) = migrate(&from, &to, outgoing(&[]), incoming(Mode::Copy, &recorded), zfs).await;
    assert!(target.unwrap_err().to_string().contains("Offered types: [zfs]"));

    let hostile = |offer: &mut Header| offer.snapshot_names = vec!["../../x".to_owned()];
    let (_, target) = migrate(&from, &to, outgoing(&[]), incoming(Mode::Copy, &recorded), hostile).await;
    assert!(matches!(target, Err(TransferError::Lxd(LxdError::Malformed(_)))));
    assert!(!to.pools.has(&dataset()));
    assert_eq!(*recorded.lock().unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_falls_silent_holds_nothing_for_good() {
    if !there_is_rsync() {
        return;
    }
    let to = Side::new();
    let ((control, their_control), (fs, their_fs)) = (wire(), wire());
    let falling_silent = async {
        let mut control = ControlSocket::new(control, Role::Server, "target").await;
        let mut fs = FsSocket::new(fs, Role::Server).await;
        let source::Agreed::Files(_) = source::negotiate(&mut control, &outgoing(&[])).await.unwrap() else {
            panic!("nobody offered the chunk stream");
        };
        fs.send(b"{}".to_vec()).await.unwrap();
        fs.take(1024).await.unwrap();
        (control, fs)
    };
    let receiving = async {
        let mut control = ControlSocket::new(their_control, Role::Client, "source").await;
        let mut fs = FsSocket::new(their_fs, Role::Client).await;
        fs.patience.standstill = std::time::Duration::from_millis(50);
        let offer = control.header().await.unwrap();
        let held = Arc::new(to.pools.hold(&dataset(), Use::Replacing).unwrap());
        let incoming = incoming(Mode::Copy, &Arc::default());
        sink::receive(&mut control, &mut fs, &held, &offer, incoming, "a", &mut |_| {}).await
    };
    let (_silent, received) = tokio::join!(falling_silent, receiving);
    assert!(matches!(received, Err(TransferError::Lxd(LxdError::Silent(_)))), "{received:?}");
    to.pools.hold(&dataset(), Use::Replacing).unwrap();
}

/// What an attempt has left has the sizes and times of the source's files, and other data.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_source_or_a_lost_write_has_left_is_not_taken_for_the_sources() {
    if !there_is_rsync() {
        return;
    }
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    let write = |path: &Path, text: &str| {
        fs::write(path, text).unwrap();
        fs::File::options().write(true).open(path).unwrap().set_modified(at).unwrap();
    };
    let index = super::index::encode(&serde_json::from_value(outgoing(&[]).header).unwrap(), &[]);
    let features = super::message::RsyncFeatures::OURS;
    let mark = |from: &str| sink::of(from, &index, None, features).unwrap().unwrap();
    for left_by in ["b", "a"] {
        let (from, to) = (Side::new(), Side::new());
        from.pools.ensure(&dataset()).await.unwrap();
        write(&from.pools.tree(&dataset()).unwrap().join("conf"), "BBBB");
        let area = to.pools.hold(&dataset(), Use::Replacing).unwrap().staging().unwrap().join("lxd");
        fs::create_dir_all(area.join("main")).unwrap();
        write(&area.join("main/conf"), "AAAA");
        fs::write(area.join("of"), mark(left_by)).unwrap();
        let done = migrate(&from, &to, outgoing(&[]), incoming(Mode::Copy, &Arc::default()), |_| {}).await;
        done.0.unwrap();
        done.1.unwrap();
        assert_eq!(to.read("conf").as_deref(), Some("BBBB"), "left by {left_by}");
    }
}

/// What rsync is trusted with: that a name of the sender's leads nowhere but into the folder.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_that_lead_out_are_not_followed() {
    if !there_is_rsync() {
        return;
    }
    let (from, to) = (Side::new(), Side::new());
    let outside = tempfile::tempdir().unwrap();
    for side in [&from, &to] {
        side.pools.ensure(&dataset()).await.unwrap();
    }
    // Where the target has a link to a folder outside, the source has a folder with a file.
    let place = |side: &Side| side.pools.tree(&dataset()).unwrap();
    std::os::unix::fs::symlink(outside.path(), place(&to).join("way")).unwrap();
    fs::create_dir(place(&from).join("way")).unwrap();
    write(&from, "way/file", "x");
    let recorded = Arc::default();
    let done = migrate(&from, &to, outgoing(&[]), incoming(Mode::Refresh, &recorded), |_| {}).await;
    done.0.unwrap();
    done.1.unwrap();
    assert_eq!(to.read("way/file").as_deref(), Some("x"));
    assert!(!outside.path().join("file").exists() && Path::new(&place(&to).join("way")).is_dir());
}

/// A tree that is still being cloned is nobody else's to write to.
#[tokio::test]
async fn work_on_the_disk_holds_its_dataset_though_the_transfer_was_cancelled() {
    let to = Side::new();
    let held = Arc::new(to.pools.hold(&dataset(), Use::Replacing).unwrap());
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let (finish, may_finish) = tokio::sync::oneshot::channel::<()>();
    let transfer = tokio::spawn(async move {
        let work = |_| async move {
            let _ = begun.send(());
            let _ = may_finish.await;
            Ok(())
        };
        sink::to_the_end(&held, work).await
    });
    has_begun.await.unwrap();
    transfer.abort();
    assert!(transfer.await.unwrap_err().is_cancelled());
    let busy = to.pools.hold(&dataset(), Use::Replacing);
    assert!(matches!(busy, Err(crate::dataset::PoolError::Busy(_))), "{busy:?}");
    finish.send(()).unwrap();
    let free = async {
        while to.pools.hold(&dataset(), Use::Replacing).is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), free).await.unwrap();
}
