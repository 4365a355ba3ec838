//! Copies between agents that know no other way: the source offers, the target pulls, and this command carries the offer from one to the other.

use std::time::Duration;

use indicatif::BinaryBytes;
use schema::kind::transfer::{Mode, VolumeAddress};
use serde_json::json;

use super::missing;
use crate::cli::progress::Bar;
use crate::cli::{CliError, Context, Format};
use crate::client::Client;
use crate::wire::lxd::operation::OperationBody;
use crate::wire::volume::{OfferRequest, PullProgress, PullRequest, PullSource, Pulled};

/// How often a running transfer is asked how far it is.
const ASKED_EVERY: Duration = Duration::from_secs(1);
/// LXD's code for "success".
const SUCCESS: u16 = 200;
/// Codes from here on mean that an operation has ended.
const ENDED: u16 = 200;

type End<'a> = (&'a VolumeAddress, &'a Client);

pub async fn copy(context: &Context, source: End<'_>, target: End<'_>, mode: Mode) -> Result<(), CliError> {
    let pulled = pull(context, source, target, mode).await?;
    let (source, target) = (source.0, target.0);
    for note in &pulled.unset {
        context.output.note(format!("Warning: {note}"));
    }
    match context.output.format() {
        Format::Json => {
            context.output.json(&json!({
                "source": source.to_string(), "target": target.to_string(),
                "total": pulled.total, "received": pulled.received, "unset": pulled.unset,
            }));
        }
        Format::Text => {
            let (total, sent) = (BinaryBytes(pulled.total), BinaryBytes(pulled.received));
            context.output.line(format!("Copied {source} to {target}: {total}, of which {sent} were sent."));
        }
    }
    Ok(())
}

async fn pull(
    context: &Context,
    (source, from): End<'_>,
    (target, to): End<'_>,
    mode: Mode,
) -> Result<Pulled, CliError> {
    let volume = from.volume(&source.pool, &source.volume).await.map_err(|e| missing(source, e))?;
    let (source_agent, target_agent) = (from.status().await?, to.status().await?);
    let same = source_agent.fingerprint == target_agent.fingerprint;
    let offered = if same {
        PullSource::Local { pool: source.pool.clone(), volume: source.volume.clone() }
    } else {
        // Bound to the target's certificate, so that the secret is worth nothing to anyone else.
        let request = OfferRequest { target_fingerprint: Some(target_agent.fingerprint) };
        PullSource::Remote(from.offer_volume(&source.pool, &source.volume, &request).await?)
    };
    let offer = match &offered {
        PullSource::Remote(offer) => Some(offer.operation),
        PullSource::Local { .. } => None,
    };
    let request = PullRequest { source: offered, mode, description: volume.description };
    let begun = to.pull_volume(&target.pool, &target.volume, &request).await;
    let ended = match begun {
        Ok(operation) => watch(context, to, operation).await,
        Err(e) => Err(e.into()),
    };
    if let (Err(_), Some(offer)) = (&ended, offer) {
        // Nobody will come for it now; otherwise it would hold the volume for half a minute.
        let _ = from.cancel_operation(offer).await;
    }
    ended
}

async fn watch(context: &Context, to: &Client, mut operation: OperationBody) -> Result<Pulled, CliError> {
    let bar = Bar::new(context);
    while operation.status_code < ENDED {
        operation = to.wait_operation(operation.id, ASKED_EVERY).await?;
        if let Ok(progress) = serde_json::from_value::<PullProgress>(operation.metadata.clone()) {
            bar.set(&progress.stage, progress.done, progress.total);
        }
    }
    bar.clear();
    if operation.status_code != SUCCESS {
        return Err(CliError::failed(operation.err).code("transfer-failed").hint(
            "The target is as it was. What has arrived is kept, and not sent again when the same command is run again.",
        ));
    }
    serde_json::from_value(operation.metadata)
        .map_err(|error| CliError::failed(format!("{}: {error}", to.agent())).code("unexpected-answer"))
}
