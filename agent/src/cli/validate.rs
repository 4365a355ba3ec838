//! `comity validate`: every fault of every file, without asking any cluster.

use std::path::PathBuf;

use schema::config::{self, Loaded};
use schema::diagnostic::{Diagnostic, Severity, Sources, has_errors};
use schema::plan::Desired;
use schema::render::{Colour, diagnostic};

use super::{Context, ExitCode, Format, Output};
use crate::files::{self, DiskInputs};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Declaration files, or folders of them.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

pub fn run(args: &Args, context: &Context) -> ExitCode {
    let (mut loaded, files) = load(&args.paths);
    let mut diagnostics = std::mem::take(&mut loaded.diagnostics);
    diagnostics.extend(config::dangling(&loaded, |_| None));
    let ended = report(&diagnostics, &loaded.sources, &context.output);
    if ended == ExitCode::Done && context.output.format() == Format::Text {
        let declarations: usize = loaded.desired.iter().map(entries).sum();
        context.output.line(format!(
            "Success! {} in {} {} valid.",
            counted(declarations, "declaration"),
            counted(files, "file"),
            if declarations == 1 { "is" } else { "are" }
        ));
    }
    ended
}

/// How many blocks a manifest has besides its own. The records of one block stand together in the map.
fn entries(desired: &Desired) -> usize {
    let mut keys = desired.records.keys().map(|key| (key.kind(), key.entry_name())).collect::<Vec<_>>();
    keys.dedup();
    keys.len()
}

/// Everything that `paths` declare and all that is wrong with it, and how many files there are.
pub fn load(paths: &[PathBuf]) -> (Loaded, usize) {
    let (files, unreadable) = files::read(paths);
    let mut loaded = config::load(&files, &DiskInputs::of_command());
    loaded.diagnostics.splice(0..0, unreadable);
    (loaded, files.len())
}

/// All diagnostics: to people on standard error, to programs on standard output.
pub fn report(diagnostics: &[Diagnostic], sources: &Sources, output: &Output) -> ExitCode {
    match output.format() {
        Format::Text => {
            warn(diagnostics, sources);
            let errors = diagnostics.iter().filter(|d| d.severity == Severity::Error).count();
            if errors > 0 {
                anstream::eprintln!("Error: the declarations have {}", counted(errors, "fault"));
            }
        }
        Format::Json => output.json(&diagnostic::json(diagnostics, sources)),
    }
    if has_errors(diagnostics) { ExitCode::Failed } else { ExitCode::Done }
}

/// Diagnostics as text, whatever `--quiet` says. anstream drops the colours that nobody would see.
pub fn warn(diagnostics: &[Diagnostic], sources: &Sources) {
    anstream::eprint!("{}", diagnostic::text(diagnostics, sources, Colour::Always));
}

pub fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
