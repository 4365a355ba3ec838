//! `comity init`: a new instance, empty.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::operand::{InstanceOperand, pairs};
use super::super::operation::watch::finish;
use super::super::{CliError, Context, ExitCode};
use super::entry::overrides;
use crate::client::Client;
use crate::client::instance::Devices;
use crate::wire::lxd::operation::OperationBody;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The instance; before it an image, of which there are none yet.
    #[arg(value_name = "[REMOTE:]NAME", num_args = 0..=2)]
    operands: Vec<String>,
    /// Make it without an image: its root is an empty folder.
    #[arg(long)]
    empty: bool,
    #[command(flatten)]
    pub shape: ShapeArgs,
    /// Do not apply any profile.
    #[arg(long, conflicts_with = "profiles")]
    no_profiles: bool,
    /// An instance that goes when it stops.
    #[arg(long, short)]
    ephemeral: bool,
    #[arg(long, default_value = "", value_name = "TEXT")]
    description: String,
    /// A virtual machine, of which there are none here.
    #[arg(long, hide = true)]
    vm: bool,
}

/// What is set of an instance that is made or copied.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ShapeArgs {
    /// A key and its value; may be given several times.
    #[arg(long = "config", short = 'c', value_name = "KEY=VALUE")]
    pub config: Vec<String>,
    /// A key of a device and its value; may be given several times.
    #[arg(long = "device", short = 'd', value_name = "DEVICE,KEY=VALUE")]
    pub devices: Vec<String>,
    /// A profile to apply, in place of those it would have; may be given several times.
    #[arg(long = "profile", short = 'p', value_name = "PROFILE")]
    pub profiles: Vec<String>,
    /// The pool that it is kept in.
    #[arg(long, short, value_name = "POOL")]
    pub storage: Option<String>,
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    if args.operands.len() > 1 || !args.empty {
        return Err(CliError::failed("There are no images here yet")
            .code("no-images")
            .hint("`comity init NAME --empty` makes an instance without one; `comity copy` and `comity import` bring one that exists."));
    }
    if args.vm {
        return Err(CliError::failed("There are no virtual machines here").code("no-vm"));
    }
    let operand = InstanceOperand::parse("NAME", args.operands.first().map_or("", String::as_str))?;
    if operand.snapshot.is_some() {
        return Err(CliError::usage("NAME: an instance belongs here, not a snapshot"));
    }
    let client = context.client(operand.remote.as_ref()).await?;
    let config: BTreeMap<String, String> = pairs(&args.shape.config)?.into_iter().collect();
    let mut devices = overrides(&args.shape.devices)?;
    let profiles = match &args.shape.profiles[..] {
        [] if args.no_profiles => Some(Vec::new()),
        [] => None,
        named => Some(named.to_vec()),
    };
    if let Some(pool) = &args.shape.storage {
        let root = devices.entry("root".to_owned()).or_default();
        root.extend(
            [("type", "disk"), ("path", "/"), ("pool", pool)].map(|(k, v)| (k.to_owned(), v.to_owned())),
        );
    }
    inherit(&client, &mut devices, profiles.as_deref()).await?;
    let mut body = json!({
        "name": operand.name.as_ref().map_or("", |name| name.as_str()),
        "type": "container", "config": config, "devices": devices, "ephemeral": args.ephemeral,
        "description": args.description, "source": { "type": "none" },
    });
    // Left out, the server takes its own: `default`.
    if let Some(profiles) = profiles {
        body["profiles"] = json!(profiles);
    }
    if operand.name.is_some() && !context.output.quiet() {
        context.output.note(format!("Creating {}", shown(&operand)));
    }
    let begun = client.create_instance(&body).await?;
    let made = made(&begun);
    finish(context, &client, operand.remote.as_ref(), begun).await?;
    match (&operand.name, made) {
        (None, Some(name)) => context.output.done(format!("Instance name is: {name}"), &name),
        (Some(name), _) => context.output.done(format!("Created {name}"), name.as_str()),
        (None, None) => {}
    }
    Ok(ExitCode::Done)
}

/// What is set of a device goes over what its profile says of it, which otherwise would be lost: a device of an instance's
/// own stands in place of the profile's.
async fn inherit(
    client: &Client,
    devices: &mut Devices,
    profiles: Option<&[String]>,
) -> Result<(), CliError> {
    // One with a type is whole as it is given.
    if devices.values().all(|device| device.contains_key("type")) {
        return Ok(());
    }
    let mut inherited = Devices::new();
    let usual = ["default".to_owned()];
    for profile in profiles.unwrap_or(&usual) {
        inherited.extend(client.profile(profile).await?.devices);
    }
    for (name, device) in devices {
        if device.contains_key("type") {
            continue;
        }
        let Some(mut whole) = inherited.remove(name) else {
            let known: Vec<String> = inherited.keys().cloned().collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(CliError::failed(format!(
                "Cannot override config for device {name:?}: Device not found in profile devices"
            ))
            .code("no-such-device")
            .hint(format!(
                "The profiles have: {known}. A device of its own needs a type: -d {name},type=disk -d {name},path=/srv …"
            )));
        };
        whole.append(device);
        *device = whole;
    }
    Ok(())
}

fn shown(operand: &InstanceOperand) -> String {
    operand.name.as_ref().map_or_else(|| "the instance".to_owned(), ToString::to_string)
}

/// The name of the instance that an operation makes.
pub fn made(operation: &OperationBody) -> Option<String> {
    let listed = ["instances", "containers"].iter().find_map(|kind| operation.resources.get(*kind));
    let url = listed.and_then(|urls| urls.first()).cloned();
    let url =
        url.or_else(|| operation.metadata.get("entity_url").and_then(Value::as_str).map(str::to_owned))?;
    let path = url.split('?').next().unwrap_or_default();
    path.rsplit('/').next().filter(|name| !name.is_empty()).map(str::to_owned)
}
