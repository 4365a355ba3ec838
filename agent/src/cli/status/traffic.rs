//! `comity status --traffic`: what passes between services. A rate is the difference between two looks at the agent,
//! so that one answer takes one interval.

mod table;
mod terminal;

use std::time::Duration;

use schema::name::{ClusterName, LinkName, ServiceName};
use schema::record::RecordKey;
use serde::Serialize;
use tokio::time::Instant;

use super::ask;
use crate::cli::{CliError, Context, ExitCode, Format};
use crate::client::{Client, ClientError};
use crate::daemon::options::duration;
use crate::wire::status::Status;
use crate::wire::traffic::{Latency, TrafficRow, Way};
use terminal::{Key, Screen};

/// The shortest time between two looks: less would make the agent's work the traffic.
const SHORTEST: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
pub struct TrafficArgs {
    /// Show what passes between services, the busiest first.
    #[arg(long)]
    pub traffic: bool,
    /// Go on showing it, until q or Ctrl-C. Without a terminal: a JSON document a line.
    #[arg(long, requires = "traffic")]
    watch: bool,
    /// Time over which rates are taken, and after which they are shown anew.
    #[arg(long, value_name = "TIME", default_value = "1s", requires = "traffic", value_parser = interval)]
    interval: Duration,
    /// Only what this service calls, or is called by.
    #[arg(long, value_name = "NAME", requires = "traffic")]
    service: Option<ServiceName>,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if interval < SHORTEST {
        return Err(format!("the shortest interval is {SHORTEST:?}"));
    }
    Ok(interval)
}

/// What is shown at a time.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Report {
    cluster: ClusterName,
    /// The time between the two looks, over which the rates are.
    seconds: f64,
    rows: Vec<Row>,
}

/// One pair under one rule.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Row {
    #[serde(flatten)]
    total: TrafficRow,
    connections_per_second: f64,
    denied_per_second: f64,
    failed_per_second: f64,
    sent_bytes_per_second: f64,
    received_bytes_per_second: f64,
    /// Of the connections made between the looks; where there were none, of all since the agent started.
    #[serde(skip_serializing_if = "Option::is_none")]
    set_up_p50_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    set_up_p99_us: Option<u64>,
}

/// The agent's counters as of one moment.
#[derive(Debug, Clone)]
struct Look {
    cluster: ClusterName,
    at: Instant,
    /// How long the agent had run then, by its own clock.
    age: Duration,
    rows: Vec<TrafficRow>,
}

impl Look {
    fn of(status: Status, service: Option<&ServiceName>) -> Self {
        let mut rows = status.mesh.traffic;
        if let Some(service) = service {
            rows.retain(|row| {
                row.source.as_ref() == Some(service) || row.destination.as_ref() == Some(service)
            });
        }
        let age = Duration::from_millis(status.mesh.age_ms);
        Self { cluster: status.name, at: Instant::now(), age, rows }
    }

    /// What changed since `before`. An agent that has started anew since has begun at nothing.
    fn since(&self, before: &Look) -> Report {
        let anew = self.age < before.age;
        let time = if anew { self.age } else { self.age.saturating_sub(before.age) };
        // A clock that stands still makes no rate at all.
        let seconds = if time.is_zero() { self.at.duration_since(before.at) } else { time }.as_secs_f64();
        let known = |row: &TrafficRow| before.rows.iter().find(|known| !anew && same(known, row));
        let mut rows: Vec<Row> = self.rows.iter().map(|row| rate(row, known(row), seconds)).collect();
        rows.sort_by(|a, b| {
            let busy = |row: &Row| row.sent_bytes_per_second + row.received_bytes_per_second;
            let events =
                |row: &Row| row.connections_per_second + row.denied_per_second + row.failed_per_second;
            busy(b)
                .total_cmp(&busy(a))
                .then(events(b).total_cmp(&events(a)))
                .then(b.total.open.cmp(&a.total.open))
                .then_with(|| name(&a.total).cmp(&name(&b.total)))
        });
        Report { cluster: self.cluster.clone(), seconds, rows }
    }
}

type Name<'a> = (
    Option<&'a ServiceName>,
    Option<&'a LinkName>,
    Option<&'a ServiceName>,
    Option<&'a LinkName>,
    Way,
    Option<&'a RecordKey>,
);

