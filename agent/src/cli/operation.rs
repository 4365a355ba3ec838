//! `comity operation`: what runs on the server, and how to stop it.

use std::time::Duration;

use clap::Subcommand;
use uuid::Uuid;

use super::auth::remote;
use super::{CliError, Context, ExitCode, Format, Table};
use crate::daemon::options::duration;
use crate::wire::lxd::operation::OperationBody;

/// One call waits no longer; it is made again until the operation has ended.
const CALL: Duration = Duration::from_secs(60);

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
    Show { id: Uuid },
    /// Cancel one; a token's is revoked by that.
    #[command(visible_aliases = ["cancel", "rm"])]
    Delete { id: Uuid },
    /// Wait until one has ended; fails if it did.
    Wait {
        id: Uuid,
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
        Command::Show { id } => show(context, &context.client(None).await?.operation(id).await?),
        Command::Delete { id } => {
            context.client(None).await?.cancel_operation(id).await?;
            output.done(format!("Operation {id} deleted"), &id.to_string());
        }
        Command::Wait { id, timeout } => {
            let client = context.client(None).await?;
            let deadline = timeout.map(|timeout| tokio::time::Instant::now() + timeout);
            loop {
                let left = deadline.map_or(CALL, |deadline| {
                    deadline.saturating_duration_since(tokio::time::Instant::now()).min(CALL)
                });
                let operation = client.wait_operation(id, left).await?;
                if operation.status_code >= 200 {
                    show(context, &operation);
                    let good = operation.status_code == 200;
                    return Ok(if good { ExitCode::Done } else { ExitCode::Failed });
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

fn show(context: &Context, operation: &OperationBody) {
    match context.output.format() {
        Format::Json => context.output.json(operation),
        Format::Text => context.output.yaml(operation),
    }
}
