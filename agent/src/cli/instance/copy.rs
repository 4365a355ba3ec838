//! `comity copy` and `comity move`: instances and their snapshots, within a server and between two.

use schema::name::{ProjectName, RemoteName, TransferName};
use serde_json::{Map, Value, json};

use super::super::context::name;
use super::super::copying::{Asked, Doing, Ends, Noun, Side, Way, begin, copy_within, origin, report};
use super::super::operand::{InstanceOperand, no_instance};
use super::super::operation::watch::finish;
use super::super::volume::copy::{Existing, HowArgs};
use super::super::{CliError, Context, ExitCode, copying};
use super::entry::{Volatile, copied};
use super::found;
use super::init::{ShapeArgs, made};
use crate::client::Client;
use crate::client::instance::{Instance, Shape, path, snapshot_path};
use crate::client::operation::Begun;
use crate::wire::lxd::operation::OperationBody;

/// What both commands take.
#[derive(Debug, Clone, Default, clap::Args)]
struct CommonArgs {
    #[command(flatten)]
    shape: ShapeArgs,
    /// Give it no profiles.
    #[arg(long, conflicts_with = "profiles")]
    no_profiles: bool,
    /// Who connects to whom: the target to the source (pull), the source to the target (push), or this command to both (relay).
    #[arg(long, value_enum, default_value_t, value_name = "MODE")]
    mode: Way,
    /// Leave its snapshots behind.
    #[arg(long, visible_alias = "container-only")]
    instance_only: bool,
    /// Without what is in memory: nothing runs here.
    #[arg(long)]
    stateless: bool,
    /// The project that it goes to.
    #[arg(long, value_name = "PROJECT")]
    target_project: Option<String>,
    /// Copy it even while it changes, as it is found.
    #[arg(long)]
    allow_inconsistent: bool,
    /// The member of a cluster that it goes to.
    #[arg(long, hide = true, value_name = "MEMBER")]
    target: Option<String>,
    /// The declared transfer that it is a run of.
    #[arg(skip)]
    transfer: Option<TransferName>,
}

#[derive(Debug, clap::Args)]
pub struct CopyArgs {
    #[arg(value_name = "[REMOTE:]SOURCE[/SNAPSHOT]")]
    source: String,
    /// What the copy is called [default: the same, on another remote].
    #[arg(value_name = "[REMOTE:][TARGET]")]
    destination: Option<String>,
    #[command(flatten)]
    common: CommonArgs,
    /// Make it one that goes when it stops.
    #[arg(long, short)]
    ephemeral: bool,
    /// Bring a copy that exists to the source's state; its own snapshots stay.
    #[arg(long)]
    refresh: bool,
    /// With --refresh: delete the snapshots that the source does not have.
    #[arg(long, requires = "refresh")]
    prune: bool,
}

#[derive(Debug, clap::Args)]
pub struct MoveArgs {
    #[arg(value_name = "[REMOTE:]SOURCE[/SNAPSHOT]")]
    source: String,
    #[arg(value_name = "[REMOTE:][TARGET]")]
    destination: Option<String>,
    #[command(flatten)]
    common: CommonArgs,
}

/// A copy, understood.
struct Wanted<'a> {
    source: &'a InstanceOperand,
    target: &'a InstanceOperand,
    args: &'a CommonArgs,
    ephemeral: bool,
    existing: Existing,
    doing: Doing,
}

/// What became of it.
struct Copied {
    operation: OperationBody,
    name: String,
    /// Both ends, and the snapshots that came along.
    source: String,
    target: String,
    snapshots: Option<usize>,
}

impl Copied {
    fn told(&self, context: &Context, verb: &str) -> ExitCode {
        let ends = Ends { source: &self.source, target: &self.target, snapshots: self.snapshots };
        report(context, verb, ends, &self.operation)
    }
}

