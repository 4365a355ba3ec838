//! `comity config`: config entries one by one, with the flags, lines and exit codes of Consul's command (a file may hold
//! several, which are written whole or not at all); and what instances are set to, by the verbs of `lxc config`.

use clap::Subcommand;
use serde_json::Value;

use super::{CliError, Context, ExitCode, Format};
use crate::client::Client;
use crate::client::consul::told;

mod instance;
mod source;

use source::{Loaded, load};

/// Entries of one file that are asked about once they are written.
const NOTED: usize = 16;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what an instance is set to, or the server.
    Show(instance::Show),
    /// Print the value of an instance's key, or of the server's.
    Get(instance::Get),
    /// Set keys of an instance, or of the server.
    Set(instance::Set),
    /// Unset a key of an instance, or of the server.
    Unset(instance::Unset),
    /// Edit an instance as YAML.
    Edit(instance::Edit),
    /// Manage an instance's devices.
    Device(instance::DeviceArgs),
    /// Write the entries in a file, whole or not at all.
    Write {
        /// HCL, JSON or TOML; `-` is standard input. It holds one entry, or several: one after the other, or in a JSON
        /// array. Kinds are exported-services, sameness-group, service-defaults and service-intentions.
        #[arg(value_name = "FILE")]
        path: Vec<String>,
        #[command(flatten)]
        guard: Guard,
    },
    /// Show an entry.
    Read(Named),
    /// List the entries of a kind.
    List {
        /// exported-services, sameness-group, service-defaults or service-intentions.
        #[arg(long, default_value = "", hide_default_value = true)]
        kind: String,
        /// Only those that this expression is true of.
        #[arg(long, value_name = "EXPRESSION")]
        filter: Option<String>,
    },
    /// Delete an entry.
    Delete {
        #[command(flatten)]
        named: Named,
        /// Delete the entry that this file holds.
        #[arg(long, default_value = "", hide_default_value = true, value_name = "FILE")]
        filename: String,
        #[command(flatten)]
        guard: DeleteGuard,
    },
}

#[derive(Debug, clap::Args)]
struct Named {
    /// exported-services, sameness-group, service-defaults or service-intentions.
    #[arg(long, default_value = "", hide_default_value = true)]
    kind: String,
    #[arg(long, default_value = "", hide_default_value = true)]
    name: String,
}

#[derive(Debug, clap::Args)]
struct Guard {
    /// Only if the entry is at the index that --modify-index says; without that, only if it is not there.
    #[arg(long)]
    cas: bool,
    /// The entry's ModifyIndex, as `read` shows it; only with --cas.
    #[arg(long, value_name = "INDEX", default_value_t = 0, hide_default_value = true)]
    modify_index: u64,
}

#[derive(Debug, clap::Args)]
struct DeleteGuard {
    /// Only if the entry is at the index that --modify-index says, which has to be given.
    #[arg(long)]
    cas: bool,
    /// The entry's ModifyIndex, as `read` shows it; only with --cas.
    #[arg(long, value_name = "INDEX", default_value_t = 0, hide_default_value = true)]
    modify_index: u64,
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    match args.command {
        Command::Show(args) => instance::show(args, context).await,
        Command::Get(args) => instance::get(args, context).await,
        Command::Set(args) => instance::set(args, context).await,
        Command::Unset(args) => instance::unset(args, context).await,
        Command::Edit(args) => instance::edit(args, context).await,
        Command::Device(args) => instance::device(args, context).await,
        Command::Write { path, guard } => write(&path, &guard, context).await,
        Command::Read(named) => read(&named, context).await,
        Command::List { kind, filter } => list(&kind, filter.as_deref(), context).await,
        Command::Delete { named, filename, guard } => {
            let DeleteGuard { cas, modify_index } = guard;
            delete(named, &filename, &Guard { cas, modify_index }, context).await
        }
    }
}

async fn write(path: &[String], guard: &Guard, context: &Context) -> Result<ExitCode, CliError> {
    let [path] = path else {
        return Err(CliError::failed(
            "Must provide exactly one positional argument to specify the config entry to write",
        ));
    };
    guard.check()?;
    let entries = load(path)?;
    let written = |kind: &str, name: &str| {
        context.output.done(format!("Config entry written: {kind}/{name}"), &format!("{kind}/{name}"));
    };
    let client = context.client(None).await?;
    if let [Loaded { kind, name, entry }] = &entries[..] {
        let cas = guard.cas.then_some(guard.modify_index);
        let updated = client.write_config_entry(entry, cas).await.map_err(|error| {
            CliError::failed(format!("Error writing config entry {kind}/{name}: {}", told(&error)))
        })?;
        if !updated {
            return Err(CliError::failed(format!("Config entry not updated: {kind}/{name}")));
        }
        written(kind, name);
        note_owned(&client, kind, name, context).await;
        return Ok(ExitCode::Done);
    }
    if guard.cas {
        return Err(CliError::failed("--cas guards one entry, and the file holds several"));
    }
    let wires: Vec<_> = entries.iter().map(|loaded| loaded.entry.clone()).collect();
    let answer = client.write_config_entries(&wires).await.map_err(|error| {
        let failed = CliError::from(error);
        CliError { message: format!("Error writing config entries: {}", failed.message), ..failed }
    })?;
    match context.output.format() {
        Format::Json => context.output.json(&answer.entries),
        Format::Text => answer.entries.iter().for_each(|entry| written(&entry.kind, &entry.name)),
    }
    for entry in answer.entries.iter().take(NOTED) {
        note_owned(&client, &entry.kind, &entry.name, context).await;
    }
    Ok(ExitCode::Done)
}

