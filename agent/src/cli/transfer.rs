//! `comity transfer`: copies that are declared and run on demand, those that ran, and what interrupted ones have left.

use clap::Subcommand;
use http::StatusCode;
use schema::kind::transfer::{Address, Connect, Consistency, InstanceAddress, Mode, Snapshots, Transfer};
use schema::name::{ContainerName, RemoteName, SnapshotName, TransferName};
use schema::record::{LiveRecord, Record, RecordKey};
use schema::render::visible;
use uuid::Uuid;

use super::context::name;
use super::copying::Way;
use super::operand::{InstanceOperand, VolumeOperand, split};
use super::operation::named::{FEWEST, Named, only};
use super::operation::watch::operand as operation;
use super::volume::copy::{Existing, HowArgs};
use super::{CliError, Context, ExitCode, instance, volume};
use crate::client::Client;
use crate::client::instance::path as instance_path;
use crate::client::volume::volume_path;
use crate::wire::transfer::{Left, Run, RunResult, Transfers};

mod shown;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List transfers: those that are declared, those that can be resumed, and the last that arrived there.
    #[command(visible_alias = "ls")]
    List {
        #[arg(value_name = "REMOTE:")]
        at: Option<String>,
    },
    /// Show one that is declared, by name, or one that arrived, by its operation's id.
    Show {
        #[arg(value_name = "[REMOTE:]NAME or ID")]
        transfer: String,
    },
    /// Run one that is declared, the first time or again.
    Run(RunArgs),
    /// Go on with a declared one that was interrupted: what has arrived is not sent again. What was copied by a command
    /// goes on when that command is given again.
    Resume(RunArgs),
    /// Cancel one that runs, by its operation's id, or throw away what an interrupted one has left.
    Cancel {
        #[arg(value_name = "[REMOTE:]ID, NAME, POOL/VOLUME or INSTANCE")]
        transfer: String,
    },
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    /// Its name where it is declared; to resume it, also the id of a run where it arrived, or what it arrives as.
    #[arg(value_name = "[REMOTE:]NAME or ID")]
    name: String,
    /// Delete the target's snapshots that the source does not have, whatever is declared.
    #[arg(long)]
    prune: bool,
    /// Who connects to whom: the target to the source (pull), the source to the target (push), or this command to both
    /// (relay) [default: as it is declared].
    #[arg(long, alias = "mode", value_enum, value_name = "MODE")]
    connect: Option<Way>,
}

/// A transfer as it is declared.
#[derive(Debug, Clone)]
struct Declared {
    name: TransferName,
    transfer: Transfer,
    manifest: String,
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    match args.command {
        Command::List { at: operand } => {
            let (remote, _) = split(operand.as_deref().unwrap_or_default())?;
            let client = context.client(remote.as_ref()).await?;
            let there = transfers(&client).await?;
            let declared = declared(&client).await?;
            let mut rows = Vec::with_capacity(declared.len());
            for one in declared {
                let last = last_run(context, &client, &one).await.map_err(|error| error.message);
                rows.push((one, last));
            }
            shown::list(context, remote.as_ref(), &rows, &there);
            Ok(ExitCode::Done)
        }
        Command::Show { transfer } => show(context, &transfer).await,
        Command::Run(args) => {
            let (remote, wanted) = split(&args.name)?;
            let client = context.client(remote.as_ref()).await?;
            let found = find(context, (&client, remote.as_ref()), wanted).await?;
            Box::pin(run_declared(context, &client, found, &args)).await
        }
        Command::Resume(args) => Box::pin(resume(context, args)).await,
        Command::Cancel { transfer } => cancel(context, &transfer).await,
    }
}

/// What arrived at an agent, and what is left there.
async fn transfers(client: &Client) -> Result<Transfers, CliError> {
    client.transfers().await.map_err(|error| match error.status() {
        Some(StatusCode::NOT_FOUND) => CliError::failed(format!(
            "{} keeps no list of transfers: it is not an agent of comity's",
            client.agent()
        ))
        .code("not-kept")
        .hint("Transfers are listed where they are declared, and where they arrive at an agent."),
        _ => error.into(),
    })
}

async fn declared(client: &Client) -> Result<Vec<Declared>, CliError> {
    let live = client.state().await?;
    let transfers =
        live.records.into_iter().filter_map(|(key, LiveRecord { owner, record, .. })| match (key, record) {
            (RecordKey::Transfer(name), Record::Transfer(transfer)) => {
                let manifest = owner.map(|owner| owner.to_string()).unwrap_or_default();
                Some(Declared { name, transfer, manifest })
            }
            _ => None,
        });
    Ok(transfers.collect())
}

