//! `comity operation`: what runs on the server, and how to stop it.

use std::time::Duration;

use clap::Subcommand;
use schema::name::RemoteName;
use uuid::Uuid;

use super::auth::remote;
use super::operand::split;
use super::progress::Bar;
use super::{CliError, Context, ExitCode, Format, Table};
use crate::client::Client;
use crate::daemon::options::duration;
use crate::wire::lxd::operation::OperationBody;
use watch::{Ended, Watched, failure, is_good, watch};

pub mod watch;

/// One call waits no longer; it is made again until the operation has ended.
const CALL: Duration = Duration::from_secs(60);
/// Codes from here on mean that an operation has ended.
const ENDED: u16 = 200;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List what runs, or has just ended.
    #[command(visible_alias = "ls")]
    List {
        /// The remote to ask, with its colon.
        #[arg(id = "asked_remote", value_name = "REMOTE:")]
        remote: Option<String>,
    },
    /// Show one.
    Show {
        #[arg(value_name = "[REMOTE:]ID")]
        id: String,
        /// Stay with it and show its progress; end as it does.
        #[arg(long)]
        watch: bool,
    },
    /// Cancel one; a token's is revoked by that.
    #[command(visible_aliases = ["cancel", "rm"])]
    Delete {
        #[arg(value_name = "[REMOTE:]ID")]
        id: String,
    },
    /// Wait until one has ended; fails if it did.
    Wait {
        #[arg(value_name = "[REMOTE:]ID")]
        id: String,
        /// How long at most [default: until it has ended].
        #[arg(long, value_name = "TIME", value_parser = duration)]
        timeout: Option<Duration>,
    },
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    let output = &context.output;
    match args.command {
        Command::List { remote: from } => {
            let all = remote(context, from.as_deref()).await?.operations().await?;
            if output.format() == Format::Json {
                output.json(&all);
                return Ok(ExitCode::Done);
            }
            let mut table = Table::new(["ID", "TYPE", "DESCRIPTION", "STATUS", "CANCELABLE", "CREATED"]);
            for operation in all {
                table.row([
                    operation.id.to_string(),
                    operation.class.to_uppercase(),
                    operation.description,
                    operation.status.to_uppercase(),
                    if operation.may_cancel { "YES" } else { "NO" }.to_owned(),
                    operation.created_at.strftime("%Y/%m/%d %H:%M UTC").to_string(),
                ]);
            }
            output.table(&table);
        }
        Command::Show { id, watch: false } => {
            let (client, _, id) = at(context, &id).await?;
            show(context, &client.operation(id).await?);
        }
        Command::Show { id, watch: true } => return joined(context, &id).await,
        Command::Delete { id } => {
            let (client, _, id) = at(context, &id).await?;
            client.cancel_operation(id).await?;
            output.done(format!("Operation {id} deleted"), &id.to_string());
        }
        Command::Wait { id, timeout } => {
            let (client, _, id) = at(context, &id).await?;
            let deadline = timeout.map(|timeout| tokio::time::Instant::now() + timeout);
            loop {
                let left = deadline.map_or(CALL, |deadline| {
                    deadline.saturating_duration_since(tokio::time::Instant::now()).min(CALL)
                });
                let operation = client.wait_operation(id, left).await?;
                if operation.status_code >= ENDED {
                    show(context, &operation);
                    return Ok(code(&operation));
                }
                if deadline.is_some_and(|deadline| deadline <= tokio::time::Instant::now()) {
                    return Err(CliError::failed(format!("operation {id} is still {}", operation.status))
                        .code("timeout"));
                }
            }
        }
    }
    Ok(ExitCode::Done)
}

/// Joins an operation that somebody began, and ends as it does.
async fn joined(context: &Context, operand: &str) -> Result<ExitCode, CliError> {
    let (client, remote, id) = at(context, operand).await?;
    let operation = client.operation(id).await?;
    let bar = Bar::new(context);
    let watched = Watched { client: &client, remote: remote.as_ref(), operation };
    let ended = watch(context, watched, &[], &bar).await;
    bar.clear();
    match ended? {
        Ended::Over(operation) => {
            show(context, &operation);
            if is_good(&operation) {
                Ok(ExitCode::Done)
            } else {
                Err(CliError::failed(failure(&operation)).code("operation-failed"))
            }
        }
        Ended::Cancelled => Err(watch::cancelled()),
    }
}

/// `[REMOTE:]ID`.
async fn at(context: &Context, operand: &str) -> Result<(Client, Option<RemoteName>, Uuid), CliError> {
    let (remote, id) = split(operand)?;
    let id = id.parse().map_err(|_| {
        CliError::usage("ID: an operation's id is a UUID")
            .hint("`comity operation list` shows those that run or have just ended.")
    })?;
    Ok((context.client(remote.as_ref()).await?, remote, id))
}

fn code(operation: &OperationBody) -> ExitCode {
    if is_good(operation) { ExitCode::Done } else { ExitCode::Failed }
}

fn show(context: &Context, operation: &OperationBody) {
    match context.output.format() {
        Format::Json => context.output.json(operation),
        Format::Text => context.output.yaml(operation),
    }
}
