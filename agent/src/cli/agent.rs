//! `comity agent`: runs the agent in this process.

use super::{CliError, ExitCode};

#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> Result<ExitCode, CliError> {
    Err(CliError::failed("`comity agent` is not there yet"))
}
