//! `comity project`: names under which things, and rights on them, are kept apart.

use clap::Subcommand;
use http::StatusCode;

use super::auth::{named, remote};
use super::server::read_pairs;
use super::{CliError, Context, ExitCode, Format, Table};
use crate::client::ClientError;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List projects.
    #[command(visible_alias = "ls")]
    List {
        /// The remote to ask, with its colon.
        #[arg(id = "asked_remote", value_name = "REMOTE:")]
        remote: Option<String>,
    },
    /// Create a project.
    Create {
        #[arg(value_name = "[REMOTE:]PROJECT")]
        project: String,
        #[arg(long, short, default_value = "")]
        description: String,
        /// A key and its value; may be given several times.
        #[arg(long, short, value_name = "KEY=VALUE")]
        config: Vec<String>,
    },
    /// Show a project.
    Show {
        #[arg(value_name = "[REMOTE:]PROJECT")]
        project: String,
    },
    /// Delete a project, and every permission on it.
    #[command(visible_alias = "rm")]
    Delete {
        #[arg(value_name = "[REMOTE:]PROJECT")]
        project: String,
    },
    /// Give a project another name.
    #[command(visible_alias = "mv")]
    Rename {
        #[arg(value_name = "[REMOTE:]PROJECT")]
        project: String,
        name: String,
    },
    /// Print the value of a key.
    Get {
        #[arg(value_name = "[REMOTE:]PROJECT")]
        project: String,
        key: String,
    },
    /// Set keys.
    Set {
        #[arg(value_name = "[REMOTE:]PROJECT")]
        project: String,
        #[arg(value_name = "KEY=VALUE", required = true)]
        pairs: Vec<String>,
    },
}

const WHAT: &str = "project";

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    let output = &context.output;
    match args.command {
        Command::List { remote: from } => {
            let projects = remote(context, from.as_deref()).await?.projects().await?;
            if output.format() == Format::Json {
                output.json(&projects);
                return Ok(ExitCode::Done);
            }
            let mut table = Table::new(["NAME", "DESCRIPTION", "USED BY"]);
            for project in projects {
                table.row([project.name, project.description, project.used_by.len().to_string()]);
            }
            output.table(&table);
        }
        Command::Create { project, description, config } => {
            let (client, name) = named(context, &project, WHAT).await?;
            client.create_project(&name, &description, &read_pairs(&config)?).await?;
            output.done(format!("Project {name} created"), &name);
        }
        Command::Show { project } => {
            let (client, name) = named(context, &project, WHAT).await?;
            let project = client.project(&name).await.map_err(|error| missing(error, &name))?;
            match output.format() {
                Format::Json => output.json(&project),
                Format::Text => output.yaml(&project),
            }
        }
        Command::Delete { project } => {
            let (client, name) = named(context, &project, WHAT).await?;
            client.delete_project(&name).await.map_err(|error| missing(error, &name))?;
            output.done(format!("Project {name} deleted"), &name);
        }
        Command::Rename { project, name: to } => {
            let (client, name) = named(context, &project, WHAT).await?;
            client.rename_project(&name, &to).await.map_err(|error| missing(error, &name))?;
            output.done(format!("Project {name} renamed to {to}"), &to);
        }
        Command::Get { project, key } => {
            let (client, name) = named(context, &project, WHAT).await?;
            let project = client.project(&name).await.map_err(|error| missing(error, &name))?;
            let value = project.config.get(&key).cloned().unwrap_or_default();
            match output.format() {
                Format::Json => output.json(&value),
                Format::Text => output.line(value),
            }
        }
        Command::Set { project, pairs } => {
            let (client, name) = named(context, &project, WHAT).await?;
            let set = client.set_project(&name, &read_pairs(&pairs)?).await;
            set.map_err(|error| missing(error, &name))?;
        }
    }
    Ok(ExitCode::Done)
}

/// What was not found is known here.
fn missing(error: ClientError, name: &str) -> CliError {
    if error.status() == Some(StatusCode::NOT_FOUND) {
        return CliError::failed(format!("Project {name:?} not found"))
            .code("not-found")
            .hint("`comity project list` shows the projects that you may see.");
    }
    error.into()
}
