//! `comity explain [SOURCE] DESTINATION`: which intention decides, where it was declared, and what would change it.

use std::fmt::Write as _;

use schema::access::{Source, Verdict};
use schema::record::RecordKey;
use schema::render::visible;

use super::context::name;
use super::{CliError, Context, ExitCode, Format};
use crate::wire::service::{DeclaredRule, ExplainAnswer, Offer, RulesAnswer};

/// Ask the agent of the destination's cluster: it is the one that decides.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Who connects: SERVICE, or SERVICE@PEER (Consul's peer:PEER/SERVICE) for a service behind a link. Without it, every rule about DESTINATION is
    /// listed, in the order in which they are asked.
    #[arg(value_name = "[SOURCE] DESTINATION", num_args = 1..=2, required = true)]
    names: Vec<String>,
    /// Exit 1 if the connection is denied; without this, 0 either way.
    #[arg(long)]
    check: bool,
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    let (source, destination) = match &args.names[..] {
        [destination] if args.check => {
            let what = "--check is about one source: comity explain --check SOURCE DESTINATION";
            return Err(CliError::usage(format!("{what}; only {destination:?} is given")));
        }
        [destination] => return list(destination, context).await,
        [source, destination, ..] => (source, destination),
        [] => return Err(CliError::usage("comity explain [SOURCE] DESTINATION")),
    };
    // Consul writes a peer's service the other way round.
    let consuls = source.strip_prefix("peer:").and_then(|rest| rest.split_once('/'));
    let (service, peer) = match (consuls, source.split_once('@')) {
        (Some((peer, service)), _) | (None, Some((service, peer))) => (service, Some(peer)),
        (None, None) => (source.as_str(), None),
    };
    let peer = peer.map(|peer| name("SOURCE's peer", peer)).transpose()?;
    let source = Source { peer, service: name("SOURCE", service)? };
    let destination = name("DESTINATION", destination)?;
    let answer = context.client(None).await?.explain(&source, &destination).await?;
    match context.output.format() {
        Format::Json => context.output.json(&answer),
        Format::Text => context.output.text(visible(&text(&answer))),
    }
    Ok(if args.check && !answer.allowed { ExitCode::Failed } else { ExitCode::Done })
}

async fn list(destination: &str, context: &Context) -> Result<ExitCode, CliError> {
    let destination = name("DESTINATION", destination)?;
    let answer = context.client(None).await?.explain_rules(&destination).await?;
    match context.output.format() {
        Format::Json => context.output.json(&answer),
        Format::Text => context.output.text(visible(&rules(&answer))),
    }
    Ok(ExitCode::Done)
}

/// `, declared by manifest shop in east/shop.hcl`, where it is known.
fn whose(rule: &RecordKey, declared: &[DeclaredRule]) -> String {
    let known = declared.iter().find(|declared| declared.rule == *rule);
    known.map(|declared| format!(", {}", declared.by)).unwrap_or_default()
}

fn rules(answer: &RulesAnswer) -> String {
    let mut text = String::new();
    let destination = &answer.destination;
    // Writing to a String cannot fail.
    let _ = match &answer.exported_to[..] {
        [] => writeln!(text, "{destination} is exported to no peer."),
        links => {
            let links: Vec<&str> = links.iter().map(schema::name::LinkName::as_str).collect();
            writeln!(text, "{destination} is exported to {}.", links.join(", "))
        }
    };
    if answer.rules.is_empty() {
        text.push_str("No intention is about it, and what no intention allows is denied.\n");
        return text;
    }
    text.push_str("The first of these that matches a source decides; where none does, it is denied:\n");
    for listed in &answer.rules {
        let verdict = match listed.verdict {
            Verdict::Allowed => "allow",
            Verdict::Denied => "deny",
        };
        let (precedence, rule) = (listed.precedence, &listed.rule);
        let _ = writeln!(text, "  {precedence}  {verdict:5}  {rule}{}", whose(rule, &answer.declared));
    }
    text
}

fn text(answer: &ExplainAnswer) -> String {
    let mut text = String::new();
    let (source, destination) = (&answer.explanation.source, &answer.explanation.destination);
    // Writing to a String cannot fail.
    let _ = match (answer.offer, &source.peer) {
        (Offer::NotExported, Some(peer)) => writeln!(
            text,
            "{source} → {destination}: denied\n  {destination} is not exported to {peer}, so its intentions are not even asked.\n\nOf the intentions alone:"
        ),
        (Offer::Undeclared, _) => writeln!(
            text,
            "{source} → {destination}: denied\n  no service {destination} is declared in this cluster.\n\nOf the intentions alone:"
        ),
        _ => Ok(()),
    };
    let whose = |rule: &RecordKey| whose(rule, &answer.declared);
    match answer.offer {
        Offer::Local | Offer::Exported => text.push_str(&answer.explanation.text(whose)),
        Offer::NotExported | Offer::Undeclared => text.push_str(&answer.explanation.decided(whose)),
    }
    // What would change the answer here is not an intention.
    let _ = match (answer.offer, &source.peer) {
        (Offer::NotExported, Some(peer)) => writeln!(
            text,
            "To export it, declare:\n\nexported_services \"default\" {{\n  services = [{{ name = \"{destination}\", consumers = [{{ peer = \"{peer}\" }}] }}]\n}}"
        ),
        (Offer::Undeclared, _) => {
            writeln!(text, "Register {destination}, or declare it, before anything can reach it.")
        }
        _ => Ok(()),
    };
    text
}
