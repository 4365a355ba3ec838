//! What went wrong when somebody wrote, changed or stalled at the worst moment, and what a target must not tell.

use super::*;
use crate::dataset::pool::Use;
use crate::transfer::exchange::receive;
use crate::transfer::receive::Received;

/// Passes bytes on, and does `work` once the source has sent more than `after`: when there is that much, the target has
/// linked what it has.
pub(super) async fn pass_on(
    mut source: impl Stream,
    mut target: impl Stream,
    after: usize,
    work: impl FnOnce(),
) {
    let (mut passed, mut work) = (0, Some(work));
    let (mut buffer, mut back) = (vec![0; 4096], vec![0; 4096]);
    loop {
        tokio::select! {
            n = source.read(&mut buffer) => {
                let n = n.unwrap_or(0);
                passed += n;
                if passed > after && let Some(work) = work.take() {
                    work();
                }
                if n == 0 || target.write_all(&buffer[..n]).await.is_err() {
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

#[tokio::test]
async fn a_file_that_is_written_to_while_its_tree_is_refreshed_is_not_acknowledged_as_the_sources() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir(&from).unwrap();
    fs::write(from.join("same"), b"the source's").unwrap();
    run(&from, &to).await.1.unwrap();
    fs::write(from.join("data"), noise(4 << 20)).unwrap();

    let ((a, b), (c, d)) = (duplex(10_000), duplex(10_000));
    let live = to.join("same");
    let written = live.clone();
    let passing = tokio::spawn(pass_on(b, c, 2 << 20, move || fs::write(written, b"written to").unwrap()));
    let (sent, received) = through(&from, &to, Box::new(a), Box::new(d)).await;
    passing.abort();
    assert!(received.is_err() && sent.is_err(), "{received:?}");
    assert_eq!(fs::read(&live).unwrap(), b"written to");
    assert!(!to.join("data").exists());

    run(&from, &to).await.1.unwrap();
    assert_eq!(listing(&to), listing(&from));
}

/// A place that everything has arrived in, and that fails then.
struct Failing(Place);

impl Destination for Failing {
    fn staging(&self) -> Result<PathBuf, PoolError> {
        self.0.staging()
    }
    fn has_present(&self) -> bool {
        self.0.has_present()
    }
    fn present(&self, watch: &Seen) -> Option<(PathBuf, Survey)> {
        self.0.present(watch)
    }
    fn others(&self) -> Vec<Other> {
        Vec::new()
    }
    fn frozen(&self, _: Hash) -> Option<Frozen> {
        None
    }
    fn choose(&self, header: serde_json::Value, offered: Vec<SnapshotName>) -> Result<Chosen, String> {
        self.0.choose(header, offered)
    }
    fn room(&self) -> Result<(String, u64), PoolError> {
        self.0.room()
    }
    fn switch_in(&self, _: Switch) -> Result<(), TransferError> {
        Err(TransferError::Stopped)
    }
}

#[tokio::test]
async fn attributes_that_changed_since_an_attempt_that_was_cut_off_arrive() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir(&from).unwrap();
    for name in ["gains", "loses", "differs"] {
        fs::write(from.join(name), noise(200_000)).unwrap();
    }
    let set = |name: &str, value: &str| xattr::set(from.join(name), "user.note", value.as_bytes()).unwrap();
    set("loses", "old");
    set("differs", "old");
    let (here, there) = duplex(10_000);
    let (_, received) = tokio::join!(
        send_folder(Connections::single(Box::new(here)), &from, unreported()),
        receive_trees(
            Connections::single(Box::new(there)),
            Failing(Place(to.clone(), u64::MAX)),
            unreported()
        ),
    );
    assert!(received.is_err() && !to.exists());

    // Neither size nor time of a file tells of it.
    set("gains", "new");
    set("differs", "new");
    xattr::remove(from.join("loses"), "user.note").unwrap();
    let (_, received) = run(&from, &to).await;
    assert!(received.unwrap().moved < 10_000, "what had arrived is sent again");
    assert_eq!(listing(&to), listing(&from));
}

/// What arrives at a dataset, without snapshots.
pub(super) fn incoming_of(dataset: &Dataset, mode: Mode, size: Option<u64>) -> Incoming {
    Incoming {
        dataset: dataset.clone(),
        mode,
        kin: Kin::Own,
        size,
        origin: Origin::default(),
        choose: Box::new(|_, _| Box::pin(async { Ok(Chosen::default()) })),
        record: Box::new(|| Box::pin(async { Ok(()) })),
    }
}

/// Sends `from` to the volume `name`, for somebody who may see what `kin` says.
async fn into_volume(pools: &Pools, from: &Path, name: &str, kin: Kin) -> Received {
    let dataset = Dataset::volume(&"default".parse().unwrap(), &name.parse().unwrap());
    let held = pools.hold(&dataset, Use::Replacing).unwrap();
    let incoming = Incoming { kin, ..incoming_of(&dataset, Mode::Copy, None) };
    let (here, there) = duplex(10_000);
    let (sent, received) = tokio::join!(
        send_folder(Connections::single(Box::new(here)), from, unreported()),
        receive(held, Connections::single(Box::new(there)), incoming, unreported()),
    );
    sent.unwrap();
    received.unwrap()
}

#[tokio::test]
async fn a_source_does_not_learn_which_chunks_are_in_volumes_that_its_client_may_not_see() {
    let dir = tempfile::tempdir().unwrap();
    let pools = Pools::open(&dir.path().join("data")).unwrap();
    let from = dir.path().join("from");
    fs::create_dir(&from).unwrap();
    fs::write(from.join("secret"), noise(1 << 20)).unwrap();
    let first = into_volume(&pools, &from, "theirs", Kin::All).await;
    assert_eq!(first.moved, first.total);
    let theirs = Dataset::volume(&"default".parse().unwrap(), &"theirs".parse().unwrap());
    pools.take_snapshot(&theirs, &"s0".parse().unwrap()).await.unwrap();

    let of_a_stranger = into_volume(&pools, &from, "guessed", Kin::Own).await;
    assert_eq!(of_a_stranger.moved, of_a_stranger.total, "what is here was not asked for");
    let of_the_administrator = into_volume(&pools, &from, "again", Kin::All).await;
    assert_eq!(of_the_administrator.moved, 0);
}

/// Whoever says nothing keeps none of the threads busy that everybody's work on disks is done by.
#[test]
fn silent_transfers_hold_up_nobody_elses_work() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        let mut silent = Vec::new();
        for number in 0..4 {
            let (here, there) = duplex(1000);
            let place = Place(dir.path().join(number.to_string()), u64::MAX);
            let waiting = receive_trees(Connections::single(Box::new(there)), place, unreported());
            silent.push((here, tokio::spawn(waiting)));
        }
        tokio::task::yield_now().await;
        let work = tokio::task::spawn_blocking(|| fs::metadata("/").is_ok());
        let done = tokio::time::timeout(Duration::from_secs(30), work).await;
        assert!(done.expect("others' work waits for who is silent").unwrap());
        for (_, waiting) in &silent {
            assert!(!waiting.is_finished());
            waiting.abort();
        }
    });
    runtime.shutdown_background();
}

