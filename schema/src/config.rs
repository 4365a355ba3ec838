//! From documents to what each manifest desires: decode every kind, cross-check, normalise.

use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Location, Severity, Sources};
pub use crate::document::{Inputs, NoInputs};
use crate::name::ManifestName;
use crate::plan::{Desired, Live};
use crate::record::RecordKey;

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

/// Decodes, checks and normalises `files`.
pub fn load(files: &[SourceFile], inputs: &dyn Inputs) -> Loaded {
    let _ = (files, inputs);
    Loaded::default()
}

/// The references that are satisfied nowhere. `live` gives a manifest's cluster, if it is known: with `validate`
/// it never is, and only groups and links are asked for.
pub fn dangling<'l>(loaded: &Loaded, live: impl Fn(&Desired) -> Option<&'l Live>) -> Vec<Diagnostic> {
    let _ = (loaded, live);
    Vec::new()
}
