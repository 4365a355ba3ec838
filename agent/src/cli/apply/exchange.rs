//! Making the trust of links after their declarations are applied: minting, redeeming, waiting until data flows.
//!
//! Each step looks at what is true first and can be run again: what a killed run left half made, the next one ends.
//! A token goes from one agent's answer into the other's request; it is printed only where a person must carry it.

use std::time::Duration;

use futures::future::join_all;
use schema::config::Inputs as _;
use schema::kind::cluster_link::TokenSource;
use schema::name::LinkName;
use schema::plan::LinkState;
use schema::plan::pairing::{End, Exchange};
use schema::record::RecordKey;
use serde_json::{Value, json};

use super::token_file::TokenFile;
use crate::cli::plan::gather::{Gathered, Target, together};
use crate::cli::{CliError, Format, Output};
use crate::files::DiskInputs;
use crate::wire::cluster_link::{LinkReport, MintRequest, MintResponse, RedeemRequest};

/// How long a new link may take until data flows.
const ACTIVE_WITHIN: Duration = Duration::from_secs(10);

/// How the exchange for one link went.
pub enum Exchanged {
    /// What both sides of a pair, or the one side here, say at the end.
    Linked(Vec<Side>),
    /// A token waits for the other side.
    Minted {
        label: String,
        link: LinkName,
        place: Value,
    },
    Failed {
        label: String,
        link: LinkName,
        error: CliError,
    },
}

/// One side's word.
pub struct Side {
    label: String,
    report: LinkReport,
}

/// Runs every exchange whose clusters were applied, side by side.
pub async fn all(
    gathered: &Gathered,
    failed: &[bool],
    token_file: Option<TokenFile>,
    output: &Output,
) -> Vec<Exchanged> {
    let applied = |end: &End| !failed[end.site];
    let mut token_file = token_file;
    let runs = gathered.exchanges.iter().filter_map(|exchange| match exchange {
        Exchange::Paired { mint, redeem } if applied(mint) && applied(redeem) => Some((exchange, None)),
        Exchange::Redeem { end, .. } | Exchange::Pin { end } if applied(end) => Some((exchange, None)),
        Exchange::Mint { end } if applied(end) => Some((exchange, token_file.take())),
        _ => None,
    });
    join_all(runs.map(|(exchange, file)| run(gathered, exchange, file, output))).await
}

async fn run(
    gathered: &Gathered,
    exchange: &Exchange,
    file: Option<TokenFile>,
    output: &Output,
) -> Exchanged {
    let (end, result) = match exchange {
        Exchange::Paired { mint, redeem } => (mint, Box::pin(paired(gathered, mint, redeem, output)).await),
        Exchange::Redeem { end, from } => (end, redeem_given(gathered, end, from, output).await),
        Exchange::Pin { end } => (end, pin(gathered, end, output).await),
        Exchange::Mint { end } => (end, mint_for_a_person(gathered, end, file, output).await),
    };
    result.unwrap_or_else(|error| {
        let label = gathered.targets[end.site].label.clone();
        let mut error = placed(gathered, end, error);
        if error.hint.is_none() {
            error.hint = Some("Nothing is lost: run the same apply again to finish the link.".to_owned());
        }
        Exchanged::Failed { label, link: end.link.clone(), error }
    })
}

/// Both sides are ours: one mints a token that only the other's certificate can redeem.
async fn paired(
    gathered: &Gathered,
    mint: &End,
    redeem: &End,
    output: &Output,
) -> Result<Exchanged, CliError> {
    let (minting, redeeming) = (&gathered.targets[mint.site], &gathered.targets[redeem.site]);
    // An agent may have ended by itself what an earlier run began.
    if !is_made(minting, &mint.link, redeeming).await? || !is_made(redeeming, &redeem.link, minting).await? {
        // It may do so this very moment: then there is nothing left to mint or to redeem, only to wait for.
        if let Err(error) = exchange(minting, mint, redeeming, redeem).await
            && !is_made(minting, &mint.link, redeeming).await?
        {
            return Err(error);
        }
    }
    let (one, other) = tokio::join!(settled(minting, &mint.link), settled(redeeming, &redeem.link));
    linked(vec![one?, other?], output)
}

async fn exchange(minting: &Target, mint: &End, redeeming: &Target, redeem: &End) -> Result<(), CliError> {
    let bound = MintRequest { bound_to: Some(redeeming.live.fingerprint.clone()) };
    let minted = minting.client.mint_link_token(&mint.link, &bound).await?;
    let token = RedeemRequest { token: minted.token };
    redeeming.client.redeem_link_token(&redeem.link, &token).await?;
    Ok(())
}

/// Whether the trust of `link` is made, with `peer` on the other side.
async fn is_made(target: &Target, link: &LinkName, peer: &Target) -> Result<bool, CliError> {
    let report = target.client.link(link).await?;
    let made = matches!(report.state, LinkState::Establishing | LinkState::Active | LinkState::Failing);
    Ok(made && report.peer_fingerprint.as_ref() == Some(&peer.live.fingerprint))
}

/// The other side's token was brought here.
async fn redeem_given(
    gathered: &Gathered,
    end: &End,
    from: &TokenSource,
    output: &Output,
) -> Result<Exchanged, CliError> {
    let target = &gathered.targets[end.site];
    let request = RedeemRequest { token: given(gathered, end, from)? };
    target.client.redeem_link_token(&end.link, &request).await?;
    linked(vec![settled(target, &end.link).await?], output)
}

/// A public link: the agent looks for the declared certificate at the declared address.
async fn pin(gathered: &Gathered, end: &End, output: &Output) -> Result<Exchanged, CliError> {
    let target = &gathered.targets[end.site];
    target.client.pin_link(&end.link).await?;
    linked(vec![settled(target, &end.link).await?], output)
}

