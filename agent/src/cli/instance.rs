//! `comity init|list|info|snapshot|restore|copy|move|rename|delete|export|import|start|stop|…`: instances, by LXD's verbs.
//!
//! They are kept, copied and moved here, and do not run yet: what would need them to says so.

use serde_json::json;

use super::operand::InstanceOperand;
use super::operation::watch::finish;
use super::{CliError, Context, ExitCode};
use crate::client::instance::{path, snapshot_path};
use crate::client::operation::Begun;
use crate::client::{Client, ClientError};

pub mod archive;
pub mod copy;
mod entry;
pub mod info;
pub mod init;
pub mod list;
pub mod snapshot;

/// `comity rename`.
#[derive(Debug, clap::Args)]
pub struct RenameArgs {
    #[arg(value_name = "[REMOTE:]NAME[/SNAPSHOT]")]
    from: String,
    #[arg(value_name = "[REMOTE:]NAME[/SNAPSHOT]")]
    to: String,
}

/// `comity delete`.
#[derive(Debug, clap::Args)]
pub struct DeleteArgs {
    #[arg(value_name = "[REMOTE:]NAME[/SNAPSHOT]", required = true)]
    instances: Vec<String>,
    /// Stop those that run first.
    #[arg(long)]
    force: bool,
    /// Ask before each one.
    #[arg(long, short)]
    interactive: bool,
}

/// `comity start`, `stop` and `restart`.
#[derive(Debug, clap::Args)]
pub struct StateArgs {
    #[arg(value_name = "[REMOTE:]NAME", required = true)]
    instances: Vec<String>,
    /// Do not wait for it to end by itself.
    #[arg(long)]
    force: bool,
}

pub async fn rename(args: RenameArgs, context: &Context) -> Result<ExitCode, CliError> {
    let (from, old) = InstanceOperand::whole("NAME", &args.from)?;
    let (to, new) = InstanceOperand::whole("NEW", &args.to)?;
    if to.remote.is_some() && to.remote != from.remote {
        return Err(CliError::usage("Can't specify a different remote for rename")
            .hint("`comity move` takes an instance from one remote to another."));
    }
    let client = context.client(from.remote.as_ref()).await?;
    let (at, body) = match (&from.snapshot, &to.snapshot) {
        (None, None) => (path(old.as_str()), json!({ "name": new })),
        (Some(snapshot), Some(called)) if old == new => {
            (snapshot_path(old.as_str(), snapshot.as_str()), json!({ "name": called }))
        }
        _ => {
            return Err(CliError::usage("A snapshot is renamed to another name of the same instance")
                .hint("comity rename NAME/SNAPSHOT NAME/OTHER"));
        }
    };
    let begun = found(context, &client, &from, client.post_instance(&at, &body).await).await?;
    finish(context, &client, from.remote.as_ref(), begun).await?;
    Ok(ExitCode::Done)
}

pub async fn delete(args: DeleteArgs, context: &Context) -> Result<ExitCode, CliError> {
    for instance in &args.instances {
        let (operand, called) = InstanceOperand::whole("NAME", instance)?;
        if args.interactive && !context.output.confirm(&format!("Remove {operand}?"), "no --interactive")? {
            return Err(CliError::failed("User aborted delete operation").code("aborted"));
        }
        let client = context.client(operand.remote.as_ref()).await?;
        if let Some(snapshot) = &operand.snapshot {
            let at = snapshot_path(called.as_str(), snapshot.as_str());
            remove(context, &client, &operand, &at).await?;
        } else {
            stopped(context, &client, &operand, called.as_str(), args.force).await?;
            remove(context, &client, &operand, &path(called.as_str())).await?;
        }
    }
    Ok(ExitCode::Done)
}

/// Has an instance stopped that is to be deleted or moved, if that is allowed.
async fn stopped(
    context: &Context,
    client: &Client,
    operand: &InstanceOperand,
    called: &str,
    force: bool,
) -> Result<(), CliError> {
    const STOPPED: u16 = 102;
    let instance = found(context, client, operand, client.instance(called).await).await?;
    if matches!(instance.status_code, 0 | STOPPED) {
        return Ok(());
    }
    if !force {
        return Err(CliError::failed("The instance is currently running, stop it first or pass --force")
            .code("running"));
    }
    let begun = client.change_instance_state(called, "stop", true).await?;
    finish(context, client, operand.remote.as_ref(), begun).await.map(drop)
}

async fn remove(
    context: &Context,
    client: &Client,
    operand: &InstanceOperand,
    at: &str,
) -> Result<(), CliError> {
    match found(context, client, operand, client.delete_at(at).await).await? {
        Begun::Done(_) => Ok(()),
        Begun::Running(begun) => finish(context, client, operand.remote.as_ref(), *begun).await.map(drop),
    }
}

/// What is asked of an instance's state: the server says what it makes of it.
pub async fn change_state(
    args: StateArgs,
    action: &'static str,
    context: &Context,
) -> Result<ExitCode, CliError> {
    for instance in &args.instances {
        let (remote, called) = InstanceOperand::instance("NAME", instance)?;
        let operand = InstanceOperand::parse("NAME", instance)?;
        let client = context.client(remote.as_ref()).await?;
        let begun = client.change_instance_state(called.as_str(), action, args.force).await;
        let begun = found(context, &client, &operand, begun).await?;
        finish(context, &client, remote.as_ref(), begun).await?;
    }
    Ok(ExitCode::Done)
}

/// What a call about an instance or a snapshot came to. "Not Found" says less than the one who asked can be told.
pub async fn found<T>(
    context: &Context,
    client: &Client,
    operand: &InstanceOperand,
    result: Result<T, ClientError>,
) -> Result<T, CliError> {
    let error = match result {
        Ok(found) => return Ok(found),
        Err(error) if error.status() == Some(http::StatusCode::NOT_FOUND) => error,
        Err(error) => return Err(error.into()),
    };
    let (command, remote) = (context.command(), operand.remote.as_ref());
    let at = remote.map(|remote| format!(" {remote}:")).unwrap_or_default();
    if error.to_string().contains("pool") {
        let hint = format!("`{command} pool list{at}` shows those that there are.");
        return Err(CliError::from(error).hint(hint));
    }
    let whole = InstanceOperand { snapshot: None, ..operand.clone() };
    // The status is the same whichever of the two is not there.
    let there = match (&operand.snapshot, &operand.name) {
        (Some(_), Some(name)) => client.instance(name.as_str()).await.is_ok(),
        _ => false,
    };
    Err(match &operand.snapshot {
        Some(snapshot) if there => CliError::failed(format!("instance {whole} has no snapshot {snapshot}"))
            .code("not_found")
            .hint(format!("`{command} info {whole}` shows those that it has.")),
        _ => CliError::failed(format!("instance {whole} does not exist"))
            .code("not_found")
            .hint(format!("`{command} list{at}` shows the instances that you may see there.")),
    })
}
