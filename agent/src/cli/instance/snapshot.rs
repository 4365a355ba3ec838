//! `comity snapshot` and `comity restore`.

use serde_json::{Map, json};

use super::super::context::name;
use super::super::operand::InstanceOperand;
use super::super::operation::watch::finish;
use super::super::{CliError, Context, ExitCode};
use super::found;
use crate::client::instance::snapshot_path;
use crate::client::operation::Begun;
use schema::name::SnapshotName;

#[derive(Debug, clap::Args)]
pub struct SnapshotArgs {
    #[arg(value_name = "[REMOTE:]NAME")]
    instance: String,
    /// What the snapshot is called [default: as snapshots.pattern says].
    snapshot: Option<String>,
    /// It stays until it is deleted, whatever snapshots.expiry says.
    #[arg(long)]
    no_expiry: bool,
    /// Put it in place of one that has the name.
    #[arg(long, requires = "snapshot")]
    reuse: bool,
    /// With what is in memory, of which there is nothing here.
    #[arg(long)]
    stateful: bool,
}

#[derive(Debug, clap::Args)]
pub struct RestoreArgs {
    #[arg(value_name = "[REMOTE:]NAME")]
    instance: String,
    snapshot: String,
    /// With what was in memory, of which there is nothing here.
    #[arg(long)]
    stateful: bool,
}

pub async fn snapshot(args: SnapshotArgs, context: &Context) -> Result<ExitCode, CliError> {
    let (remote, called) = InstanceOperand::instance("NAME", &args.instance)?;
    let operand = InstanceOperand::parse("NAME", &args.instance)?;
    let client = context.client(remote.as_ref()).await?;
    let taken: Option<SnapshotName> =
        args.snapshot.as_deref().map(|text| name("SNAPSHOT", text)).transpose()?;
    if let (true, Some(taken)) = (args.reuse, &taken) {
        let at = snapshot_path(called.as_str(), taken.as_str());
        match client.delete_at(&at).await {
            Ok(Begun::Running(begun)) => finish(context, &client, remote.as_ref(), *begun).await.map(drop)?,
            Ok(Begun::Done(_)) => {}
            Err(error) if error.status() == Some(http::StatusCode::NOT_FOUND) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let mut body = Map::new();
    body.insert("name".to_owned(), json!(taken.as_ref().map_or("", SnapshotName::as_str)));
    body.insert("stateful".to_owned(), json!(args.stateful));
    if args.no_expiry {
        // LXD's word for never; left out, the instance's configuration says.
        body.insert("expires_at".to_owned(), json!("0001-01-01T00:00:00Z"));
    }
    let begun = client.snapshot_instance(called.as_str(), &body.into()).await;
    let begun = found(context, &client, &operand, begun).await?;
    finish(context, &client, remote.as_ref(), begun).await?;
    Ok(ExitCode::Done)
}

pub async fn restore(args: RestoreArgs, context: &Context) -> Result<ExitCode, CliError> {
    let (remote, called) = InstanceOperand::instance("NAME", &args.instance)?;
    let operand = InstanceOperand::parse("NAME", &args.instance)?;
    let snapshot: SnapshotName = name("SNAPSHOT", &args.snapshot)?;
    let client = context.client(remote.as_ref()).await?;
    let body = json!({ "restore": snapshot, "stateful": args.stateful });
    let begun = client.put_instance(called.as_str(), &body, None).await;
    let whole = InstanceOperand { snapshot: Some(snapshot), ..operand };
    let begun = found(context, &client, &whole, begun).await?;
    finish(context, &client, remote.as_ref(), begun).await?;
    Ok(ExitCode::Done)
}
