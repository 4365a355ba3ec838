//! `comity completion`: scripts that let a shell complete commands and flags.

use super::{Context, ExitCode};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell to write the script for.
    shell: Shell,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

pub fn run(args: &Args, context: &Context) -> ExitCode {
    let shell = match args.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut super::command(), "comity", &mut script);
    context.output.text(String::from_utf8_lossy(&script));
    ExitCode::Done
}
