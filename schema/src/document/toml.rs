//! TOML files: the `toml` crate's spanned tree, which goes on after a fault.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::limits::{self, MAX_DEPTH};
use super::{Key, Node, Origin, Table, Value};
use crate::diagnostic::secret::quoted;
use crate::diagnostic::{Diagnostic, Faults, sentence};

/// How many places above are tried for the first of two equal keys.
const LOOK_BACK: usize = 200;

/// The root table, without what is faulty.
pub fn parse(source: &str, faults: &mut Faults) -> Table {
    let (root, errors) = DeTable::parse_recoverable(source);
    // One fault upsets the parser several times: tell the first of each line.
    let mut faulty: Vec<Range<usize>> = Vec::new();
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        let at = span.start.min(source.len());
        if faulty.last().is_some_and(|line| at < line.end) {
            continue;
        }
        let start = source[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let end = source[at..].find('\n').map_or(source.len() + 1, |offset| at + offset + 1);
        syntax_fault(source, error.message(), span, faults);
        if faults.is_full() {
            break;
        }
        faulty.push(start..end);
    }
    let mut reader = Reader { source, faulty, faults };
    let mut table = Table::default();
    reader.table(root.get_ref(), &mut table, 0);
    table
}

/// Turns the crate's tree into ours. What stands on a faulty line is faulty, whatever the parser made of it.
struct Reader<'s, 'f> {
    source: &'s str,
    faulty: Vec<Range<usize>>,
    faults: &'f mut Faults,
}

fn syntax_fault(source: &str, message: &str, span: Range<usize>, faults: &mut Faults) {
    let span = visible(source, span);
    if message.contains("recursion limit") {
        return limits::too_deep(faults, span.start);
    }
    if message.contains("duplicate key") {
        return duplicate_key(source, span, faults);
    }
    faults.push(
        Diagnostic::error("syntax", "this is not valid TOML", Some(faults.at(span)))
            .detail(sentence(message)),
    );
}

/// A span that a caret can stand under: the parser marks a place between characters with an empty one.
fn visible(source: &str, span: Range<usize>) -> Range<usize> {
    let (start, end) = (span.start.min(source.len()), span.end.min(source.len()));
    if start < end {
        return start..end;
    }
    match source[start..].chars().next().filter(|c| !matches!(c, '\n' | '\r')) {
        Some(next) => start..start + next.len_utf8(),
        None => source[..start].char_indices().next_back().map_or(0, |(at, _)| at)..start,
    }
}

/// A key given twice. The parser tells only of the second place; the first is looked for: the same header for a
/// table, the nearest line above with the same key for a value.
fn duplicate_key(source: &str, second: Range<usize>, faults: &mut Faults) {
    let key = &source[second.clone()];
    let line_start = |at: usize| source[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let this_line = line_start(second.start);
    let before = &source[this_line..second.start];
    let first = source[..this_line].rmatch_indices(key).map(|(at, _)| at).take(LOOK_BACK).find(|at| {
        source[line_start(*at)..*at].trim_start() == before.trim_start()
            && source[at + key.len()..].trim_start().starts_with(['=', ']', '.'])
    });
    let summary = format!("the key {} is given twice", quoted(key));
    let mut fault = Diagnostic::error("duplicate-key", summary, Some(faults.at(second.clone())));
    if let Some(first) = first {
        fault = fault.related(faults.at(first..first + key.len()), "first given here");
    }
    faults.push(fault);
}

impl Reader<'_, '_> {
    fn is_faulty(&self, span: &Range<usize>) -> bool {
        let after = self.faulty.partition_point(|line| line.end <= span.start);
        self.faulty.get(after).is_some_and(|line| line.start < span.end.max(span.start + 1))
    }

    fn table(&mut self, from: &DeTable<'_>, to: &mut Table, depth: usize) {
        let mut entries: Vec<_> = from.iter().collect();
        // The map is ordered by key; messages and lists follow the file.
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            // A table under a header of its own, or of dotted keys, has its values on lines of their own.
            let inline = self.source[value.span().start..].starts_with('{');
            let own_lines = inline || !value.get_ref().is_table();
            let node = if self.is_faulty(&key.span()) || (own_lines && self.is_faulty(&value.span())) {
                Node { span: key.span().into(), origin: Origin::Literal, value: Value::Faulty }
            } else {
                self.node(value, depth + 1)
            };
            to.0.push((Key::new(key.get_ref().as_ref(), key.span()), node));
        }
    }

    fn node(&mut self, from: &Spanned<DeValue<'_>>, depth: usize) -> Node {
        let span = from.span();
        if depth > MAX_DEPTH {
            limits::too_deep(self.faults, span.start);
            return Node { span: span.into(), origin: Origin::Literal, value: Value::Faulty };
        }
        let value = match from.get_ref() {
            DeValue::String(text) => Value::String(text.as_ref().to_owned()),
            DeValue::Boolean(value) => Value::Bool(*value),
            DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
                Ok(integer) => Value::Integer(integer),
                Err(_) => Value::Float(f64::MAX),
            },
            DeValue::Float(float) => Value::Float(float.as_str().parse().unwrap_or(f64::MAX)),
            // Nothing declared is a date; its text makes the better "expected … found" message.
            DeValue::Datetime(date) => Value::String(date.to_string()),
            DeValue::Array(items) => {
                Value::List(items.iter().map(|item| self.node(item, depth + 1)).collect())
            }
            DeValue::Table(table) => {
                let mut converted = Table::default();
                self.table(table, &mut converted, depth);
                Value::Table(converted)
            }
        };
        Node::literal(value, span)
    }
}
