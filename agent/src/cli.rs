//! The command line: one file a noun, each with its `Args` and its `run`.
//!
//! This file knows the tree, the global flags and how a command ends; nothing else. A noun gets a `Context`, which
//! finds the agent to talk to and holds the output, and gives back an exit code or a failure with a hint.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

mod again;
mod agent;
mod apply;
mod audit;
mod auth;
mod ca;
mod completion;
mod config;
mod context;
mod copying;
mod edit;
mod explain;
mod failure;
mod go_flags;
mod instance;
mod intention;
mod interrupt;
mod link;
mod login;
mod monitor;
mod not_yet;
mod operand;
mod operation;
mod output;
mod peering;
mod plan;
mod pool;
mod progress;
mod project;
mod remote;
mod remotes;
mod server;
mod service;
mod status;
mod transfer;
mod trust;
mod validate;
mod volume;
mod yaml;

pub use context::Context;
pub use failure::{CliError, ExitCode};
pub use output::{Encoding, Format, Output, Table};

/// Links clusters as their files declare: peers, services, intentions, volumes.
#[derive(Debug, Parser)]
#[command(name = "comity", version, propagate_version = true, max_term_width = 100)]
#[command(subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// Flags that every command takes, before or after its name.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
struct Globals {
    /// Talk to the agent behind this unix socket.
    #[arg(long, global = true, value_name = "PATH", conflicts_with = "remote")]
    socket: Option<PathBuf>,
    /// Talk to this remote instead of the default one.
    #[arg(long, global = true, value_name = "NAME")]
    remote: Option<String>,
    /// Look for what belongs to a project in this one.
    #[arg(long = "project", id = "in_project", global = true, value_name = "PROJECT")]
    project: Option<String>,
    /// How to print results: tables (also as csv or compact) and sentences, or one document for programs.
    #[arg(long, short = 'f', global = true, value_enum, default_value_t = Encoding::Text, value_name = "FORMAT")]
    format: Encoding,
    /// Print only what was asked for.
    #[arg(long, short, global = true)]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent.
    Agent(agent::Args),
    /// Show whether the agent is ready, its links and its watched folder.
    Status(status::Args),
    /// Check declarations and report every fault.
    Validate(validate::Args),
    /// Show what applying declarations would change.
    Plan(plan::Args),
    /// Make clusters be as declared.
    Apply(apply::Args),
    /// Tell which intention decides a connection, and why.
    Explain(explain::Args),
    /// Say who may do what on this cluster: groups and their permissions.
    Auth(auth::Args),
    /// Say who may call this cluster.
    Trust(trust::Args),
    /// Manage the clusters that this command line knows.
    Remote(remote::Args),
    /// Manage cluster links.
    Link(link::Args),
    /// The same as `link`, under LXD's name.
    #[command(hide = true)]
    Cluster(link::ClusterArgs),
    /// Manage peerings: cluster links, under Consul's name.
    Peering(peering::Args),
    /// Show and set what instances are set to, and write and read config entries.
    Config(config::Args),
    /// Say which service may connect to which.
    Intention(intention::Args),
    /// Show services, exported and imported.
    #[command(alias = "services")]
    Service(service::Args),
    /// Make an instance.
    Init(instance::init::Args),
    /// List instances.
    #[command(visible_alias = "ls")]
    List(instance::list::Args),
    /// Show an instance with its snapshots, or the server.
    Info(instance::info::Args),
    /// Take a snapshot of an instance.
    Snapshot(instance::snapshot::SnapshotArgs),
    /// Put an instance back as it was when a snapshot was taken.
    Restore(instance::snapshot::RestoreArgs),
    /// Copy an instance or a snapshot of one, within a server or to another.
    #[command(visible_alias = "cp")]
    Copy(instance::copy::CopyArgs),
    /// Move an instance: rename it, or take it to another pool or server.
    #[command(visible_alias = "mv")]
    Move(instance::copy::MoveArgs),
    /// Rename an instance or a snapshot.
    Rename(instance::RenameArgs),
    /// Delete instances and snapshots.
    #[command(visible_alias = "rm")]
    Delete(instance::DeleteArgs),
    /// Export an instance as one tar file.
    Export(instance::archive::ExportArgs),
    /// Make an instance of a tar file.
    Import(instance::archive::ImportArgs),
    /// Start instances, where they run.
    Start(instance::StateArgs),
    /// Stop instances.
    Stop(instance::StateArgs),
    /// Restart instances, where they run.
    #[command(hide = true)]
    Restart(instance::StateArgs),
    /// Words of LXD's that are not there yet.
    #[command(flatten)]
    NotYet(not_yet::Command),
    /// Manage storage pools.
    Pool(pool::Args),
    /// Manage storage volumes.
    Volume(volume::Args),
    /// Run and show declared transfers.
    Transfer(transfer::Args),
    /// Manage projects.
    Project(project::Args),
    /// Read and change what is set on the server.
    Server(server::Args),
    /// Show and cancel what runs on the server.
    Operation(operation::Args),
    /// Show what happens on the server, as it happens.
    Monitor(monitor::Args),
    /// Show who did what on the server.
    Audit(audit::Args),
    /// Make and look after a cluster's certificate authority, and the certificates that it issues.
    Ca(ca::Args),
    /// Print a completion script for a shell.
    Completion(completion::Args),
}

