//! What a source may have a target take up, and a source that is read once.

use super::hostile::incoming_of;
use super::*;
use crate::dataset::chunk::ChunkRef;
use crate::dataset::pool::Use;
use crate::transfer::batch::Batch;
use crate::transfer::exchange::{Offered, Source, receive, send, send_trees};
use crate::transfer::reading::At;
use crate::transfer::receive::Received;
use crate::transfer::send::Sent;

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    [&[kind][..], &u32::try_from(payload.len()).unwrap().to_be_bytes(), payload].concat()
}

fn hello() -> Vec<u8> {
    frame(1, format!(r#"{{"version": {VERSION}}}"#).as_bytes())
}

/// A source that says `first`, then `again` for as long as it is listened to; and how many bytes of that it said.
async fn say_on(mut to: impl Stream, first: Vec<u8>, mut again: impl FnMut(u64) -> Vec<u8>) -> u64 {
    let (mut said, mut back) = (0, vec![0; 4096]);
    let (mut heard, mut speak) = tokio::io::split(&mut to);
    let speaking = async {
        speak.write_all(&first).await.unwrap();
        for round in 0.. {
            let bytes = again(round);
            if speak.write_all(&bytes).await.is_err() {
                break;
            }
            said += bytes.len() as u64;
        }
    };
    let listening = async { while !matches!(heard.read(&mut back).await, Ok(0) | Err(_)) {} };
    tokio::select! {
        () = speaking => {}
        () = listening => {}
    }
    said
}

/// A megabyte of one file, further on with each round.
fn endless(round: u64) -> Vec<u8> {
    let data = vec![0; 64 * 1024];
    let mut batch = Batch::default();
    for part in 0..16 {
        batch.named(b"endless", (round * 16 + part) * 65_536, ChunkRef::of(&data), &data);
    }
    frame(16, &batch.bytes)
}

#[tokio::test]
async fn a_source_that_never_says_how_much_it_sends_fills_no_more_than_the_size() {
    let dir = tempfile::tempdir().unwrap();
    let pools = Pools::open(&dir.path().join("data")).unwrap();
    let dataset = Dataset::volume(&"default".parse().unwrap(), &"v".parse().unwrap());
    let held = pools.hold(&dataset, Use::Replacing).unwrap().of_size(Some(3 << 20));
    let incoming = incoming_of(&dataset, Mode::Copy, Some(3 << 20));
    let (here, there) = duplex(10_000);
    let (said, received) = tokio::join!(
        say_on(here, hello(), endless),
        receive(held, Connections::single(Box::new(there)), incoming, unreported()),
    );
    let told = received.unwrap_err().to_string();
    assert!(told.contains("at most 3145728 bytes"), "{told}");
    assert!(said < 6 << 20, "{said} bytes were taken");
    assert!(!pools.has(&dataset));
}

/// A place on a file system that has room for so many more entries, and as many bytes as are free there.
struct Narrow(Place, u64);

impl Destination for Narrow {
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
        let written: u64 = walkdir::WalkDir::new(self.staging()?)
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.metadata().ok())
            .filter(fs::Metadata::is_file)
            .map(|meta| meta.len())
            .sum();
        self.0.room().map(|(place, free)| (place, free.saturating_sub(written)))
    }
    fn entries(&self) -> Result<Option<u64>, PoolError> {
        let made = walkdir::WalkDir::new(self.staging()?).into_iter().count() as u64;
        Ok(Some(self.1.saturating_sub(made)))
    }
    fn switch_in(&self, switch: Switch) -> Result<(), TransferError> {
        self.0.switch_in(switch)
    }
}

#[tokio::test]
async fn a_source_that_never_says_how_much_it_sends_leaves_what_is_kept_free() {
    let dir = tempfile::tempdir().unwrap();
    let narrow = Narrow(Place(dir.path().join("to"), 20 << 20), 1000);
    let (here, there) = duplex(10_000);
    let (said, received) = tokio::join!(
        say_on(here, hello(), endless),
        receive_trees(Connections::single(Box::new(there)), narrow, unreported()),
    );
    assert!(matches!(received, Err(TransferError::Full { .. })), "{received:?}");
    assert!((19 << 20..23 << 20).contains(&said), "{said} bytes were taken");
}

