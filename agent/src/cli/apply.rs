//! `comity apply`: makes clusters be as declared. Plans for all of them are made and shown first; then each gets its
//! plan in one request, which is one transaction there; then the trust of new links is made (`exchange`).
//!
//! A cluster whose apply fails does not stop the others: each is whole by itself, and running the same apply again
//! does what is left.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use futures::future::join_all;
use schema::plan::entry::Counts;
use schema::render::plan as render;
use serde_json::{Value, json};

use super::plan::{data, gather};
use super::{CliError, Context, ExitCode, Format, Output};
use crate::wire::control::{ApplyRequest, ApplyResponse};

mod exchange;
mod token_file;

use exchange::Exchanged;
use gather::{Gathered, Target, gather};
use token_file::TokenFile;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Declaration files, or folders of them.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Do not ask.
    #[arg(long, short, visible_alias = "auto-approve")]
    yes: bool,
    /// Write the token for a link's other side to this new file instead of showing it.
    #[arg(long, value_name = "FILE")]
    token_out: Option<PathBuf>,
    /// Destroy the data of volumes that are no longer declared, instead of forgetting them.
    #[arg(long)]
    destroy_data: bool,
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    let output = &context.output;
    let gathered = match gather(&args.paths, data(args.destroy_data), context).await {
        Ok(gathered) => gathered,
        Err(ungathered) => return ungathered.report(output),
    };
    let nothing = gathered.targets.iter().all(|target| target.plan.is_empty());
    let sections = gathered.sections();
    let counts = render::counts(&sections);
    if output.format() == Format::Text {
        output.text(render::text(&sections, gather::colour(output)));
    }
    drop(sections);
    exchange::check_given(&gathered)?;
    let token_file = TokenFile::reserve(args.token_out, &gathered.exchanges)?;
    if !nothing && !args.yes && !approved(output).await? {
        return Err(CliError::failed("the apply was cancelled; nothing was changed").code("cancelled"));
    }

    let applied = apply_all(&gathered.targets, args.destroy_data, output).await;
    let failed: Vec<bool> = applied.iter().map(Result::is_err).collect();
    let exchanged = exchange::all(&gathered, &failed, token_file, output).await;
    conclude(&gathered, applied, exchanged, counts, output)
}

/// Asks as Terraform does: only `yes` is a yes.
async fn approved(output: &Output) -> Result<bool, CliError> {
    if output.format() == Format::Json || !std::io::stdin().is_terminal() {
        return Err(CliError::failed("there is nobody to approve the plan; nothing was changed")
            .code("not-approved")
            .hint("Give --yes to apply without being asked."));
    }
    let mut stderr = anstream::stderr();
    let _ = write!(
        stderr,
        "\nDo you want to perform these actions?\n  Comity will perform the actions described above.\n  Only 'yes' will be accepted to approve.\n\n  Enter a value: "
    );
    let _ = stderr.flush();
    // On a thread of its own, so that an interrupt at the prompt still ends the command.
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map(|_| line)
    });
    match read.await {
        Ok(Ok(line)) => Ok(line.trim() == "yes"),
        Ok(Err(error)) => Err(CliError::failed(format!("standard input could not be read: {error}"))),
        Err(error) => Err(CliError::failed(format!("the prompt failed: {error}"))),
    }
}

/// Applies every plan that is not empty: clusters side by side, manifests of one cluster one after the other.
async fn apply_all(
    targets: &[Target],
    destroy_data: bool,
    output: &Output,
) -> Vec<Result<Option<ApplyResponse>, CliError>> {
    let mut clusters: Vec<Vec<usize>> = Vec::new();
    for (index, target) in targets.iter().enumerate() {
        let known = clusters.iter_mut().find(|cluster| {
            cluster.first().is_some_and(|first| targets[*first].live.fingerprint == target.live.fingerprint)
        });
        match known {
            Some(cluster) => cluster.push(index),
            None => clusters.push(vec![index]),
        }
    }
    let done = join_all(clusters.into_iter().map(|cluster| async move {
        let mut done = Vec::new();
        for index in cluster {
            done.push((index, apply(&targets[index], destroy_data, output).await));
        }
        done
    }))
    .await;
    let mut done: Vec<_> = done.into_iter().flatten().collect();
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

async fn apply(
    target: &Target,
    destroy_data: bool,
    output: &Output,
) -> Result<Option<ApplyResponse>, CliError> {
    let Target { label, client, plan, .. } = target;
    if plan.changes.is_empty() && plan.owners_before.is_none() {
        return Ok(None);
    }
    let request = ApplyRequest { plan: plan.clone(), destroy_data };
    match client.apply(&request).await {
        Ok(response) => {
            if output.format() == Format::Text {
                output.line(format!(
                    "{label}: applied manifest {} at revision {}",
                    plan.manifest, response.revision
                ));
            }
            for step in &response.unfinished {
                output.note(format!("{label}: not finished yet, will be tried again: {step}"));
            }
            Ok(Some(response))
        }
        Err(error) => {
            let mut error = CliError::from(error);
            error.message = format!("{label}: {}", error.message);
            Err(error)
        }
    }
}

/// Tells how it went; fails if any part of it did.
fn conclude(
    gathered: &Gathered,
    applied: Vec<Result<Option<ApplyResponse>, CliError>>,
    exchanged: Vec<Exchanged>,
    planned: Counts,
    output: &Output,
) -> Result<ExitCode, CliError> {
    let clusters: Vec<Value> = gathered
        .targets
        .iter()
        .zip(&applied)
        .map(|(target, result)| {
            json!({
                "cluster": target.label,
                "manifest": target.plan.manifest,
                "revision": result.as_ref().ok().and_then(Option::as_ref).map(|response| response.revision),
                "error": result.as_ref().err().map(|error| &error.message),
            })
        })
        .collect();
    let mut errors: Vec<CliError> = applied.into_iter().filter_map(Result::err).collect();
    let links: Vec<Value> = exchanged.iter().map(Exchanged::json).collect();
    errors.extend(exchanged.into_iter().filter_map(Exchanged::into_error));
    match output.format() {
        Format::Json => output.json(&json!({
            "format_version": "1.0",
            "clusters": clusters,
            "links": links,
            "summary": {
                "add": planned.add,
                "change": planned.change,
                "remove": planned.destroy,
                "forget": planned.forget,
            },
            "errored": !errors.is_empty(),
        })),
        Format::Text if errors.is_empty() => {
            output.line(format!("\n{}", render::applied(planned, gather::colour(output))));
        }
        Format::Text => {}
    }
    gather::together(errors).map_or(Ok(ExitCode::Done), Err)
}
