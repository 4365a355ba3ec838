//! `comity plan`: what applying declarations would change, on every cluster they name.

use std::path::PathBuf;

use schema::plan::Data;
use schema::render::plan as render;

use super::{CliError, Context, ExitCode, Format, Output};

pub mod gather;

use gather::{Gathered, Ungathered, gather};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Declaration files, or folders of them.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Exit 2 if there is something to change, 0 if there is not.
    #[arg(long)]
    detailed_exitcode: bool,
    /// Destroy the data of volumes that are no longer declared, instead of forgetting them.
    #[arg(long)]
    destroy_data: bool,
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    let gathered = match gather(&args.paths, data(args.destroy_data), context).await {
        Ok(gathered) => gathered,
        Err(ungathered) => return ungathered.report(&context.output),
    };
    show(&gathered, &context.output);
    let changes = gathered.targets.iter().any(|target| !target.plan.is_empty());
    Ok(if args.detailed_exitcode && changes { ExitCode::Changes } else { ExitCode::Done })
}

pub fn data(destroy: bool) -> Data {
    if destroy { Data::Destroy } else { Data::Keep }
}

/// Prints the plans in the format asked for.
fn show(gathered: &Gathered, output: &Output) {
    let sections = gathered.sections();
    match output.format() {
        Format::Text => output.text(render::text(&sections, gather::colour(output))),
        Format::Json => output.json(&render::json(&sections)),
    }
}

impl Ungathered {
    /// Says why there is no plan.
    pub fn report(self, output: &Output) -> Result<ExitCode, CliError> {
        match self {
            Ungathered::Failed(error) => Err(error),
            Ungathered::Faulty { diagnostics, sources } => {
                Ok(super::validate::report(&diagnostics, &sources, output))
            }
        }
    }
}
