//! `comity auth group`: LXD's commands for groups, with LXD's words.

use clap::Subcommand;
use serde::Deserialize;

use super::{columns, entity, missing, named, remote};
use crate::cli::{CliError, Context, ExitCode, Format, Table, edit, yaml};
use crate::client::{Client, ClientError};
use crate::wire::lxd::auth::{AuthGroup, AuthGroupPut, Permission};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a group; its description and permissions may come as YAML on standard input.
    Create {
        #[arg(value_name = "[REMOTE:]GROUP")]
        group: String,
        #[arg(long, short)]
        description: Option<String>,
    },
    /// Delete a group.
    #[command(visible_alias = "rm")]
    Delete {
        #[arg(value_name = "[REMOTE:]GROUP")]
        group: String,
    },
    /// Change a group as YAML: from standard input, or in an editor.
    Edit {
        #[arg(value_name = "[REMOTE:]GROUP")]
        group: String,
    },
    /// List the groups.
    #[command(visible_alias = "ls")]
    List {
        /// The remote to ask, with its colon.
        #[arg(id = "asked_remote", value_name = "REMOTE:")]
        remote: Option<String>,
        /// Columns: n for the name, d for the description.
        #[arg(long, short, default_value = "nd")]
        columns: String,
    },
    /// Give a group another name, wherever it is named.
    #[command(visible_alias = "mv")]
    Rename {
        #[arg(value_name = "[REMOTE:]GROUP")]
        group: String,
        name: String,
    },
    /// Show a group, its permissions and who is in it.
    Show {
        #[arg(value_name = "[REMOTE:]GROUP")]
        group: String,
    },
    /// Manage the permissions of a group.
    #[command(visible_alias = "perm")]
    Permission(PermissionArgs),
}

#[derive(Debug, clap::Args)]
struct PermissionArgs {
    #[command(subcommand)]
    command: PermissionCommand,
}

#[derive(Debug, Subcommand)]
enum PermissionCommand {
    /// Let the group's members do something: `server admin`, `project default viewer`, `cluster_link west can_view`.
    Add {
        #[arg(value_name = "[REMOTE:]GROUP")]
        group: String,
        // Not a doc comment: rustdoc takes what is in brackets for links.
        #[arg(help = "ENTITY_TYPE [ENTITY_NAME] ENTITLEMENT [project=NAME] [pool=NAME] [type=custom]")]
        #[arg(value_name = "ENTITY", num_args = 0..)]
        words: Vec<String>,
    },
    /// Let them do it no more.
    #[command(visible_alias = "rm")]
    Remove {
        #[arg(value_name = "[REMOTE:]GROUP")]
        group: String,
        // Not a doc comment: rustdoc takes what is in brackets for links.
        #[arg(help = "ENTITY_TYPE [ENTITY_NAME] ENTITLEMENT [project=NAME] [pool=NAME] [type=custom]")]
        #[arg(value_name = "ENTITY", num_args = 0..)]
        words: Vec<String>,
    },
    /// List the permissions of a group.
    #[command(visible_alias = "ls")]
    List {
        #[arg(value_name = "[REMOTE:]GROUP")]
        group: String,
    },
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    match args.command {
        Command::Create { group, description } => create(context, &group, description).await?,
        Command::Delete { group } => {
            let (client, called) = named(context, &group, "group").await?;
            client.delete_group(&called).await.map_err(|error| missing(error, "group", &called))?;
            context.output.done(format!("Group {called} deleted"), &called);
        }
        Command::Edit { group } => change(context, &group).await?,
        Command::List { remote, columns } => list(context, remote.as_deref(), &columns).await?,
        Command::Rename { group, name } => {
            let (client, called) = named(context, &group, "group").await?;
            client.rename_group(&called, &name).await.map_err(|error| missing(error, "group", &called))?;
            context.output.done(format!("Group {called} renamed to {name}"), &name);
        }
        Command::Show { group } => {
            let (client, called) = named(context, &group, "group").await?;
            let (group, _) = get(&client, &called).await?;
            match context.output.format() {
                Format::Json => context.output.json(&group),
                Format::Text => context.output.yaml(&group),
            }
        }
        Command::Permission(args) => permission(context, args.command).await?,
    }
    Ok(ExitCode::Done)
}

async fn get(client: &Client, called: &str) -> Result<(AuthGroup, String), CliError> {
    client.group(called).await.map_err(|error| missing(error, "group", called))
}

/// What may be said of a new group besides its name.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    name: Option<String>,
    description: String,
    permissions: Vec<Permission>,
    #[serde(rename = "identities")]
    _identities: serde::de::IgnoredAny,
    #[serde(rename = "identity_provider_groups")]
    _identity_provider_groups: serde::de::IgnoredAny,
}

async fn create(context: &Context, group: &str, description: Option<String>) -> Result<(), CliError> {
    let (client, called) = named(context, group, "group").await?;
    let written: Written = match edit::piped()? {
        Some(text) => yaml::read(&text)?,
        None => Written::default(),
    };
    if written.name.as_ref().is_some_and(|name| *name != called) {
        return Err(CliError::usage("the document on standard input is about another group"));
    }
    let group = AuthGroup {
        name: called.clone(),
        description: description.unwrap_or(written.description),
        permissions: written.permissions,
        ..AuthGroup::default()
    };
    client.create_group(&group).await?;
    context.output.done(format!("Group {called} created"), &called);
    Ok(())
}