async fn find(
    context: &Context,
    (client, remote): (&Client, Option<&RemoteName>),
    wanted: &str,
) -> Result<Declared, CliError> {
    let wanted: TransferName = name("NAME", wanted)?;
    declared(client).await?.into_iter().find(|one| one.name == wanted).ok_or_else(|| {
        let list = list(context, remote);
        let looks_like_an_id = wanted.as_str().chars().all(|c| c.is_ascii_hexdigit());
        let hint = if looks_like_an_id {
            format!("`{list}` shows those that are, and ids of those that arrived; of an id give at least {FEWEST} digits.")
        } else {
            format!("`{list}` shows those that are.")
        };
        CliError::failed(format!("transfer {wanted} is not declared there")).code("not_found").hint(hint)
    })
}

/// The command that lists them.
fn list(context: &Context, remote: Option<&RemoteName>) -> String {
    let remote = remote.map(|remote| format!(" {remote}:")).unwrap_or_default();
    format!("{} transfer list{remote}", context.command())
}

/// The one that arrived whose id is `wanted` or begins so; `None`, if that is a name.
async fn ran(
    context: &Context,
    (client, remote): (&Client, Option<&RemoteName>),
    wanted: &str,
) -> Result<Option<Run>, CliError> {
    let Ok(named) = Named::read(wanted) else { return Ok(None) };
    let runs = transfers(client).await?.runs;
    let id = match &named {
        Named::Whole(id) => *id,
        // It may be a name all the same.
        Named::Beginning(beginning) if !runs.iter().any(|run| run.id.to_string().starts_with(beginning)) => {
            return Ok(None);
        }
        Named::Beginning(beginning) => only(beginning, runs.iter().map(|run| run.id))?,
    };
    runs.into_iter().find(|run| run.id == id).map(Some).ok_or_else(|| {
        CliError::failed(format!("no transfer {id} arrived there, or it was forgotten since"))
            .code("not_found")
            .hint(format!("`{}` shows the last hundred.", list(context, remote)))
    })
}

/// An end of a declared transfer: an address without a remote is of the cluster that declares it.
async fn end(context: &Context, declaring: &Client, address: &Address) -> Result<Client, CliError> {
    match address.remote() {
        Some(remote) => context.client(Some(remote)).await,
        None => Ok(declaring.clone()),
    }
}

/// What arrives, as a path of the API.
fn path(address: &Address) -> String {
    match address {
        Address::Volume(volume) => volume_path(&volume.pool, &volume.volume),
        Address::Instance(InstanceAddress { instance, .. }) => instance_path(instance.as_str()),
    }
}

impl Declared {
    /// Whether a run at its target was one of it. Runs of before tell no name.
    fn is(&self, run: &Run) -> bool {
        run.transfer.as_ref().map_or(run.target == path(&self.transfer.target), |name| *name == self.name)
    }
}

/// The last run of a declared transfer, if the agent where it arrives can be asked now.
async fn last_run(
    context: &Context,
    declaring: &Client,
    declared: &Declared,
) -> Result<Option<Run>, CliError> {
    let there = end(context, declaring, &declared.transfer.target).await?;
    Ok(there.transfers().await?.runs.into_iter().find(|run| declared.is(run)))
}

async fn show(context: &Context, operand: &str) -> Result<ExitCode, CliError> {
    let (remote, wanted) = split(operand)?;
    let client = context.client(remote.as_ref()).await?;
    if let Some(run) = ran(context, (&client, remote.as_ref()), wanted).await? {
        let left = transfers(&client).await?.left.into_iter().find(|left| left.target == run.target);
        shown::run(context, remote.as_ref(), &run, left.as_ref());
        return Ok(ExitCode::Done);
    }
    let found = find(context, (&client, remote.as_ref()), wanted).await?;
    let target = &found.transfer.target;
    let path = path(target);
    let there = match end(context, &client, target).await {
        Ok(there) => there.transfers().await.ok(),
        Err(_) => None,
    };
    let runs = there.as_ref().map(|there| there.runs.iter().filter(|run| found.is(run)).cloned().collect());
    let left = there.and_then(|there| there.left.into_iter().find(|left| left.target == path));
    shown::one(context, &found, runs, left.as_ref());
    Ok(ExitCode::Done)
}

