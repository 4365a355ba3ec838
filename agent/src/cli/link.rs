//! `comity link`: links by hand, and the truth about both halves of each. (`comity cluster link` is the same.)

mod rotate;

use std::io::Read as _;

use clap::Subcommand;
use http::StatusCode;
use schema::kind::cluster_link::LinkType;
use schema::name::{GroupName, LinkName};
use schema::plan::LinkState;
use schema::render::visible;
use serde_json::json;

use super::context::name;
use super::{CliError, Context, ExitCode, Format, Table};
use crate::client::ClientError;
use crate::wire::cluster_link::{Dials, LinkPost, LinkReport};
use crate::wire::token::{MAX_TOKEN, TrustToken};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

/// `comity cluster`, as LXD has it.
#[derive(Debug, clap::Args)]
pub struct ClusterArgs {
    #[command(subcommand)]
    command: ClusterCommand,
}

#[derive(Debug, Subcommand)]
enum ClusterCommand {
    /// Manage cluster links.
    Link(Args),
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a link: without a token one is issued for the peer, with the peer's token the link is made at once.
    Create(Create),
    /// List the links.
    #[command(alias = "ls")]
    List,
    /// Show a link.
    Show { name: String },
    /// Show the state of both halves of a link.
    #[command(alias = "info")]
    State { name: String },
    /// Renew the certificate that this cluster shows to its peers and clients.
    Rotate(rotate::Args),
    /// Delete a link and tell the peer so.
    #[command(alias = "rm")]
    Delete { name: String },
}

#[derive(clap::Args)]
struct Create {
    /// What the peer is called here.
    name: String,
    /// The same as --token.
    #[arg(value_name = "TOKEN", hide_default_value = true, conflicts_with = "token")]
    given: Option<String>,
    /// The peer's token; `-` reads it from standard input.
    #[arg(long, short)]
    token: Option<String>,
    /// What the peer may do here; may be given several times.
    #[arg(long, short = 'g', value_name = "GROUP")]
    auth_group: Vec<String>,
    #[arg(long, short)]
    description: Option<String>,
}

/// Without the token, which a debug line must not show.
impl std::fmt::Debug for Create {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Create").field("auth_group", &self.auth_group).finish_non_exhaustive()
    }
}

pub async fn run_cluster(args: ClusterArgs, context: &Context) -> Result<ExitCode, CliError> {
    let ClusterCommand::Link(args) = args.command;
    run(args, context).await
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    match args.command {
        Command::Create(args) => create(context, args).await,
        Command::List => list(context).await,
        Command::Show { name: wanted } => show(context, &name("NAME", &wanted)?).await,
        Command::State { name: wanted } => state(context, &name("NAME", &wanted)?).await,
        Command::Rotate(args) => rotate::run(args, context).await,
        Command::Delete { name: gone } => delete(context, &name("NAME", &gone)?).await,
    }
}

async fn create(context: &Context, args: Create) -> Result<ExitCode, CliError> {
    let link: LinkName = name("NAME", &args.name)?;
    let auth_groups = args
        .auth_group
        .iter()
        .map(|group| name::<GroupName>("--auth-group", group).map(String::from))
        .collect::<Result<Vec<_>, _>>()?;
    let token = match args.token.or(args.given) {
        Some(text) if text == "-" => Some(read_token()?),
        given => given,
    };
    let post = LinkPost {
        name: link.to_string(),
        description: args.description.unwrap_or_default(),
        kind: "bidirectional".to_owned(),
        auth_groups,
        trust_token: token.unwrap_or_default(),
        ..LinkPost::default()
    };
    let pending = post.trust_token.is_empty();
    let created = context.client(None).await?.create_link(&post).await;
    let answer = created.map_err(|error| {
        let about_token =
            !pending && matches!(error.status(), Some(StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN));
        let failed = explained(error);
        match failed.hint {
            None if about_token => {
                failed.hint("Copy the whole token again. It may also have been used already, replaced by a newer one, or be out of date: mint another one on the peer.")
            }
            _ => failed,
        }
    })?;
    let output = &context.output;
    if !pending {
        match output.format() {
            Format::Json => output.json(&json!({"name": link})),
            Format::Text if output.quiet() => {}
            Format::Text => output.line(format!("Cluster link {link} created")),
        }
        return Ok(ExitCode::Done);
    }
    let token: TrustToken = serde_json::from_value(answer)
        .map_err(|_| CliError::failed("the agent's answer holds no token").code("unexpected-answer"))?;
    // The one place where a token's text is printed: it was asked for.
    let text = token.encode();
    match output.format() {
        Format::Json => {
            output.json(&json!({"name": link, "token": text.expose(), "expires_at": token.expires_at}));
        }
        Format::Text => {
            if !output.quiet() {
                output.line(format!("Cluster link {link} created (pending)"));
                output.line(format!("Cluster link {:?} pending identity token:", link.as_str()));
            }
            output.line(text.expose());
        }
    }
    Ok(ExitCode::Done)
}