pub async fn copy(args: CopyArgs, context: &Context) -> Result<ExitCode, CliError> {
    let (source, _) = InstanceOperand::whole("SOURCE", &args.source)?;
    let target = InstanceOperand::parse("TARGET", args.destination.as_deref().unwrap_or_default())?;
    if target.snapshot.is_some() {
        return Err(no_instance("TARGET"));
    }
    if args.refresh && args.common.no_profiles {
        return Err(CliError::usage("--no-profiles cannot be used with --refresh"));
    }
    if args.refresh && source.snapshot.is_some() {
        return Err(CliError::usage("--refresh can only be used with instances"));
    }
    if args.prune && args.common.instance_only {
        return Err(CliError::usage(
            "--prune cannot be used with --instance-only: no snapshot is looked at then",
        ));
    }
    if args.common.instance_only && source.snapshot.is_some() {
        return Err(CliError::usage("--instance-only cannot be passed when the source is a snapshot"));
    }
    let existing = match (args.refresh, args.prune) {
        (false, _) => Existing::Refused,
        (true, false) => Existing::Refreshed,
        (true, true) => Existing::Pruned,
    };
    let wanted = Wanted {
        source: &source,
        target: &target,
        args: &args.common,
        ephemeral: args.ephemeral,
        existing,
        doing: if args.refresh { Doing::Refresh } else { Doing::Copy },
    };
    let (from, to) = ends(context, &source, &target, &args.common).await?;
    Ok(tell(context, &wanted, &carry(context, (&from, &to), &wanted).await?))
}

/// A declared transfer: copies, and tells what was copied.
pub async fn run(
    context: &Context,
    (source, from): (&InstanceOperand, &Client),
    (target, to): (&InstanceOperand, &Client),
    existing: Existing,
    how: &HowArgs,
) -> Result<ExitCode, CliError> {
    let HowArgs { mode, alone, allow_inconsistent, transfer } = how.clone();
    let args =
        CommonArgs { mode, instance_only: alone, allow_inconsistent, transfer, ..CommonArgs::default() };
    let doing = if existing == Existing::Refused { Doing::Copy } else { Doing::Refresh };
    let wanted = Wanted { source, target, args: &args, ephemeral: false, existing, doing };
    Ok(tell(context, &wanted, &carry(context, (from, to), &wanted).await?))
}

fn tell(context: &Context, wanted: &Wanted<'_>, copied: &Copied) -> ExitCode {
    let Wanted { source, target, .. } = wanted;
    if target.name.is_none() && source.name.as_ref().is_some_and(|name| name.as_str() != copied.name) {
        context.output.note(format!("Instance name is: {}", copied.name));
    }
    copied.told(context, "Copied")
}

pub async fn run_move(args: MoveArgs, context: &Context) -> Result<ExitCode, CliError> {
    let (source, old) = InstanceOperand::whole("SOURCE", &args.source)?;
    let target = InstanceOperand::parse("TARGET", args.destination.as_deref().unwrap_or_default())?;
    let (from, to) = ends(context, &source, &target, &args.common).await?;
    let one =
        Side::of(&from, source.remote.as_ref()).await?.is(&Side::of(&to, target.remote.as_ref()).await?);
    if one {
        return within(context, &from, (&source, &target), old.as_str(), &args.common).await;
    }
    if source.snapshot.is_some() || target.snapshot.is_some() {
        return Err(CliError::usage("A snapshot moves with its instance")
            .hint("`comity copy SOURCE/SNAPSHOT TARGET` makes an instance of it elsewhere."));
    }
    let instance = found(context, &from, &source, from.instance(old.as_str()).await).await?;
    if !matches!(instance.status_code, 0 | 102) {
        return Err(CliError::failed("The instance is currently running")
            .code("running")
            .hint("`comity stop` it first."));
    }
    let wanted = Wanted {
        source: &source,
        target: &target,
        args: &args.common,
        ephemeral: false,
        existing: Existing::Refused,
        doing: Doing::Move,
    };
    let copied = carry(context, (&from, &to), &wanted).await.map_err(copying::source_stays)?;
    // The target has told that all of it is there to stay; only now the source may go.
    retire(context, &from, source.remote.as_ref(), &instance).await.map_err(|error| CliError {
        message: format!("Failed deleting original instance after copying it: {}", error.message),
        hint: Some(format!(
            "The copy is whole and stays. Delete the original (`{0} delete {source}`), or the copy and try again.",
            context.command()
        )),
        ..error
    })?;
    Ok(copied.told(context, "Moved"))
}

async fn ends(
    context: &Context,
    source: &InstanceOperand,
    target: &InstanceOperand,
    args: &CommonArgs,
) -> Result<(Client, Client), CliError> {
    if args.target.is_some() {
        return Err(
            CliError::failed("To use --target, the destination remote must be a cluster").code("no-cluster")
        );
    }
    let from = context.client(source.remote.as_ref()).await?;
    let to = context.client(target.remote.as_ref()).await?;
    let project: Option<ProjectName> =
        args.target_project.as_deref().map(|text| name("--target-project", text)).transpose()?;
    Ok((from, if project.is_some() { to.in_project(project) } else { to }))
}

