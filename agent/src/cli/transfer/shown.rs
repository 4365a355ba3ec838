//! How transfers are shown.

use std::collections::BTreeMap;

use indicatif::BinaryBytes;
use jiff::Timestamp;
use schema::name::RemoteName;
use schema::record::{Record, RecordKey};
use schema::render::record::{attributes, hcl};
use schema::render::visible;
use serde_json::{Value, json};

use super::Declared;
use crate::cli::instance::info::time;
use crate::cli::operation::named::short;
use crate::cli::{Context, Format, Table};
use crate::wire::transfer::{Left, Run, RunResult, Transfers};

/// One that is declared, and its last run, or why that could not be asked for.
pub type Row = (Declared, Result<Option<Run>, String>);

/// What stands in place of a last run that could not be asked for.
const NOT_ASKED: &str = "not asked";

/// What is declared, each with its last run, then what the agent that was asked knows besides.
pub fn list(context: &Context, remote: Option<&RemoteName>, declared: &[Row], there: &Transfers) {
    let output = &context.output;
    for (one, last) in declared {
        if let Err(why) = last {
            output.note(format!("{}: its target cannot be asked now for what ran: {why}", one.name));
        }
    }
    if output.format() == Format::Json {
        let rows: Vec<Value> = declared
            .iter()
            .map(|(one, last)| {
                let mut row = body(one);
                row["last_run"] = json!(last.as_ref().ok());
                row["not_asked"] = json!(last.as_ref().err());
                row
            })
            .collect();
        output.json(&json!({ "declared": rows, "resumable": there.left, "runs": there.runs }));
        return;
    }
    if output.is_csv() {
        return rows(context, declared, there);
    }
    let now = Timestamp::now();
    let mut before = false;
    let mut parted = || {
        if std::mem::replace(&mut before, true) {
            output.line("");
        }
    };
    if !declared.is_empty() || (there.left.is_empty() && there.runs.is_empty()) {
        parted();
        output.table(&declarations(declared, now));
    }
    if !there.left.is_empty() {
        let (command, id, target) = (context.command(), at(remote, "ID"), at(remote, "TARGET"));
        parted();
        output.line("Interrupted. The command that began one goes on with it when it is given again,");
        output.line(format!("`{command} transfer resume {id}` with one that is declared;"));
        output.line(format!("`{command} transfer cancel {target}` discards it."));
        output.table(&leftovers(there, now));
    }
    if !there.runs.is_empty() {
        parted();
        output.line("Arrived here:");
        output.table(&arrivals(&there.runs, now));
    }
}

/// What interrupted transfers have left, each with the last run that was to arrive there, as far as that is known.
fn leftovers(there: &Transfers, now: Timestamp) -> Table {
    let mut table = Table::new(["ID", "SOURCE", "TARGET", "ARRIVED", "LAST WRITTEN"]);
    for left in &there.left {
        let run = there.run_of(left);
        table.row([
            run.map(|run| short(run.id)).unwrap_or_default(),
            run.and_then(|run| run.source.clone()).unwrap_or_default(),
            left.name.clone(),
            BinaryBytes(left.bytes).to_string(),
            ago(left.last_written_at, now),
        ]);
    }
    table
}

/// What an agent calls `name`, as a command calls it that asks that agent.
pub fn at(remote: Option<&RemoteName>, name: &str) -> String {
    remote.map_or_else(|| name.to_owned(), |remote| format!("{remote}:{name}"))
}

/// As narrow as a terminal: the rest is in `show`, and for programs.
fn declarations(declared: &[Row], now: Timestamp) -> Table {
    let mut table = Table::new(["NAME", "SOURCE", "TARGET", "LAST RUN"]);
    for (one, last) in declared {
        let last = match last {
            Ok(Some(run)) => format!("{}, {}", run.result.word(), ago(Some(run.began_at), now)),
            Ok(None) => String::new(),
            Err(_) => NOT_ASKED.to_owned(),
        };
        table.row([
            one.name.to_string(),
            one.transfer.source.to_string(),
            one.transfer.target.to_string(),
            last,
        ]);
    }
    table
}

fn arrivals(runs: &[Run], now: Timestamp) -> Table {
    let mut table = Table::new(["ID", "TARGET", "BEGAN", "RESULT", "DATA", "SENT"]);
    for run in runs {
        let bytes =
            |bytes: Option<u64>| bytes.map(|bytes| BinaryBytes(bytes).to_string()).unwrap_or_default();
        table.row([
            short(run.id),
            called(&run.target),
            ago(Some(run.began_at), now),
            run.result.word().to_owned(),
            bytes(run.total),
            bytes(run.sent),
        ]);
    }
    table
}

