//! `comity volume`: storage volumes and what is in them.

use std::path::PathBuf;

use clap::Subcommand;
use http::{Method, StatusCode};
use schema::kind::transfer::VolumeAddress;
use schema::name::{PoolName, RemoteName};
use schema::render::visible;
use serde_json::json;

use super::context::name;
use super::instance::archive::{self, HowArgs, is_file};
use super::operand::{VolumeOperand, pairs};
use super::operation::watch::finish;
use super::{CliError, Context, ExitCode, Format, Table, pool};
use crate::client::operation::Begun;
use crate::client::volume::volume_path;
use crate::client::{Client, ClientError};
use crate::wire::lxd::operation::OperationBody;
use crate::wire::volume::{OWNER_KEY, StorageVolume};

pub mod copy;
mod snapshot;
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
        /// Keys and values, such as snapshots.expiry=2w.
        #[arg(value_name = "KEY=VALUE")]
        config: Vec<String>,
        #[arg(long, value_name = "TEXT", default_value = "")]
        description: String,
    },
    /// List volumes.
    #[command(visible_alias = "ls")]
    List {
        #[arg(value_name = "[REMOTE:][POOL]")]
        pool: Option<String>,
    },
    /// Show a volume, and how much it holds.
    Show {
        #[arg(value_name = "[REMOTE:]POOL/NAME")]
        volume: String,
    },
    /// Print the value of a key.
    Get {
        #[arg(value_name = "[REMOTE:]POOL/NAME")]
        volume: String,
        key: String,
    },
    /// Set keys.
    Set {
        #[arg(value_name = "[REMOTE:]POOL/NAME")]
        volume: String,
        #[arg(value_name = "KEY=VALUE", required = true)]
        pairs: Vec<String>,
    },
    /// Unset a key.
    Unset {
        #[arg(value_name = "[REMOTE:]POOL/NAME")]
        volume: String,
        key: String,
    },
    /// Edit a volume as YAML.
    Edit {
        #[arg(value_name = "[REMOTE:]POOL/NAME")]
        volume: String,
    },
    /// Rename a volume.
    Rename {
        #[arg(value_name = "[REMOTE:]POOL/NAME")]
        volume: String,
        new: String,
    },
    /// Delete volumes and their data, or snapshots of them.
    #[command(visible_alias = "rm")]
    Delete {
        #[arg(value_name = "[REMOTE:]POOL/NAME[/SNAPSHOT]", required = true)]
        volumes: Vec<String>,
    },
    /// Copy a volume or a snapshot of one: within a cluster, or from one cluster to another.
    #[command(visible_alias = "cp")]
    Copy(copy::CopyArgs),
    /// Move a volume: rename it, or take it to another pool or cluster.
    #[command(visible_alias = "mv")]
    Move(copy::MoveArgs),
    /// Take a snapshot of a volume, and manage those that there are.
    Snapshot(snapshot::Args),
    /// Put a volume back as it was when a snapshot was taken.
    Restore {
        #[arg(value_name = "[REMOTE:]POOL/NAME")]
        volume: String,
        snapshot: String,
    },
    /// Put the content of a local folder in place of a volume's, or make a volume of a tar file.
    Import {
        #[arg(value_name = "[REMOTE:]POOL/NAME")]
        volume: String,
        /// A folder, or a tar file that was exported (`-` for standard input).
        #[arg(value_name = "FOLDER or FILE")]
        from: PathBuf,
    },
    /// Copy a volume's content into a new or empty local folder, or all of it into a tar file.
    Export {
        #[arg(value_name = "[REMOTE:]POOL/NAME")]
        volume: String,
        /// A folder, or a file that ends in .tar, .tar.gz, .tar.zst (`-` for standard output).
        #[arg(value_name = "FOLDER or FILE")]
        to: PathBuf,
        /// Leave its snapshots out of the tar file.
        #[arg(long)]
        volume_only: bool,
        #[command(flatten)]
        how: HowArgs,
    },
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    match args.command {
        Command::Create { volume, config, description } => {
            let (volume, client) = at(context, "VOLUME", &volume).await?;
            let config = pairs(&config)?;
            let made = client.create_volume(&volume.pool, &volume.volume, &description, &config).await;
            found(context, &client, &(&volume).into(), made).await.map_err(|error| {
                match error.code.as_str() {
                    "conflict" if error.hint.is_none() => {
                        let hint =
                            format!("`{} volume show {volume}` shows what there is.", context.command());
                        error.hint(hint)
                    }
                    _ => error,
                }
            })?;
            done(context, "Created", &volume);
        }
        Command::List { pool } => list(context, pool.as_deref()).await?,
        Command::Show { volume } => show(context, &volume).await?,
        Command::Get { volume, key } => {
            let (volume, client) = at(context, "VOLUME", &volume).await?;
            let entry = entry(context, &client, &volume).await?;
            pool::get(context, &entry.config, &key);
        }
        Command::Set { volume, pairs: given } => set(context, &volume, &pairs(&given)?).await?,
        Command::Unset { volume, key } => set(context, &volume, &[(key, String::new())]).await?,
        Command::Edit { volume } => {
            let (volume, client) = at(context, "VOLUME", &volume).await?;
            entry(context, &client, &volume).await?;
            pool::edited(context, &client, &volume_path(&volume.pool, &volume.volume)).await?;
        }
        Command::Rename { volume, new } => {
            let (volume, client) = at(context, "VOLUME", &volume).await?;
            let new: schema::name::VolumeName = name("NEW", &new)?;
            let path = volume_path(&volume.pool, &volume.volume);
            ended(context, &(&volume).into(), &client, Method::POST, &path, json!({ "name": new })).await?;
            context.output.done(format!("Renamed volume {volume} to {new}."), new.as_str());
        }
        Command::Delete { volumes } => {
            for volume in volumes {
                delete(context, &volume).await?;
            }
        }
        Command::Copy(args) => return copy::copy(args, context).await,
        Command::Move(args) => return copy::run_move(args, context).await,
        Command::Snapshot(args) => return snapshot::run(args, context).await,
        Command::Restore { volume, snapshot } => return snapshot::restore(context, &volume, &snapshot).await,
        Command::Import { volume, from } if is_file(&from) => {
            let (volume, client) = at(context, "VOLUME", &volume).await?;
            let path = format!("/1.0/storage-pools/{}/volumes/custom", volume.pool);
            let headers = [("X-LXD-name", volume.volume.as_str()), ("X-LXD-type", "backup")];
            archive::bring(context, (&client, volume.remote.as_ref()), &path, &headers, &from).await?;
            done(context, "Imported", &volume);
        }
        Command::Import { volume, from } => {
            let (volume, client) = at(context, "VOLUME", &volume).await?;
            default_project(context)?;
            tree::import(context, &volume, &client, &from).await?;
        }
        Command::Export { volume, to, volume_only, how } if is_file(&to) => {
            let (volume, client) = at(context, "VOLUME", &volume).await?;
            entry(context, &client, &volume).await?;
            let mut body = json!({ "volume_only": volume_only });
            how.put_into(&mut body, &to)?;
            let of = volume_path(&volume.pool, &volume.volume);
            archive::fetch(context, (&client, volume.remote.as_ref()), &of, body, &to).await?;
            let sentence = format!("Exported {volume} to {}", to.display());
            archive::said(context, &sentence, &volume.to_string(), &to);
        }
        Command::Export { volume, to, .. } => {
            let (volume, client) = at(context, "VOLUME", &volume).await?;
            default_project(context)?;
            tree::export(context, &volume, &client, &to).await?;
        }
    }
    Ok(ExitCode::Done)
}

