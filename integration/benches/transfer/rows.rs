//! The rows: each round measures one right after the other, so that what else the machine does meets all of them.

use std::path::Path;
use std::process::Command;

use integration::measure::{alone, beside, median};
use serde_json::{Value, json};

use super::contender::{Contender, Deed};
use super::cost::{self, Cost, Wire};
use super::{Wanted, data, load_average};

pub type Contenders = Vec<Box<dyn Contender>>;

/// The runs of one contender, one a round; why there are no more, if one failed.
struct Runs {
    name: &'static str,
    costs: Vec<Cost>,
    failed: Option<String>,
}

impl Runs {
    fn median(&self, of: impl Fn(&Cost) -> f64) -> f64 {
        median(self.costs.iter().map(of))
    }

    fn add(&mut self, row: &str, one: &mut dyn Contender, place: &Place, deed: Deed) {
        let done = place.wire.measure(&one.processes(), place.folder, || one.run(deed)).and_then(|cost| {
            if matches!(deed, Deed::Copy | Deed::Refresh) {
                data::compare(one.source(), &one.target())?;
            }
            Ok(cost)
        });
        match done {
            Ok(cost) => {
                eprintln!(
                    "transfer: {row}: {}: {:.2} s, {:.2} s of processors, {:.2} MB sent, {:.0} MiB at most, load {}",
                    self.name,
                    cost.wall_s,
                    cost.cpu_s,
                    sent(&cost) / 1e6,
                    cost.peak_mib,
                    load_average()
                );
                self.costs.push(cost);
            }
            Err(error) => {
                eprintln!("transfer: {row}: {}: {error}", self.name);
                self.failed = Some(error);
            }
        }
    }
}

/// Everyone's runs of one row.
struct Row {
    name: &'static str,
    all: Vec<Runs>,
}

impl Row {
    fn new(name: &'static str, contenders: &Contenders) -> Self {
        let all =
            contenders.iter().map(|one| Runs { name: one.name(), costs: Vec::new(), failed: None }).collect();
        Self { name, all }
    }

    /// Measures everyone who does this. What was copied is compared with its source, on nobody's account.
    fn round(&mut self, contenders: &mut Contenders, place: &Place, deed: Deed) {
        for (one, runs) in contenders.iter_mut().zip(&mut self.all) {
            if one.does(deed) && runs.failed.is_none() {
                runs.add(self.name, one.as_mut(), place, deed);
            }
        }
    }

    fn report(&self) -> Value {
        let mut measured = json!({});
        for one in self.all.iter().filter(|one| !one.costs.is_empty() || one.failed.is_some()) {
            let mut row = json!({ "runs": one.costs.len() });
            if let Some(failed) = &one.failed {
                row["failed"] = json!(failed);
            }
            if !one.costs.is_empty() {
                row["time"] = alone(one.median(|run| run.wall_s), "s");
                row["cpu"] = alone(one.median(|run| run.cpu_s), "s");
                row["peak_memory"] = alone(one.median(|run| run.peak_mib), "MiB");
                if one.costs.iter().all(|run| run.bytes.is_some()) {
                    row["sent"] = alone(one.median(|run| run.bytes.unwrap_or(f64::NAN) / 1e6), "MB");
                }
            }
            measured[one.name] = row;
        }
        json!({ "measured": measured })
    }

    fn of(&self, name: &str) -> Option<&Runs> {
        self.all.iter().find(|one| one.name == name && !one.costs.is_empty())
    }

    /// Ours against the best of these, if both were measured: the median of the rounds' ratios, beside the goal.
    fn compare(&self, others: &[&str], goal: f64, of: impl Fn(&Cost) -> f64) -> Value {
        let others = others.iter().filter_map(|name| self.of(name));
        let best = others.min_by(|a, b| a.median(&of).total_cmp(&b.median(&of)));
        let (Some(ours), Some(best)) = (self.of("ours"), best) else { return Value::Null };
        let ratio = median(ours.costs.iter().zip(&best.costs).map(|(ours, best)| of(ours) / of(best)));
        let mut compared = beside(ratio, goal, "of the best");
        compared["of"] = json!(best.name);
        compared["met"] = json!(ratio <= goal);
        compared
    }

