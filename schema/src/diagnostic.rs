//! One fault of a declaration, with everything a reader needs to mend it. How it looks is `render`'s business.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

pub mod nearest;
pub mod secret;

/// Most faults that one file is given credit for; past it the rest are counted, not listed.
pub const MAX_FAULTS: usize = 10_000;

/// Whether a diagnostic stops the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Error,
    Warning,
}

/// A byte range in one source file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Location {
    /// The path as the user gave it, or as found beneath the folder the user gave.
    pub file: Arc<str>,
    /// Byte offsets, end exclusive.
    pub span: Range<usize>,
}

/// A fault, or a warning, in declarations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    /// Stable machine-readable word, e.g. `unknown-key`.
    pub code: &'static str,
    /// One line, no final stop.
    pub summary: String,
    /// What follows from it and what to do, in sentences. May be empty.
    pub detail: String,
    /// Where; `None` only where no file is at fault, such as a folder that cannot be read.
    pub location: Option<Location>,
    /// Other places that matter, each with a short label ("first declared here").
    pub related: Vec<(Location, String)>,
    /// The source text at `location` holds a secret: renderers show no snippet.
    pub hides_source: bool,
}

impl Diagnostic {
    /// An error with a code, a summary and a place.
    pub fn error(code: &'static str, summary: impl Into<String>, location: Option<Location>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            summary: summary.into(),
            detail: String::new(),
            location,
            related: Vec::new(),
            hides_source: false,
        }
    }

    /// A warning with a code, a summary and a place.
    pub fn warning(code: &'static str, summary: impl Into<String>, location: Option<Location>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, summary, location) }
    }

    /// Adds what follows and what to do.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// Adds another place that matters.
    #[must_use]
    pub fn related(mut self, location: Location, label: impl Into<String>) -> Self {
        self.related.push((location, label.into()));
        self
    }

    /// Marks the source text as one that must not be shown.
    #[must_use]
    pub fn hiding_source(mut self) -> Self {
        self.hides_source = true;
        self
    }
}

/// The texts that diagnostics point into, by file name.
#[derive(Debug, Clone, Default)]
pub struct Sources(pub BTreeMap<Arc<str>, Arc<str>>);

/// A message that begins with a small letter, as errors of libraries do, as a sentence.
pub fn sentence(message: &str) -> String {
    let mut chars = message.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", chars.as_str().trim_end_matches('.'))
}

/// True if any of `diagnostics` stops the run.
pub fn has_errors(diagnostics: &[Diagnostic]) -> bool {
    diagnostics.iter().any(|d| d.severity == Severity::Error)
}

/// Gathers the faults of one file, up to [`MAX_FAULTS`].
#[derive(Debug)]
pub struct Faults {
    file: Arc<str>,
    list: Vec<Diagnostic>,
    unlisted: usize,
}

impl Faults {
    pub fn new(file: &Arc<str>) -> Self {
        Self { file: Arc::clone(file), list: Vec::new(), unlisted: 0 }
    }

    pub fn file(&self) -> &Arc<str> {
        &self.file
    }

    /// A place in this file.
    pub fn at(&self, span: impl Into<Range<usize>>) -> Location {
        Location { file: Arc::clone(&self.file), span: span.into() }
    }

    pub fn push(&mut self, diagnostic: Diagnostic) {
        if self.list.len() < MAX_FAULTS {
            self.list.push(diagnostic);
        } else {
            self.unlisted += 1;
        }
    }

    /// Adds an error at `span`.
    pub fn error(&mut self, code: &'static str, summary: impl Into<String>, span: impl Into<Range<usize>>) {
        let at = self.at(span);
        self.push(Diagnostic::error(code, summary, Some(at)));
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many there are, listed or not.
    pub fn len(&self) -> usize {
        self.list.len() + self.unlisted
    }

    /// True once no more will be listed: whoever finds faults may stop.
    pub fn is_full(&self) -> bool {
        self.unlisted > 0
    }

    /// What was gathered, closed by a line that says how many were not listed.
    pub fn into_list(mut self) -> Vec<Diagnostic> {
        if self.unlisted > 0 {
            let last = Location { file: self.file, span: 0..0 };
            self.list.push(Diagnostic::error(
                "too-many-faults",
                format!("this file has more faults; at most {MAX_FAULTS} are listed"),
                Some(last),
            ));
        }
        self.list
    }
}