#[tokio::test]
async fn what_is_larger_than_its_place_is_refused_on_both_sides_and_goes_on_in_a_larger_one() {
    let dir = tempfile::tempdir().unwrap();
    let pools = Pools::open(&dir.path().join("data")).unwrap();
    let from = dir.path().join("from");
    fs::create_dir(&from).unwrap();
    fs::write(from.join("data"), noise(300_000)).unwrap();
    let dataset = Dataset::volume(&"default".parse().unwrap(), &"v".parse().unwrap());
    let into = async |size| {
        let held = pools.hold(&dataset, Use::Replacing).unwrap().of_size(Some(size));
        let incoming = incoming_of(&dataset, Mode::Copy, Some(size));
        let (here, there) = duplex(10_000);
        tokio::join!(
            send_folder(Connections::single(Box::new(here)), &from, unreported()),
            receive(held, Connections::single(Box::new(there)), incoming, unreported()),
        )
    };
    let (sent, received) = into(299_999).await;
    for told in [sent.unwrap_err().to_string(), received.unwrap_err().to_string()] {
        assert!(told.contains("at most 299999 bytes") && told.contains("has 300000 bytes"), "{told}");
    }
    assert!(!pools.has(&dataset));
    // What has arrived is not sent again.
    let (_, received) = into(300_000).await;
    assert_eq!(received.unwrap().moved, 0);

    let snapshot = "s0".parse().unwrap();
    pools.take_snapshot(&dataset, &snapshot).await.unwrap();
    assert!(pools.snapshot_fits(&dataset, &snapshot, None).is_ok());
    assert!(pools.snapshot_fits(&dataset, &snapshot, Some(300_000)).is_ok());
    let small = pools.snapshot_fits(&dataset, &snapshot, Some(299_999));
    assert!(matches!(small, Err(PoolError::TooSmall { .. })), "{small:?}");
}