async fn set(context: &Context, volume: &str, given: &[(String, String)]) -> Result<(), CliError> {
    let (volume, client) = at(context, "VOLUME", volume).await?;
    let path = volume_path(&volume.pool, &volume.volume);
    let set = pool::set(&client, &path, given).await;
    found(context, &client, &(&volume).into(), set).await
}

async fn entry(
    context: &Context,
    client: &Client,
    volume: &VolumeAddress,
) -> Result<StorageVolume, CliError> {
    let entry = client.volume(&volume.pool, &volume.volume).await;
    found(context, client, &volume.into(), entry).await
}

async fn delete(context: &Context, operand: &str) -> Result<(), CliError> {
    let VolumeOperand { volume, snapshot } = VolumeOperand::parse("VOLUME", operand)?;
    let client = context.client(volume.remote.as_ref()).await?;
    if let Some(snapshot) = snapshot {
        return snapshot::delete(context, &volume, &client, &snapshot).await;
    }
    let path = volume_path(&volume.pool, &volume.volume);
    ended(context, &(&volume).into(), &client, Method::DELETE, &path, serde_json::Value::Null).await?;
    done(context, "Deleted", &volume);
    Ok(())
}

/// Has something done at `path`, and stays until it is: the operation, if it took one.
async fn ended(
    context: &Context,
    operand: &VolumeOperand,
    client: &Client,
    method: Method,
    path: &str,
    body: serde_json::Value,
) -> Result<Option<OperationBody>, CliError> {
    let remote = operand.volume.remote.as_ref();
    match found(context, client, operand, client.begin_at(method, path, &body).await).await? {
        Begun::Done(_) => Ok(None),
        Begun::Running(begun) => finish(context, client, remote, *begun).await.map(Some),
    }
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
    let (is_named, pools) = match pool {
        Some(pool) => (true, vec![pool]),
        None => (false, client.pools().await?.into_iter().map(|pool| pool.name).collect()),
    };
    let mut volumes = Vec::new();
    for pool in pools {
        match client.volumes(&pool).await {
            Ok(found) => volumes.extend(found),
            // One disk that is away keeps nobody from the others.
            Err(error) if error.status() == Some(StatusCode::SERVICE_UNAVAILABLE) && !is_named => {
                context.output.note(format!("{error}. Its volumes are left out."));
            }
            Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => {
                context.meant_remote(pool.as_str(), "volume list");
                return Err(no_pool(context, remote.as_ref(), &pool));
            }
            Err(error) => return Err(error.into()),
        }
    }
    match context.output.format() {
        Format::Json => context.output.json(&volumes),
        Format::Text => {
            let mut table = Table::new(["POOL", "NAME", "DESCRIPTION", "MANIFEST"]);
            for volume in volumes {
                let owner = owner(&volume).unwrap_or_default().to_owned();
                table.row([volume.pool.to_string(), volume.name, volume.description, owner]);
            }
            context.output.table(&table);
        }
    }
    Ok(())
}