/// By a name it is run; by a run's id, or what arrives, the declaration is looked for, with the agent that was asked and
/// with the source's.
async fn resume(context: &Context, args: RunArgs) -> Result<ExitCode, CliError> {
    let (remote, wanted) = split(&args.name)?;
    let client = context.client(remote.as_ref()).await?;
    let mut run = ran(context, (&client, remote.as_ref()), wanted).await?;
    if run.is_none() {
        // What arrives there may be called like one that is declared there: that goes first.
        let found = if wanted.contains('/') {
            Err(CliError::failed(format!("nothing has arrived at {wanted} there"))
                .code("not_found")
                .hint(format!("`{}` shows what has.", list(context, remote.as_ref()))))
        } else {
            find(context, (&client, remote.as_ref()), wanted).await
        };
        match found {
            Ok(found) => return run_declared(context, &client, found, &args).await,
            Err(error) => {
                let runs = transfers(&client).await?.runs;
                run = Some(runs.into_iter().find(|run| shown::called(&run.target) == wanted).ok_or(error)?);
            }
        }
    }
    let Some(run) = run else { return Ok(ExitCode::Done) };
    let (id, command) = (run.id, context.command());
    match run.result {
        RunResult::Success => {
            return Err(CliError::failed(format!("transfer {id} is done: there is nothing to resume")));
        }
        RunResult::Running => {
            let hint =
                format!("`{command} operation show --watch {}` joins it.", operation(remote.as_ref(), id));
            return Err(CliError::failed(format!("transfer {id} runs")).code("busy").hint(hint));
        }
        RunResult::Failure | RunResult::Cancelled | RunResult::Interrupted => {}
    }
    let source = run.source.clone().unwrap_or_default();
    let Some(name) = run.transfer else {
        let target = shown::at(remote.as_ref(), &shown::called(&run.target));
        let (from, to) = (visible(&source), visible(&target));
        let hint = format!(
            "Run the command again that copied {from} to {to}: what has arrived is not sent again. `{command} transfer cancel {to}` discards it."
        );
        return Err(CliError::failed(format!("transfer {id} is not a run of a declared transfer")).hint(hint));
    };
    let mut declaring = vec![(client, remote)];
    if let Ok((Some(remote), _)) = split(&source)
        && let Ok(client) = context.client(Some(&remote)).await
    {
        declaring.push((client, Some(remote)));
    }
    for (client, remote) in declaring {
        if let Ok(found) = find(context, (&client, remote.as_ref()), name.as_str()).await {
            return run_declared(context, &client, found, &args).await;
        }
    }
    let message = format!("transfer {name} is declared neither where it arrived nor where it came from");
    let hint = format!("Where it is declared, `{command} transfer resume REMOTE:{name}` goes on with it.");
    Err(CliError::failed(message).code("not_found").hint(hint))
}

async fn run_declared(
    context: &Context,
    client: &Client,
    declared: Declared,
    args: &RunArgs,
) -> Result<ExitCode, CliError> {
    let Declared { name, transfer, .. } = declared;
    let from = end(context, client, &transfer.source).await?;
    let to = end(context, client, &transfer.target).await?;
    let existing = match (transfer.mode, args.prune || transfer.snapshots == Snapshots::Pruned) {
        (Mode::Copy, false) => Existing::Refused,
        (Mode::Copy, true) => {
            return Err(CliError::usage("--prune is for transfers whose mode is \"refresh\""));
        }
        (Mode::Refresh, false) => Existing::Refreshed,
        (Mode::Refresh, true) => Existing::Pruned,
    };
    let how = HowArgs {
        mode: args.connect.unwrap_or(match transfer.connect {
            Connect::Pull => Way::Pull,
            Connect::Push => Way::Push,
            Connect::Relay => Way::Relay,
        }),
        alone: transfer.snapshots == Snapshots::None,
        allow_inconsistent: transfer.consistency == Consistency::AllowInconsistent,
        transfer: Some(name),
    };
    let snapshot = transfer.snapshot;
    let done = match (transfer.source, transfer.target) {
        (Address::Volume(source), Address::Volume(target)) => {
            let source = VolumeOperand { volume: source, snapshot };
            volume::copy::run(context, (&source, &from), (&target, &to), existing, &how).await
        }
        (Address::Instance(source), Address::Instance(target)) => {
            let source = whole(source, snapshot);
            instance::copy::run(context, (&source, &from), (&whole(target, None), &to), existing, &how).await
        }
        _ => Err(CliError::failed("a volume cannot become an instance, nor an instance a volume")),
    };
    done.map_err(|error| match existing {
        Existing::Refused if error.message.contains("already exists") => error
            .hint("It is declared with mode = \"copy\"; mode = \"refresh\" brings a target that exists to the source's state."),
        _ => error,
    })
}