fn read_token() -> Result<String, CliError> {
    let mut text = String::new();
    // One more than a token has, so that the agent says that it is too long.
    let limit = u64::try_from(MAX_TOKEN + 1).unwrap_or(u64::MAX);
    std::io::stdin()
        .take(limit)
        .read_to_string(&mut text)
        .map_err(|error| CliError::failed(format!("the token could not be read: {error}")))?;
    match text.trim() {
        "" => Err(CliError::failed("standard input holds no token").code("no-token")),
        text => Ok(text.to_owned()),
    }
}

/// LXD's errors carry no advice, so it is given here.
fn explained(error: ClientError) -> CliError {
    let hint = match error.status() {
        Some(StatusCode::CONFLICT) => Some("`comity link list` shows the links that there are."),
        Some(StatusCode::BAD_GATEWAY) => {
            Some("Nothing is left of it here. Mint another token on the peer, or see that its agent runs.")
        }
        _ => None,
    };
    let failed = CliError::from(error);
    match hint {
        Some(hint) if failed.hint.is_none() => failed.hint(hint),
        _ => failed,
    }
}

async fn list(context: &Context) -> Result<ExitCode, CliError> {
    let links = context.client(None).await?.links().await?;
    match context.output.format() {
        Format::Json => context.output.json(&links),
        Format::Text => context.output.table(&table(&links)),
    }
    Ok(ExitCode::Done)
}

fn table(links: &[LinkReport]) -> Table {
    let mut table = Table::new(["NAME", "ADDRESSES", "DESCRIPTION", "STATE", "TYPE", "REASON"]);
    for link in links {
        table.row([
            link.name.to_string(),
            link.addresses.join("\n"),
            link.description.clone(),
            link.state.as_str().to_owned(),
            kind(link.kind).to_ascii_uppercase(),
            link.reason.clone().or_else(|| alarm(link)).unwrap_or_default(),
        ]);
    }
    table
}

/// What is wrong with a link that works all the same.
fn alarm(link: &LinkReport) -> Option<String> {
    link.note.clone().filter(|note| note.starts_with("ALARM"))
}

fn kind(kind: LinkType) -> &'static str {
    match kind {
        LinkType::Bidirectional => "bidirectional",
        LinkType::Unidirectional => "unidirectional",
        LinkType::Public => "public",
    }
}

async fn show(context: &Context, link: &LinkName) -> Result<ExitCode, CliError> {
    let report = context.client(None).await?.link(link).await?;
    match context.output.format() {
        Format::Json => context.output.json(&report),
        Format::Text => context.output.text(shown(&report)),
    }
    Ok(ExitCode::Done)
}

fn shown(report: &LinkReport) -> String {
    let mut lines = vec![
        ("Name", report.name.to_string()),
        ("Description", report.description.clone()),
        ("Type", kind(report.kind).to_ascii_uppercase()),
        ("Auth groups", report.auth_groups.iter().map(GroupName::as_str).collect::<Vec<_>>().join(", ")),
        ("State", report.state.as_str().to_owned()),
        ("Reason", report.reason.clone().unwrap_or_default()),
        ("Note", report.note.clone().unwrap_or_default()),
        ("Peer certificate", report.peer_fingerprint.clone().unwrap_or_default()),
        ("Addresses", report.addresses.join(", ")),
    ];
    let dials = report.dials.map(|dials| match dials {
        Dials::Here => "this cluster",
        Dials::Peer => "the peer",
    });
    lines.push(("Dialled by", dials.unwrap_or_default().to_owned()));
    let time = |time: Option<jiff::Timestamp>| time.map(|time| format!("{time:.0}")).unwrap_or_default();
    lines.push(("First active", time(report.first_active)));
    lines.push(("Token expires", time(report.token_expires_at)));
    aligned(lines)
}