/// Copies one.
async fn carry(
    context: &Context,
    (from, to): (&Client, &Client),
    wanted: &Wanted<'_>,
) -> Result<Copied, CliError> {
    let Wanted { source, target, args, .. } = wanted;
    let called = source.name.as_ref().map_or("", |name| name.as_str());
    let looked = async {
        let entry = match &source.snapshot {
            None => from.instance(called).await,
            Some(snapshot) => from.instance_snapshot(called, snapshot.as_str()).await,
        };
        let entry = found(context, from, source, entry).await?;
        let here = Side::of(from, source.remote.as_ref()).await?;
        Ok::<_, CliError>((entry, here, Side::of(to, target.remote.as_ref()).await?))
    };
    let looked = context.interrupts.take().unless(looked).await;
    let (entry, here, there) = looked.ok_or_else(begin::early)??;
    let moves = wanted.doing == Doing::Move;
    let shape = {
        let volatile = if moves { Volatile::Kept } else { Volatile::Dropped };
        let mut shape = copied(&entry, &args.shape, args.no_profiles, volatile)?;
        shape.ephemeral = if moves { shape.ephemeral } else { wanted.ephemeral };
        shape
    };
    let within = here.is(&there);
    let name = match &target.name {
        Some(name) => name.to_string(),
        // Another one here cannot have the same name; elsewhere it is expected to.
        None if within => String::new(),
        None => called.to_owned(),
    };
    let asked = asked(wanted, &here, &there, (&entry, &shape), &name, within);
    let alone = args.instance_only || source.snapshot.is_some();
    let snapshots =
        if alone { Some(0) } else { from.instance_snapshots(called).await.ok().map(|all| all.len()) };
    let operation = if within {
        copy_within(context, &there, &asked).await?
    } else {
        copying::copy(context, &here, &there, &asked, args.mode).await?
    };
    let name = if name.is_empty() { made(&operation).unwrap_or_default() } else { name };
    if wanted.existing != Existing::Refused {
        settle(context, to, target.remote.as_ref(), &name, &shape).await?;
    }
    let [mut source, mut target] = [source.to_string(), shown(target.remote.as_ref(), &name)];
    if !within {
        let whole = wanted.source.snapshot.as_ref().map(|snapshot| format!("{called}/{snapshot}"));
        source = origin::called(&here, whole.as_deref().unwrap_or(called));
        target = origin::called(&there, &name);
    }
    Ok(Copied { operation, name, source, target, snapshots })
}

fn asked(
    wanted: &Wanted<'_>,
    here: &Side<'_>,
    there: &Side<'_>,
    (entry, shape): (&Instance, &Shape),
    name: &str,
    within: bool,
) -> Asked {
    let Wanted { source, args, .. } = wanted;
    let called = source.name.as_ref().map_or("", |name| name.as_str());
    let refresh = wanted.existing != Existing::Refused;
    let mut common = object(json!({
        "instance_only": args.instance_only, "container_only": args.instance_only, "live": false,
        "refresh": refresh, "allow_inconsistent": args.allow_inconsistent,
    }));
    if let Some(image) = entry.shape.config.get("volatile.base_image") {
        common.insert("base-image".to_owned(), json!(image));
    }
    if wanted.existing == Existing::Pruned {
        common.insert("prune".to_owned(), json!(true));
    }
    let at = match &source.snapshot {
        None => path(called),
        Some(snapshot) => snapshot_path(called, snapshot.as_str()),
    };
    let whole = match &source.snapshot {
        None => called.to_owned(),
        Some(snapshot) => format!("{called}/{snapshot}"),
    };
    origin::tell(&mut common, here, &whole, args.transfer.as_ref());
    if within {
        common.extend([("type".to_owned(), json!("copy")), ("source".to_owned(), json!(whole))]);
        if !entry.project.is_empty() {
            common.insert("project".to_owned(), json!(entry.project));
        }
    }
    let offer = object(json!({
        "name": if source.snapshot.is_some() { name } else { "" }, "live": false, "pool": "", "project": "",
        "instance_only": args.instance_only, "container_only": args.instance_only,
        "allow_inconsistent": args.allow_inconsistent,
    }));
    let mut target = object(json!(shape));
    target.insert("name".to_owned(), json!(name));
    let kind = if entry.kind.is_empty() { "container" } else { &entry.kind };
    target.insert("type".to_owned(), json!(kind));
    Asked {
        source: here.client.in_its_project(&at),
        offer,
        target: there.client.in_its_project("/1.0/instances"),
        made: target,
        common,
        failure: "Failed instance creation",
        doing: wanted.doing,
        of: Noun::Instance,
        names: [source.to_string(), shown(wanted.target.remote.as_ref(), name)],
    }
}

