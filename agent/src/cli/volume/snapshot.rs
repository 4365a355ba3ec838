//! `comity volume snapshot` and `comity volume restore`.

use clap::Subcommand;
use http::Method;
use schema::kind::transfer::VolumeAddress;
use schema::name::SnapshotName;
use serde_json::{Map, Value, json};

use super::{at, ended, found};
use crate::cli::context::name;
use crate::cli::instance::info::time;
use crate::cli::operand::VolumeOperand;
use crate::cli::{CliError, Context, ExitCode, Format, Table};
use crate::client::Client;
use crate::client::volume::{snapshot_path, volume_path};
use crate::wire::lxd::operation::OperationBody;

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    take: TakeArgs,
}

#[derive(Debug, clap::Args)]
struct TakeArgs {
    #[arg(value_name = "[REMOTE:]POOL/NAME", required = true)]
    volume: Option<String>,
    /// What the snapshot is called [default: as snapshots.pattern says].
    #[arg(value_name = "SNAPSHOT")]
    snapshot: Option<String>,
    /// It stays until it is deleted, whatever snapshots.expiry says.
    #[arg(long)]
    no_expiry: bool,
    /// Put it in place of one that has the name.
    #[arg(long, requires = "snapshot")]
    reuse: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List a volume's snapshots.
    #[command(visible_alias = "ls")]
    List {
        #[arg(value_name = "[REMOTE:]POOL/NAME")]
        volume: String,
    },
    /// Show one.
    Show {
        #[arg(value_name = "[REMOTE:]POOL/NAME/SNAPSHOT")]
        snapshot: String,
    },
    /// Rename one.
    #[command(visible_alias = "mv")]
    Rename {
        #[arg(value_name = "[REMOTE:]POOL/NAME/SNAPSHOT")]
        snapshot: String,
        new: String,
    },
    /// Delete one.
    #[command(visible_alias = "rm")]
    Delete {
        #[arg(value_name = "[REMOTE:]POOL/NAME/SNAPSHOT")]
        snapshot: String,
    },
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    match args.command {
        None => take(args.take, context).await,
        Some(Command::List { volume }) => list(context, &volume).await,
        Some(Command::Show { snapshot }) => {
            let (volume, snapshot, client) = of(context, &snapshot).await?;
            let at = snapshot_path(&volume.pool, &volume.volume, &snapshot);
            let shown = client.document(&at).await;
            let operand = VolumeOperand { volume, snapshot: Some(snapshot) };
            let shown = found(context, &client, &operand, shown).await?.content;
            match context.output.format() {
                Format::Json => context.output.json(&shown),
                Format::Text => context.output.yaml(&shown),
            }
            Ok(ExitCode::Done)
        }
        Some(Command::Rename { snapshot, new }) => {
            let (volume, snapshot, client) = of(context, &snapshot).await?;
            let new: SnapshotName = name("NEW", &new)?;
            let at = snapshot_path(&volume.pool, &volume.volume, &snapshot);
            let operand = VolumeOperand { volume: volume.clone(), snapshot: Some(snapshot.clone()) };
            ended(context, &operand, &client, Method::POST, &at, json!({ "name": new })).await?;
            context.output.done(format!("Renamed snapshot {snapshot} of {volume} to {new}."), new.as_str());
            Ok(ExitCode::Done)
        }
        Some(Command::Delete { snapshot }) => {
            let (volume, snapshot, client) = of(context, &snapshot).await?;
            delete(context, &volume, &client, &snapshot).await?;
            Ok(ExitCode::Done)
        }
    }
}