async fn state(context: &Context, link: &LinkName) -> Result<ExitCode, CliError> {
    let report = context.client(None).await?.link(link).await?;
    match context.output.format() {
        Format::Json => context.output.json(&json!({
            "name": report.name,
            "state": report.state,
            "reason": report.reason,
            "peer": report.peer,
        })),
        Format::Text => context.output.text(both(&report)),
    }
    Ok(ExitCode::Done)
}

fn both(report: &LinkReport) -> String {
    let because = |reason: &Option<String>| match reason {
        Some(reason) => format!(" ({reason})"),
        None => String::new(),
    };
    let mut lines = vec![
        ("Link", report.name.to_string()),
        ("This half", format!("{}{}", report.state.as_str(), because(&report.reason))),
    ];
    match &report.peer {
        Some(peer) => {
            // Only over a link that carries data is the peer's word of now.
            let when = if report.state == LinkState::Active { "" } else { " when last heard" };
            lines.push(("Peer's half", format!("{}{when}{}", peer.state.as_str(), because(&peer.reason))));
            lines.push(("Peer's name for it", peer.link.to_string()));
            lines.push(("Exported to us", format!("{} services", peer.exported)));
            lines.push(("Imported from us", format!("{} services", peer.imported)));
        }
        None => lines.push(("Peer's half", "unknown: it has not spoken since this agent started".to_owned())),
    }
    aligned(lines)
}

/// One line each, without those that say nothing.
fn aligned(lines: Vec<(&str, String)>) -> String {
    let told: Vec<_> = lines.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    let width = told.iter().map(|(label, _)| label.len() + 1).max().unwrap_or_default();
    let line =
        |(label, value): (&str, String)| format!("{:width$} {}\n", format!("{label}:"), visible(&value));
    told.into_iter().map(line).collect::<Vec<_>>().concat()
}

async fn delete(context: &Context, link: &LinkName) -> Result<ExitCode, CliError> {
    context.client(None).await?.delete_link(link).await.map_err(explained)?;
    match context.output.format() {
        Format::Json => context.output.json(&json!({"name": link})),
        Format::Text if context.output.quiet() => {}
        Format::Text => context.output.line(format!("Cluster link {link} deleted")),
    }
    Ok(ExitCode::Done)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::wire::sync::PeerView;

    fn report() -> LinkReport {
        LinkReport {
            name: "west".parse().unwrap(),
            description: String::new(),
            kind: LinkType::Bidirectional,
            auth_groups: vec!["clusters".parse().unwrap()],
            state: LinkState::Failing,
            reason: Some("the peer closed the connection".to_owned()),
            peer_fingerprint: None,
            addresses: vec!["127.0.0.1:8443".to_owned()],
            dials: Some(Dials::Here),
            first_active: None,
            token_id: None,
            token_expires_at: None,
            peer: None,
            config: BTreeMap::new(),
            unconfirmed: None,
            dial_back: None,
            note: None,
        }
    }

    #[test]
    fn both_halves_are_told_and_what_is_unknown_is_said_to_be() {
        let mut report = report();
        assert_eq!(
            both(&report),
            "Link:        west\n\
             This half:   FAILING (the peer closed the connection)\n\
             Peer's half: unknown: it has not spoken since this agent started\n"
        );
        report.peer = Some(PeerView {
            link: "east".parse().unwrap(),
            state: LinkState::Active,
            reason: None,
            exported: 2,
            imported: 0,
        });
        assert!(
            both(&report).contains("Peer's half:        ACTIVE when last heard\nPeer's name for it: east\n")
        );
        (report.state, report.reason) = (LinkState::Active, None);
        assert!(both(&report).contains("Peer's half:        ACTIVE\n"));
        assert!(!shown(&report).contains("First active"));
    }
}
