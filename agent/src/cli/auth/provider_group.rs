//! `comity auth identity-provider-group`: what the groups of an identity provider are worth here.

use clap::Subcommand;
use serde::Deserialize;

use super::{missing, named, remote};
use crate::cli::{CliError, Context, ExitCode, Format, Table, edit};
use crate::client::Client;
use crate::wire::lxd::auth::IdentityProviderGroup;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Map a group of the identity provider; without groups it is worth nothing yet.
    Create {
        #[arg(value_name = "[REMOTE:]GROUP")]
        group: String,
        /// A group of ours that it is worth; may be given several times.
        #[arg(long = "group", short, value_name = "GROUP")]
        groups: Vec<String>,
    },
    /// Delete a mapping.
    #[command(visible_alias = "rm")]
    Delete {
        #[arg(value_name = "[REMOTE:]GROUP")]
        group: String,
    },
    /// Change a mapping as YAML: from standard input, or in an editor.
    Edit {
        #[arg(value_name = "[REMOTE:]GROUP")]
        group: String,
    },
    /// List the mappings.
    #[command(visible_alias = "ls")]
    List {
        /// The remote to ask, with its colon.
        #[arg(id = "asked_remote", value_name = "REMOTE:")]
        remote: Option<String>,
    },
    /// Give a mapping the name that the provider has for the group by now.
    #[command(visible_alias = "mv")]
    Rename {
        #[arg(value_name = "[REMOTE:]GROUP")]
        group: String,
        name: String,
    },
    /// Show a mapping.
    Show {
        #[arg(value_name = "[REMOTE:]GROUP")]
        group: String,
    },
    /// Manage which of our groups it is worth.
    Group(GroupArgs),
}

#[derive(Debug, clap::Args)]
struct GroupArgs {
    #[command(subcommand)]
    command: GroupCommand,
}

#[derive(Debug, Subcommand)]
enum GroupCommand {
    /// Add a group of ours to what it is worth.
    Add {
        #[arg(value_name = "[REMOTE:]GROUP")]
        provider_group: String,
        group: String,
    },
    /// Take a group of ours off what it is worth.
    #[command(visible_alias = "rm")]
    Remove {
        #[arg(value_name = "[REMOTE:]GROUP")]
        provider_group: String,
        group: String,
    },
}

const WHAT: &str = "identity provider group";

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    let output = &context.output;
    match args.command {
        Command::Create { group, groups } => {
            let (client, called) = named(context, &group, WHAT).await?;
            let mapping = IdentityProviderGroup { name: called.clone(), groups, access_entitlements: None };
            client.create_provider_group(&mapping).await?;
            output.done(format!("Identity provider group {called} created"), &called);
        }
        Command::Delete { group } => {
            let (client, called) = named(context, &group, WHAT).await?;
            client.delete_provider_group(&called).await.map_err(|error| missing(error, WHAT, &called))?;
            output.done(format!("Identity provider group {called} deleted"), &called);
        }
        Command::Edit { group } => change(context, &group).await?,
        Command::List { remote: from } => {
            let mappings = remote(context, from.as_deref()).await?.provider_groups().await?;
            if output.format() == Format::Json {
                output.json(&mappings);
                return Ok(ExitCode::Done);
            }
            let mut table = Table::new(["NAME", "GROUPS"]);
            for mapping in mappings {
                table.row([mapping.name, mapping.groups.join("\n")]);
            }
            output.table(&table);
        }
        Command::Rename { group, name } => {
            let (client, called) = named(context, &group, WHAT).await?;
            let renamed = client.rename_provider_group(&called, &name).await;
            renamed.map_err(|error| missing(error, WHAT, &called))?;
            output.done(format!("Group {called} renamed to {name}"), &name);
        }
        Command::Show { group } => {
            let (client, called) = named(context, &group, WHAT).await?;
            let (mapping, _) = get(&client, &called).await?;
            match output.format() {
                Format::Json => output.json(&mapping),
                Format::Text => output.yaml(&mapping),
            }
        }
        Command::Group(args) => match args.command {
            GroupCommand::Add { provider_group, group } => add(context, &provider_group, group).await?,
            GroupCommand::Remove { provider_group, group } => take(context, &provider_group, &group).await?,
        },
    }
    Ok(ExitCode::Done)
}

async fn get(client: &Client, called: &str) -> Result<(IdentityProviderGroup, String), CliError> {
    client.provider_group(called).await.map_err(|error| missing(error, WHAT, called))
}

async fn add(context: &Context, provider_group: &str, group: String) -> Result<(), CliError> {
    let (client, called) = named(context, provider_group, WHAT).await?;
    let (mut mapping, tag) = get(&client, &called).await?;
    if mapping.groups.contains(&group) {
        let message = format!("Identity group {called:?} is already mapped to group {group:?}");
        return Err(CliError::failed(message));
    }
    mapping.groups.push(group);
    Ok(client.put_provider_group(&called, &mapping, &tag).await?)
}

async fn take(context: &Context, provider_group: &str, group: &str) -> Result<(), CliError> {
    let (client, called) = named(context, provider_group, WHAT).await?;
    let (mut mapping, tag) = get(&client, &called).await?;
    let not = |what: &str| {
        Err(CliError::failed(format!("Identity provider group {called:?} is not mapped to {what}")))
    };
    if mapping.groups.is_empty() {
        return not("any groups");
    }
    if !mapping.groups.iter().any(|mapped| mapped == group) {
        return not(&format!("group {group:?}"));
    }
    mapping.groups.retain(|mapped| mapped != group);
    Ok(client.put_provider_group(&called, &mapping, &tag).await?)
}

/// What may be said of a mapping.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    name: Option<String>,
    groups: Vec<String>,
}

const EXPLAINED: &str = "\
### This is a YAML representation of the identity provider group.
### Any line starting with a '# will be ignored.
###
### name: engineering
### groups:
### - operators";

async fn change(context: &Context, group: &str) -> Result<(), CliError> {
    let (client, called) = named(context, group, WHAT).await?;
    let (current, tag) = get(&client, &called).await?;
    let written: Written = edit::changed(context, &current, &["access_entitlements"], EXPLAINED)?;
    if written.name.as_ref().is_some_and(|name| *name != called) {
        return Err(CliError::failed("it is renamed with `comity auth identity-provider-group rename`"));
    }
    let mapping =
        IdentityProviderGroup { name: called.clone(), groups: written.groups, access_entitlements: None };
    Ok(client.put_provider_group(&called, &mapping, &tag).await?)
}