/// All of it in columns that are the same for each: what it is, its name or id, from where, to where, since when, how it
/// ended, bytes of data, bytes sent.
fn rows(context: &Context, declared: &[Row], there: &Transfers) {
    let number = |bytes: Option<u64>| bytes.map(|bytes| bytes.to_string()).unwrap_or_default();
    let at = |time: Option<Timestamp>| time.map(|time| time.to_string()).unwrap_or_default();
    let mut table = Table::new(["KIND", "NAME", "SOURCE", "TARGET", "BEGAN", "RESULT", "DATA", "SENT"]);
    for (one, last) in declared {
        let result =
            last.as_ref().map_or(NOT_ASKED, |last| last.as_ref().map_or("", |run| run.result.word()));
        let last = last.as_ref().ok().and_then(Option::as_ref);
        table.row([
            "declared".to_owned(),
            one.name.to_string(),
            one.transfer.source.to_string(),
            one.transfer.target.to_string(),
            at(last.map(|run| run.began_at)),
            result.to_owned(),
            number(last.and_then(|run| run.total)),
            number(last.and_then(|run| run.sent)),
        ]);
    }
    for left in &there.left {
        let run = there.run_of(left);
        table.row([
            "interrupted".to_owned(),
            run.map(|run| run.id.to_string()).unwrap_or_default(),
            run.and_then(|run| run.source.clone()).unwrap_or_default(),
            left.name.clone(),
            at(left.last_written_at),
            String::new(),
            String::new(),
            left.bytes.to_string(),
        ]);
    }
    for run in &there.runs {
        table.row([
            "arrived".to_owned(),
            run.id.to_string(),
            run.source.clone().unwrap_or_default(),
            called(&run.target),
            at(Some(run.began_at)),
            run.result.word().to_owned(),
            number(run.total),
            number(run.sent),
        ]);
    }
    context.output.table(&table);
}

/// How long ago something was, in as few letters as can be.
fn ago(time: Option<Timestamp>, now: Timestamp) -> String {
    let Some(time) = time else { return String::new() };
    let seconds = now.duration_since(time).as_secs();
    match seconds {
        ..1 => "now".to_owned(),
        1..60 => format!("{seconds}s ago"),
        60..3600 => format!("{}m ago", seconds / 60),
        3600..172_800 => format!("{}h ago", seconds / 3600),
        172_800.. => format!("{}d ago", seconds / 86_400),
    }
}

/// One that is declared, with its runs and what the last has left; `None` where its target cannot be asked.
pub fn one(context: &Context, found: &Declared, there: Option<Vec<Run>>, left: Option<&Left>) {
    let output = &context.output;
    if output.format() == Format::Json {
        let mut shown = body(found);
        shown["runs"] = json!(there);
        shown["resumable"] = json!(left);
        output.json(&shown);
        return;
    }
    let said = Record::Transfer(found.transfer.clone());
    output.line(hcl(&RecordKey::Transfer(found.name.clone()), &said).trim_end());
    output.line(format!("Manifest:  {}", visible(&found.manifest)));
    if let Some(left) = left {
        output.line(format!("Arrived:   {}, to be resumed", BinaryBytes(left.bytes)));
    }
    match there {
        Some(there) if there.is_empty() => output.line("It has not run yet."),
        Some(there) => {
            output.line("");
            output.table(&arrivals(&there, Timestamp::now()));
        }
        None => output.note("Its target cannot be asked now for what ran."),
    }
}

/// One that arrived, or was to, and what can be done with what it has left.
pub fn run(context: &Context, remote: Option<&RemoteName>, run: &Run, left: Option<&Left>) {
    let output = &context.output;
    if output.format() == Format::Json {
        return output.json(run);
    }
    let bytes = |bytes: Option<u64>| bytes.map(|bytes| BinaryBytes(bytes).to_string());
    let lines = [
        ("Id", Some(run.id.to_string())),
        ("Source", run.source.clone()),
        ("Target", Some(called(&run.target))),
        ("Declared as", run.transfer.as_ref().map(ToString::to_string)),
        ("Begun by", Some(run.by.clone())),
        ("Began at", Some(time(Some(run.began_at)))),
        ("Ended at", run.ended_at.map(|ended| time(Some(ended)))),
        ("Result", Some(run.result.word().to_owned())),
        ("Reason", run.error.clone()),
        ("Protocol", run.protocol.clone()),
        ("Data", bytes(run.total)),
        ("Sent", bytes(run.sent)),
        ("Was there", bytes(run.reused)),
    ];
    for (what, told) in lines {
        if let Some(told) = told.filter(|told| !told.is_empty()) {
            output.line(format!("{:<13}{}", format!("{what}:"), visible(&told)));
        }
    }
    if let Some(next) = next(context, remote, run, left) {
        output.line("");
        output.line(next);
    }
}

/// What to do about a run that is not done.
fn next(context: &Context, remote: Option<&RemoteName>, run: &Run, left: Option<&Left>) -> Option<String> {
    let (command, id) = (context.command(), at(remote, &short(run.id)));
    match (run.result, left) {
        (RunResult::Success, _) => None,
        (RunResult::Running, _) => Some(format!(
            "`{command} operation show --watch {id}` joins it, `{command} transfer cancel {id}` cancels it."
        )),
        (RunResult::Failure | RunResult::Cancelled | RunResult::Interrupted, None) => {
            Some("Nothing of it is left: the target is as it was.".to_owned())
        }
        (RunResult::Failure | RunResult::Cancelled | RunResult::Interrupted, Some(left)) => {
            let (arrived, target) = (BinaryBytes(left.bytes), at(remote, &left.name));
            let goes_on = match run.transfer {
                Some(_) => format!("`{command} transfer resume {id}` goes on with it"),
                None => "the command that began it goes on with it when it is given again".to_owned(),
            };
            Some(format!(
                "{arrived} have arrived and are kept: {goes_on}, `{command} transfer cancel {target}` discards them."
            ))
        }
    }
}

