//! `comity intention`: single intentions, with the flags, lines and exit codes of Consul's command. Peers are shown, and
//! may be named (`peer:west/web`, or `web@west` as `explain` has it), which Consul's command does neither.

use std::borrow::Cow;
use std::collections::BTreeMap;

use clap::Subcommand;
use serde_json::{Map, Value, json};

use super::{CliError, Context, ExitCode, Format};
use crate::client::consul::told;
use crate::client::entry::Which;
use crate::wire::consul::intention::Intention;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Let a service connect to another, or deny it.
    Create(CreateArgs),
    /// Tell whether a service may connect to another: exit 0 if it may, 1 if not, 2 if that cannot be told.
    Check {
        #[arg(value_name = "SRC DST")]
        ends: Vec<String>,
    },
    /// List the intentions that are looked at for a service, in the order in which they decide.
    Match {
        /// As the source.
        #[arg(long)]
        source: bool,
        /// As the destination; so it is without either.
        #[arg(long)]
        destination: bool,
        #[arg(value_name = "NAME")]
        names: Vec<String>,
    },
    /// Show an intention, by its id or its two ends.
    Get {
        #[arg(value_name = "ID | SRC DST")]
        ends: Vec<String>,
    },
    /// List the intentions.
    List,
    /// Delete an intention, by its id or its two ends.
    Delete {
        #[arg(value_name = "ID | SRC DST")]
        ends: Vec<String>,
    },
}

#[derive(Debug, clap::Args)]
struct CreateArgs {
    /// Allow it: so it is without either.
    #[arg(long)]
    allow: bool,
    #[arg(long)]
    deny: bool,
    /// Replace the intention that is there.
    #[arg(long)]
    replace: bool,
    /// Read the intentions from files of JSON.
    #[arg(long)]
    file: bool,
    /// What to keep with a new destination's intentions; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    meta: Vec<String>,
    #[arg(value_name = "SRC DST | FILE…")]
    ends: Vec<String>,
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    match args.command {
        Command::Create(args) => create(args, context).await,
        Command::Check { ends } => check(&ends, context).await,
        Command::Match { source, destination, names } => matching(source, destination, &names, context).await,
        Command::Get { ends } => get(ends, context).await,
        Command::List => list(context).await,
        Command::Delete { ends } => delete(ends, context).await,
    }
}

async fn create(args: CreateArgs, context: &Context) -> Result<ExitCode, CliError> {
    if args.allow && args.deny {
        return Err(CliError::failed("Only one of -allow or -deny may be specified."));
    }
    let bodies = if args.file {
        args.ends.iter().map(|path| from_file(path)).collect::<Result<Vec<_>, _>>()?
    } else {
        let [source, destination] = &args.ends[..] else {
            return Err(CliError::failed("Must specify two arguments: source and destination"));
        };
        let mut body = ends(&plain(source), destination);
        body.insert("Action".to_owned(), json!(if args.deny { "deny" } else { "allow" }));
        if !args.meta.is_empty() {
            body.insert("Meta".to_owned(), json!(pairs(&args.meta)?));
        }
        vec![body]
    };
    let client = context.client(None).await?;
    for body in bodies {
        let shown = Shown::of_body(&body);
        let failed = |error| {
            CliError::failed(format!("Error creating intention {:?}: {}", shown.to_string(), told(&error)))
        };
        if args.replace {
            let which = Which::Between { source: &shown.source, destination: &shown.destination };
            if let Some(known) = client.intention(&which).await.map_err(failed)? {
                client.replace_intention(&known.id, &body).await.map_err(|error| {
                    CliError::failed(format!(
                        "Error replacing intention {:?}: {}",
                        shown.to_string(),
                        told(&error)
                    ))
                })?;
                continue;
            }
        }
        client.create_intention(&body).await.map_err(failed)?;
        context.output.done(format!("Created: {shown}"), &shown.to_string());
    }
    Ok(ExitCode::Done)
}

fn from_file(path: &str) -> Result<Map<String, Value>, CliError> {
    let text =
        std::fs::read_to_string(path).map_err(|error| CliError::failed(format!("file {path:?}: {error}")))?;
    let body: Map<String, Value> = serde_json::from_str(&text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        CliError::failed(format!("file {path:?} is no JSON object: line {line}, column {column}"))
    })?;
    if body.get("Permissions").is_some_and(|permissions| !permissions.is_null()) {
        return Err(CliError::failed(format!(
            "cannot create L7 intention from file {path:?} using this CLI; use 'comity config write' instead"
        )));
    }
    Ok(body)
}

