//! `comity transfer`: copies that are declared, and run on demand.

use clap::Subcommand;
use schema::kind::transfer::{Mode, Transfer};
use schema::name::TransferName;
use schema::record::{LiveRecord, Record, RecordKey};
use serde_json::json;

use super::context::name;
use super::operand::VolumeOperand;
use super::volume::copy::{Existing, HowArgs, run as copy};
use super::{CliError, Context, ExitCode, Format, Table};
use crate::client::Client;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the transfers that are declared.
    #[command(alias = "ls")]
    List,
    /// Run one.
    Run { name: String },
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    let client = context.client(None).await?;
    match args.command {
        Command::List => list(context, &declared(&client).await?),
        Command::Run { name: wanted } => {
            let wanted: TransferName = name("NAME", &wanted)?;
            let all = declared(&client).await?;
            let Some((_, transfer, _)) = all.into_iter().find(|(name, ..)| *name == wanted) else {
                return Err(CliError::failed(format!("transfer {wanted} is not declared there"))
                    .code("not_found")
                    .hint("`comity transfer list` shows those that are."));
            };
            // An address without a remote is of the cluster that declares it.
            let end = async |remote| match remote {
                Some(remote) => context.client(Some(remote)).await,
                None => Ok(client.clone()),
            };
            let (from, to) =
                (end(transfer.source.remote.as_ref()).await?, end(transfer.target.remote.as_ref()).await?);
            let existing = match transfer.mode {
                Mode::Copy => Existing::Refused,
                Mode::Refresh => Existing::Refreshed,
            };
            let source = VolumeOperand { volume: transfer.source.clone(), snapshot: None };
            copy(context, (&source, &from), (&transfer.target, &to), existing, &HowArgs::default()).await?;
        }
    }
    Ok(ExitCode::Done)
}

async fn declared(client: &Client) -> Result<Vec<(TransferName, Transfer, String)>, CliError> {
    let live = client.state().await?;
    let transfers =
        live.records.into_iter().filter_map(|(key, LiveRecord { owner, record, .. })| match (key, record) {
            (RecordKey::Transfer(name), Record::Transfer(transfer)) => {
                Some((name, transfer, owner.map(|owner| owner.to_string()).unwrap_or_default()))
            }
            _ => None,
        });
    Ok(transfers.collect())
}

fn list(context: &Context, transfers: &[(TransferName, Transfer, String)]) {
    let mode = |mode| match mode {
        Mode::Copy => "copy",
        Mode::Refresh => "refresh",
    };
    match context.output.format() {
        Format::Json => {
            let rows = transfers.iter().map(|(name, transfer, manifest)| {
                json!({
                    "name": name, "source": transfer.source.to_string(), "target": transfer.target.to_string(),
                    "mode": mode(transfer.mode), "manifest": manifest,
                })
            });
            context.output.json(&rows.collect::<Vec<_>>());
        }
        Format::Text => {
            let mut table = Table::new(["NAME", "SOURCE", "TARGET", "MODE", "MANIFEST"]);
            for (name, transfer, manifest) in transfers {
                table.row([
                    name.to_string(),
                    transfer.source.to_string(),
                    transfer.target.to_string(),
                    mode(transfer.mode).to_owned(),
                    manifest.clone(),
                ]);
            }
            context.output.table(&table);
        }
    }
}