/// Whether every token that is to be brought is there: asked before anything is changed.
pub fn check_given(gathered: &Gathered) -> Result<(), CliError> {
    let faults = gathered.exchanges.iter().filter_map(|exchange| match exchange {
        Exchange::Redeem { end, from } => {
            given(gathered, end, from).err().map(|error| placed(gathered, end, error))
        }
        Exchange::Paired { .. } | Exchange::Mint { .. } | Exchange::Pin { .. } => None,
    });
    together(faults.collect()).map_or(Ok(()), Err)
}

/// The error, with the link it is about.
fn placed(gathered: &Gathered, end: &End, mut error: CliError) -> CliError {
    error.message =
        format!("{}: cluster_link.{}: {}", gathered.targets[end.site].label, end.link, error.message);
    error
}

/// The token's text, from where the declaration says.
fn given(gathered: &Gathered, end: &End, from: &TokenSource) -> Result<String, CliError> {
    let inputs = DiskInputs::of_command();
    let read = match from {
        TokenSource::Environment(name) => inputs.env(name),
        TokenSource::File(wanted) => {
            let key = RecordKey::ClusterLink(end.link.clone());
            // A link that is to be exchanged is declared.
            let declared = gathered.loaded.desired[end.site].records.get(&key);
            declared.map_or_else(
                || Err("it is not declared".to_owned()),
                |declared| inputs.file(&declared.location.file, wanted),
            )
        }
    };
    let text = read.map_err(|reason| {
        CliError::failed(format!("its token could not be read: {reason}"))
            .code("no-token")
            .hint("Applying the other side makes the token; --token-out FILE there writes it to a file.")
    })?;
    Ok(text.trim().to_owned())
}

/// The other side is applied elsewhere: a person carries the token there.
async fn mint_for_a_person(
    gathered: &Gathered,
    end: &End,
    file: Option<TokenFile>,
    output: &Output,
) -> Result<Exchanged, CliError> {
    let target = &gathered.targets[end.site];
    let MintResponse { token, expires_at } =
        target.client.mint_link_token(&end.link, &MintRequest::default()).await?;
    let here = &target.live.cluster;
    let minted = |place| Exchanged::Minted { label: target.label.clone(), link: end.link.clone(), place };
    if let Some(file) = file {
        let path = file.keep(&token)?.display().to_string();
        if output.format() == Format::Text {
            output.line(format!(
                "{}: cluster_link.{}: token written to {path}, valid until {expires_at}",
                target.label, end.link
            ));
            output.note(format!(
                "On the other cluster, apply cluster_link \"{here}\" with this file as its token_file."
            ));
        }
        return Ok(minted(json!({ "token_file": path, "expires_at": expires_at })));
    }
    if output.format() == Format::Json {
        return Ok(minted(json!({ "token": token, "expires_at": expires_at })));
    }
    output.note(format!(
        "{}: cluster_link.{}: the token for the other cluster, shown this once, valid until {expires_at}:\n",
        target.label, end.link
    ));
    output.line(&token);
    output.note(format!(
        "\nThere, run `comity link create {here} --token TOKEN`, or apply cluster_link \"{here}\" with token_env or token_file."
    ));
    Ok(minted(json!({ "expires_at": expires_at })))
}

/// What `target` says of `link` once data flows, or when the wait is over.
async fn settled(target: &Target, link: &LinkName) -> Result<Side, CliError> {
    let report = target.client.link_when_active(link, ACTIVE_WITHIN).await?;
    Ok(Side { label: target.label.clone(), report })
}

/// All sides must say ACTIVE; else the link stays, and it is told who says what.
fn linked(sides: Vec<Side>, output: &Output) -> Result<Exchanged, CliError> {
    if sides.iter().all(|side| side.report.state == LinkState::Active) {
        if output.format() == Format::Text {
            for Side { label, report } in &sides {
                output.line(format!("{label}: cluster_link.{} is ACTIVE", report.name));
            }
        }
        return Ok(Exchanged::Linked(sides));
    }
    let said: Vec<String> = sides
        .iter()
        .map(|Side { label, report }| {
            let reason = report.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
            format!("{label} says {}{reason}", report.state.as_str())
        })
        .collect();
    let seconds = ACTIVE_WITHIN.as_secs();
    Err(CliError::failed(format!("the link is not ACTIVE after {seconds} s: {}", said.join(", ")))
        .code("link-not-active")
        .hint("The trust is made and the agents keep trying: `comity link list` shows the state. Check that one of the clusters reaches the other's address."))
}

impl Exchanged {
    /// For `--format json`.
    pub fn json(&self) -> Value {
        match self {
            Exchanged::Linked(sides) => json!(
                sides
                    .iter()
                    .map(|Side { label, report }| json!({
                        "cluster": label,
                        "link": report.name,
                        "state": report.state,
                    }))
                    .collect::<Vec<_>>()
            ),
            Exchanged::Minted { label, link, place } => {
                let mut said = json!({ "cluster": label, "link": link, "state": LinkState::Pending });
                if let (Some(said), Value::Object(place)) = (said.as_object_mut(), place) {
                    said.extend(place.clone());
                }
                json!([said])
            }
            Exchanged::Failed { label, link, error } => {
                json!([{ "cluster": label, "link": link, "error": error.message }])
            }
        }
    }

    pub fn into_error(self) -> Option<CliError> {
        match self {
            Exchanged::Failed { error, .. } => Some(error),
            Exchanged::Linked(_) | Exchanged::Minted { .. } => None,
        }
    }
}
