//! `comity volume copy` and `comity volume move`, and the transfers that are declared.

use http::Method;
use schema::kind::transfer::VolumeAddress;
use schema::name::TransferName;
use serde_json::{Map, Value, json};

use super::found;
use crate::cli::copying::{self, Asked, Doing, Ends, Noun, Side, Way, begin, copy_within, origin, report};
use crate::cli::operand::VolumeOperand;
use crate::cli::operation::watch::finish;
use crate::cli::{CliError, Context, ExitCode};
use crate::client::operation::Begun;
use crate::client::volume::{snapshot_path, volume_path};
use crate::client::{Client, NO_BODY};
use crate::wire::lxd::operation::OperationBody;
use crate::wire::volume::OWNER_KEY;

#[derive(Debug, clap::Args)]
pub struct CopyArgs {
    #[arg(value_name = "[REMOTE:]POOL/NAME[/SNAPSHOT]")]
    source: String,
    #[arg(value_name = "[REMOTE:]POOL/NAME")]
    target: String,
    #[command(flatten)]
    how: HowArgs,
    /// Bring a target that exists to the source's state; its own snapshots stay.
    #[arg(long)]
    refresh: bool,
    /// With --refresh: delete the snapshots that the source does not have.
    #[arg(long, requires = "refresh")]
    prune: bool,
}

#[derive(Debug, clap::Args)]
pub struct MoveArgs {
    #[arg(value_name = "[REMOTE:]POOL/NAME")]
    source: String,
    #[arg(value_name = "[REMOTE:]POOL/NAME")]
    target: String,
    #[command(flatten)]
    how: HowArgs,
}

/// How it is carried.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct HowArgs {
    /// Who connects to whom: the target to the source (pull), the source to the target (push), or this command to both (relay).
    #[arg(long, value_enum, default_value_t, value_name = "MODE")]
    pub mode: Way,
    /// Leave its snapshots behind.
    #[arg(long = "volume-only")]
    pub alone: bool,
    /// Copy it even while it changes, as it is found.
    #[arg(long)]
    pub allow_inconsistent: bool,
    /// The declared transfer that it is a run of.
    #[arg(skip)]
    pub transfer: Option<TransferName>,
}

/// What becomes of a target that exists, a volume or an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It must not.
    Refused,
    /// It is brought to the source's state; snapshots that only it has stay.
    Refreshed,
    /// So are its snapshots.
    Pruned,
}

pub async fn copy(args: CopyArgs, context: &Context) -> Result<ExitCode, CliError> {
    let source = VolumeOperand::parse("SOURCE", &args.source)?;
    let target = VolumeOperand::volume("TARGET", &args.target)?;
    if args.prune && (args.how.alone || source.snapshot.is_some()) {
        return Err(CliError::usage("--prune deletes snapshots that the source does not have, and none of its snapshots is looked at here")
            .hint("Leave out --prune, or copy the volume with its snapshots."));
    }
    let existing = match (args.refresh, args.prune) {
        (false, _) => Existing::Refused,
        (true, false) => Existing::Refreshed,
        (true, true) => Existing::Pruned,
    };
    let from = context.client(source.volume.remote.as_ref()).await?;
    let to = context.client(target.remote.as_ref()).await?;
    run(context, (&source, &from), (&target, &to), existing, &args.how).await
}

pub async fn run_move(args: MoveArgs, context: &Context) -> Result<ExitCode, CliError> {
    let source = VolumeOperand::volume("SOURCE", &args.source)?;
    let target = VolumeOperand::volume("TARGET", &args.target)?;
    let from = context.client(source.remote.as_ref()).await?;
    let to = context.client(target.remote.as_ref()).await?;
    let one =
        Side::of(&from, source.remote.as_ref()).await?.is(&Side::of(&to, target.remote.as_ref()).await?);
    let at = volume_path(&source.pool, &source.volume);
    if one {
        let mut body = json!({ "name": target.volume });
        if source.pool != target.pool {
            body["pool"] = json!(target.pool);
        }
        let begun = from.begin_at(Method::POST, &at, &body).await;
        let begun = found(context, &from, &(&source).into(), begun).await?;
        if let Begun::Running(begun) = begun {
            finish(context, &from, source.remote.as_ref(), *begun).await?;
        }
        context.output.done(format!("Moved {source} to {target}."), &target.to_string());
        return Ok(ExitCode::Done);
    }
    let whole = VolumeOperand { volume: source.clone(), snapshot: None };
    let moved = carry(context, (&whole, &from), (&target, &to), (Doing::Move, Existing::Refused), &args.how);
    let moved = moved.await.map_err(copying::source_stays)?;
    // The target has told that all of it is there to stay; only now the source may go.
    let retired = async {
        match from.begin(Method::DELETE, &from.of_volumes(&at), NO_BODY).await? {
            Begun::Done(_) => Ok(()),
            Begun::Running(begun) => finish(context, &from, source.remote.as_ref(), *begun).await.map(drop),
        }
    };
    retired.await.map_err(|error: CliError| CliError {
        message: format!("Failed deleting original volume after copying it: {}", error.message),
        hint: Some(format!(
            "The copy {target} is whole and stays. Delete the original (`{0} volume delete {source}`), or the copy and try again.",
            context.command()
        )),
        ..error
    })?;
    Ok(moved.told(context, "Moved"))
}

