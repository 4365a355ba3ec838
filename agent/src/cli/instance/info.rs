//! `comity info`: an instance and its snapshots, or the server.

use schema::render::visible;

use super::super::operand::InstanceOperand;
use super::super::{CliError, Context, ExitCode, Format, Table};
use super::found;
use crate::client::instance::Instance;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The instance; without a name, the server tells of itself.
    #[arg(value_name = "[REMOTE:][NAME]")]
    instance: Option<String>,
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    let operand = InstanceOperand::parse("NAME", args.instance.as_deref().unwrap_or_default())?;
    let client = context.client(operand.remote.as_ref()).await?;
    let Some(name) = &operand.name else {
        let server = client.server().await?;
        match context.output.format() {
            Format::Json => context.output.json(&server),
            Format::Text => context.output.yaml(&server),
        }
        return Ok(ExitCode::Done);
    };
    if operand.snapshot.is_some() {
        return Err(CliError::usage("NAME: an instance belongs here, not a snapshot"));
    }
    let mut instance = found(context, &client, &operand, client.instance(name.as_str()).await).await?;
    instance.snapshots = client.instance_snapshots(name.as_str()).await?;
    match context.output.format() {
        Format::Json => context.output.json(&instance),
        Format::Text => show(context, &instance),
    }
    Ok(ExitCode::Done)
}

fn show(context: &Context, instance: &Instance) {
    let line = |key: &str, value: &str| {
        if !value.is_empty() {
            context.output.line(format!("{key}: {}", visible(value)));
        }
    };
    line("Name", &instance.name);
    line("Description", &instance.shape.description);
    line("Status", &instance.status.to_uppercase());
    line("Type", &instance.kind);
    line("Architecture", &instance.shape.architecture);
    line("Created", &time(instance.created_at));
    line("Last Used", &time(instance.last_used_at));
    if instance.snapshots.is_empty() {
        return;
    }
    context.output.line("\nSnapshots:");
    let mut table = Table::new(["NAME", "TAKEN AT", "EXPIRES AT", "STATEFUL"]);
    for snapshot in &instance.snapshots {
        let name = snapshot.name.rsplit('/').next().unwrap_or(&snapshot.name);
        table.row([name.to_owned(), time(snapshot.created_at), time(snapshot.expires_at), "NO".to_owned()]);
    }
    context.output.table(&table);
}

/// LXD has the beginning of years for "never".
pub fn time(time: Option<jiff::Timestamp>) -> String {
    let time = time.filter(|time| time.as_second() > 0);
    time.map(|time| time.strftime("%Y/%m/%d %H:%M UTC").to_string()).unwrap_or_default()
}
