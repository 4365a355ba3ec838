//! `comity status`.

use super::{CliError, Context, ExitCode};

#[derive(Debug, clap::Args)]
pub struct Args {}

pub async fn run(_args: Args, _context: &Context) -> Result<ExitCode, CliError> {
    Err(CliError::failed("`comity status` is not there yet"))
}