/// Copies, and tells what was copied.
pub async fn run(
    context: &Context,
    (source, from): (&VolumeOperand, &Client),
    (target, to): (&VolumeAddress, &Client),
    existing: Existing,
    how: &HowArgs,
) -> Result<ExitCode, CliError> {
    let doing = if existing == Existing::Refused { Doing::Copy } else { Doing::Refresh };
    Ok(carry(context, (source, from), (target, to), (doing, existing), how).await?.told(context, "Copied"))
}

/// What became of a copy.
struct Carried {
    operation: OperationBody,
    source: String,
    target: String,
    snapshots: Option<usize>,
}

impl Carried {
    fn told(&self, context: &Context, verb: &str) -> ExitCode {
        let ends = Ends { source: &self.source, target: &self.target, snapshots: self.snapshots };
        report(context, verb, ends, &self.operation)
    }
}

async fn carry(
    context: &Context,
    (source, from): (&VolumeOperand, &Client),
    (target, to): (&VolumeAddress, &Client),
    (doing, existing): (Doing, Existing),
    how: &HowArgs,
) -> Result<Carried, CliError> {
    let VolumeAddress { remote, pool, volume } = &source.volume;
    let looked = async {
        let entry = from.volume(pool, volume).await;
        let entry = found(context, from, &(&source.volume).into(), entry).await?;
        if let Some(snapshot) = &source.snapshot {
            let there = from.document(&snapshot_path(pool, volume, snapshot)).await;
            found(context, from, source, there).await?;
        }
        let here = Side::of(from, remote.as_ref()).await?;
        Ok::<_, CliError>((entry, here, Side::of(to, target.remote.as_ref()).await?))
    };
    let looked = context.interrupts.take().unless(looked).await;
    let (entry, here, there) = looked.ok_or_else(begin::early)??;
    let (at, name) = match &source.snapshot {
        None => (volume_path(pool, volume), volume.to_string()),
        Some(snapshot) => (snapshot_path(pool, volume, snapshot), format!("{volume}/{snapshot}")),
    };
    let volume_only = how.alone || source.snapshot.is_some();
    let mut common = object(json!({
        "name": name, "pool": pool, "volume_only": volume_only, "refresh": existing != Existing::Refused,
        "allow_inconsistent": how.allow_inconsistent,
    }));
    if existing == Existing::Pruned {
        common.insert("prune".to_owned(), json!(true));
    }
    origin::tell(&mut common, &here, &format!("{pool}/{name}"), how.transfer.as_ref());
    let mut config = entry.config;
    // Who declares the source says nothing of the copy.
    config.retain(|key, _| key != OWNER_KEY && !key.starts_with("volatile."));
    let asked = Asked {
        source: from.of_volumes(&at),
        offer: object(json!({
            "name": volume, "pool": pool, "volume_only": volume_only,
            "allow_inconsistent": how.allow_inconsistent,
        })),
        target: to.of_volumes(&format!("/1.0/storage-pools/{}/volumes/custom", target.pool)),
        made: object(json!({
            "name": target.volume, "type": "custom", "content_type": "filesystem",
            "description": entry.description, "config": config,
        })),
        common,
        failure: "Failed storage volume creation",
        doing,
        of: Noun::Volume,
        names: [source.to_string(), target.to_string()],
    };
    if here.is(&there) {
        if (&source.volume.pool, &source.volume.volume) == (&target.pool, &target.volume) {
            let command = context.command();
            return Err(CliError::usage("Source and target are the same volume").hint(
                match &source.snapshot {
                    Some(snapshot) => {
                        format!("`{command} volume restore {target} {snapshot}` puts it back as it was.")
                    }
                    None => "Give another name, another pool or another remote.".to_owned(),
                },
            ));
        }
        let mut within = asked;
        within.common.insert("type".to_owned(), json!("copy"));
        let snapshots = snapshots(from, source, volume_only).await;
        let operation = copy_within(context, &there, &within).await?;
        let [source, target] = within.names;
        return Ok(Carried { operation, source, target, snapshots });
    }
    // A move leaves nothing that could be counted afterwards.
    let snapshots = snapshots(from, source, volume_only).await;
    let operation = copying::copy(context, &here, &there, &asked, how.mode).await?;
    let target = origin::called(&there, &format!("{}/{}", target.pool, target.volume));
    Ok(Carried { operation, source: origin::called(&here, &format!("{pool}/{name}")), target, snapshots })
}

/// How many snapshots come along. Whoever may not list them is not told.
async fn snapshots(from: &Client, source: &VolumeOperand, volume_only: bool) -> Option<usize> {
    if volume_only {
        return Some(0);
    }
    let VolumeAddress { pool, volume, .. } = &source.volume;
    from.volume_snapshots(pool, volume).await.ok().map(|all| all.len())
}

/// A literal as what it is.
fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}
