//! `comity operation`: what runs on the server, and how to stop it.

use std::time::Duration;

use clap::Subcommand;
use http::StatusCode;
use schema::name::RemoteName;
use serde::Serialize;
use uuid::Uuid;

use super::auth::remote;
use super::operand::split;
use super::progress::Bar;
use super::{CliError, Context, ExitCode, Format, Table};
use crate::client::{Client, ClientError};
use crate::daemon::options::duration;
use crate::wire::lxd::operation::OperationBody;
use crate::wire::transfer::{Run, RunResult};
use named::Named;
use watch::{Alone, Ended, Watched, failure, is_good, watch};

pub mod named;
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
        #[arg(value_name = "[REMOTE:]ID", help = "Its id, or enough of its beginning")]
        id: String,
        /// Stay with it and show its progress; end as it does. Ctrl-C leaves it running: `operation delete` cancels it.
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
            let (at, id) = at(context, &id).await?;
            match at.operation(id).await? {
                Known::Runs(operation) => show(context, &*operation),
                Known::Ran(run) => show(context, &*run),
            }
        }
        Command::Show { id, watch: true } => return joined(context, &id).await,
        Command::Delete { id } => {
            let (at, id) = at(context, &id).await?;
            let cancelled = at.client.cancel_operation(id).await;
            cancelled.map_err(|error| at.missing(id, error))?;
            output.done(format!("Operation {id} deleted"), &id.to_string());
        }
        Command::Wait { id, timeout } => {
            let (at, id) = at(context, &id).await?;
            let deadline = timeout.map(|timeout| tokio::time::Instant::now() + timeout);
            loop {
                let left = deadline.map_or(CALL, |deadline| {
                    deadline.saturating_duration_since(tokio::time::Instant::now()).min(CALL)
                });
                let operation = at.client.wait_operation(id, left).await;
                let operation = operation.map_err(|error| at.missing(id, error))?;
                if operation.status_code >= ENDED {
                    show(context, &operation);
                    return Ok(code(&operation));
                }
                if deadline.is_some_and(|deadline| deadline <= tokio::time::Instant::now()) {
                    return Err(CliError::failed(format!("operation {id} is still {}", operation.status))
                        .code("timeout")
                        .hint(format!(
                            "`{} operation show --watch {}` stays with it.",
                            context.command(),
                            watch::operand(at.remote.as_ref(), id)
                        )));
                }
            }
        }
    }
    Ok(ExitCode::Done)
}

/// Joins an operation that somebody began, and ends as it does.
async fn joined(context: &Context, operand: &str) -> Result<ExitCode, CliError> {
    let (at, id) = at(context, operand).await?;
    let operation = match at.operation(id).await? {
        Known::Runs(operation) => *operation,
        // It has ended meanwhile.
        Known::Ran(run) => {
            show(context, &*run);
            let good = run.result == RunResult::Success;
            return Ok(if good { ExitCode::Done } else { ExitCode::Failed });
        }
    };
    let bar = Bar::new(context);
    let watched =
        Watched { client: &at.client, remote: at.remote.as_ref(), operation, alone: Alone::Another };
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

/// Where operations are, and what is called there.
struct At<'a> {
    context: &'a Context,
    client: Client,
    remote: Option<RemoteName>,
}

/// What is known of an id.
enum Known {
    Runs(Box<OperationBody>),
    /// An operation is forgotten soon after its end; what arrived is remembered for longer.
    Ran(Box<Run>),
}

/// `[REMOTE:]ID`; of the id, as much as makes it one of those that there are.
async fn at<'a>(context: &'a Context, operand: &str) -> Result<(At<'a>, Uuid), CliError> {
    let (remote, text) = split(operand)?;
    let named = Named::read(text)?;
    let at = At { context, client: context.client(remote.as_ref()).await?, remote };
    let id = match named {
        Named::Whole(id) => id,
        Named::Beginning(beginning) => {
            let running = at.client.operations().await?.into_iter().map(|operation| operation.id);
            let ran = at.client.transfers().await.map(|there| there.runs).unwrap_or_default();
            let ids = running.chain(ran.into_iter().map(|run| run.id));
            named::only(&beginning, ids).map_err(|error| error.hint(at.where_to_look()))?
        }
    };
    Ok((at, id))
}

impl At<'_> {
    async fn operation(&self, id: Uuid) -> Result<Known, CliError> {
        let error = match self.client.operation(id).await {
            Ok(operation) => return Ok(Known::Runs(Box::new(operation))),
            Err(error) if error.status() != Some(StatusCode::NOT_FOUND) => return Err(error.into()),
            Err(error) => error,
        };
        // Whoever may not see these, and a server that has none, says nothing of it.
        let ran = self.client.transfers().await.map(|there| there.runs).unwrap_or_default();
        match ran.into_iter().find(|run| run.id == id) {
            Some(run) => Ok(Known::Ran(Box::new(run))),
            None => Err(self.missing(id, error)),
        }
    }

    fn missing(&self, id: Uuid, error: ClientError) -> CliError {
        if error.status() != Some(StatusCode::NOT_FOUND) {
            return error.into();
        }
        let message = format!("operation {id} is not there: it ended some time ago, or runs elsewhere");
        CliError::failed(message).code("not_found").hint(self.where_to_look())
    }

    fn where_to_look(&self) -> String {
        let command = self.context.command();
        let remote = self.remote.as_ref().map(|remote| format!(" {remote}:")).unwrap_or_default();
        format!(
            "`{command} operation list{remote}` shows what runs, `{command} transfer list{remote}` what arrived there."
        )
    }
}

fn code(operation: &OperationBody) -> ExitCode {
    if is_good(operation) { ExitCode::Done } else { ExitCode::Failed }
}

fn show(context: &Context, what: &impl Serialize) {
    match context.output.format() {
        Format::Json => context.output.json(what),
        Format::Text => context.output.yaml(what),
    }
}
