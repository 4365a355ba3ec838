//! `comity auth`: who may do what here, in LXD's nouns.

use clap::Subcommand;
use http::StatusCode;
use schema::name::RemoteName;

use super::context::name;
use super::{CliError, Context, ExitCode};
use crate::client::{Client, ClientError};

mod entity;
mod group;
mod identity;
mod oidc_session;
mod permission;
mod provider_group;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Manage groups: sets of permissions that identities and links are put into.
    Group(group::Args),
    /// Manage who is known: clients, bearers, peers.
    #[command(visible_alias = "user")]
    Identity(identity::Args),
    /// Show what can be granted on what exists here, and who grants it.
    #[command(visible_alias = "perm")]
    Permission(permission::Args),
    /// Manage what the groups of an identity provider are worth here.
    #[command(visible_alias = "idp-group")]
    IdentityProviderGroup(provider_group::Args),
    /// Manage the logins of those whom the identity provider vouches for.
    OidcSession(oidc_session::Args),
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    match args.command {
        Command::Group(args) => group::run(args, context).await,
        Command::Identity(args) => identity::run(args, context).await,
        Command::Permission(args) => permission::run(args, context).await,
        Command::IdentityProviderGroup(args) => provider_group::run(args, context).await,
        Command::OidcSession(args) => oidc_session::run(args, context).await,
    }
}

/// What an operand names, and the agent that has it: `[REMOTE:]NAME`, as LXD's operands are.
pub(super) async fn named(
    context: &Context,
    operand: &str,
    what: &str,
) -> Result<(Client, String), CliError> {
    let (remote, called) = match operand.split_once(':') {
        Some((remote, called)) => (Some(name::<RemoteName>("REMOTE", remote)?), called),
        None => (None, operand),
    };
    if called.is_empty() {
        return Err(CliError::usage(format!("Missing {what} name")));
    }
    Ok((context.client(remote.as_ref()).await?, called.to_owned()))
}

/// The agent that an optional `[REMOTE:]` names.
pub(super) async fn remote(context: &Context, operand: Option<&str>) -> Result<Client, CliError> {
    let remote = match operand {
        Some(operand) => Some(name::<RemoteName>("REMOTE", operand.strip_suffix(':').unwrap_or(operand))?),
        None => None,
    };
    context.client(remote.as_ref()).await
}

/// LXD answers `Not Found` and no more: what was not found is known here.
fn missing(error: ClientError, what: &str, called: &str) -> CliError {
    if error.status() != Some(StatusCode::NOT_FOUND) || !is_plain(&error) {
        return error.into();
    }
    let list = match what {
        "group" => "`comity auth group list` shows the groups that you may see.",
        _ => "`comity auth identity-provider-group list` shows those that you may see.",
    };
    let what = if what == "group" { "Group" } else { "Identity provider group" };
    CliError::failed(format!("{what} {called:?} not found")).code("not-found").hint(list)
}

fn is_plain(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused { message, .. } if message == "Not Found")
}

/// Which columns a table has, by LXD's letters.
fn columns(wanted: &str, known: &[char]) -> Result<Vec<char>, CliError> {
    let unknown = wanted.chars().find(|letter| !known.contains(letter) && *letter != ',');
    if let Some(unknown) = unknown {
        let known: String = known.iter().collect();
        return Err(CliError::usage(format!("Unknown column shorthand character {unknown:?} in --columns"))
            .hint(format!("There are {known}.")));
    }
    Ok(wanted.chars().filter(|letter| *letter != ',').collect())
}