fn body(one: &Declared) -> Value {
    let key = RecordKey::Transfer(one.name.clone());
    let said = Record::Transfer(one.transfer.clone());
    let mut body = attributes(&BTreeMap::from([(&key, &said)]));
    body.extend([("name".to_owned(), json!(one.name)), ("manifest".to_owned(), json!(one.manifest))]);
    Value::Object(body)
}

/// A path of the API as commands call it.
pub fn called(path: &str) -> String {
    let parts: Vec<&str> = path.split('?').next().unwrap_or_default().split('/').collect();
    match parts[..] {
        ["", "1.0", "storage-pools", pool, "volumes", "custom", volume] => format!("{pool}/{volume}"),
        ["", "1.0", "instances", name] => name.to_owned(),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use schema::kind::transfer::{Connect, Consistency, Mode, Snapshots, Transfer};

    use super::*;

    #[test]
    fn a_target_is_called_as_commands_call_it() {
        assert_eq!(called("/1.0/storage-pools/default/volumes/custom/orders"), "default/orders");
        assert_eq!(called("/1.0/instances/c1?project=blue"), "c1");
        assert_eq!(called("/1.0/something"), "/1.0/something");
    }

    fn widest(table: &Table) -> usize {
        table.to_string().lines().map(str::len).max().unwrap_or_default()
    }

    #[test]
    fn what_is_listed_fits_a_terminal() {
        let now: Timestamp = "2026-03-02T12:00:00Z".parse().unwrap();
        let run = Run {
            id: "5c0a13f2-0000-4000-8000-000000000001".parse().unwrap(),
            target: "/1.0/storage-pools/default/volumes/custom/orders".to_owned(),
            source: Some("east:default/orders".to_owned()),
            transfer: None,
            description: String::new(),
            by: String::new(),
            began_at: "2026-03-02T09:20:00Z".parse().unwrap(),
            ended_at: None,
            result: RunResult::Interrupted,
            error: None,
            protocol: None,
            total: Some(420 << 20),
            sent: Some(245 << 20),
            reused: None,
        };
        let table = arrivals(std::slice::from_ref(&run), now);
        assert!(widest(&table) <= 80, "{table}");
        let text = table.to_string();
        assert!(text.contains("| 5c0a13f2 | default/orders | 2h ago | INTERRUPTED | 420.00 MiB |"), "{text}");
        let transfer = Transfer {
            source: "east:default/orders".parse().unwrap(),
            target: "west:default/orders".parse().unwrap(),
            snapshot: None,
            mode: Mode::default(),
            connect: Connect::default(),
            snapshots: Snapshots::default(),
            consistency: Consistency::default(),
        };
        let name = "orders-to-west".parse().unwrap();
        let one = Declared { name, transfer, manifest: "shop".to_owned() };
        let left = Left {
            name: "default/orders".to_owned(),
            target: run.target.clone(),
            bytes: 245 << 20,
            last_written_at: Some("2026-03-02T11:50:00Z".parse().unwrap()),
        };
        let there = Transfers { runs: vec![run.clone()], left: vec![left] };
        let table = leftovers(&there, now);
        assert!(widest(&table) <= 80, "{table}");
        let row = "| 5c0a13f2 | east:default/orders | default/orders | 245.00 MiB | 10m ago      |";
        assert!(table.to_string().contains(row), "{table}");
        let success = Run { result: RunResult::Success, ..run };
        let away = Err("west could not be reached".to_owned());
        let table =
            declarations(&[(one.clone(), Ok(Some(success))), (one.clone(), away), (one, Ok(None))], now);
        assert!(widest(&table) <= 80, "{table}");
        let text = table.to_string();
        assert!(text.contains("| SUCCESS, 2h ago |") && text.contains("| not asked       |"), "{text}");
    }

    #[test]
    fn how_long_ago_is_told_in_few_letters() {
        let now: Timestamp = "2026-03-02T12:00:00Z".parse().unwrap();
        for (time, expected) in [
            ("2026-03-02T12:00:00Z", "now"),
            ("2026-03-02T13:00:00Z", "now"),
            ("2026-03-02T11:59:18Z", "42s ago"),
            ("2026-03-02T11:18:00Z", "42m ago"),
            ("2026-03-01T00:00:00Z", "36h ago"),
            ("2026-02-26T00:00:00Z", "4d ago"),
        ] {
            assert_eq!(ago(Some(time.parse().unwrap()), now), expected, "{time}");
        }
        assert_eq!(ago(None, now), "");
    }
}