#[tokio::test]
async fn a_source_leaves_the_file_system_some_entries() {
    let folders = |round: u64| {
        let mut batch = Batch::default();
        for part in 0..100 {
            batch.directory(format!("{round}-{part}/a/b").as_bytes());
        }
        frame(16, &batch.bytes)
    };
    let deep = |round: u64| {
        let mut batch = Batch::default();
        batch.directory(format!("{round}{}", "/a".repeat(200)).as_bytes());
        frame(16, &batch.bytes)
    };
    let files = |round: u64| {
        let mut batch = Batch::default();
        for part in 0..100 {
            // Of no file that it names comes the beginning.
            batch.named(format!("{round}-{part}").as_bytes(), 5, ChunkRef::of(b"x"), b"x");
        }
        frame(16, &batch.bytes)
    };
    let all: [&dyn Fn(u64) -> Vec<u8>; 3] = [&folders, &deep, &files];
    for again in all {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("to");
        let narrow = Narrow(Place(to.clone(), u64::MAX), 5000);
        let (here, there) = duplex(10_000);
        let (_, received) = tokio::join!(
            say_on(here, hello(), again),
            receive_trees(Connections::single(Box::new(there)), narrow, unreported()),
        );
        assert!(matches!(received, Err(TransferError::NoEntries { .. })), "{received:?}");
        let made = walkdir::WalkDir::new(to.with_extension("staging")).into_iter().count();
        assert!((3000..=5100).contains(&made), "{made}");
    }
}

#[tokio::test]
async fn a_tree_with_more_entries_than_there_is_room_for_is_refused_before_they_are_made() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir_all(&from).unwrap();
    for number in 0..300 {
        fs::write(from.join(number.to_string()), b"").unwrap();
    }
    // Once as it is read, once as it is asked for.
    for _ in 0..2 {
        let (here, there) = duplex(10_000);
        let (sent, received) = tokio::join!(
            send_folder(Connections::single(Box::new(here)), &from, unreported()),
            receive_trees(
                Connections::single(Box::new(there)),
                Narrow(Place(to.clone(), u64::MAX), 200),
                unreported()
            ),
        );
        assert!(matches!(received, Err(TransferError::NoEntries { .. })), "{received:?}");
        assert!(sent.unwrap_err().to_string().contains("inodes"));
        let staging = to.with_extension("staging");
        assert!(walkdir::WalkDir::new(&staging).into_iter().count() < 20);
        fs::create_dir_all(&to).unwrap();
    }
}

#[tokio::test]
async fn what_costs_a_source_nothing_is_not_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let mut empty = Batch::default();
    for _ in 0..1000 {
        empty.named(b"x", 0, ChunkRef::of(b""), b"");
    }
    // Has a present tree, so that it asks for an outline.
    let to = dir.path().join("to");
    fs::create_dir(&to).unwrap();
    fs::write(to.join("here"), b"here").unwrap();
    let outline = |pieces: &[u16]| {
        let list: Vec<u8> =
            pieces.iter().flat_map(|len| [&[7; 32][..], &len.to_be_bytes()].concat()).collect();
        [hello(), frame(5, &[7; 32]), frame(7, &list), frame(8, b"")].concat()
    };
    let all = [
        (dir.path().join("new"), [hello(), frame(16, &empty.bytes)].concat(), "makes no sense"),
        (to.clone(), outline(&[0; 1000]), "impossible length"),
        (to.clone(), outline(&[100, 100]), "impossible length"),
        (to.clone(), outline(&[9000]), "impossible length"),
    ];
    for (place, bytes, why) in all {
        let (here, there) = duplex(10_000);
        let target = Place(place, u64::MAX);
        let (_, received) = tokio::join!(
            say_on(here, bytes, |_| frame(23, b"")),
            receive_trees(Connections::single(Box::new(there)), target, unreported()),
        );
        let told = received.unwrap_err().to_string();
        assert!(told.contains(why), "{told}");
    }
}

/// Sends a folder that may change while it is read.
async fn once(
    from: &Path,
    to: &Path,
    here: Box<dyn Stream>,
    there: Box<dyn Stream>,
) -> (Result<Sent, TransferError>, Result<Received, TransferError>) {
    let trees = vec![Offered { snapshot: None, at: At::Folder(from.to_owned()) }];
    let consistency = Consistency::AllowInconsistent;
    let source = Source { header: serde_json::Value::Null, trees, consistency };
    tokio::join!(
        send_trees(Connections::single(here), source, unreported()),
        receive_trees(Connections::single(there), Place(to.to_owned(), u64::MAX), unreported()),
    )
}

#[tokio::test]
async fn a_tree_that_is_read_once_is_refreshed_and_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    odd_tree(&from);
    fs::write(from.join("large"), noise(4 << 20)).unwrap();
    let straight = async || {
        let (here, there) = duplex(10_000);
        let (sent, received) = once(&from, &to, Box::new(here), Box::new(there)).await;
        let (sent, received) = (sent.unwrap(), received.unwrap());
        assert_eq!(listing(&to), listing(&from));
        assert_eq!((sent.moved, sent.total), (received.moved, received.total));
        sent
    };
    // Cut off after most of it.
    let ((a, b), (c, d)) = (duplex(10_000), duplex(10_000));
    let meddling = tokio::spawn(meddle(b, c, Some(3 << 20), None));
    let (_, received) = once(&from, &to, Box::new(a), Box::new(d)).await;
    meddling.abort();
    assert!(received.is_err() && !to.exists());
    let resumed = straight().await;
    assert!(resumed.moved + (2 << 20) < resumed.total, "{resumed:?}");

    assert_eq!(straight().await.moved, 0, "nothing has changed");
    fs::write(from.join("b/-rf"), b"changed").unwrap();
    fs::rename(from.join("large"), from.join("moved")).unwrap();
    assert_eq!(straight().await.moved, 7);
    for tree in [from, to] {
        crate::dataset::pool::remove_tree(&tree).unwrap();
    }
}