fn whole(address: InstanceAddress, snapshot: Option<SnapshotName>) -> InstanceOperand {
    let name: Option<ContainerName> = Some(address.instance);
    InstanceOperand { remote: address.remote, name, snapshot }
}

async fn cancel(context: &Context, operand: &str) -> Result<ExitCode, CliError> {
    let (remote, wanted) = split(operand)?;
    let mut client = context.client(remote.as_ref()).await?;
    if let Ok(id) = wanted.parse::<Uuid>() {
        return stop(context, (&client, remote.as_ref()), id).await;
    }
    let there = transfers(&client).await?;
    // Where what it has left is looked for.
    let mut place = remote.clone();
    let mut target = there.left.into_iter().find(|left| left.name == wanted).map(|left| left.target);
    let mut runs = there.runs;
    if target.is_none()
        && let Some(run) = ran(context, (&client, remote.as_ref()), wanted).await?
    {
        return stop(context, (&client, remote.as_ref()), run.id).await;
    }
    if target.is_none() && !wanted.contains('/') {
        // The name of one that is declared: what it has left is with its target.
        if let Ok(found) = find(context, (&client, remote.as_ref()), wanted).await {
            let address = &found.transfer.target;
            client = end(context, &client, address).await?;
            place = address.remote().cloned().or(place);
            let path = path(address);
            let there = client.transfers().await?;
            runs = there.runs;
            target = there.left.into_iter().map(|left: Left| left.target).find(|left| *left == path);
            let running = runs.iter().find(|run| run.target == path && run.result == RunResult::Running);
            if let Some(running) = running {
                return stop(context, (&client, place.as_ref()), running.id).await;
            }
        }
    }
    let Some(target) = target else {
        let ends = |run: &&Run| {
            run.result == RunResult::Running
                && run.target.split('?').next().is_some_and(|path| names(path, wanted))
        };
        let hint = match runs.iter().find(ends) {
            Some(running) => format!(
                "It runs: `{} transfer cancel {}` cancels it.",
                context.command(),
                operation(place.as_ref(), running.id)
            ),
            None => {
                format!("`{}` shows what interrupted transfers have left.", list(context, place.as_ref()))
            }
        };
        let message = "no interrupted transfer has left anything of that";
        return Err(CliError::failed(message).code("not_found").hint(hint));
    };
    client.discard_transfer(target).await?;
    context
        .output
        .done(format!("Discarded what had arrived of {wanted}. What was in its place is as it was."), wanted);
    Ok(ExitCode::Done)
}

/// Cancels one that runs.
async fn stop(
    context: &Context,
    (client, remote): (&Client, Option<&RemoteName>),
    id: Uuid,
) -> Result<ExitCode, CliError> {
    match client.cancel_operation(id).await {
        Ok(()) => {
            context.output.done(format!("Cancelled transfer {id}."), &id.to_string());
            return Ok(ExitCode::Done);
        }
        Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => {}
        Err(error) => return Err(error.into()),
    }
    // What one has left that ran is called by where it was to arrive.
    let there = client.transfers().await.unwrap_or_default();
    let target = there.runs.into_iter().find(|run| run.id == id).map(|run| run.target);
    let left = target.filter(|target| there.left.iter().any(|left| left.target == *target));
    let hint = match left {
        Some(target) => {
            let target = shown::at(remote, &shown::called(&target));
            format!("`{} transfer cancel {target}` discards what it has left.", context.command())
        }
        None => format!("`{}` shows what runs, and what interrupted ones have left.", list(context, remote)),
    };
    Err(CliError::failed(format!("transfer {id} does not run")).code("not_found").hint(hint))
}

/// Whether a path of the API is what a command calls `wanted`.
fn names(path: &str, wanted: &str) -> bool {
    match wanted.split_once('/') {
        Some((pool, volume)) => path == format!("/1.0/storage-pools/{pool}/volumes/custom/{volume}"),
        None => path == format!("/1.0/instances/{wanted}"),
    }
}