/// A source as Consul's API names it: `web@west`, as other commands have it, is `peer:west/web`. No name has an `@`.
fn plain(source: &str) -> Cow<'_, str> {
    match source.split_once('@') {
        Some((service, peer)) if !service.contains([':', '/']) => format!("peer:{peer}/{service}").into(),
        _ => source.into(),
    }
}

/// The same of the first of two ends; one alone is an id.
fn plain_source(ends: &mut [String]) {
    if let [source, _] = ends {
        *source = plain(source).into_owned();
    }
}

/// The fields that name the two ends.
fn ends(source: &str, destination: &str) -> Map<String, Value> {
    let mut body = Map::new();
    let (source, at) = match (source.strip_prefix("peer:"), source.strip_prefix("sameness-group:")) {
        (Some(rest), _) => (rest, Some("SourcePeer")),
        (None, Some(rest)) => (rest, Some("SourceSamenessGroup")),
        (None, None) => (source, None),
    };
    let mut name = source;
    if let (Some(field), Some((peer, rest))) = (at, source.split_once('/')) {
        body.insert(field.to_owned(), json!(peer));
        name = rest;
    }
    for (what, text) in [("Source", name), ("Destination", destination)] {
        if let Some((namespace, name)) = text.rsplit_once('/') {
            body.insert(format!("{what}NS"), json!(namespace));
            body.insert(format!("{what}Name"), json!(name));
        } else {
            body.insert(format!("{what}Name"), json!(text));
        }
    }
    body
}

fn pairs(meta: &[String]) -> Result<BTreeMap<&str, &str>, CliError> {
    let pair = |text: &'_ str| -> Result<(), CliError> {
        Err(CliError::failed(format!("-meta takes KEY=VALUE, not {text:?}")))
    };
    let mut pairs = BTreeMap::new();
    for text in meta {
        match text.split_once('=') {
            Some((key, value)) => drop(pairs.insert(key, value)),
            None => pair(text)?,
        }
    }
    Ok(pairs)
}

/// `SRC => DST (allow)`.
struct Shown {
    source: String,
    destination: String,
    says: String,
}

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} => {} ({})", self.source, self.destination, self.says)
    }
}

impl Shown {
    fn of(intention: &Intention) -> Self {
        let name = &intention.source_name;
        let source = match (intention.source_peer.as_str(), intention.source_sameness_group.as_str()) {
            ("", "") => name.clone(),
            ("", group) => format!("sameness-group:{group}/{name}"),
            (peer, _) => format!("peer:{peer}/{name}"),
        };
        let says = match intention.permissions.len() {
            0 => intention.action.clone(),
            1 => "1 permission".to_owned(),
            count => format!("{count} permissions"),
        };
        Self { source, destination: intention.destination_name.clone(), says }
    }

    fn of_body(body: &Map<String, Value>) -> Self {
        let text = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        Self::of(&Intention {
            source_name: text("SourceName"),
            source_peer: text("SourcePeer"),
            source_sameness_group: text("SourceSamenessGroup"),
            destination_name: text("DestinationName"),
            action: text("Action"),
            ..Intention::default()
        })
    }
}

async fn check(ends: &[String], context: &Context) -> Result<ExitCode, CliError> {
    // Exit 1 says that the connection is denied.
    let unanswered = |error: CliError| CliError { exit: ExitCode::Unanswered, ..error };
    let [source, destination] = ends else {
        let message = "command requires exactly two arguments: src and dst";
        return Err(unanswered(CliError::failed(message)));
    };
    let client = context.client(None).await.map_err(unanswered)?;
    let allowed = client.check_intention(&plain(source), destination).await.map_err(|error| {
        unanswered(CliError::failed(format!("Error checking the connection: {}", told(&error))))
    })?;
    match context.output.format() {
        Format::Json => context.output.json(&json!({ "Allowed": allowed })),
        Format::Text => context.output.line(if allowed { "Allowed" } else { "Denied" }),
    }
    Ok(if allowed { ExitCode::Done } else { ExitCode::Failed })
}

async fn matching(
    source: bool,
    destination: bool,
    names: &[String],
    context: &Context,
) -> Result<ExitCode, CliError> {
    if source && destination {
        return Err(CliError::failed("only one of -source or -destination may be specified"));
    }
    let [name] = names else {
        return Err(CliError::failed("command requires exactly one argument: src or dst"));
    };
    let (by, name) = if source { ("source", plain(name)) } else { ("destination", Cow::from(name)) };
    let found = context.client(None).await?.match_intentions(by, &name).await;
    let found = found
        .map_err(|error| CliError::failed(format!("Error matching the connection: {}", told(&error))))?;
    match context.output.format() {
        Format::Json => context.output.json(&found),
        Format::Text => found.iter().for_each(|intention| context.output.line(Shown::of(intention))),
    }
    Ok(ExitCode::Done)
}

