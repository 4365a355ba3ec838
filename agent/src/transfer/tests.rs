//! Whole transfers over a pipe, with everything that can go wrong put into it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schema::kind::transfer::Mode;
use schema::name::SnapshotName;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::TransferError;
use super::bridge::Stream;
use super::connections::Connections;
use super::exchange::{Destination, Other, receive_trees, send_folder, unreported};
use super::greeting::VERSION;
use super::offer::Carrier;
use super::reading::Seen;
use super::run::Transfers;
use super::shipment::{Chosen, Consistency, Incoming, Kin, Main, Origin, Outgoing};
use crate::dataset::chunk::Hash;
use crate::dataset::chunk::tests::noise;
use crate::dataset::pool::{Frozen, Switch};
use crate::dataset::survey::{Manner, Survey};
use crate::dataset::tests::{listing, odd_tree};
use crate::dataset::{Dataset, PoolError, Pools};

mod hostile;
mod limits;

/// A directory as a place for a tree, and how many bytes are free there.
struct Place(PathBuf, u64);

/// What goes with a transfer may have something to be done afterwards.
impl Drop for Place {
    fn drop(&mut self) {
        tokio::spawn(async {});
    }
}

impl Destination for Place {
    fn staging(&self) -> Result<PathBuf, PoolError> {
        let area = self.0.with_extension("staging");
        fs::create_dir_all(&area).unwrap();
        Ok(area)
    }
    fn has_present(&self) -> bool {
        self.0.is_dir()
    }
    fn present(&self, watch: &Seen) -> Option<(PathBuf, Survey)> {
        let survey = Survey::read(&self.0, Manner::default(), watch).ok()?;
        Some((self.0.clone(), survey))
    }
    fn others(&self) -> Vec<Other> {
        Vec::new()
    }
    fn frozen(&self, _: Hash) -> Option<Frozen> {
        None
    }
    fn choose(&self, _: serde_json::Value, _: Vec<SnapshotName>) -> Result<Chosen, String> {
        Ok(Chosen::default())
    }
    fn room(&self) -> Result<(String, u64), PoolError> {
        Ok(("storage pool small".to_owned(), self.1))
    }
    fn switch_in(&self, switch: Switch) -> Result<(), TransferError> {
        if let Some(tree) = switch.main {
            if self.0.exists() {
                crate::dataset::pool::remove_tree(&self.0)?;
            }
            fs::rename(tree, &self.0).unwrap();
        }
        Ok(crate::dataset::pool::remove_tree(&self.staging()?)?)
    }
}

async fn run(
    from: &Path,
    to: &Path,
) -> (Result<super::send::Sent, TransferError>, Result<super::receive::Received, TransferError>) {
    let (here, there) = duplex(10_000);
    through(from, to, Box::new(here), Box::new(there)).await
}

async fn through(
    from: &Path,
    to: &Path,
    here: Box<dyn Stream>,
    there: Box<dyn Stream>,
) -> (Result<super::send::Sent, TransferError>, Result<super::receive::Received, TransferError>) {
    tokio::join!(
        send_folder(Connections::single(here), from, unreported()),
        receive_trees(Connections::single(there), Place(to.to_owned(), u64::MAX), unreported()),
    )
}

#[tokio::test]
async fn what_is_in_many_places_comes_once() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    for folder in [&from, &to] {
        fs::create_dir(folder).unwrap();
    }
    // Something is there: chunks are asked for.
    fs::write(to.join("else"), b"else").unwrap();
    let mebibyte = noise(1 << 20);
    fs::write(from.join("long"), mebibyte.repeat(24)).unwrap();
    fs::create_dir(from.join("below")).unwrap();
    fs::write(from.join("below/same"), mebibyte.repeat(3)).unwrap();
    fs::write(from.join("below/small"), &mebibyte[..5000]).unwrap();
    fs::write(from.join("small"), &mebibyte[..5000]).unwrap();
    let (sent, received) = run(&from, &to).await;
    received.unwrap();
    let moved = sent.unwrap().moved;
    assert!(moved < 3 << 20, "{moved}");
    assert_eq!(listing(&to), listing(&from));
}

#[tokio::test]
async fn a_tree_arrives_and_a_refresh_sends_only_what_is_new() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    odd_tree(&from);
    let (sent, received) = run(&from, &to).await;
    let (sent, received) = (sent.unwrap(), received.unwrap());
    assert_eq!(listing(&to), listing(&from));
    assert_eq!((sent.moved, sent.total), (received.moved, received.total));
    assert!(sent.moved > 1_500_000 && sent.total > 3_000_000);

    fs::write(from.join("b/-rf"), b"changed").unwrap();
    fs::remove_file(from.join("b/hole")).unwrap();
    let (sent, received) = run(&from, &to).await;
    received.unwrap();
    assert_eq!(sent.unwrap().moved, 7);
    assert_eq!(listing(&to), listing(&from));
    for tree in [from, to] {
        crate::dataset::pool::remove_tree(&tree).unwrap();
    }
}