fn name(row: &TrafficRow) -> Name<'_> {
    (
        row.source.as_ref(),
        row.source_peer.as_ref(),
        row.destination.as_ref(),
        row.destination_peer.as_ref(),
        row.way,
        row.rule.as_ref(),
    )
}

fn same(a: &TrafficRow, b: &TrafficRow) -> bool {
    name(a) == name(b)
}

#[allow(clippy::cast_precision_loss)] // Rates are for people.
fn rate(now: &TrafficRow, before: Option<&TrafficRow>, seconds: f64) -> Row {
    let per_second = |of: fn(&TrafficRow) -> u64| {
        let more = of(now).saturating_sub(before.map(of).unwrap_or_default());
        if seconds > 0.0 { more as f64 / seconds } else { 0.0 }
    };
    let recent = now.set_up.since(before.map_or(&Latency::default(), |row| &row.set_up));
    let set_up = if recent.count > 0 { &recent } else { &now.set_up };
    Row {
        connections_per_second: per_second(|row| row.connections),
        denied_per_second: per_second(|row| row.denied),
        failed_per_second: per_second(|row| row.failed),
        sent_bytes_per_second: per_second(|row| row.sent),
        received_bytes_per_second: per_second(|row| row.received),
        set_up_p50_us: set_up.quantile_us(0.5),
        set_up_p99_us: set_up.quantile_us(0.99),
        total: now.clone(),
    }
}

pub(super) async fn run(args: &TrafficArgs, context: &Context) -> Result<ExitCode, CliError> {
    let client = context.client(None).await?;
    let service = args.service.as_ref();
    let first = Look::of(ask(&client).await?, service);
    if args.watch {
        let people = context.output.format() == Format::Text && terminal::is_one();
        return if people {
            show(args, &client, first).await
        } else {
            tell(args, context, &client, first).await
        };
    }
    tokio::time::sleep(args.interval).await;
    let report = Look::of(ask(&client).await?, service).since(&first);
    match context.output.format() {
        Format::Json => context.output.json(&report),
        Format::Text if report.rows.is_empty() => {
            context.output.nothing(table::NOTHING);
        }
        Format::Text => context.output.table(&table::boxed(&report)),
    }
    Ok(ExitCode::Done)
}

/// A document a line, each interval, until whoever reads has gone.
async fn tell(
    args: &TrafficArgs,
    context: &Context,
    client: &Client,
    first: Look,
) -> Result<ExitCode, CliError> {
    let mut before = first;
    let mut next = before.at + args.interval;
    let mut trouble = None;
    while !context.output.is_over() {
        tokio::time::sleep_until(next).await;
        next = Instant::now().max(next) + args.interval;
        match ask(client).await {
            Ok(status) => {
                let look = Look::of(status, args.service.as_ref());
                let report = look.since(&before);
                // Its own JSON, so it is always written.
                context.output.now(serde_json::to_string(&report).unwrap_or_default() + "\n");
                (before, trouble) = (look, None);
            }
            Err(error) if may_return(&error) => {
                let error = error.to_string();
                if trouble.as_ref() != Some(&error) {
                    context.output.note(format_args!("{error}; asking again"));
                }
                trouble = Some(error);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(ExitCode::Done)
}

/// The same for a person at a terminal.
async fn show(args: &TrafficArgs, client: &Client, first: Look) -> Result<ExitCode, CliError> {
    let mut screen = Screen::open()?;
    let mut before = first;
    let mut shown: Result<Report, String> = Ok(before.since(&before));
    let mut next = before.at + args.interval;
    loop {
        Screen::draw(|width, height| match &shown {
            Ok(report) => table::screen(report, args.interval, width, height),
            Err(trouble) => table::trouble(trouble, width),
        })?;
        tokio::select! {
            key = screen.key() => match key {
                Key::Quit => return Ok(ExitCode::Done),
                Key::Redraw => {}
            },
            () = tokio::time::sleep_until(next) => {
                next = Instant::now() + args.interval;
                shown = match ask(client).await {
                    Ok(status) => {
                        let look = Look::of(status, args.service.as_ref());
                        let report = look.since(&before);
                        before = look;
                        Ok(report)
                    }
                    Err(error) if may_return(&error) => Err(error.to_string()),
                    Err(error) => return Err(error.into()),
                };
            }
        }
    }
}

/// Whether asking again may help: the agent restarts, or the way to it is cut.
fn may_return(error: &ClientError) -> bool {
    super::may_pass(error)
}

#[cfg(test)]
mod tests;
