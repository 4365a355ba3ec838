//! How transfers are shown.

use indicatif::BinaryBytes;
use schema::kind::transfer::Mode;
use schema::render::visible;
use serde_json::{Value, json};

use super::Declared;
use crate::cli::instance::info::time;
use crate::cli::{Context, Format, Table};
use crate::wire::transfer::{Left, Run, Transfers};

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Copy => "copy",
        Mode::Refresh => "refresh",
    }
}

/// What is declared, each with its last run, then what this agent knows besides.
pub fn list(context: &Context, declared: &[(Declared, Option<Run>)], there: &Transfers) {
    let output = &context.output;
    if output.format() == Format::Json {
        let rows: Vec<Value> = declared
            .iter()
            .map(|(one, last)| {
                let mut row = body(one);
                row["last_run"] = json!(last);
                row
            })
            .collect();
        output.json(&json!({ "declared": rows, "resumable": there.left, "runs": there.runs }));
        return;
    }
    let mut table = Table::new(["NAME", "SOURCE", "TARGET", "MODE", "MANIFEST", "LAST RUN", "RESULT"]);
    for (one, last) in declared {
        let (began, result) = match last {
            Some(run) => (time(Some(run.began_at)), run.result.word()),
            None => (String::new(), ""),
        };
        table.row([
            one.name.to_string(),
            one.transfer.source.to_string(),
            one.transfer.target.to_string(),
            mode(one.transfer.mode).to_owned(),
            one.manifest.clone(),
            began,
            result.to_owned(),
        ]);
    }
    output.table(&table);
    if !there.left.is_empty() {
        output.line(
            "\nInterrupted, to be resumed by the same command or discarded by `comity transfer cancel`:",
        );
        let mut table = Table::new(["TARGET", "ARRIVED", "LAST WRITTEN"]);
        for left in &there.left {
            let arrived = BinaryBytes(left.bytes).to_string();
            table.row([left.name.clone(), arrived, time(left.last_written_at)]);
        }
        output.table(&table);
    }
    if !there.runs.is_empty() {
        output.line("\nArrived here:");
        runs(context, &there.runs);
    }
}

fn runs(context: &Context, runs: &[Run]) {
    let mut table = Table::new(["ID", "TARGET", "BEGAN", "TOOK", "RESULT", "DATA", "SENT", "PROTOCOL"]);
    for run in runs {
        let bytes =
            |bytes: Option<u64>| bytes.map(|bytes| BinaryBytes(bytes).to_string()).unwrap_or_default();
        table.row([
            run.id.to_string(),
            called(&run.target),
            time(Some(run.began_at)),
            took(run),
            run.result.word().to_owned(),
            bytes(run.total),
            bytes(run.sent),
            run.protocol.clone().unwrap_or_default(),
        ]);
    }
    context.output.table(&table);
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
    output.line(format!("Name:      {}", found.name));
    output.line(format!("Source:    {}", found.transfer.source));
    output.line(format!("Target:    {}", found.transfer.target));
    output.line(format!("Mode:      {}", mode(found.transfer.mode)));
    output.line(format!("Manifest:  {}", visible(&found.manifest)));
    if let Some(left) = left {
        output.line(format!("Arrived:   {}, to be resumed", BinaryBytes(left.bytes)));
    }
    match there {
        Some(there) if there.is_empty() => output.line("It has not run yet."),
        Some(there) => {
            output.line("");
            runs(context, &there);
        }
        None => output.note("Its target cannot be asked now for what ran."),
    }
}

/// One that arrived.
pub fn run(context: &Context, run: &Run) {
    match context.output.format() {
        Format::Json => context.output.json(run),
        Format::Text => context.output.yaml(run),
    }
}

fn body(one: &Declared) -> Value {
    json!({
        "name": one.name, "source": one.transfer.source.to_string(), "target": one.transfer.target.to_string(),
        "mode": mode(one.transfer.mode), "manifest": one.manifest,
    })
}

/// A path of the API as commands call it.
fn called(path: &str) -> String {
    let parts: Vec<&str> = path.split('?').next().unwrap_or_default().split('/').collect();
    match parts[..] {
        ["", "1.0", "storage-pools", pool, "volumes", "custom", volume] => format!("{pool}/{volume}"),
        ["", "1.0", "instances", name] => name.to_owned(),
        _ => path.to_owned(),
    }
}

fn took(run: &Run) -> String {
    let Some(ended) = run.ended_at else { return String::new() };
    let took = std::time::Duration::try_from(ended.duration_since(run.began_at)).unwrap_or_default();
    match took.as_secs() {
        0..60 => format!("{:.1} s", took.as_secs_f64()),
        secs => indicatif::HumanDuration(std::time::Duration::from_secs(secs)).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::called;

    #[test]
    fn a_target_is_called_as_commands_call_it() {
        assert_eq!(called("/1.0/storage-pools/default/volumes/custom/orders"), "default/orders");
        assert_eq!(called("/1.0/instances/c1?project=blue"), "c1");
        assert_eq!(called("/1.0/something"), "/1.0/something");
    }
}
