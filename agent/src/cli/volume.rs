//! `comity volume`: storage volumes and what is in them.

use std::path::PathBuf;

use clap::Subcommand;
use http::StatusCode;
use schema::kind::transfer::{Mode, VolumeAddress};
use schema::name::{PoolName, RemoteName};
use schema::render::visible;
use serde_json::json;

use super::context::name;
use super::{CliError, Context, ExitCode, Format, Table};
use crate::client::{Client, ClientError};
use crate::dataset::pool::DEFAULT_POOL;
use crate::wire::volume::{OWNER_KEY, StorageVolume};

pub mod copy;
mod progress;
mod tree;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make an empty volume, or adopt the data of a forgotten one.
    Create {
        #[arg(value_name = "[REMOTE:]POOL/NAME")]
        volume: String,
        #[arg(long, value_name = "TEXT", default_value = "")]
        description: String,
    },
    /// List volumes.
    #[command(alias = "ls")]
    List {
        #[arg(value_name = "[REMOTE:][POOL]")]
        pool: Option<String>,
    },
    /// Show a volume, and how much it holds.
    Show {
        #[arg(value_name = "[REMOTE:]POOL/NAME")]
        volume: String,
    },
    /// Delete a volume and its data.
    #[command(alias = "rm")]
    Delete {
        #[arg(value_name = "[REMOTE:]POOL/NAME")]
        volume: String,
    },
    /// Copy a volume: within a cluster, or from one cluster to another, which pulls it.
    #[command(alias = "cp")]
    Copy {
        #[arg(value_name = "[REMOTE:]POOL/NAME")]
        source: String,
        #[arg(value_name = "[REMOTE:]POOL/NAME")]
        target: String,
        /// Bring a target that exists to the source's state.
        #[arg(long)]
        refresh: bool,
    },
    /// Put the content of a local folder in place of a volume's.
    Import {
        #[arg(value_name = "[REMOTE:]POOL/NAME")]
        volume: String,
        folder: PathBuf,
    },
    /// Copy a volume's content into a new or empty local folder.
    Export {
        #[arg(value_name = "[REMOTE:]POOL/NAME")]
        volume: String,
        folder: PathBuf,
    },
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    match args.command {
        Command::Create { volume, description } => {
            let (volume, client) = at(context, "VOLUME", &volume).await?;
            client.create_volume(&volume.pool, &volume.volume, &description).await?;
            done(context, "Created", &volume);
        }
        Command::List { pool } => list(context, pool.as_deref()).await?,
        Command::Show { volume } => show(context, &volume).await?,
        Command::Delete { volume } => {
            let (volume, client) = at(context, "VOLUME", &volume).await?;
            client.delete_volume(&volume.pool, &volume.volume).await.map_err(|e| missing(&volume, e))?;
            done(context, "Deleted", &volume);
        }
        Command::Copy { source, target, refresh } => {
            let source = address("SOURCE", &source)?;
            let target = address("TARGET", &target)?;
            let from = context.client(source.remote.as_ref()).await?;
            let to = context.client(target.remote.as_ref()).await?;
            let mode = if refresh { Mode::Refresh } else { Mode::Copy };
            copy::copy(context, (&source, &from), (&target, &to), mode).await?;
        }
        Command::Import { volume, folder } => {
            let (volume, client) = at(context, "VOLUME", &volume).await?;
            tree::import(context, &volume, &client, &folder).await?;
        }
        Command::Export { volume, folder } => {
            let (volume, client) = at(context, "VOLUME", &volume).await?;
            tree::export(context, &volume, &client, &folder).await?;
        }
    }
    Ok(ExitCode::Done)
}

async fn list(context: &Context, asked: Option<&str>) -> Result<(), CliError> {
    let (remote, pool) = match asked.map(|asked| asked.split_once(':').unwrap_or(("", asked))) {
        None => (None, None),
        Some((remote, pool)) => (
            (!remote.is_empty()).then(|| name::<RemoteName>("REMOTE", remote)).transpose()?,
            (!pool.is_empty()).then(|| name::<PoolName>("POOL", pool)).transpose()?,
        ),
    };
    let client = context.client(remote.as_ref()).await?;
    let pools = match pool {
        Some(pool) => vec![pool],
        None => client.pools().await?.into_iter().map(|pool| pool.name).collect(),
    };
    let mut volumes = Vec::new();
    for pool in pools {
        volumes.extend(client.volumes(&pool).await?);
    }
    match context.output.format() {
        Format::Json => context.output.json(&volumes),
        Format::Text => {
            let mut table = Table::new(["POOL", "NAME", "DESCRIPTION", "MANIFEST"]);
            for volume in volumes {
                let owner = owner(&volume).unwrap_or_default().to_owned();
                table.row([volume.pool.to_string(), volume.name.to_string(), volume.description, owner]);
            }
            context.output.table(&table);
        }
    }
    Ok(())
}

async fn show(context: &Context, volume: &str) -> Result<(), CliError> {
    let (address, client) = at(context, "VOLUME", volume).await?;
    let volume = client.volume(&address.pool, &address.volume).await.map_err(|e| missing(&address, e))?;
    let state = client.volume_state(&address.pool, &address.volume).await?;
    match context.output.format() {
        Format::Json => {
            let mut body = json!(volume);
            body["state"] = json!(state);
            context.output.json(&body);
        }
        Format::Text => {
            let used = indicatif::BinaryBytes(state.usage.used);
            context.output.line(format!("Name:         {}/{}", volume.pool, volume.name));
            context.output.line(format!("Description:  {}", visible(&volume.description)));
            context.output.line(format!("Manifest:     {}", owner(&volume).unwrap_or("none")));
            context.output.line(format!("On disk:      {used}"));
        }
    }
    Ok(())
}

fn owner(volume: &StorageVolume) -> Option<&str> {
    volume.config.get(OWNER_KEY).map(String::as_str)
}

fn done(context: &Context, what: &str, volume: &VolumeAddress) {
    match context.output.format() {
        Format::Json => context.output.json(&json!({ "volume": volume.to_string() })),
        Format::Text => context.output.line(format!("{what} volume {volume}.")),
    }
}

/// Parses an address given on the command line; what was given is not repeated by the message.
fn address(place: &str, text: &str) -> Result<VolumeAddress, CliError> {
    text.parse().map_err(|error| {
        let hint = format!("The pool that every agent has is {DEFAULT_POOL:?}.");
        CliError::usage(format!("{place}: {error}")).code("bad-name").hint(hint)
    })
}

async fn at(context: &Context, place: &str, text: &str) -> Result<(VolumeAddress, Client), CliError> {
    let volume = address(place, text)?;
    let client = context.client(volume.remote.as_ref()).await?;
    Ok((volume, client))
}

/// "Not Found" says less than the one who asked can be told.
pub fn missing(volume: &VolumeAddress, error: ClientError) -> CliError {
    if error.status() == Some(StatusCode::NOT_FOUND) {
        CliError::failed(format!("volume {volume} does not exist")).code("not_found")
    } else {
        error.into()
    }
}
