//! From documents to what each manifest desires: decode every kind, cross-check, normalise.

use std::collections::HashMap;
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Faults, Location, Severity, Sources};
use crate::document;
pub use crate::document::{Inputs, NoInputs};
use crate::name::ManifestName;
use crate::plan::Desired;
use crate::record::RecordKey;

mod assemble;
mod cross;
mod declare;
pub mod entry;
mod references;

pub use assemble::describe;
pub use references::dangling;

/// One declaration file as read.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// The path that messages show.
    pub path: Arc<str>,
    /// The directory that holds it, `/`-separated: what "the nearest manifest upward" is found by.
    pub folder: Arc<str>,
    pub bytes: Arc<[u8]>,
}

/// All that a set of files declares, and all that is wrong with it.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// One for each manifest. Complete only if no diagnostic is an error.
    pub desired: Vec<Desired>,
    pub diagnostics: Vec<Diagnostic>,
    pub sources: Sources,
    /// What is named in the files but not declared in them.
    pub references: Vec<Reference>,
}

/// A name that nothing in the given files declares; a live cluster may hold it.
#[derive(Debug, Clone)]
pub struct Reference {
    /// The record that names it; `None` if it is the manifest itself (its `owners`).
    pub from: Option<RecordKey>,
    pub manifest: ManifestName,
    /// Index into `Loaded::desired` of the manifest on whose cluster `to` should be. Two manifests of one name
    /// may be applied to two clusters, so the name alone does not say which.
    pub desired: usize,
    pub to: RecordKey,
    pub location: Location,
    /// How bad it is if it is nowhere.
    pub severity: Severity,
}

/// Decodes, checks and normalises `files`. Every fault of every file is told of.
pub fn load(files: &[SourceFile], inputs: &dyn Inputs) -> Loaded {
    let mut sources = Sources::default();
    let mut diagnostics = Vec::new();
    let mut read = Vec::new();
    for file in files {
        // A file reached by two of the given paths is one file.
        if sources.0.contains_key(&file.path) {
            continue;
        }
        let parsed = document::parse(&file.path, &file.bytes, inputs);
        sources.0.insert(Arc::clone(&file.path), parsed.source);
        diagnostics.extend(parsed.diagnostics);
        let mut faults = Faults::new(&file.path);
        let decoded =
            parsed.document.map(|document| declare::decode(&document, &mut faults)).unwrap_or_default();
        diagnostics.extend(faults.into_list());
        read.push(assemble::DecodedFile {
            path: Arc::clone(&file.path),
            folder: Arc::clone(&file.folder),
            decoded,
        });
    }
    let assembled = assemble::assemble(read, &mut diagnostics);
    cross::check(&assembled, &mut diagnostics);
    let references = references::unsatisfied(&assembled);
    sort(&mut diagnostics, files);
    Loaded { desired: assembled.desired, diagnostics, sources, references }
}

/// By file, as given, then by place.
fn sort(diagnostics: &mut [Diagnostic], files: &[SourceFile]) {
    let order: HashMap<&str, usize> =
        files.iter().enumerate().rev().map(|(index, file)| (&*file.path, index)).collect();
    diagnostics.sort_by_key(|diagnostic| {
        diagnostic.location.as_ref().map(|at| (order.get(&*at.file).copied(), at.span.start, at.span.end))
    });
}
