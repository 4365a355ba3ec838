//! What moving data costs, beside the programs that people use for it, in the same run. Prints one JSON document.
//!
//! The data: 420 MB in 10,000 files of 1 to 20 kB and 4 of 75 MiB, half of it without a pattern and half of it text.
//! Everyone copies it on this machine, by loopback and mutual TLS 1.3: `ours` by the command as it is typed, between two
//! agents, durable when it returns; rsync to a daemon by way of stunnel, as it is and with `--fsync`, each also with
//! `-z --zc=zstd`; tar the same way, and `cp -a` on the spot, each followed by a sync (`cp` not); `lxd` by `lxc copy` of
//! an instance between two daemons, which does not sync. Targets are new each time, and what was copied is compared with
//! its source by rsync's checksums. Of the rounds the median counts, and a ratio is the median of the rounds' ratios to
//! the best of those it is against. Processor time (of the command and all who work for it) is beside each time: it is
//! what other load changes least. Bytes sent are counted by a firewall, for everyone alike.
//!
//! * `full`, `none`, `change`: a copy; a refresh after nothing, and after 100 small files were rewritten, 3 MB within the
//!   large ones, and a folder renamed.
//! * `first`, `second`: a snapshot beside `cp -a`, and one more of what did not change; `snapshots`: a copy with ten of
//!   them, one change in a hundred between each.
//! * `large`: one MiB changed in a file of `mebibytes=N` (by default 1024; 10240 is what is promised for).
//! * `files`: many small files (`files=N`, by default 100,000), and the memory that each of them takes.
//!
//! Arguments choose: names of rows, names of those measured, `rounds=N`, `mebibytes=N`, `files=N`. The data
//! is put into the folder for temporary files (`TMPDIR`). Let that be on a file system with a journal, as file systems are:
//! ext4 without one passes over the inodes of files removed within the last minute one by one, so that whoever copies
//! first after a removal pays for it.

mod contender;
mod cost;
mod data;
mod lxd;
mod ours;
mod peers;
mod rows;

use cost::Wire;
use integration::measure::build;
use lxd::Lxd;
use ours::Ours;
use peers::{Cp, Place, Rsync, Tar};
use rows::Contenders;
use serde_json::json;

const ROWS: [&str; 8] = ["full", "none", "change", "first", "second", "snapshots", "large", "files"];
const CONTENDERS: [&str; 9] =
    ["ours", "rsync", "rsync_fsync", "rsync_zstd", "rsync_zstd_fsync", "tar", "cp", "cp_sync", "lxd"];

/// What was asked for.
struct Wanted {
    words: Vec<String>,
    rounds: usize,
    mebibytes: u64,
    files: u64,
}

impl Wanted {
    fn from_arguments() -> Self {
        let mut wanted = Self { words: Vec::new(), rounds: 3, mebibytes: 1024, files: 100_000 };
        // Cargo hands its own flags on.
        for word in std::env::args().skip(1).filter(|argument| !argument.starts_with('-')) {
            let known = ROWS.contains(&word.as_str()) || CONTENDERS.contains(&word.as_str());
            match word.split_once('=') {
                Some(("rounds", number)) => wanted.rounds = number.parse().expect("rounds=N"),
                Some(("mebibytes", number)) => wanted.mebibytes = number.parse().expect("mebibytes=N"),
                Some(("files", number)) => wanted.files = number.parse().expect("files=N"),
                None if known => wanted.words.push(word),
                _ => panic!(
                    "{word}: name rows ({ROWS:?}), whom to measure ({CONTENDERS:?}), or rounds=N, mebibytes=N, \
                     files=N"
                ),
            }
        }
        wanted
    }

    /// Whether `name`, which is one of `all`, was named, or none of them was.
    fn has(&self, name: &str, all: &[&str]) -> bool {
        let named = |one: &&str| self.words.iter().any(|word| word == one);
        named(&name) || !all.iter().any(named)
    }

    fn row(&self, name: &str) -> bool {
        self.has(name, &ROWS)
    }

    fn any_row(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.row(name))
    }

    fn contender(&self, name: &str) -> bool {
        self.has(name, &CONTENDERS)
    }
}

fn main() {
    cost::enter_network();
    let wanted = Wanted::from_arguments();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let wire = Wire::start();
    let common = Place::within(folder.path());
    let mut contenders: Contenders = Vec::new();
    if wanted.contender("ours") {
        contenders.push(Box::new(Ours::start(&wire)));
    }
    for (name, options) in Rsync::NAMES {
        if wanted.contender(name) {
            contenders.push(Box::new(Rsync::start(folder.path(), name, options, &common, &wire)));
        }
    }
    if wanted.contender("tar") {
        contenders.push(Box::new(Tar::start(folder.path(), &common, &wire)));
    }
    for (name, is_synced) in [("cp", false), ("cp_sync", true)] {
        if wanted.contender(name) {
            contenders.push(Box::new(Cp::new(&common, is_synced)));
        }
    }
    if wanted.contender("lxd")
        && let Some(lxd) = Lxd::start(folder.path(), &wire)
    {
        contenders.push(Box::new(lxd));
    }
    let mut report = json!({
        "bench": "transfer", "build": build(), "rounds": wanted.rounds, "load_average_before": load_average(),
    });
    let place = rows::Place { folder: folder.path(), wire: &wire };
    if wanted.any_row(&["full", "none", "change"]) {
        rows::copies(&mut contenders, &wanted, &place, &mut report);
    }
    if wanted.any_row(&["first", "second", "snapshots"]) {
        rows::snapshots(&mut contenders, &wanted, &place, &mut report);
    }
    if wanted.row("large") {
        rows::large(&mut contenders, &wanted, &place, &mut report);
    }
    if wanted.row("files") {
        rows::files(&mut contenders, &wanted, &place, &mut report);
    }
    report["load_average_after"] = json!(load_average());
    println!("{report:#}");
}

/// As the kernel tells it: over one, five and fifteen minutes.
fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}