async fn show(context: &Context, volume: &str) -> Result<(), CliError> {
    let (address, client) = at(context, "VOLUME", volume).await?;
    let volume = entry(context, &client, &address).await?;
    let state = match client.volume_state(&address.pool, &address.volume).await {
        Ok(state) => Some(state),
        // LXD counts only where its pool has quotas.
        Err(ClientError::Refused { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    match context.output.format() {
        Format::Json => {
            let mut body = json!(volume);
            body["state"] = json!(state);
            context.output.json(&body);
        }
        Format::Text => {
            context.output.line(format!("Name:         {}/{}", volume.pool, volume.name));
            context.output.line(format!("Description:  {}", visible(&volume.description)));
            context.output.line(format!("Manifest:     {}", owner(&volume).unwrap_or("none")));
            if let Some(state) = state {
                context.output.line(format!("On disk:      {}", indicatif::BinaryBytes(state.usage.used)));
            }
            if !volume.used_by.is_empty() {
                let users: Vec<String> = volume.used_by.iter().map(|path| user(path)).collect();
                context.output.line(format!("Used by:      {}", visible(&users.join(", "))));
            }
            for (key, value) in volume.config.iter().filter(|(key, _)| *key != OWNER_KEY) {
                context.output.line(format!("{key}: {}", visible(value)));
            }
        }
    }
    Ok(())
}

/// What uses a volume, as commands call it; the project of an instance behind it, where that is not the usual one.
fn user(path: &str) -> String {
    let Some(instance) = path.strip_prefix("/1.0/instances/") else { return path.to_owned() };
    match instance.split_once("?project=") {
        Some((name, project)) => format!("{name} (project {project})"),
        None => instance.to_owned(),
    }
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

/// A folder goes into a volume of ours, or comes out of one, and these are in one project.
fn default_project(context: &Context) -> Result<(), CliError> {
    match context.project() {
        Some(project) if project.as_str() != "default" => Err(CliError::failed(format!(
            "--project {project}: volumes are kept in the project \"default\" alone, as yet"
        ))
        .code("project")
        .hint("Leave the flag out.")),
        _ => Ok(()),
    }
}

async fn at(context: &Context, place: &str, text: &str) -> Result<(VolumeAddress, Client), CliError> {
    let volume = VolumeOperand::volume(place, text)?;
    let client = context.client(volume.remote.as_ref()).await?;
    Ok((volume, client))
}

/// What a call about a volume or a snapshot came to. "Not Found" says less than the one who asked can be told.
pub async fn found<T>(
    context: &Context,
    client: &Client,
    operand: &VolumeOperand,
    result: Result<T, ClientError>,
) -> Result<T, CliError> {
    let error = match result {
        Ok(found) => return Ok(found),
        Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => error,
        Err(error) => return Err(error.into()),
    };
    let (command, volume) = (context.command(), &operand.volume);
    let remote = volume.remote.as_ref().map(|remote| format!("{remote}:")).unwrap_or_default();
    if error.to_string().contains("pool") {
        return Err(no_pool(context, volume.remote.as_ref(), &volume.pool));
    }
    // The status is the same whichever of the two is not there.
    let there = match &operand.snapshot {
        Some(_) => client.volume(&volume.pool, &volume.volume).await.is_ok(),
        None => false,
    };
    Err(match &operand.snapshot {
        Some(snapshot) if there => CliError::failed(format!("volume {volume} has no snapshot {snapshot}"))
            .code("not_found")
            .hint(format!("`{command} volume snapshot list {volume}` shows those that it has.")),
        _ => CliError::failed(format!("volume {volume} does not exist")).code("not_found").hint(format!(
            "`{}` shows those that you may see there.",
            format!("{command} volume list {remote}").trim_end()
        )),
    })
}

fn no_pool(context: &Context, remote: Option<&RemoteName>, pool: &PoolName) -> CliError {
    let remote = remote.map(|remote| format!("{remote}:")).unwrap_or_default();
    let list = format!("{} pool list {remote}", context.command());
    CliError::failed(format!("storage pool {remote}{pool} does not exist"))
        .code("not_found")
        .hint(format!("`{}` shows those that there are.", list.trim_end()))
}

impl From<&VolumeAddress> for VolumeOperand {
    fn from(volume: &VolumeAddress) -> Self {
        Self { volume: volume.clone(), snapshot: None }
    }
}
