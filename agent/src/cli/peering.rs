//! `comity peering`: cluster links as Consul's users know them, with the flags, lines and exit codes of their command.
//!
//! What is wrong with the flags is told in its words and ends with 1, as there. The peering token may also be read from a
//! file, from standard input or from the environment, where other users of the machine do not see it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Subcommand;

use super::{CliError, Context, ExitCode, Format};
use crate::client::ClientError;
use crate::client::consul::told;
use crate::wire::consul::peering::{Establish, GenerateToken, Peering};
use crate::wire::token::MAX_TOKEN;

mod shown;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Issue a token for a peer; for a peering that is there, another one in place of the last.
    GenerateToken(GenerateTokenArgs),
    /// Make a peering with the token that the peer issued.
    Establish(EstablishArgs),
    /// List the peerings.
    List,
    /// Show a peering.
    Read(Named),
    /// Delete a peering and tell the peer so.
    Delete(Named),
    /// List the services that a peer is offered.
    ExportedServices(Named),
}

#[derive(Debug, clap::Args)]
struct Named {
    /// What the peer is called here.
    #[arg(long)]
    name: Option<String>,
}

#[derive(Debug, clap::Args)]
struct GenerateTokenArgs {
    #[command(flatten)]
    named: Named,
    /// What to keep with the peering; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    meta: Vec<String>,
    /// Where the peer reaches this cluster, if not where the agent listens.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    server_external_addresses: Vec<String>,
}

#[derive(clap::Args)]
struct EstablishArgs {
    #[command(flatten)]
    named: Named,
    /// The peer's token; `-` reads it from standard input.
    #[arg(
        long,
        env = "COMITY_PEERING_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        conflicts_with = "peering_token_file"
    )]
    peering_token: Option<String>,
    /// A file with the peer's token; `-` is standard input.
    #[arg(long, value_name = "PATH")]
    peering_token_file: Option<PathBuf>,
    /// What to keep with the peering; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    meta: Vec<String>,
}

/// Without the token, which a debug line must not show.
impl std::fmt::Debug for EstablishArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EstablishArgs").field("named", &self.named).finish_non_exhaustive()
    }
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    match args.command {
        Command::GenerateToken(args) => generate_token(args, context).await,
        Command::Establish(args) => establish(args, context).await,
        Command::List => list(context).await,
        Command::Read(args) => read(args, context).await,
        Command::Delete(args) => delete(args, context).await,
        Command::ExportedServices(args) => exported_services(args, context).await,
    }
}

impl Named {
    fn required(self) -> Result<String, CliError> {
        let given = self.name.filter(|name| !name.is_empty());
        given.ok_or_else(|| CliError::failed("Missing the required -name flag").code("usage"))
    }
}

async fn generate_token(args: GenerateTokenArgs, context: &Context) -> Result<ExitCode, CliError> {
    let name = args.named.required()?;
    let body = GenerateToken {
        peer_name: name.clone(),
        meta: meta(&args.meta)?,
        server_external_addresses: args.server_external_addresses,
        ..GenerateToken::default()
    };
    let answer = context.client(None).await?.generate_peering_token(&body).await;
    let answer =
        answer.map_err(failed(|told| format!("Error generating peering token for {name}: {told}")))?;
    match context.output.format() {
        Format::Json => context.output.json(&answer),
        Format::Text => context.output.line(&answer.peering_token),
    }
    Ok(ExitCode::Done)
}

async fn establish(args: EstablishArgs, context: &Context) -> Result<ExitCode, CliError> {
    let name = args.named.required()?;
    let meta = meta(&args.meta)?;
    let token = match (args.peering_token, args.peering_token_file) {
        (_, Some(path)) if path.as_os_str() == "-" => shown::token_of_input()?,
        (_, Some(path)) => shown::token_of(&path)?,
        (Some(text), None) if text == "-" => shown::token_of_input()?,
        (Some(text), None) => text,
        (None, None) => String::new(),
    };
    let token = token.trim().to_owned();
    if token.is_empty() {
        return Err(CliError::failed("Missing the required -peering-token flag").code("usage").hint(
            "Without it on the command line: --peering-token-file PATH, --peering-token - or COMITY_PEERING_TOKEN.",
        ));
    }
    if token.len() > MAX_TOKEN {
        return Err(CliError::failed(format!("The peering token is longer than {MAX_TOKEN} characters")));
    }
    let body = Establish { peer_name: name.clone(), peering_token: token, meta, ..Establish::default() };
    let established = context.client(None).await?.establish_peering(&body).await;
    established.map_err(failed(|told| format!("Error establishing peering for {name}: {told}")))?;
    context.output.done(format!("Successfully established peering connection with {name}"), &name);
    Ok(ExitCode::Done)
}

async fn list(context: &Context) -> Result<ExitCode, CliError> {
    let listed = context.client(None).await?.peerings().await;
    let mut peerings = listed.map_err(failed(|told| format!("Error listing peerings: {told}")))?;
    peerings.sort_by(|one, other| one.name.cmp(&other.name));
    match context.output.format() {
        Format::Json => context.output.json(&peerings),
        Format::Text if peerings.is_empty() => context.output.line("There are no peering connections."),
        Format::Text => context.output.text(shown::table(&peerings)),
    }
    Ok(ExitCode::Done)
}

async fn read(args: Named, context: &Context) -> Result<ExitCode, CliError> {
    let peering = found(args, context).await?;
    match context.output.format() {
        Format::Json => context.output.json(&peering),
        Format::Text => context.output.text(shown::whole(&peering)),
    }
    Ok(ExitCode::Done)
}

async fn delete(args: Named, context: &Context) -> Result<ExitCode, CliError> {
    let name = args.required()?;
    let deleted = context.client(None).await?.delete_peering(&name).await;
    deleted.map_err(failed(|told| format!("Error deleting peering for {name}: {told}")))?;
    context.output.done(format!("Successfully submitted peering connection, {name}, for deletion"), &name);
    Ok(ExitCode::Done)
}

async fn exported_services(args: Named, context: &Context) -> Result<ExitCode, CliError> {
    let peering = found(args, context).await?;
    let services = peering.stream_status.exported_services.unwrap_or_default();
    match context.output.format() {
        Format::Json => {
            let objects: Vec<_> = services.iter().map(|name| serde_json::json!({ "ID": name })).collect();
            context.output.json(&objects);
        }
        Format::Text => services.iter().for_each(|name| context.output.line(name)),
    }
    Ok(ExitCode::Done)
}

async fn found(args: Named, context: &Context) -> Result<Peering, CliError> {
    let name = args.required()?;
    let found = context.client(None).await?.peering(&name).await;
    let found = found.map_err(failed(|told| format!("Error reading peering: {told}")))?;
    found.ok_or_else(|| {
        CliError::failed(format!("No peering with name {name} found."))
            .code("not-found")
            .hint("`comity peering list` shows those that there are.")
    })
}

/// A call's failure in the command's words.
fn failed(worded: impl FnOnce(&str) -> String) -> impl FnOnce(ClientError) -> CliError {
    |error| {
        let message = worded(&told(&error));
        CliError { message, ..CliError::from(error) }
    }
}

fn meta(pairs: &[String]) -> Result<BTreeMap<String, String>, CliError> {
    let pair = |text: &String| match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        // What stands there may be a token: it is not repeated.
        _ => Err(CliError::failed("-meta takes KEY=VALUE").code("usage")),
    };
    pairs.iter().map(pair).collect()
}