/// Writes to a file until it is stopped.
struct Restless(std::sync::Arc<std::sync::atomic::AtomicBool>, Option<std::thread::JoinHandle<()>>);

impl Restless {
    fn at(path: PathBuf) -> Self {
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopped = stop.clone();
        let writing = std::thread::spawn(move || {
            let mut content = noise(600_000);
            while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
                content.rotate_left(1);
                fs::write(&path, &content).unwrap();
            }
        });
        Self(stop, Some(writing))
    }
}

impl Drop for Restless {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
        let _ = self.1.take().map(std::thread::JoinHandle::join);
    }
}

#[tokio::test]
async fn a_changing_tree_goes_along_with_its_snapshots() {
    let dir = tempfile::tempdir().unwrap();
    let pools = Pools::open(&dir.path().join("data")).unwrap();
    let volume = |name: &str| Dataset::volume(&"default".parse().unwrap(), &name.parse().unwrap());
    let (from, to) = (volume("from"), volume("to"));
    pools.ensure(&from).await.unwrap();
    let tree = pools.tree(&from).unwrap();
    fs::write(tree.join("still"), noise(2 << 20)).unwrap();
    fs::write(tree.join("restless"), noise(600_000)).unwrap();
    let snapshot: SnapshotName = "s0".parse().unwrap();
    pools.take_snapshot(&from, &snapshot).await.unwrap();
    let restless = Restless::at(tree.join("restless"));
    for mode in [Mode::Copy, Mode::Refresh] {
        let outgoing = Outgoing {
            dataset: from.clone(),
            snapshots: vec![snapshot.clone()],
            main: Main::Live,
            consistency: Consistency::AllowInconsistent,
            header: serde_json::Value::Null,
        };
        let take = vec![snapshot.clone()];
        let choose = move || Chosen { take: take.clone(), ..Chosen::default() };
        let chosen = choose();
        let incoming = Incoming {
            choose: Box::new(move |_, _| Box::pin(async move { Ok(chosen) })),
            ..incoming_of(&to, mode, None)
        };
        let (reading, held) =
            (pools.hold(&from, Use::Reading).unwrap(), pools.hold(&to, Use::Replacing).unwrap());
        let (here, there) = duplex(10_000);
        let (sent, received) = tokio::join!(
            send(&pools, reading, Connections::single(Box::new(here)), outgoing, unreported()),
            receive(held, Connections::single(Box::new(there)), incoming, unreported()),
        );
        received.unwrap();
        // What stood still was sent once at the most.
        let sent = sent.unwrap();
        let once = if mode == Mode::Copy { 2 << 20 } else { 0 };
        assert!(sent.moved <= once + 2 * 600_000, "{sent:?}");
    }
    drop(restless);
    let arrived = pools.tree(&to).unwrap();
    assert_eq!(fs::read(arrived.join("still")).unwrap(), noise(2 << 20));
    let frozen = pools.snapshot(&to, &snapshot).unwrap();
    assert_eq!(frozen.hash(), pools.snapshot(&from, &snapshot).unwrap().hash());
}

#[tokio::test]
async fn a_source_that_changed_says_so_and_one_that_went_is_told_of_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir(&from).unwrap();
    fs::create_dir(&to).unwrap();
    for (number, data) in noise(6_400_000).chunks(100_000).enumerate() {
        fs::write(from.join(format!("{number:02}")), data).unwrap();
    }
    // Once it sends, the last file changes.
    let ((a, b), (c, d)) = (duplex(10_000), duplex(10_000));
    let last = from.join("63");
    let passing = tokio::spawn(hostile::pass_on(b, c, 1 << 20, move || fs::write(last, b"other").unwrap()));
    let (sent, received) = through(&from, &to, Box::new(a), Box::new(d)).await;
    passing.abort();
    for told in [sent.unwrap_err().to_string(), received.unwrap_err().to_string()] {
        assert!(told.contains("63 changed while it was read") && !told.contains("missing"), "{told}");
    }

    let (mut here, there) = duplex(10_000);
    let target = receive_trees(Connections::single(Box::new(there)), Place(to, u64::MAX), unreported());
    let leaving = async {
        here.write_all(&hello()).await.unwrap();
        drop(here);
    };
    let (received, ()) = tokio::join!(target, leaving);
    let told = received.unwrap_err().to_string();
    assert_eq!(told, "the connection broke: the other side went away");
}
