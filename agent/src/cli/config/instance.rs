//! `comity config show|get|set|unset|edit` and `comity config device`: what an instance is set to, and without an instance
//! the server, as `lxc config` has it.

use std::collections::BTreeMap;

use clap::Subcommand;
use serde_json::{Map, Value, json};

use crate::cli::instance::found;
use crate::cli::operand::{InstanceOperand, split};
use crate::cli::operation::watch::finish;
use crate::cli::server::read_pairs;
use crate::cli::{CliError, Context, ExitCode, Format, edit};
use crate::client::Client;
use crate::client::instance::{Instance, Shape};
use crate::settings::Config;

/// What of an instance can be set, in the order in which `lxc` shows it.
const WRITABLE: [&str; 7] =
    ["architecture", "config", "devices", "ephemeral", "profiles", "stateful", "description"];

/// What LXD's servers show of an instance besides: a document may have it, and it changes nothing.
const SHOWN: [&str; 14] = [
    "name",
    "project",
    "type",
    "status",
    "status_code",
    "location",
    "created_at",
    "last_used_at",
    "expires_at",
    "expanded_config",
    "expanded_devices",
    "restore",
    "size",
    "backups",
];

#[derive(Debug, clap::Args)]
pub struct Get {
    /// The instance, or none for the server; then the key.
    #[arg(value_name = "[[REMOTE:][INSTANCE]] KEY", num_args = 1..=2, required = true)]
    operands: Vec<String>,
    /// What its profiles say counts as well.
    #[arg(long, short)]
    expanded: bool,
}

