//! `comity audit`: who did what, from the server's append-only log.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::auth::remote;
use super::output::visible_line;
use super::{CliError, Context, ExitCode, Format, Table};
use crate::daemon::options::duration;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The remote to ask, with its colon.
    #[arg(id = "asked_remote", value_name = "REMOTE:")]
    remote: Option<String>,
    /// Only what was done within this time, such as 1h.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    since: Option<Duration>,
    /// Only what was done by whoever's name has this in it, or whose identity begins with it.
    #[arg(long, value_name = "NAME")]
    who: Option<String>,
    /// At most so many records, the newest [default: 1000].
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Go on with what is done from now on.
    #[arg(long)]
    follow: bool,
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    let client = remote(context, args.remote.as_deref()).await?;
    let mut query = Vec::new();
    if let Some(since) = args.since {
        let since = jiff::SignedDuration::try_from(since).unwrap_or(jiff::SignedDuration::MAX);
        let since = Timestamp::now().saturating_sub(since).unwrap_or(Timestamp::MIN);
        query.push(("since", since.to_string()));
    }
    query.extend(args.who.map(|who| ("who", who)));
    query.extend(args.limit.map(|limit| ("limit", limit.to_string())));
    query.push(("follow", args.follow.to_string()));
    let output = &context.output;
    let json = output.format() == Format::Json;
    if args.follow {
        client
            .audit(&query, |record| {
                if json {
                    output.line(record);
                } else {
                    output.line(visible_line(&cells(&record).join("  ")));
                }
            })
            .await?;
        return Err(CliError::failed("the agent has ended the stream of its log").code("ended"));
    }
    let mut records = Vec::new();
    client.audit(&query, |record| records.push(record)).await?;
    if json {
        output.json(&records);
        return Ok(ExitCode::Done);
    }
    let mut table = Table::new(["TIME", "WHO", "ADDRESS", "ACTION", "WHAT", "REVISION"]);
    for record in &records {
        table.row(cells(record));
    }
    output.table(&table);
    Ok(ExitCode::Done)
}

/// What was done to declared records, where it was the same to all of them: the log says of each whether it was there
/// before and is there after.
fn done(record: &Value) -> Option<&'static str> {
    if record.pointer("/action")? != "edited" {
        return None;
    }
    let changed = record.pointer("/changed")?.as_array()?;
    let of_each = changed.iter().filter(|change| {
        change.get("key").and_then(Value::as_str).is_some_and(|key| key.starts_with("/declared/"))
    });
    let mut words = of_each.map(|change| match (change.get("before"), change.get("after")) {
        (Some(before), _) if *before == 0 => "created",
        (_, Some(after)) if *after == 0 => "deleted",
        _ => "edited",
    });
    let first = words.next()?;
    words.all(|word| word == first).then_some(first)
}

/// A record as one row: of many things that were changed, the first few.
fn cells(record: &Value) -> [String; 6] {
    const SHOWN: usize = 5;
    let said = |pointer: &str| record.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let list = |pointer: &str| record.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut what: Vec<String> =
        list("/entities").iter().filter_map(|entity| entity.as_str().map(str::to_owned)).collect();
    if what.is_empty() {
        what.extend(list("/changed").iter().filter_map(|c| Some(c.get("key")?.as_str()?.to_owned())));
    }
    if what.is_empty() {
        what.extend(record.pointer("/context/name").and_then(Value::as_str).map(str::to_owned));
    }
    let more = what.len().saturating_sub(SHOWN);
    what.truncate(SHOWN);
    if more > 0 {
        what.push(format!("and {more} more"));
    }
    [
        said("/time").parse::<Timestamp>().map_or_else(|_| said("/time"), |time| format!("{time:.0}")),
        said("/who/name"),
        said("/who/address"),
        done(record).map_or_else(|| said("/action"), str::to_owned),
        what.join("\n"),
        record.pointer("/revision").and_then(Value::as_u64).map(|r| r.to_string()).unwrap_or_default(),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_became_of_declared_records_is_told_apart() {
        let row = |changes: &[(Option<u64>, u64)]| {
            let changed = changes.iter().map(|(before, after)| {
                json!({ "key": "/declared/auth_group/ops", "before": before, "after": after })
            });
            let beside = json!({ "key": "/link/west", "before": 3, "after": 4 });
            let changed: Vec<Value> = changed.chain([beside]).collect();
            cells(&json!({ "action": "edited", "changed": changed }))[3].clone()
        };
        assert_eq!(row(&[(Some(0), 4), (Some(0), 4)]), "created");
        assert_eq!(row(&[(Some(3), 0), (None, 0)]), "deleted");
        assert_eq!(row(&[(Some(3), 4), (None, 4)]), "edited");
        assert_eq!(row(&[(Some(3), 4), (Some(3), 0)]), "edited", "some of each");
        assert_eq!(cells(&json!({ "action": "login" }))[3], "login");
    }
}