async fn take(args: TakeArgs, context: &Context) -> Result<ExitCode, CliError> {
    let (volume, client) = at(context, "VOLUME", args.volume.as_deref().unwrap_or_default()).await?;
    let taken: Option<SnapshotName> =
        args.snapshot.as_deref().map(|text| name("SNAPSHOT", text)).transpose()?;
    if let (true, Some(taken)) = (args.reuse, &taken) {
        let all = client.volume_snapshots(&volume.pool, &volume.volume).await;
        let all = found(context, &client, &(&volume).into(), all).await?;
        if all.iter().any(|listed| listed.called() == taken.as_str()) {
            let path = snapshot_path(&volume.pool, &volume.volume, taken);
            ended(context, &(&volume).into(), &client, Method::DELETE, &path, Value::Null).await?;
        }
    }
    let mut body = Map::new();
    body.insert("name".to_owned(), json!(taken.as_ref().map_or("", SnapshotName::as_str)));
    if args.no_expiry {
        // LXD's word for never; left out, the volume's configuration says.
        body.insert("expires_at".to_owned(), json!("0001-01-01T00:00:00Z"));
    }
    let path = format!("{}/snapshots", volume_path(&volume.pool, &volume.volume));
    let made = ended(context, &(&volume).into(), &client, Method::POST, &path, Value::Object(body)).await?;
    let taken = taken.map(|taken| taken.to_string()).or_else(|| made.as_ref().and_then(named));
    match &taken {
        Some(taken) => context.output.done(format!("Took snapshot {taken} of {volume}."), taken),
        None => context.output.done(format!("Took a snapshot of {volume}."), &volume.to_string()),
    }
    Ok(ExitCode::Done)
}

/// The name that the server gave the snapshot that an operation took.
fn named(operation: &OperationBody) -> Option<String> {
    let mut made = operation.resources.values().flatten();
    made.find_map(|path| {
        let (_, name) = path.split('?').next()?.split_once("/snapshots/")?;
        Some(name.to_owned())
    })
}

async fn list(context: &Context, volume: &str) -> Result<ExitCode, CliError> {
    let (volume, client) = at(context, "VOLUME", volume).await?;
    let all = client.volume_snapshots(&volume.pool, &volume.volume).await;
    let mut all = found(context, &client, &(&volume).into(), all).await?;
    all.sort_by(|a, b| (a.created_at, &a.name).cmp(&(b.created_at, &b.name)));
    match context.output.format() {
        Format::Json => context.output.json(&all),
        Format::Text => {
            let mut table = Table::new(["NAME", "TAKEN AT", "EXPIRES AT", "DESCRIPTION"]);
            for snapshot in &all {
                table.row([
                    snapshot.called().to_owned(),
                    time(snapshot.created_at),
                    time(snapshot.expires_at),
                    snapshot.description.clone(),
                ]);
            }
            context.output.table(&table);
        }
    }
    Ok(ExitCode::Done)
}

pub async fn restore(context: &Context, volume: &str, snapshot: &str) -> Result<ExitCode, CliError> {
    let (volume, client) = at(context, "VOLUME", volume).await?;
    let snapshot: SnapshotName = name("SNAPSHOT", snapshot)?;
    let path = volume_path(&volume.pool, &volume.volume);
    let known = client.volume_snapshots(&volume.pool, &volume.volume).await;
    let known = found(context, &client, &(&volume).into(), known).await?;
    if !known.iter().any(|known| known.called() == snapshot.as_str()) {
        let hint = format!("`{} volume snapshot list {volume}` shows those that it has.", context.command());
        return Err(CliError::failed(format!("volume {volume} has no snapshot {snapshot}"))
            .code("not_found")
            .hint(hint));
    }
    ended(context, &(&volume).into(), &client, Method::PUT, &path, json!({ "restore": snapshot })).await?;
    context.output.done(format!("Restored {volume} as it was in {snapshot}."), &volume.to_string());
    Ok(ExitCode::Done)
}

/// Deletes one, and says so.
pub async fn delete(
    context: &Context,
    volume: &VolumeAddress,
    client: &Client,
    snapshot: &SnapshotName,
) -> Result<(), CliError> {
    let path = snapshot_path(&volume.pool, &volume.volume, snapshot);
    let operand = VolumeOperand { volume: volume.clone(), snapshot: Some(snapshot.clone()) };
    ended(context, &operand, client, Method::DELETE, &path, Value::Null).await?;
    context.output.done(format!("Deleted snapshot {snapshot} of {volume}."), snapshot.as_str());
    Ok(())
}

async fn of(context: &Context, operand: &str) -> Result<(VolumeAddress, SnapshotName, Client), CliError> {
    let VolumeOperand { volume, snapshot } = VolumeOperand::parse("SNAPSHOT", operand)?;
    let snapshot = snapshot.ok_or_else(|| {
        CliError::usage("SNAPSHOT: a snapshot is [REMOTE:]POOL/NAME/SNAPSHOT").code("bad-name")
    })?;
    let client = context.client(volume.remote.as_ref()).await?;
    Ok((volume, snapshot, client))
}