const EXPLAINED: &str = "\
### This is a YAML representation of the group.
### Any line starting with a '# will be ignored.
###
### A permission is an entitlement on an entity:
### - entity_type: server
###   url: /1.0
###   entitlement: can_view_metrics
###
### Name, identities and identity provider groups are shown, and cannot be changed here.";

async fn change(context: &Context, group: &str) -> Result<(), CliError> {
    let (client, called) = named(context, group, "group").await?;
    let (current, tag) = get(&client, &called).await?;
    let written: Written = edit::changed(context, &current, &["access_entitlements"], EXPLAINED)?;
    if written.name.as_ref().is_some_and(|name| *name != called) {
        return Err(CliError::failed("a group is renamed with `comity auth group rename`"));
    }
    let put = AuthGroupPut { description: Some(written.description), permissions: Some(written.permissions) };
    client.put_group(&called, &put, &tag).await?;
    Ok(())
}

async fn list(context: &Context, from: Option<&str>, wanted: &str) -> Result<(), CliError> {
    let columns = columns(wanted, &['n', 'd'])?;
    let groups = remote(context, from).await?.groups().await?;
    if context.output.format() == Format::Json {
        context.output.json(&groups);
        return Ok(());
    }
    let head = |column: &char| if *column == 'n' { "NAME" } else { "DESCRIPTION" };
    let mut table = Table::with(columns.iter().map(head));
    for group in &groups {
        let cell = |column: &char| if *column == 'n' { &group.name } else { &group.description };
        table.push(columns.iter().map(|column| cell(column).clone()));
    }
    context.output.table(&table);
    Ok(())
}

async fn permission(context: &Context, command: PermissionCommand) -> Result<(), CliError> {
    match command {
        PermissionCommand::Add { group, words } => {
            let wanted = entity::permission("add", &group, &words)?;
            let (client, called) = named(context, &group, "group").await?;
            with_permissions(&client, &called, &group, |permissions| {
                if permissions.contains(&wanted) {
                    let Permission { url, entitlement, .. } = &wanted;
                    return Err(CliError::failed(format!(
                        "Group {called:?} already has entitlement {entitlement:?} on entity {url:?}"
                    )));
                }
                permissions.push(wanted.clone());
                Ok(())
            })
            .await
        }
        PermissionCommand::Remove { group, words } => {
            let wanted = entity::permission("remove", &group, &words)?;
            let (client, called) = named(context, &group, "group").await?;
            with_permissions(&client, &called, &group, |permissions| {
                if permissions.is_empty() {
                    return Err(CliError::failed(format!("Group {called:?} does not have any permissions")));
                }
                let before = permissions.len();
                permissions.retain(|permission| *permission != wanted);
                if permissions.len() == before {
                    let Permission { url, entitlement, .. } = &wanted;
                    return Err(CliError::failed(format!(
                        "Group {called:?} does not have entitlement {entitlement:?} on entity {url:?}"
                    )));
                }
                Ok(())
            })
            .await
        }
        PermissionCommand::List { group } => {
            let (client, called) = named(context, &group, "group").await?;
            let (group, _) = get(&client, &called).await?;
            if context.output.format() == Format::Json {
                context.output.json(&group.permissions);
                return Ok(());
            }
            let mut table = Table::new(["ENTITY TYPE", "URL", "ENTITLEMENT"]);
            for Permission { entity_type, url, entitlement } in group.permissions {
                table.row([entity_type, url, entitlement]);
            }
            context.output.table(&table);
            Ok(())
        }
    }
}

/// Tries of a change that others get in the way of.
const TRIES: usize = 5;

/// Reads, changes and writes, from the start again where somebody else wrote in between.
async fn with_permissions(
    client: &Client,
    called: &str,
    typed: &str,
    change: impl Fn(&mut Vec<Permission>) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let mut tries = 0;
    loop {
        let (group, tag) = get(client, called).await?;
        let mut permissions = group.permissions;
        change(&mut permissions)?;
        let put = AuthGroupPut { description: Some(group.description), permissions: Some(permissions) };
        tries += 1;
        match client.put_group(called, &put, &tag).await {
            Err(error) if tries < TRIES && was_changed(&error) => {}
            Err(error) => return Err(explained(error, typed)),
            Ok(()) => return Ok(()),
        }
    }
}

fn was_changed(error: &ClientError) -> bool {
    error.status() == Some(http::StatusCode::PRECONDITION_FAILED)
}

/// LXD's errors carry no advice, so it is given here.
fn explained(error: ClientError, group: &str) -> CliError {
    let failed = CliError::from(error);
    let hint = if failed.message.contains("cannot be viewed by the group") {
        // references project "NAME", but …
        let project = failed.message.split("project \"").nth(1).and_then(|rest| rest.split('"').next());
        let project = project.unwrap_or("NAME");
        format!(
            "Let the group see the project first: `comity auth group permission add {group} project {project} can_view`"
        )
    } else if failed.message.contains("Could not resolve permission URLs") {
        "`comity auth permission list` shows what exists.".to_owned()
    } else {
        return failed;
    };
    if failed.hint.is_some() { failed } else { failed.hint(hint) }
}