/// Runs the command line of this process.
pub fn main() -> std::process::ExitCode {
    failure::end(run(std::env::args_os().collect()))
}

fn run(arguments: Vec<OsString>) -> Result<ExitCode, CliError> {
    let given = arguments.clone();
    let arguments = go_flags::forced(go_flags::formatted(go_flags::here(go_flags::accepted(arguments))?)?);
    let json = failure::asks_for_json(&arguments);
    let cli = match parse(arguments) {
        Ok(cli) => cli,
        Err(error) => return Ok(failure::usage(&error, json)),
    };
    let context = Context::new(cli.globals, given)?;
    // The agent builds its own runtime: how many threads is its option.
    if let Command::Agent(args) = cli.command {
        return agent::run(args);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failed(format!("the runtime could not be started: {error}")))?;
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = dispatch(cli.command, &context) => ended,
            () = context.interrupts.unanswered() => Ok(ExitCode::Interrupted),
        }
    });
    let ended = ended.map_err(|error| context.explained(error));
    // A blocking read of the terminal must not keep an interrupted command alive.
    runtime.shutdown_background();
    failure::conclude(ended, &context.output)
}

fn parse(arguments: Vec<OsString>) -> Result<Cli, clap::Error> {
    let matches = command().try_get_matches_from(arguments)?;
    Cli::from_arg_matches(&matches)
}

/// The whole tree, for parsing and for completion.
fn command() -> clap::Command {
    Cli::command()
}

async fn dispatch(command: Command, context: &Context) -> Result<ExitCode, CliError> {
    match command {
        Command::Agent(_) => unreachable!("the agent is run without this runtime"),
        Command::Status(args) => status::run(args, context).await,
        Command::Validate(args) => Ok(validate::run(&args, context)),
        Command::Plan(args) => plan::run(args, context).await,
        Command::Apply(args) => apply::run(args, context).await,
        Command::Explain(args) => explain::run(args, context).await,
        Command::Auth(args) => auth::run(args, context).await,
        Command::Trust(args) => trust::run(args, context).await,
        Command::Remote(args) => remote::run(args, context).await,
        Command::Link(args) => link::run(args, context).await,
        Command::Cluster(args) => link::run_cluster(args, context).await,
        Command::Peering(args) => peering::run(args, context).await,
        Command::Config(args) => config::run(args, context).await,
        Command::Intention(args) => intention::run(args, context).await,
        Command::Service(args) => service::run(args, context).await,
        Command::Init(args) => instance::init::run(args, context).await,
        Command::List(args) => instance::list::run(args, context).await,
        Command::Info(args) => instance::info::run(args, context).await,
        Command::Snapshot(args) => instance::snapshot::snapshot(args, context).await,
        Command::Restore(args) => instance::snapshot::restore(args, context).await,
        Command::Copy(args) => instance::copy::copy(args, context).await,
        Command::Move(args) => instance::copy::run_move(args, context).await,
        Command::Rename(args) => instance::rename(args, context).await,
        Command::Delete(args) => instance::delete(args, context).await,
        Command::Export(args) => instance::archive::export(args, context).await,
        Command::Import(args) => instance::archive::import(args, context).await,
        Command::Start(args) => instance::change_state(args, "start", context).await,
        Command::Stop(args) => instance::change_state(args, "stop", context).await,
        Command::Restart(args) => instance::change_state(args, "restart", context).await,
        Command::NotYet(word) => Err(word.refused()),
        Command::Pool(args) => pool::run(args, context).await,
        Command::Volume(args) => volume::run(args, context).await,
        Command::Transfer(args) => transfer::run(args, context).await,
        Command::Project(args) => project::run(args, context).await,
        Command::Server(args) => server::run(args, context).await,
        Command::Operation(args) => operation::run(args, context).await,
        Command::Monitor(args) => monitor::run(args, context).await,
        Command::Audit(args) => audit::run(args, context).await,
        Command::Ca(args) => ca::run(args, context).await,
        Command::Completion(args) => Ok(completion::run(&args, context)),
    }
}
