//! TOML files: the `toml` crate's spanned tree, which goes on after a fault.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::limits::{self, MAX_DEPTH};
use super::{Key, Node, Origin, Table, Value};
use crate::diagnostic::{Diagnostic, Faults};

/// The root table, without what is faulty.
pub fn parse(source: &str, faults: &mut Faults) -> Table {
    let (root, errors) = DeTable::parse_recoverable(source);
    // One fault upsets the parser several times: tell the first of each line.
    let mut told_to = 0;
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        if span.start < told_to {
            continue;
        }
        told_to = source[span.start..].find('\n').map_or(source.len(), |offset| span.start + offset + 1);
        syntax_fault(source, error.message(), span, faults);
    }
    let mut table = Table::default();
    convert_table(root.get_ref(), &mut table, 0, faults);
    table
}

fn syntax_fault(source: &str, message: &str, span: Range<usize>, faults: &mut Faults) {
    let span = span.start.min(source.len())..span.end.min(source.len());
    if message.contains("recursion limit") {
        return limits::too_deep(faults, span.start.min(source.len().saturating_sub(1)));
    }
    if message.contains("duplicate key") {
        let key = &source[span.clone()];
        let summary = format!("the key {} is given twice", crate::diagnostic::secret::quoted(key));
        return faults.error("duplicate-key", summary, span);
    }
    let mut chars = message.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    faults.push(
        Diagnostic::error("syntax", "this is not valid TOML", Some(faults.at(span)))
            .detail(format!("{first}{}.", chars.as_str().trim_end_matches('.'))),
    );
}

fn convert_table(from: &DeTable<'_>, to: &mut Table, depth: usize, faults: &mut Faults) {
    let mut entries: Vec<_> = from.iter().collect();
    // The map is ordered by key; messages and lists follow the file.
    entries.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in entries {
        let key = Key::new(key.get_ref().as_ref(), key.span());
        let node = convert(value, depth + 1, faults);
        to.0.push((key, node));
    }
}

fn convert(from: &Spanned<DeValue<'_>>, depth: usize, faults: &mut Faults) -> Node {
    let span = from.span();
    if depth > MAX_DEPTH {
        limits::too_deep(faults, span.start);
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
            Value::List(items.iter().map(|item| convert(item, depth + 1, faults)).collect())
        }
        DeValue::Table(table) => {
            let mut converted = Table::default();
            convert_table(table, &mut converted, depth, faults);
            Value::Table(converted)
        }
    };
    Node::literal(value, span)
}
