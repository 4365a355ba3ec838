//! `comity link`: links by hand, and the truth about both halves of each. (`comity cluster link` is the same.)

use clap::Subcommand;
use http::StatusCode;
use schema::name::{LinkName, RemoteName};
use serde_json::json;

use super::context::name;
use super::{CliError, Context, ExitCode, Format};
use crate::client::{Client, ClientError};

mod create;
mod edit;
mod rotate;
mod shown;

pub(super) use shown::aligned;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

/// `comity cluster`, as LXD has it.
#[derive(Debug, clap::Args)]
pub struct ClusterArgs {
    #[command(subcommand)]
    command: ClusterCommand,
}

#[derive(Debug, Subcommand)]
enum ClusterCommand {
    /// Manage cluster links.
    Link(Args),
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a link: without a token one is issued for the peer, with the peer's token the link is made at once.
    Create(create::Args),
    /// List the links.
    #[command(alias = "ls")]
    List,
    /// Show a link's configuration.
    Show { name: String },
    /// Show the state of both halves of a link, and of each of the peer's addresses.
    #[command(alias = "info")]
    State { name: String },
    /// Edit a link as YAML, in $EDITOR or from standard input.
    Edit { name: String },
    /// Show the value of a configuration key.
    Get(edit::Get),
    /// Set configuration keys.
    Set(edit::Set),
    /// Remove a configuration key.
    Unset(edit::Get),
    /// Give a link another name.
    #[command(alias = "mv")]
    Rename { name: String, new_name: String },
    /// Renew the certificate that this cluster shows to its peers and clients.
    Rotate(rotate::Args),
    /// Delete a link and tell the peer so.
    #[command(alias = "rm")]
    Delete { name: String },
}

pub async fn run_cluster(args: ClusterArgs, context: &Context) -> Result<ExitCode, CliError> {
    let ClusterCommand::Link(args) = args.command;
    run(args, context).await
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    match args.command {
        Command::Create(args) => create::run(context, args).await,
        Command::List => shown::list(context).await,
        Command::Show { name } => shown::show(context, &At::find(context, &name).await?).await,
        Command::State { name } => shown::state(context, &At::find(context, &name).await?).await,
        Command::Edit { name } => edit::edit(context, &At::find(context, &name).await?).await,
        Command::Get(args) => edit::get(context, args).await,
        Command::Set(args) => edit::set(context, args).await,
        Command::Unset(args) => edit::unset(context, args).await,
        Command::Rename { name, new_name } => {
            rename(context, &At::find(context, &name).await?, &new_name).await
        }
        Command::Rotate(args) => rotate::run(args, context).await,
        Command::Delete { name } => delete(context, &At::find(context, &name).await?).await,
    }
}

/// A link, and the agent that has it: `[REMOTE:]NAME`.
struct At {
    client: Client,
    link: LinkName,
}

impl At {
    async fn find(context: &Context, text: &str) -> Result<Self, CliError> {
        let (remote, link) = match text.split_once(':') {
            Some((remote, link)) => (Some(name::<RemoteName>("REMOTE", remote)?), link),
            None => (None, text),
        };
        if link.is_empty() {
            return Err(CliError::usage("Missing cluster link name"));
        }
        let link = name("NAME", link)?;
        Ok(Self { client: context.client(remote.as_ref()).await?, link })
    }
}

/// LXD's errors carry no advice, so it is given here.
fn explained(error: ClientError) -> CliError {
    let hint = match error.status() {
        Some(StatusCode::CONFLICT) => Some("`comity link list` shows the links that there are."),
        Some(StatusCode::BAD_GATEWAY) => {
            Some("Nothing is left of it here. Mint another token on the peer, or see that its agent runs.")
        }
        Some(StatusCode::PRECONDITION_FAILED) => Some("Look at it again, and make the change anew."),
        _ => None,
    };
    let failed = CliError::from(error);
    match hint {
        Some(hint) if failed.hint.is_none() => failed.hint(hint),
        _ => failed,
    }
}

async fn rename(context: &Context, at: &At, new_name: &str) -> Result<ExitCode, CliError> {
    let to: LinkName = name("NEW_NAME", new_name)?;
    at.client.rename_link(&at.link, &to).await.map_err(explained)?;
    Ok(done(context, &at.link, &format!("Cluster link {} renamed to {to}", at.link)))
}

async fn delete(context: &Context, at: &At) -> Result<ExitCode, CliError> {
    at.client.delete_link(&at.link).await.map_err(explained)?;
    Ok(done(context, &at.link, &format!("Cluster link {} deleted", at.link)))
}

/// Says what was done.
fn done(context: &Context, link: &LinkName, said: &str) -> ExitCode {
    match context.output.format() {
        Format::Json => context.output.json(&json!({"name": link})),
        Format::Text if context.output.quiet() => {}
        Format::Text => context.output.line(said),
    }
    ExitCode::Done
}