/// Says which parts stay though the file may not name them: they are their manifests'.
async fn note_owned(client: &Client, kind: &str, name: &str, context: &Context) {
    // The entry is written. Who may not see it whole, or asks an older agent, goes without the note.
    let Ok(owned) = client.owned_parts(kind, name).await else { return };
    let noun = if kind == "exported-services" { "service" } else { "source" };
    for (manifest, parts) in owned.manifests {
        context.output.note(match parts {
            1 => format!("Note: 1 {noun} of manifest {manifest} stays as it is."),
            _ => format!("Note: {parts} {noun}s of manifest {manifest} stay as they are."),
        });
    }
}

impl Guard {
    fn check(&self) -> Result<(), CliError> {
        if self.modify_index != 0 && !self.cas {
            return Err(CliError::failed("Cannot specify -modify-index without -cas"));
        }
        Ok(())
    }
}

impl Named {
    fn check(&self) -> Result<(), CliError> {
        if self.kind.is_empty() {
            return Err(CliError::failed("Must specify the -kind parameter"));
        }
        if self.name.is_empty() {
            return Err(CliError::failed("Must specify the -name parameter"));
        }
        Ok(())
    }
}

async fn read(named: &Named, context: &Context) -> Result<ExitCode, CliError> {
    named.check()?;
    let Named { kind, name } = named;
    let entry = context.client(None).await?.config_entry(kind, name).await.map_err(|error| {
        CliError::failed(format!("Error reading config entry {kind}/{name}: {}", told(&error)))
    })?;
    show(entry, context);
    Ok(ExitCode::Done)
}

/// As Consul's command shows it: without the hash, indented by four.
fn show(mut entry: Value, context: &Context) {
    if let Value::Object(fields) = &mut entry {
        fields.shift_remove("Hash");
    }
    match context.output.format() {
        Format::Json => context.output.json(&entry),
        Format::Text => context.output.line(super::output::indented(&entry)),
    }
}

async fn list(kind: &str, filter: Option<&str>, context: &Context) -> Result<ExitCode, CliError> {
    if kind.is_empty() {
        return Err(CliError::failed("Must specify the -kind parameter"));
    }
    let entries = context.client(None).await?.config_entries(kind, filter).await.map_err(|error| {
        CliError::failed(format!("Error listing config entries for kind \"{kind}\": {}", told(&error)))
    })?;
    match context.output.format() {
        Format::Json => context.output.json(&entries),
        Format::Text => {
            for entry in &entries {
                context.output.line(entry["Name"].as_str().unwrap_or_default());
            }
        }
    }
    Ok(ExitCode::Done)
}

async fn delete(
    named: Named,
    filename: &str,
    guard: &Guard,
    context: &Context,
) -> Result<ExitCode, CliError> {
    let Named { kind, name } = if filename.is_empty() {
        if named.kind.is_empty() && named.name.is_empty() {
            return Err(CliError::failed("Must specify the -kind or -filename parameter"));
        }
        named.check()?;
        named
    } else {
        if !named.kind.is_empty() || !named.name.is_empty() {
            return Err(CliError::failed("filename can't be used with kind or name"));
        }
        Named { kind: String::new(), name: String::new() }
    };
    if guard.cas && guard.modify_index == 0 {
        return Err(CliError::failed("Must specify a -modify-index greater than 0 with -cas"));
    }
    guard.check()?;
    let doomed = if filename.is_empty() {
        vec![(kind, name)]
    } else {
        load(filename)?.into_iter().map(|loaded| (loaded.kind.to_owned(), loaded.name)).collect()
    };
    if guard.cas && doomed.len() != 1 {
        return Err(CliError::failed("--cas guards one entry, and the file holds several"));
    }
    let client = context.client(None).await?;
    for (kind, name) in &doomed {
        delete_one(&client, kind, name, guard, context).await?;
    }
    Ok(ExitCode::Done)
}

async fn delete_one(
    client: &Client,
    kind: &str,
    name: &str,
    guard: &Guard,
    context: &Context,
) -> Result<(), CliError> {
    let cas = guard.cas.then_some(guard.modify_index);
    let deleted = client.delete_config_entry(kind, name, cas).await.map_err(|error| {
        CliError::failed(format!("Error deleting config entry {kind}/{name}: {}", told(&error)))
    })?;
    if !deleted {
        return Err(CliError::failed(format!("Config entry not deleted: {kind}/{name}")));
    }
    context.output.done(format!("Config entry deleted: {kind}/{name}"), &format!("{kind}/{name}"));
    Ok(())
}
