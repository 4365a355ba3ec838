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

/// Of commands that there are not yet: whatever was given.
#[derive(Debug, clap::Args)]
pub struct NotYetArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _arguments: Vec<String>,
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
    let begun = client.post_instance(&at, &body).await.map_err(|error| missing(&from, error))?;
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
    let instance = client.instance(called).await.map_err(|error| missing(operand, error))?;
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
    match client.delete_at(at).await.map_err(|error| missing(operand, error))? {
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
        let begun = begun.map_err(|error| missing(&operand, error))?;
        finish(context, &client, remote.as_ref(), begun).await?;
    }
    Ok(ExitCode::Done)
}

/// What there is not yet, and why.
pub fn not_yet(what: &str) -> Result<ExitCode, CliError> {
    Err(CliError::failed(format!("`comity {what}` is not there yet: instances are kept, copied and moved here, and do not run"))
        .code("not-yet")
        .hint("With a server that runs instances, LXD's own `lxc` does it; `comity copy` and `comity move` bring an instance there."))
}

/// "Not Found" says less than the one who asked can be told.
fn missing(operand: &InstanceOperand, error: ClientError) -> CliError {
    if error.status() != Some(http::StatusCode::NOT_FOUND) {
        return error.into();
    }
    let what = if operand.snapshot.is_some() { "snapshot" } else { "instance" };
    CliError::failed(format!("{what} {operand} does not exist"))
        .code("not_found")
        .hint("`comity list` shows the instances that you may see, `comity info` one with its snapshots.")
}
