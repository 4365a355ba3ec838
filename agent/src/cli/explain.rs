//! `comity explain SOURCE DESTINATION`: which intention decides, where it was declared, and what would change it.

use std::fmt::Write as _;

use schema::access::Source;
use schema::render::visible;

use super::context::name;
use super::{CliError, Context, ExitCode, Format};
use crate::wire::service::{ExplainAnswer, Offer};

/// Ask the agent of the destination's cluster: it is the one that decides.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Who connects: SERVICE, or SERVICE@PEER for a service behind a link.
    #[arg(value_name = "SOURCE")]
    source: String,
    /// The service that is connected to.
    #[arg(value_name = "DESTINATION")]
    destination: String,
    /// Exit 1 if the connection is denied; without this, 0 either way.
    #[arg(long)]
    check: bool,
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    let source = match args.source.split_once('@') {
        Some((service, peer)) => {
            Source { peer: Some(name("SOURCE's peer", peer)?), service: name("SOURCE", service)? }
        }
        None => Source { peer: None, service: name("SOURCE", &args.source)? },
    };
    let destination = name("DESTINATION", &args.destination)?;
    let answer = context.client(None).await?.explain(&source, &destination).await?;
    match context.output.format() {
        Format::Json => context.output.json(&answer),
        Format::Text => context.output.text(visible(&text(&answer))),
    }
    Ok(if args.check && !answer.allowed { ExitCode::Failed } else { ExitCode::Done })
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
    text.push_str(&answer.explanation.text());
    if let Some(declared) = &answer.declared {
        let _ = match &declared.manifest {
            Some(manifest) => writeln!(text, "\nThe deciding intention was declared by manifest {manifest}."),
            None => writeln!(text, "\nThe deciding intention was made by hand; no manifest owns it."),
        };
    }
    text
}
