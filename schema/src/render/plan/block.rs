//! One entry of a plan as a block with a symbol on each line that changes.
//!
//! A changed scalar is `old -> new`; a changed list is a diff of its elements, with the words that differ marked.

use owo_colors::Style;
use serde_json::{Map, Value};
use similar::{Algorithm, ChangeTag, DiffTag, InlineChange, TextDiff};

use super::{Item, Painter, push};
use crate::kind::Kind;
use crate::plan::{Action, Ownership};
use crate::render::record::{brackets, elements, inline, lines};

/// Writes the comment line and the block.
pub(super) fn write(item: &Item, manifest: &str, text: &mut String, paint: &Painter) {
    let fate = match item.action {
        Action::Create => "will be created",
        Action::Update => "will be updated in-place",
        Action::Delete => "will be destroyed",
        Action::Forget => "will be forgotten",
    };
    push(text, format_args!("  {}\n", paint.bold(&format!("# {} {fate}", item.address()))));
    match (item.action, item.kind, item.ownership) {
        (Action::Forget, ..) => text.push_str("  # (the declaration goes, its data stays)\n"),
        (Action::Delete, Kind::Volume, _) => text.push_str("  # (its data is destroyed with it)\n"),
        (.., Ownership::Adopted) => {
            push(text, format_args!("  # (was made by hand, now owned by manifest {manifest})\n"));
        }
        _ => {}
    }
    let mut body = String::new();
    let empty = Map::new();
    let (before, after) = (item.before.as_ref().unwrap_or(&empty), item.after.as_ref().unwrap_or(&empty));
    match item.action {
        Action::Create => whole(after, Some(Action::Create), "", &mut body, paint),
        Action::Delete => whole(before, Some(Action::Delete), " -> null", &mut body, paint),
        Action::Forget => whole(before, None, "", &mut body, paint),
        Action::Update => difference(before, after, &mut body, paint),
    }
    let symbol = paint.symbol(item.action);
    let (kind, name) = (item.kind, item.label());
    if body.is_empty() {
        push(text, format_args!("  {symbol} {kind} \"{name}\" {{}}\n"));
    } else {
        push(text, format_args!("  {symbol} {kind} \"{name}\" {{\n{body}    }}\n"));
    }
}

/// Every attribute, each line with the same symbol.
fn whole(
    attributes: &Map<String, Value>,
    action: Option<Action>,
    ending: &str,
    text: &mut String,
    paint: &Painter,
) {
    let symbol = action.map_or_else(|| " ".to_owned(), |action| paint.symbol(action));
    let width = width(attributes.keys());
    for (name, value) in attributes {
        push_value(&symbol, name, width, value, ending, text);
    }
}

/// An attribute with its whole value; the elements of a list have the symbol too.
fn push_value(symbol: &str, name: &str, width: usize, value: &Value, ending: &str, text: &mut String) {
    let lines = lines(value);
    let last = lines.len().saturating_sub(1);
    for (at, line) in lines.iter().enumerate() {
        match at {
            0 => push(text, format_args!("      {symbol} {name:width$} = {line}")),
            at if at == last => push(text, format_args!("        {line}")),
            _ => push(text, format_args!("          {symbol} {}", line.trim_start())),
        }
        if at == last {
            text.push_str(ending);
        }
        text.push('\n');
    }
}

/// Only the attributes that differ; the rest is counted.
fn difference(before: &Map<String, Value>, after: &Map<String, Value>, text: &mut String, paint: &Painter) {
    // In the order of the new block, what is gone last.
    let names = || after.keys().chain(before.keys().filter(|name| !after.contains_key(*name)));
    let changes = |name: &&String| before.get(*name) != after.get(*name);
    let width = width(names().filter(changes));
    for name in names().filter(changes) {
        match (before.get(name), after.get(name)) {
            (Some(old), Some(new)) => change(name, width, old, new, text, paint),
            (None, Some(new)) => push_value(&paint.symbol(Action::Create), name, width, new, "", text),
            (Some(old), None) => {
                push_value(&paint.symbol(Action::Delete), name, width, old, " -> null", text);
            }
            (None, None) => {}
        }
    }
    hidden(names().filter(|name| !changes(name)).count(), "attribute", "        ", text);
}

fn change(name: &str, width: usize, old: &Value, new: &Value, text: &mut String, paint: &Painter) {
    let symbol = paint.symbol(Action::Update);
    let lists = (old.is_array() && new.is_array()) || (old.is_object() && new.is_object());
    if !lists {
        let (old, new) = (inline(old), inline(new));
        let diff = TextDiff::from_words(old.as_str(), new.as_str());
        let side = |tag: ChangeTag| -> String {
            diff.iter_all_changes()
                .filter(|part| part.tag() == tag || part.tag() == ChangeTag::Equal)
                .map(|part| paint.paint(colour(part.tag()), part.value()))
                .collect()
        };
        let (old, new) = (side(ChangeTag::Delete), side(ChangeTag::Insert));
        push(text, format_args!("      {symbol} {name:width$} = {old} -> {new}\n"));
        return;
    }
    let (open, close) = brackets(new);
    push(text, format_args!("      {symbol} {name:width$} = {open}\n"));
    let (old, new) = (elements(old), elements(new));
    let old: Vec<&str> = old.iter().map(String::as_str).collect();
    let new: Vec<&str> = new.iter().map(String::as_str).collect();
    // Elements are nearly always unique, which is what Patience is quick with, however long the list.
    let diff = TextDiff::configure().algorithm(Algorithm::Patience).diff_slices(&old, &new);
    let mut same = 0;
    for op in diff.ops() {
        if op.tag() == DiffTag::Equal {
            same += op.old_range().len();
            continue;
        }
        for change in diff.iter_inline_changes(op) {
            element(&change, text, paint);
        }
    }
    hidden(same, "element", "            ", text);
    push(text, format_args!("        {close}\n"));
}

fn element(change: &InlineChange<'_, str>, text: &mut String, paint: &Painter) {
    let action = if change.tag() == ChangeTag::Delete { Action::Delete } else { Action::Create };
    let line: String = change
        .values()
        .iter()
        .map(|(differs, part)| match differs {
            true => paint.paint(colour(change.tag()), part),
            false => (*part).to_owned(),
        })
        .collect();
    push(text, format_args!("          {} {line},\n", paint.symbol(action)));
}

fn colour(tag: ChangeTag) -> Style {
    match tag {
        ChangeTag::Delete => Style::new().red(),
        ChangeTag::Insert => Style::new().green(),
        ChangeTag::Equal => Style::new(),
    }
}

fn hidden(count: usize, noun: &str, indent: &str, text: &mut String) {
    match count {
        0 => {}
        1 => push(text, format_args!("{indent}# (1 unchanged {noun} hidden)\n")),
        many => push(text, format_args!("{indent}# ({many} unchanged {noun}s hidden)\n")),
    }
}

fn width<'k>(names: impl Iterator<Item = &'k String>) -> usize {
    names.map(String::len).max().unwrap_or_default()
}