    /// Ours against a bound of its own.
    fn bound(&self, goal: f64, unit: &str, of: impl Fn(&Cost) -> f64) -> Value {
        let Some(ours) = self.of("ours") else { return Value::Null };
        let value = ours.median(of);
        let mut bounded = beside(value, goal, unit);
        bounded["met"] = json!(value <= goal);
        bounded
    }
}

/// Where it is measured.
pub struct Place<'a> {
    pub folder: &'a Path,
    pub wire: &'a Wire,
}

/// Everyone's sources: several copy from one.
fn sources(contenders: &Contenders) -> Vec<std::path::PathBuf> {
    let mut sources: Vec<_> = contenders.iter().map(|one| one.source().to_owned()).collect();
    sources.sort();
    sources.dedup();
    sources
}

/// Fills everyone's source anew, and takes their targets away.
fn fill(contenders: &mut Contenders, with: impl Fn(&Path)) {
    let sources = sources(contenders);
    for source in &sources {
        data::empty(source);
        if *source == sources[0] {
            with(source);
        } else {
            let copied = cost::run(Command::new("cp").arg("-a").arg(sources[0].join(".")).arg(source));
            copied.expect("a source can be copied");
        }
    }
    clear(contenders);
}

fn clear(contenders: &mut Contenders) {
    for one in contenders.iter_mut() {
        if let Err(error) = one.clear() {
            eprintln!("transfer: {}: its target cannot be taken away: {error}", one.name());
        }
    }
}

/// On nobody's account.
fn attempt(one: &mut dyn Contender, deed: Deed) {
    if one.does(deed)
        && let Err(error) = one.run(deed)
    {
        eprintln!("transfer: {}: {deed:?}: {error}", one.name());
    }
}

const SYNCED: [&str; 2] = ["rsync_fsync", "rsync_zstd_fsync"];
const UNSYNCED: [&str; 2] = ["rsync", "rsync_zstd"];

fn seconds(cost: &Cost) -> f64 {
    cost.wall_s
}

fn sent(cost: &Cost) -> f64 {
    cost.bytes.unwrap_or(f64::NAN)
}

/// `full`, `none` and `change`: one after the other in each round.
pub fn copies(contenders: &mut Contenders, wanted: &Wanted, place: &Place, report: &mut Value) {
    let mut full = Row::new("full", contenders);
    let mut none = Row::new("none", contenders);
    let mut change = Row::new("change", contenders);
    fill(contenders, data::mixed);
    for round in 0..wanted.rounds {
        clear(contenders);
        full.round(contenders, place, Deed::Copy);
        if wanted.row("none") {
            none.round(contenders, place, Deed::Refresh);
        }
        if wanted.row("change") {
            for source in sources(contenders) {
                data::change(&source, round as u64);
            }
            change.round(contenders, place, Deed::Refresh);
        }
    }
    clear(contenders);
    for row in [&full, &none, &change].into_iter().filter(|row| wanted.row(row.name)) {
        let mut told = row.report();
        let (to_synced, to_lxd) = match row.name {
            "full" => (0.5, Some(0.2)),
            "none" => (0.5, None),
            _ => (0.8, None),
        };
        told["ratio"] = row.compare(&SYNCED, to_synced, seconds);
        if row.name == "full" {
            told["ratio_to_unsynced"] = row.compare(&UNSYNCED, 1.0, seconds);
        }
        if row.name == "change" {
            told["ratio_of_bytes"] = row.compare(&SYNCED, 0.6, sent);
        }
        if let Some(goal) = to_lxd {
            told["ratio_to_lxd"] = row.compare(&["lxd"], goal, seconds);
        }
        told["peak_memory"] = row.bound(200.0, "MiB", |cost| cost.peak_mib);
        report[row.name] = told;
    }
}