/// The intention that the arguments name.
fn which(ends: &[String]) -> Result<Which<'_>, CliError> {
    match ends {
        [id] => Ok(Which::Id(id)),
        [source, destination] => Ok(Which::Between { source, destination }),
        _ => Err(CliError::failed("command requires exactly 1 or 2 arguments")),
    }
}

async fn get(mut ends: Vec<String>, context: &Context) -> Result<ExitCode, CliError> {
    plain_source(&mut ends);
    let which = which(&ends)?;
    let found = context.client(None).await?.intention(&which).await;
    let found =
        found.map_err(|error| CliError::failed(format!("Error reading the intention: {}", told(&error))))?;
    let Some(intention) = found else {
        return Err(CliError::failed(match which {
            Which::Id(id) => format!("Intention not found with ID {id:?}"),
            Which::Between { source, destination } => {
                format!("Intention not found with source {source:?} and destination {destination:?}")
            }
        }));
    };
    if context.output.format() == Format::Json {
        context.output.json(&intention);
        return Ok(ExitCode::Done);
    }
    let shown = Shown::of(&intention);
    let mut rows = vec![("Source", shown.source), ("Destination", shown.destination)];
    if intention.permissions.is_empty() {
        rows.push(("Action", intention.action.clone()));
    }
    rows.push(("ID", intention.id.clone()));
    if !intention.description.is_empty() {
        rows.push(("Description", intention.description.clone()));
    }
    let meta: Vec<(String, &String)> =
        intention.meta.iter().map(|(key, value)| (format!("Meta[{key}]"), value)).collect();
    rows.extend(meta.iter().map(|(label, value)| (label.as_str(), (*value).clone())));
    let width = rows.iter().map(|(label, _)| label.chars().count()).max().unwrap_or_default() + 1;
    for (label, value) in rows {
        context.output.line(format!("{:<width$}  {value}", format!("{label}:")));
    }
    if !intention.permissions.is_empty() {
        context
            .output
            .line(format!("Permissions:\n{}", super::output::indented(&json!(intention.permissions))));
    }
    Ok(ExitCode::Done)
}

async fn list(context: &Context) -> Result<ExitCode, CliError> {
    let found = context.client(None).await?.intentions().await;
    let found = found.map_err(|error| {
        CliError::failed(format!("Failed to retrieve the intentions list: {}", told(&error)))
    })?;
    if context.output.format() == Format::Json {
        context.output.json(&found);
        return Ok(ExitCode::Done);
    }
    if found.is_empty() {
        context.output.note("There are no intentions.");
        return Ok(ExitCode::Unanswered);
    }
    let head = ["ID", "Source", "Action", "Destination", "Precedence"].map(str::to_owned);
    let rows = found.into_iter().map(|intention| {
        let Shown { source, destination, says } = Shown::of(&intention);
        [intention.id, source, says, destination, intention.precedence.to_string()]
    });
    context.output.text(super::output::aligned(std::iter::once(head).chain(rows)));
    Ok(ExitCode::Done)
}

async fn delete(mut ends: Vec<String>, context: &Context) -> Result<ExitCode, CliError> {
    plain_source(&mut ends);
    let which = which(&ends)?;
    let client = context.client(None).await?;
    client
        .delete_intention(&which)
        .await
        .map_err(|error| CliError::failed(format!("Error deleting the intention: {}", told(&error))))?;
    context.output.done("Intention deleted.", &ends.join(" => "));
    Ok(ExitCode::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_service_is_named_as_everywhere_else() {
        for (source, name) in [
            ("web@west", "peer:west/web"),
            ("*@*", "peer:*/*"),
            ("web", "web"),
            ("default/web", "default/web"),
            ("peer:west/a@b", "peer:west/a@b"),
        ] {
            assert_eq!(plain(source), name);
        }
    }

    #[test]
    fn both_ends_are_named_as_they_are_shown() {
        for (source, fields) in [
            ("web", json!({"SourceName": "web"})),
            ("default/web", json!({"SourceNS": "default", "SourceName": "web"})),
            ("peer:west/web", json!({"SourcePeer": "west", "SourceName": "web"})),
            ("sameness-group:all/*", json!({"SourceSamenessGroup": "all", "SourceName": "*"})),
        ] {
            let mut body = ends(source, "db");
            let shown = Shown::of_body(&body);
            body.remove("DestinationName");
            assert_eq!(Value::Object(body), fields);
            assert!(source.ends_with(&shown.source) && shown.destination == "db", "{shown}");
        }
    }
}