/// After a refresh, the copy has the source's configuration too, as LXD's command leaves it; what is its own stays.
async fn settle(
    context: &Context,
    to: &Client,
    remote: Option<&RemoteName>,
    name: &str,
    shape: &Shape,
) -> Result<(), CliError> {
    let found = to.tagged_instance(name).await?;
    let Ok(now) = serde_json::from_value::<Shape>(Value::Object(found.content)) else { return Ok(()) };
    let mut wanted = shape.clone();
    wanted.config.retain(|key, _| !key.starts_with("volatile."));
    let own = now.config.iter().filter(|(key, _)| key.starts_with("volatile."));
    wanted.config.extend(own.map(|(key, value)| (key.clone(), value.clone())));
    for (device, keys) in &mut wanted.devices {
        let pool = now.devices.get(device).and_then(|device| device.get("pool"));
        if let (Some(pool), Some("/")) = (pool, keys.get("path").map(String::as_str)) {
            keys.insert("pool".to_owned(), pool.clone());
        }
    }
    if wanted == now {
        return Ok(());
    }
    let begun = to.put_instance(name, &wanted, Some(&found.tag)).await?;
    finish(context, to, remote, begun).await.map(drop)
}

/// Renames, or takes to another pool or project of the same server.
async fn within(
    context: &Context,
    client: &Client,
    (source, target): (&InstanceOperand, &InstanceOperand),
    old: &str,
    args: &CommonArgs,
) -> Result<ExitCode, CliError> {
    let given = &args.shape;
    if !given.config.is_empty() || !given.devices.is_empty() || !given.profiles.is_empty() || args.no_profiles
    {
        return Err(CliError::usage("Cannot override configuration or profiles in local rename"));
    }
    let new = target.name.as_ref().map_or(old, |name| name.as_str());
    let mut body = object(json!({ "name": new }));
    let at = match (&source.snapshot, &target.snapshot) {
        (Some(from), Some(to)) if new == old => {
            body.insert("name".to_owned(), json!(to));
            snapshot_path(old, from.as_str())
        }
        (None, None) => path(old),
        _ => return Err(CliError::usage("A snapshot is renamed to another name of the same instance")),
    };
    if let Some(pool) = &given.storage {
        body.insert("pool".to_owned(), json!(pool));
    }
    if let Some(project) = &args.target_project {
        body.insert("project".to_owned(), json!(project));
    }
    if body.len() > 1 {
        body.insert("migration".to_owned(), json!(true));
        body.insert("instance_only".to_owned(), json!(args.instance_only));
    } else if new == old && source.snapshot.is_none() {
        return Err(CliError::usage("Source and target are the same instance")
            .hint("Give another name, another remote, --storage or --target-project."));
    }
    // The source's project is the one that is asked in.
    let client = match (&args.target_project, source.remote.as_ref()) {
        (Some(_), remote) => context.client(remote).await?,
        (None, _) => client.clone(),
    };
    let begun = client.post_instance(&at, &Value::Object(body)).await;
    let begun = found(context, &client, source, begun).await?;
    finish(context, &client, source.remote.as_ref(), begun).await?;
    Ok(ExitCode::Done)
}

/// Deletes the original of what has moved.
async fn retire(
    context: &Context,
    from: &Client,
    remote: Option<&RemoteName>,
    instance: &Instance,
) -> Result<(), CliError> {
    const PROTECTION: &str = "security.protection.delete";
    if instance
        .expanded_config
        .get(PROTECTION)
        .is_some_and(|set| matches!(set.as_str(), "true" | "1" | "yes" | "on"))
    {
        let mut shape = instance.shape.clone();
        shape.config.insert(PROTECTION.to_owned(), "false".to_owned());
        let begun = from.put_instance(&instance.name, &shape, None).await?;
        finish(context, from, remote, begun).await?;
    }
    match from.delete_at(&path(&instance.name)).await? {
        Begun::Done(_) => Ok(()),
        Begun::Running(begun) => finish(context, from, remote, *begun).await.map(drop),
    }
}

fn shown(remote: Option<&RemoteName>, name: &str) -> String {
    remote.map_or_else(|| name.to_owned(), |remote| format!("{remote}:{name}"))
}

/// A literal as what it is.
fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}