/// `snapshots`: a copy with ten snapshots, between each of which one change in a hundred was made. `first` and `second`:
/// what taking them costs.
pub fn snapshots(contenders: &mut Contenders, wanted: &Wanted, place: &Place, report: &mut Value) {
    let mut first = Row::new("first", contenders);
    let mut second = Row::new("second", contenders);
    let mut with_ten = Row::new("snapshots", contenders);
    fill(contenders, data::mixed);
    for round in 0..wanted.rounds {
        clear(contenders);
        first.round(contenders, place, Deed::Snapshot("first"));
        // What it is measured by.
        for (one, runs) in contenders.iter_mut().zip(&mut first.all) {
            if one.name().starts_with("cp") {
                runs.add("first", one.as_mut(), place, Deed::Copy);
            }
        }
        second.round(contenders, place, Deed::Snapshot("second"));
        for one in contenders.iter_mut() {
            for name in ["second", "first"] {
                attempt(one.as_mut(), Deed::Forget(name));
            }
        }
        // A change, so that the next first one cannot be what was there.
        for source in sources(contenders) {
            data::change(&source, 100 + round as u64);
        }
    }
    if wanted.row("snapshots") {
        for number in 0..10 {
            for one in contenders.iter_mut() {
                attempt(one.as_mut(), Deed::Snapshot(&format!("s{number}")));
            }
            for source in sources(contenders) {
                data::change(&source, 200 + number);
            }
        }
        // Once is a minute and more for some.
        clear(contenders);
        for (one, runs) in contenders.iter_mut().zip(&mut with_ten.all) {
            if one.does(Deed::Snapshot("")) {
                runs.add("snapshots", one.as_mut(), place, Deed::Copy);
            }
        }
        clear(contenders);
    }
    for row in [&first, &second, &with_ten].into_iter().filter(|row| wanted.row(row.name)) {
        let mut told = row.report();
        match row.name {
            "first" => {
                told["ratio_to_cp"] = row.compare(&["cp"], 1.0, seconds);
                told["ratio_to_cp_synced"] = row.compare(&["cp_sync"], 1.0, seconds);
            }
            "second" => told["time"] = row.bound(0.1, "s", seconds),
            _ => told["ratio_to_lxd"] = row.compare(&["lxd"], 0.05, seconds),
        }
        report[row.name] = told;
    }
}

/// `large`: one large file, of which one MiB is changed.
pub fn large(contenders: &mut Contenders, wanted: &Wanted, place: &Place, report: &mut Value) {
    let mut row = Row::new("large", contenders);
    fill(contenders, |source| data::large(source, wanted.mebibytes));
    for one in contenders.iter_mut().filter(|one| one.does(Deed::Refresh)) {
        attempt(one.as_mut(), Deed::Copy);
    }
    for round in 0..wanted.rounds {
        for source in sources(contenders) {
            data::change_large(&source, wanted.mebibytes, round as u64);
        }
        row.round(contenders, place, Deed::Refresh);
    }
    clear(contenders);
    let mut told = row.report();
    told["mebibytes"] = json!(wanted.mebibytes);
    told["sent"] = row.bound(2.0 * 1.048_576, "MB", |cost| sent(cost) / 1e6);
    told["ratio"] = row.compare(&SYNCED, 1.0, seconds);
    told["peak_memory"] = row.bound(200.0, "MiB", |cost| cost.peak_mib);
    report["large"] = told;
}

/// `files`: many small files, full and without a change, with the memory that each takes.
pub fn files(contenders: &mut Contenders, wanted: &Wanted, place: &Place, report: &mut Value) {
    let mut full = Row::new("files", contenders);
    let mut none = Row::new("files_none", contenders);
    fill(contenders, |source| data::tiny(source, wanted.files));
    full.round(contenders, place, Deed::Copy);
    none.round(contenders, place, Deed::Refresh);
    clear(contenders);
    let files = f64::from(u32::try_from(wanted.files).expect("files that 32 bits count"));
    let mut told = full.report();
    told["files"] = json!(wanted.files);
    told["ratio"] = full.compare(&SYNCED, 0.5, seconds);
    told["time_a_file"] =
        alone(full.of("ours").map_or(f64::NAN, |ours| ours.median(seconds) * 1e6 / files), "us");
    told["peak_memory"] = full.bound(200.0 + files * 150.0 / 1_048_576.0, "MiB", |cost| cost.peak_mib);
    told["none"] = none.report();
    told["none"]["ratio"] = none.compare(&SYNCED, 0.5, seconds);
    report["files"] = told;
}
