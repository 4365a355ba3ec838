//! Where entries come from: a file or standard input, decoded and checked before any agent is asked.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use schema::config::entry::{self, MAX_ENTRY, ReadEntry, Stage};
use schema::diagnostic::Diagnostic;
use schema::document::{self, Syntax};

use crate::cli::{CliError, validate};
use crate::observe::entry::EntryKey;
use crate::wire::consul::config::{ConfigEntry, Revisions};

/// An entry as it is sent.
pub struct Loaded {
    /// Consul's word for it.
    pub kind: &'static str,
    pub name: String,
    pub entry: ConfigEntry,
}

const DECLARATION: &str = "This is a declaration, which `comity apply` takes. A config entry is written with Kind and Name, such as Kind = \"service-defaults\" and Name = \"web\".";

/// Every entry of the file at `path`, or on standard input for `-`; at least one.
pub fn load(path: &str) -> Result<Vec<Loaded>, CliError> {
    let bytes = read(path).map_err(|error| CliError::failed(format!("Failed to load data: {error}")))?;
    let shown: Arc<str> = if path == "-" { "standard input".into() } else { path.into() };
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    let is_json = first.is_some_and(|first| matches!(first, b'{' | b'['));
    let syntax = match Syntax::of(path) {
        Some(Syntax::Toml) => Syntax::Toml,
        // As Consul tells them apart, whatever the file is called.
        _ if is_json => Syntax::Json,
        _ => Syntax::Hcl,
    };
    let read = entry::entries(&shown, &bytes, syntax);
    let warn = |diagnostics: &[Diagnostic]| validate::warn(diagnostics, &read.sources);
    warn(&read.warnings);
    if let Some((_, text)) = entry::told(&read.faults) {
        warn(&read.faults);
        let failed = CliError::failed(format!("Failed to decode config entry input: {}", text.trim_end()));
        return Err(if document::is_declaration(&bytes, syntax) { failed.hint(DECLARATION) } else { failed });
    }
    let mut loaded = Vec::with_capacity(read.entries.len());
    for ReadEntry { entry: read_entry, faults } in &read.entries {
        let kind = EntryKey::KINDS.into_iter().find(|(_, kind)| *kind == read_entry.kind);
        let word = kind.map_or("", |(word, _)| word);
        if let Some((stage, text)) = entry::told(faults) {
            warn(faults);
            let text = text.trim_end();
            return Err(CliError::failed(match stage {
                Stage::Decoding => format!("Failed to decode config entry input: {text}"),
                Stage::Validation => {
                    format!("Error writing config entry {word}/{}: {text}", read_entry.name)
                }
            }));
        }
        let records = read_entry.records.iter();
        let made = ConfigEntry::of(read_entry.kind, &read_entry.name, records, Revisions::default());
        let Some(entry) = made else { continue };
        loaded.push(Loaded { kind: word, name: read_entry.name.clone(), entry: entry.unstamped() });
    }
    if loaded.is_empty() {
        return Err(CliError::failed("Failed to decode config entry input: there is none in it"));
    }
    Ok(loaded)
}

/// A byte more than is taken, so that what is too large is told with the limit.
fn read(path: &str) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = MAX_ENTRY as u64 + 1;
    if path == "-" {
        std::io::stdin().take(limit).read_to_end(&mut bytes)?;
    } else {
        File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}