#[derive(Debug, clap::Args)]
pub struct Set {
    /// The instance, or none for the server; then KEY=VALUE, or one KEY and its VALUE.
    #[arg(value_name = "[[REMOTE:][INSTANCE]] KEY=VALUE", required = true)]
    operands: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub struct Unset {
    /// The instance, or none for the server; then the key.
    #[arg(value_name = "[[REMOTE:][INSTANCE]] KEY", num_args = 1..=2, required = true)]
    operands: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub struct Show {
    /// The instance or snapshot, or none for the server.
    #[arg(value_name = "[REMOTE:][INSTANCE[/SNAPSHOT]]")]
    operand: Option<String>,
    /// With what its profiles say.
    #[arg(long, short)]
    expanded: bool,
}

#[derive(Debug, clap::Args)]
pub struct Edit {
    #[arg(value_name = "[REMOTE:]INSTANCE")]
    instance: String,
}

#[derive(Debug, clap::Args)]
pub struct DeviceArgs {
    #[command(subcommand)]
    command: Device,
}

#[derive(Debug, Subcommand)]
enum Device {
    /// Add a device.
    Add {
        #[arg(value_name = "[REMOTE:]INSTANCE")]
        instance: String,
        device: String,
        /// Such as disk or nic.
        #[arg(value_name = "TYPE")]
        kind: String,
        #[arg(value_name = "KEY=VALUE")]
        pairs: Vec<String>,
    },
    /// Print the value of a device's key.
    Get {
        #[arg(value_name = "[REMOTE:]INSTANCE")]
        instance: String,
        device: String,
        key: String,
    },
    /// List an instance's devices.
    #[command(visible_alias = "ls")]
    List {
        #[arg(value_name = "[REMOTE:]INSTANCE")]
        instance: String,
    },
    /// Have a device of a profile be the instance's own, with other values.
    Override {
        #[arg(value_name = "[REMOTE:]INSTANCE")]
        instance: String,
        device: String,
        #[arg(value_name = "KEY=VALUE")]
        pairs: Vec<String>,
    },
    /// Remove devices.
    #[command(visible_alias = "rm")]
    Remove {
        #[arg(value_name = "[REMOTE:]INSTANCE")]
        instance: String,
        #[arg(value_name = "DEVICE", required = true)]
        devices: Vec<String>,
    },
    /// Set keys of a device.
    Set {
        #[arg(value_name = "[REMOTE:]INSTANCE")]
        instance: String,
        device: String,
        #[arg(value_name = "KEY=VALUE", required = true)]
        pairs: Vec<String>,
    },
    /// Show an instance's devices.
    Show {
        #[arg(value_name = "[REMOTE:]INSTANCE")]
        instance: String,
    },
    /// Unset a key of a device.
    Unset {
        #[arg(value_name = "[REMOTE:]INSTANCE")]
        instance: String,
        device: String,
        key: String,
    },
}

pub async fn get(args: Get, context: &Context) -> Result<ExitCode, CliError> {
    let (whom, key) = whom(&args.operands)?;
    let client = context.client(whom.remote.as_ref()).await?;
    let value = if whom.name.is_some() {
        let instance = read(context, &client, &whom).await?;
        let config = if args.expanded { &instance.expanded_config } else { &instance.shape.config };
        config.get(key).cloned().unwrap_or_default()
    } else if args.expanded {
        return Err(CliError::usage("--expanded is for instances: the server has no profiles"));
    } else {
        server_value(&client, key).await?
    };
    match context.output.format() {
        Format::Json => context.output.json(&value),
        Format::Text => context.output.line(value),
    }
    Ok(ExitCode::Done)
}

/// What the server has for a key. One that none of ours could have is said to be unknown; another server has its own.
async fn server_value(client: &Client, key: &str) -> Result<String, CliError> {
    let config = client.settings().await?;
    if let Some(value) = config.get(key) {
        return Ok(value.clone());
    }
    match Config::check_key(key) {
        Err(error) if client.cluster_certificate().await?.is_some() => {
            Err(CliError::failed(error).code("bad-request"))
        }
        _ => Ok(String::new()),
    }
}

pub async fn set(args: Set, context: &Context) -> Result<ExitCode, CliError> {
    // `KEY=VALUE` and a KEY that has a VALUE after it are the server's; what comes before either is an instance.
    let (first, rest) = args.operands.split_first().ok_or_else(|| CliError::usage("Missing key=value"))?;
    let of_server = first.contains('=') || (rest.len() == 1 && !rest[0].contains('='));
    let (whom, given) = if of_server { ("", &args.operands[..]) } else { (first.as_str(), rest) };
    if given.is_empty() {
        return Err(CliError::usage("Missing KEY=VALUE"));
    }
    let pairs = read_pairs(given)?;
    if let ([key], true) = (rest, of_server && !first.contains('=')) {
        valued(context, first, key).await?;
    }
    change(context, &InstanceOperand::parse("INSTANCE", whom)?, pairs).await
}

/// Refuses `INSTANCE KEY`, which says what is to be set and not to what: it reads as a key of the server's and its value.
async fn valued(context: &Context, first: &str, key: &str) -> Result<(), CliError> {
    let Ok((remote, name)) = InstanceOperand::instance("INSTANCE", first) else { return Ok(()) };
    if Config::check_key(first).is_ok() {
        return Ok(());
    }
    let client = context.client(remote.as_ref()).await?;
    if client.instance(name.as_str()).await.is_err() {
        return Ok(());
    }
    let key: String = key.chars().take(64).collect();
    let hint = format!("`{} config set {first} {key}=VALUE`; unset empties it.", context.command());
    Err(CliError::usage(format!("{key} needs a value")).hint(hint))
}

pub async fn unset(args: Unset, context: &Context) -> Result<ExitCode, CliError> {
    let (whom, key) = whom(&args.operands)?;
    change(context, &whom, [(key.to_owned(), String::new())].into()).await
}

/// Sets keys, and unsets those that are set to nothing.
async fn change(
    context: &Context,
    whom: &InstanceOperand,
    pairs: BTreeMap<String, String>,
) -> Result<ExitCode, CliError> {
    if whom.name.is_none() {
        let client = context.client(whom.remote.as_ref()).await?;
        client.set(&pairs).await?;
        return Ok(ExitCode::Done);
    }
    edited(context, whom, |instance| {
        for (key, value) in pairs {
            put(&mut instance.shape.config, key, value);
        }
        Ok(())
    })
    .await
}

fn put(config: &mut BTreeMap<String, String>, key: String, value: String) {
    if value.is_empty() {
        config.remove(&key);
    } else {
        config.insert(key, value);
    }
}

pub async fn show(args: Show, context: &Context) -> Result<ExitCode, CliError> {
    let whom = InstanceOperand::parse("INSTANCE", args.operand.as_deref().unwrap_or_default())?;
    let client = context.client(whom.remote.as_ref()).await?;
    let shown = if whom.name.is_none() {
        json!({ "config": client.settings().await? })
    } else {
        let mut instance = read(context, &client, &whom).await?;
        if args.expanded {
            instance.shape.config = std::mem::take(&mut instance.expanded_config);
            instance.shape.devices = std::mem::take(&mut instance.expanded_devices);
        }
        let mut shown = writable(&instance.shape);
        if let Some(expires_at) = instance.expires_at.filter(|_| whom.snapshot.is_some()) {
            shown.insert("expires_at".to_owned(), json!(expires_at));
        }
        Value::Object(shown)
    };
    match context.output.format() {
        Format::Json => context.output.json(&shown),
        Format::Text => context.output.yaml(&shown),
    }
    Ok(ExitCode::Done)
}

/// What can be set, as `lxc` shows and takes it.
fn writable(shape: &Shape) -> Map<String, Value> {
    let mut all = json!(shape);
    all["stateful"] = json!(false);
    WRITABLE.iter().map(|field| ((*field).to_owned(), all[*field].take())).collect()
}

pub async fn edit(args: Edit, context: &Context) -> Result<ExitCode, CliError> {
    let (remote, name) = InstanceOperand::instance("INSTANCE", &args.instance)?;
    let whom = InstanceOperand { remote, name: Some(name), snapshot: None };
    edited(context, &whom, |instance| {
        let wanted: Map<String, Value> =
            edit::changed(context, &writable(&instance.shape), &SHOWN, "# What is left out is unset.")?;
        instance.shape = serde_json::from_value(Value::Object(wanted))
            .map_err(|error| CliError::failed(format!("this is no instance: {error}")).code("bad-yaml"))?;
        Ok(())
    })
    .await
}

pub async fn device(args: DeviceArgs, context: &Context) -> Result<ExitCode, CliError> {
    match args.command {
        Device::Add { instance, device, kind, pairs } => {
            let keys = read_pairs(&pairs)?;
            devices(context, &instance, |all| {
                if all.shape.devices.contains_key(&device) {
                    return Err(CliError::failed("The device already exists").code("exists"));
                }
                let mut made = BTreeMap::from([("type".to_owned(), kind)]);
                made.extend(keys);
                all.shape.devices.insert(device.clone(), made);
                Ok(())
            })
            .await?;
            context.output.done(format!("Device {device} added to {}", bare(&instance)), &device);
        }
        Device::Get { instance, device, key } => {
            let (client, whom) = at(context, &instance).await?;
            let all = read(context, &client, &whom).await?.shape.devices;
            let value = all.get(&device).ok_or_else(no_device)?.get(&key).cloned().unwrap_or_default();
            match context.output.format() {
                Format::Json => context.output.json(&value),
                Format::Text => context.output.line(value),
            }
        }
        Device::List { instance } => {
            let (client, whom) = at(context, &instance).await?;
            let all = read(context, &client, &whom).await?.shape.devices;
            match context.output.format() {
                Format::Json => context.output.json(&all.keys().collect::<Vec<_>>()),
                Format::Text => all.keys().for_each(|name| context.output.line(name)),
            }
        }
        Device::Override { instance, device, pairs } => {
            let keys = read_pairs(&pairs)?;
            devices(context, &instance, |all| {
                if all.shape.devices.contains_key(&device) {
                    return Err(CliError::failed("The device already exists").code("exists"));
                }
                let inherited = all.expanded_devices.get(&device);
                let mut own = inherited
                    .cloned()
                    .ok_or_else(|| CliError::failed("The profile device doesn't exist").code("not_found"))?;
                own.extend(keys);
                all.shape.devices.insert(device.clone(), own);
                Ok(())
            })
            .await?;
            context.output.done(format!("Device {device} overridden for {}", bare(&instance)), &device);
        }
        Device::Remove { instance, devices: gone } => {
            devices(context, &instance, |all| {
                for device in &gone {
                    let inherited = all.expanded_devices.contains_key(device);
                    if all.shape.devices.remove(device).is_none() {
                        return Err(if inherited { of_profile() } else { no_device() });
                    }
                }
                Ok(())
            })
            .await?;
            context.output.done(
                format!("Device {} removed from {}", gone.join(", "), bare(&instance)),
                &gone.join(", "),
            );
        }
        Device::Set { instance, device, pairs } => {
            set_device(context, &instance, &device, read_pairs(&pairs)?).await?;
        }
        Device::Unset { instance, device, key } => {
            set_device(context, &instance, &device, [(key, String::new())].into()).await?;
        }
        Device::Show { instance } => {
            let (client, whom) = at(context, &instance).await?;
            let all = read(context, &client, &whom).await?.shape.devices;
            match context.output.format() {
                Format::Json => context.output.json(&all),
                Format::Text => context.output.yaml(&all),
            }
        }
    }
    Ok(ExitCode::Done)
}

async fn set_device(
    context: &Context,
    instance: &str,
    device: &str,
    keys: BTreeMap<String, String>,
) -> Result<(), CliError> {
    devices(context, instance, |all| {
        let inherited = all.expanded_devices.contains_key(device);
        let own = all.shape.devices.get_mut(device);
        let own = own.ok_or_else(|| if inherited { of_profile() } else { no_device() })?;
        for (key, value) in keys {
            put(own, key, value);
        }
        Ok(())
    })
    .await
}

fn no_device() -> CliError {
    CliError::failed("Device doesn't exist")
        .code("not_found")
        .hint("`comity config device list` shows those that the instance has.")
}

fn of_profile() -> CliError {
    CliError::failed("Device from profile(s) cannot be modified for individual instance")
        .code("of-profile")
        .hint("`comity config device override` makes it the instance's own.")
}

/// The instance as it was named, without its remote.
fn bare(operand: &str) -> &str {
    operand.rsplit(':').next().unwrap_or(operand)
}

async fn devices(
    context: &Context,
    instance: &str,
    change: impl FnOnce(&mut Instance) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let (remote, name) = InstanceOperand::instance("INSTANCE", instance)?;
    let whom = InstanceOperand { remote, name: Some(name), snapshot: None };
    edited(context, &whom, change).await.map(drop)
}

async fn at(context: &Context, instance: &str) -> Result<(Client, InstanceOperand), CliError> {
    let (remote, name) = InstanceOperand::instance("INSTANCE", instance)?;
    let client = context.client(remote.as_ref()).await?;
    Ok((client, InstanceOperand { remote, name: Some(name), snapshot: None }))
}

/// Changes an instance, if nobody else does meanwhile.
async fn edited(
    context: &Context,
    whom: &InstanceOperand,
    change: impl FnOnce(&mut Instance) -> Result<(), CliError>,
) -> Result<ExitCode, CliError> {
    let name = whom.name.as_ref().ok_or_else(|| CliError::usage("Missing instance name"))?;
    if whom.snapshot.is_some() {
        return Err(CliError::usage("INSTANCE: what a snapshot keeps cannot be changed"));
    }
    let client = context.client(whom.remote.as_ref()).await?;
    let read = client.tagged_instance(name.as_str()).await;
    let read = found(context, &client, whom, read).await?;
    let mut instance: Instance = serde_json::from_value(Value::Object(read.content))
        .map_err(|error| CliError::failed(format!("the server tells of no instance: {error}")))?;
    change(&mut instance)?;
    let begun = client.put_instance(name.as_str(), &writable(&instance.shape), Some(&read.tag)).await?;
    finish(context, &client, whom.remote.as_ref(), begun).await?;
    Ok(ExitCode::Done)
}

async fn read(context: &Context, client: &Client, whom: &InstanceOperand) -> Result<Instance, CliError> {
    let name = whom.name.as_ref().ok_or_else(|| CliError::usage("Missing instance name"))?.as_str();
    let read = match &whom.snapshot {
        None => client.instance(name).await,
        Some(snapshot) => client.instance_snapshot(name, snapshot.as_str()).await,
    };
    found(context, client, whom, read).await
}

/// `[[REMOTE:][INSTANCE]] KEY`: whose key it is, and the key.
fn whom(operands: &[String]) -> Result<(InstanceOperand, &str), CliError> {
    match operands {
        [key] => {
            // `REMOTE:KEY` is no key of ours, and one of nobody's.
            let (remote, key) = split(key)?;
            Ok((InstanceOperand { remote, name: None, snapshot: None }, key))
        }
        [whom, key] => Ok((InstanceOperand::parse("INSTANCE", whom)?, key)),
        _ => Err(CliError::usage("Missing key")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_in_the_order_that_lxc_has() {
        let shape = Shape { description: "text".to_owned(), ..Shape::default() };
        let shown = writable(&shape);
        assert_eq!(shown.keys().map(String::as_str).collect::<Vec<_>>(), WRITABLE);
        assert_eq!(shown["description"], "text");
        assert_eq!(serde_json::from_value::<Shape>(Value::Object(shown)).unwrap(), shape);
    }

    #[test]
    fn a_key_is_the_servers_or_an_instances() {
        let of = |operands: &[&str]| {
            let operands: Vec<String> = operands.iter().map(|text| (*text).to_owned()).collect();
            whom(&operands).map(|(whom, key)| (whom.to_string(), key.to_owned())).unwrap()
        };
        assert_eq!(of(&["core.https_address"]), (String::new(), "core.https_address".to_owned()));
        assert_eq!(of(&["east:", "user.a"]), ("east:".to_owned(), "user.a".to_owned()));
        assert_eq!(of(&["east:c1", "user.a"]), ("east:c1".to_owned(), "user.a".to_owned()));
    }
}
