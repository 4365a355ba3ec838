//! Diagnostics as text with snippets, and as JSON in the shape of `terraform validate -json`.
//!
//! Both show the same lines. What looks like a token or a key is masked in every line shown, whoever's fault it is
//! next to; a line is cut to a window, so that a file that is one long line costs no more than another.

use std::collections::HashMap;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde_json::{Value, json};

use crate::diagnostic::{Diagnostic, Location, Severity, Sources};
use crate::render::{Colour, visible};

mod lines;

use lines::{Lines, Window};

/// Every diagnostic with its place and source lines.
pub fn text(diagnostics: &[Diagnostic], sources: &Sources, colour: Colour) -> String {
    let renderer = match colour {
        Colour::Always => Renderer::styled(),
        Colour::Never => Renderer::plain(),
    };
    let mut files = Files::new(sources);
    let mut out = String::new();
    for diagnostic in diagnostics {
        out.push_str(&without_empty_origins(renderer.render(&[group(diagnostic, &mut files)])));
        out.push_str("\n\n");
    }
    out
}

/// The whole object: `format_version`, `valid`, counts and `diagnostics`.
pub fn json(diagnostics: &[Diagnostic], sources: &Sources) -> Value {
    let mut files = Files::new(sources);
    let count = |severity| diagnostics.iter().filter(|diagnostic| diagnostic.severity == severity).count();
    let errors = count(Severity::Error);
    json!({
        "format_version": "1.0",
        "valid": errors == 0,
        "error_count": errors,
        "warning_count": count(Severity::Warning),
        "diagnostics": diagnostics.iter().map(|diagnostic| one(diagnostic, &mut files)).collect::<Vec<_>>(),
    })
}

/// The line tables of the files that diagnostics point into, each made once.
struct Files<'s> {
    sources: &'s Sources,
    known: HashMap<Arc<str>, Option<Lines<'s>>>,
}

impl<'s> Files<'s> {
    fn new(sources: &'s Sources) -> Self {
        Self { sources, known: HashMap::new() }
    }

    fn lines(&mut self, file: &Arc<str>) -> Option<&Lines<'s>> {
        let sources = self.sources;
        self.known
            .entry(Arc::clone(file))
            .or_insert_with(|| sources.0.get(file).map(|text| Lines::new(text)))
            .as_ref()
    }
}

fn group<'a>(diagnostic: &'a Diagnostic, files: &mut Files<'_>) -> Group<'a> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut group = level
        .primary_title(visible(&diagnostic.summary))
        .id(diagnostic.code)
        .elements(Vec::<Origin<'_>>::new());
    if let Some(location) = &diagnostic.location {
        group = place(group, location, None, diagnostic.hides_source, files);
    }
    for (location, label) in &diagnostic.related {
        group = place(group, location, Some(label), false, files);
    }
    if !diagnostic.detail.is_empty() {
        group = group.element(Level::NOTE.message(visible(&diagnostic.detail)));
    }
    group
}

/// The renderer begins a snippet that has no path, as one cut from a long line, with an origin that says nothing.
fn without_empty_origins(rendered: String) -> String {
    const MARK: &str = "::: ";
    let empty = |line: &str| {
        let Some((before, after)) = line.split_once(MARK) else { return false };
        // Blanks and colours.
        let blank = |c: char| c.is_ascii_digit() || matches!(c, ' ' | '\u{1b}' | '[' | ';' | 'm' | '\n');
        before.chars().all(blank) && after.chars().all(blank)
    };
    if !rendered.lines().any(empty) {
        return rendered;
    }
    rendered.split_inclusive('\n').filter(|line| !empty(line)).collect()
}

/// Adds one place: its origin, and its line unless that is to be hidden or there is none.
fn place<'a>(
    group: Group<'a>,
    location: &'a Location,
    label: Option<&'a str>,
    hidden: bool,
    files: &mut Files<'_>,
) -> Group<'a> {
    let origin = || Origin::path(visible(&location.file));
    let Some(lines) = files.lines(&location.file) else { return group.element(origin()) };
    let start = lines.position(location.span.start);
    let origin = origin().line(start.line).char_column(start.column);
    if hidden || location.span.is_empty() {
        return group.element(origin);
    }
    let window = lines.window(&location.span);
    let kind = if label.is_some() { AnnotationKind::Context } else { AnnotationKind::Primary };
    let annotation = kind.span(window.highlight.clone()).label(label);
    let snippet = Snippet::source(window.code.clone()).line_start(start.line);
    if window.is_cut() {
        // The column that the renderer would work out is one of the window.
        group.element(origin).element(snippet.annotation(annotation))
    } else {
        group.element(snippet.path(visible(&location.file)).annotation(annotation))
    }
}

fn one(diagnostic: &Diagnostic, files: &mut Files<'_>) -> Value {
    let severity = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let mut object = json!({
        "severity": severity,
        "code": diagnostic.code,
        "summary": diagnostic.summary,
        "detail": diagnostic.detail,
    });
    if let Some(location) = &diagnostic.location {
        object["range"] = range(location, files);
        if !diagnostic.hides_source {
            object["snippet"] = snippet(location, files);
        }
    }
    if !diagnostic.related.is_empty() {
        let related =
            |(location, label): &(Location, String)| json!({"label": label, "range": range(location, files)});
        object["related"] = diagnostic.related.iter().map(related).collect();
    }
    object
}

fn range(location: &Location, files: &mut Files<'_>) -> Value {
    let mut point = |byte: usize| match files.lines(&location.file) {
        Some(lines) => {
            let position = lines.position(byte);
            json!({"line": position.line, "column": position.column, "byte": byte})
        }
        None => json!({"line": 1, "column": 1, "byte": byte}),
    };
    json!({
        "filename": &*location.file,
        "start": point(location.span.start),
        "end": point(location.span.end),
    })
}

fn snippet(location: &Location, files: &mut Files<'_>) -> Value {
    let Some(lines) = files.lines(&location.file) else { return Value::Null };
    if location.span.is_empty() {
        return Value::Null;
    }
    let Window { code, highlight, .. } = lines.window(&location.span);
    json!({
        "context": lines.context(location.span.start),
        "code": code,
        "start_line": lines.position(location.span.start).line,
        "highlight_start_offset": highlight.start,
        "highlight_end_offset": highlight.end,
        "values": [],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(file: &str, source: &str, at: usize) -> String {
        let mut sources = Sources::default();
        sources.0.insert(file.into(), source.into());
        let location = Location { file: file.into(), span: at..at + 3 };
        text(&[Diagnostic::error("x", "wrong", Some(location))], &sources, Colour::Never)
    }

    #[test]
    fn a_line_too_long_to_show_has_one_origin() {
        let long = format!("{}key = 1", "a, ".repeat(3000));
        let shown = rendered("a.hcl", &long, 9000);
        assert!(shown.contains(" --> a.hcl:1:9001\n  |\n1 | ") && !shown.contains(":::"), "{shown}");
    }

    #[test]
    fn neither_a_path_nor_a_line_commands_the_terminal() {
        let shown = rendered("\u{1b}[31m.hcl", "abc \u{9b}2J\u{1b}[2J", 0);
        assert!(!shown.contains(['\u{1b}', '\u{9b}']), "{shown}");
        assert!(shown.contains("\\u{1b}[31m.hcl:1:1"), "{shown}");
    }
}