#[tokio::test]
async fn what_does_not_fit_is_told_to_both_before_it_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    for (folder, file, content) in [(&from, "large", noise(6 << 20)), (&to, "small", b"here".to_vec())] {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join(file), content).unwrap();
    }
    let (here, across) = duplex(10_000);
    let (sent, received) = tokio::join!(
        send_folder(Connections::single(Box::new(here)), &from, unreported()),
        receive_trees(Connections::single(Box::new(across)), Place(to.clone(), 1 << 20), unreported()),
    );
    let full = "storage pool small is full: 6.00 MiB more are needed there, and 1.00 MiB are free";
    assert_eq!(received.unwrap_err().to_string(), full);
    let told = sent.unwrap_err().to_string();
    assert!(told.contains(full), "{told}");
    assert!(to.join("small").exists());
}

/// Passes bytes on from source to target, but not all of them, or not unchanged.
async fn meddle(mut source: impl Stream, mut target: impl Stream, cut: Option<usize>, spoil: Option<usize>) {
    let (mut passed, mut buffer) = (0, vec![0; 4096]);
    let mut back = vec![0; 4096];
    loop {
        tokio::select! {
            n = source.read(&mut buffer) => {
                let n = n.unwrap_or(0);
                if let Some(at) = spoil.filter(|at| (passed..passed + n).contains(at)) {
                    buffer[at - passed] ^= 1;
                }
                passed += n;
                if n == 0 || cut.is_some_and(|cut| passed > cut) || target.write_all(&buffer[..n]).await.is_err() {
                    return;
                }
            }
            n = target.read(&mut back) => {
                let n = n.unwrap_or(0);
                if n == 0 || source.write_all(&back[..n]).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn run_meddled(
    from: &Path,
    to: &Path,
    cut: Option<usize>,
    spoil: Option<usize>,
) -> Result<u64, TransferError> {
    let ((a, b), (c, d)) = (duplex(10_000), duplex(10_000));
    let meddling = tokio::spawn(meddle(b, c, cut, spoil));
    let (_, received) = through(from, to, Box::new(a), Box::new(d)).await;
    meddling.abort();
    received.map(|received| received.moved)
}

#[tokio::test]
async fn a_broken_or_spoilt_transfer_leaves_the_target_and_is_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir(&from).unwrap();
    fs::create_dir(&to).unwrap();
    fs::write(from.join("data"), noise(4 << 20)).unwrap();
    fs::write(to.join("old"), b"as it was").unwrap();
    let before = listing(&to);

    let broken = run_meddled(&from, &to, Some(3 << 20), None).await;
    assert!(matches!(broken, Err(TransferError::Connection(_))), "{broken:?}");
    assert_eq!(listing(&to), before);
    for at in [70, 2000, 700_000] {
        let spoilt = run_meddled(&from, &to, None, Some(at)).await;
        assert!(spoilt.is_err(), "a byte at {at} was spoilt");
        assert_eq!(listing(&to), before);
    }
    let received = run_meddled(&from, &to, None, None).await.unwrap();
    assert!(received < 5 << 19, "{received} bytes were sent again");
    assert_eq!(listing(&to), listing(&from));
}

#[tokio::test]
async fn each_side_tells_the_other_what_went_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let (sent, received) = run(&dir.path().join("nothing"), &dir.path().join("to")).await;
    assert!(matches!(sent, Err(TransferError::Source(_))));
    assert!(received.unwrap_err().to_string().contains("changed while it was read"));
}

#[tokio::test]
async fn what_no_honest_peer_says_ends_the_conversation() {
    let dir = tempfile::tempdir().unwrap();
    let frame = |kind: u8, payload: &[u8]| {
        [&[kind][..], &u32::try_from(payload.len()).unwrap().to_be_bytes(), payload].concat()
    };
    let hello = frame(1, &format!(r#"{{"version": {VERSION}}}"#).into_bytes());
    let batch = |record: &[u8]| [&hello[..], &frame(16, record)].concat();
    let path =
        |path: &[u8]| batch(&[&[0][..], &u32::try_from(path.len()).unwrap().to_be_bytes(), path].concat());
    let long = vec![1, 0xff, 0xff, 0xff, 0xff];
    let unknown = vec![77, 0, 0, 0, 0];
    let garbage =
        [&hello[..], &frame(18, b""), &frame(5, &[0; 32]), &frame(12, b"\x28\xb5\x2f\xfd"), &frame(13, b"")];
    // A chunk that is not what its hash says, one by a number, a folder above, and a whole tree of another hash.
    let lie = batch(&[&[1, 1, b'x'][..], &[0; 8], &1_u32.to_be_bytes(), &[7; 32], b"y"].concat());
    let number = batch(&[&[2][..], &[0; 8], &1_u32.to_be_bytes(), b"y"].concat());
    let other = frame(1, br#"{"version": 99}"#);
    let all = [long, unknown, garbage.concat(), lie, number, path(b"../up"), path(b"/etc"), other];
    for (at, bytes) in all.iter().enumerate() {
        let (mut here, there) = duplex(10_000);
        let target = receive_trees(
            Connections::single(Box::new(there)),
            Place(dir.path().join("to"), u64::MAX),
            unreported(),
        );
        let (_, received) = tokio::join!(here.write_all(bytes), target);
        assert!(received.is_err(), "{at}: {received:?}");
        assert!(!dir.path().join("to").exists() && !dir.path().join("up").exists());
    }
}

#[tokio::test]
async fn within_one_agent_and_with_a_secret() {
    use crate::authorize::{Entitlement, Entity, decide};
    use crate::operation::{Operations, Status};
    use crate::task::Tasks;
    use crate::trust::{Caller, cluster_identity::ClusterIdentity, policy::Policy};

    let dir = tempfile::tempdir().unwrap();
    let pools = Pools::open(dir.path()).unwrap();
    let (operations, tasks) = (Operations::new(), Tasks::new());
    let identity = ClusterIdentity::scratch();
    let transfers = Transfers::new(pools.clone(), operations.clone(), identity, tasks.clone());
    let permit =
        decide(&Caller::local(0), Entitlement::CanEdit, Entity::default_project(), &Policy::default())
            .unwrap();
    let pool = "default".parse().unwrap();
    let volume = |name: &str| Dataset::volume(&pool, &name.parse().unwrap());
    let (orders, copy) = (volume("orders"), volume("copy"));
    pools.ensure(&orders).await.unwrap();
    fs::write(pools.tree(&orders).unwrap().join("file"), b"content").unwrap();

    let outgoing = || Outgoing {
        dataset: orders.clone(),
        snapshots: Vec::new(),
        main: Main::Live,
        consistency: Consistency::Strict,
        header: serde_json::Value::Null,
    };
    let incoming = |dataset: &Dataset| Incoming {
        dataset: dataset.clone(),
        origin: Origin::default(),
        mode: Mode::Copy,
        kin: Kin::Own,
        size: None,
        choose: Box::new(|_, _| Box::pin(async { Ok(Chosen::default()) })),
        record: Box::new(|| Box::pin(async { Ok(()) })),
    };
    let permits = [&permit, &permit];
    let copying = transfers.copy(permits, outgoing(), incoming(&copy)).unwrap();
    let copied = operations.wait(copying.id, Duration::from_secs(30)).await.unwrap();
    assert_eq!((copied.status, &copied.error), (Status::Success, &None));
    assert_eq!(fs::read(pools.tree(&copy).unwrap().join("file")).unwrap(), b"content");
    let again = transfers.copy(permits, outgoing(), incoming(&copy));
    assert!(matches!(again, Err(TransferError::Exists(..))));
    let onto_itself = transfers.copy(permits, outgoing(), incoming(&orders));
    assert!(matches!(onto_itself, Err(TransferError::Itself)));

    let (operation, secrets) = transfers.serve(&permit, outgoing(), None).unwrap();
    let secret = secrets.get("control").unwrap().clone();
    assert!(!format!("{operation:?}").contains(secret.expose()));
    let (here, there) = duplex(10_000);
    transfers.take_up(operation.id, &secret, None).unwrap().serve(Carrier::Bytes, Box::new(here));
    assert!(transfers.take_up(operation.id, &secret, None).is_err());
    let received = receive_trees(
        Connections::single(Box::new(there)),
        Place(dir.path().join("to"), u64::MAX),
        unreported(),
    )
    .await
    .unwrap();
    assert_eq!((received.moved, received.total), (7, 7));
    let sent = operations.wait(operation.id, Duration::from_secs(30)).await.unwrap();
    assert_eq!(sent.status, Status::Success);
    assert_eq!(fs::read(dir.path().join("to/file")).unwrap(), b"content");
}
