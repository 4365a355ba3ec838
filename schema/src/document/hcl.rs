//! HCL 2 files of blocks: hcl-edit parses each top-level item on its own, `eval` works out its values.

use std::ops::Range;

use hcl_edit::Span as _;
use hcl_edit::parser::{self, parse_body};
use hcl_edit::structure::{Block as HclBlock, BlockLabel, Body, Structure};

use super::blocks::not_a_block;
use super::eval::Evaluator;
use super::hcl_items::{self, Item, Items};
use super::{Block, Inputs, Key, Node, Origin, Span, Table, Value, hcl_plain, limits};
use crate::diagnostic::secret::quoted;
use crate::diagnostic::{Diagnostic, Faults, sentence};

/// A parsed item.
enum Parsed {
    /// Of literals only: there is nothing to work out.
    Plain(Block),
    /// The item's own spans count from `base`, where it starts in the file.
    Full { base: usize, body: Body },
}

/// Every block that can be read.
pub fn parse(source: &str, inputs: &dyn Inputs, faults: &mut Faults) -> Vec<Block> {
    blocks(source, inputs, faults, hcl_plain::read)
}

/// As [`parse`], without the short way for plain blocks.
#[cfg(test)]
pub fn parse_the_long_way(source: &str, inputs: &dyn Inputs, faults: &mut Faults) -> Vec<Block> {
    blocks(source, inputs, faults, |_, _| None)
}

fn blocks(
    source: &str,
    inputs: &dyn Inputs,
    faults: &mut Faults,
    short_way: impl Fn(&str, &Range<usize>) -> Option<Block>,
) -> Vec<Block> {
    let mut parsed = Vec::new();
    for item in Items::new(source) {
        // The limits first: both ways recurse.
        match item.is_within_limits().then(|| short_way(source, &item.span)).flatten() {
            Some(block) => parsed.push(Parsed::Plain(block)),
            None => parse_item(source, &item, &mut parsed, faults),
        }
        if faults.is_full() {
            break;
        }
    }
    let mut evaluator = Evaluator::new(inputs);
    for (block, base) in parsed.iter().flat_map(Parsed::locals) {
        declare(block, base, &mut evaluator, faults);
    }
    evaluator.settle(faults);
    let mut blocks = Vec::new();
    for item in parsed {
        match item {
            Parsed::Plain(block) => blocks.push(block),
            Parsed::Full { base, body } => {
                for structure in &body {
                    match structure {
                        Structure::Block(block) if block.has_ident("locals") => {}
                        Structure::Block(block) => blocks.push(convert(block, base, &evaluator, faults)),
                        Structure::Attribute(attribute) => {
                            let key = Key::new(attribute.key.as_str(), moved(attribute.key.span(), base));
                            faults.push(not_a_block(faults, &key));
                        }
                    }
                }
            }
        }
    }
    blocks
}

impl Parsed {
    /// The `locals` blocks in it.
    fn locals(&self) -> impl Iterator<Item = (&HclBlock, usize)> {
        let full = match self {
            Parsed::Plain(_) => None,
            Parsed::Full { base, body } => Some((*base, body)),
        };
        full.into_iter().flat_map(|(base, body)| body.get_blocks("locals").map(move |block| (block, base)))
    }
}

fn parse_item(source: &str, item: &Item, parsed: &mut Vec<Parsed>, faults: &mut Faults) {
    if let Some(at) = item.too_deep {
        return limits::too_deep(faults, at);
    }
    if let Some(at) = item.crowded {
        return limits::too_many_keys(faults, at);
    }
    let error = match parse_body(source[item.span.clone()].trim_end()) {
        Ok(body) => return parsed.push(Parsed::Full { base: item.span.start, body }),
        Err(error) => error,
    };
    let pieces = hcl_items::pieces(source, &item.span);
    if pieces.len() < 2 {
        return syntax_fault(source, item, &error, faults);
    }
    // What looked like one item is several of which one is not closed, or closed twice.
    for piece in pieces {
        match parse_body(source[piece.span.clone()].trim_end()) {
            Ok(body) => parsed.push(Parsed::Full { base: piece.span.start, body }),
            Err(error) => syntax_fault(source, &piece, &error, faults),
        }
    }
}

/// One fault for one item, at the place where the parser gave up.
fn syntax_fault(source: &str, item: &Item, error: &parser::Error, faults: &mut Faults) {
    let text = &source[item.span.clone()];
    let offset = error.location().offset();
    if let Some(open) = item.unclosed
        && text.get(offset..).is_none_or(|rest| rest.trim().is_empty())
    {
        let bracket = source[open..].chars().next().unwrap_or('{');
        let summary = match bracket {
            '$' | '%' => "this interpolation is never closed".to_owned(),
            other => format!("this {other:?} is never closed"),
        };
        return faults.error("syntax", summary, open..open + bracket.len_utf8());
    }
    if let Some(quote) = item.open_string {
        return faults.error("syntax", "this string is never closed", quote..quote + 1);
    }
    let start = (item.span.start + offset).min(item.span.end.saturating_sub(1));
    let start = (0..=start).rev().find(|at| source.is_char_boundary(*at)).unwrap_or(0);
    let length = source[start..item.span.end]
        .char_indices()
        .take_while(|(at, c)| *at == 0 || c.is_alphanumeric() || *c == '_')
        .map(|(at, c)| at + c.len_utf8())
        .last()
        .unwrap_or(1);
    let span = start..start + length;
    if error.message().contains("redefined") {
        return duplicate_key(source, item, span, faults);
    }
    faults.push(
        Diagnostic::error("syntax", "this is not valid HCL", Some(faults.at(span)))
            .detail(sentence(error.message())),
    );
}

/// How many places above are tried for the first of two equal keys.
const LOOK_BACK: usize = 64;

/// A key given twice in one object or block. The parser tells only of the second place; the first is looked for.
fn duplicate_key(source: &str, item: &Item, second: Range<usize>, faults: &mut Faults) {
    let key = &source[second.clone()];
    let first = source[item.span.start..second.start]
        .rmatch_indices(key)
        .take(LOOK_BACK)
        .map(|(at, _)| item.span.start + at)
        .find(|at| {
            if source[..*at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '-')) {
                return false;
            }
            let mut depth = 0;
            let level = source[*at..second.start].bytes().all(|b| {
                depth +=
                    i32::from(matches!(b, b'{' | b'[' | b'(')) - i32::from(matches!(b, b'}' | b']' | b')'));
                depth >= 0
            });
            let after = source[at + key.len()..].trim_start();
            level && depth == 0 && after.starts_with(['=', ':'])
        });
    let summary = format!("the key {} is given twice", quoted(key));
    let mut fault = Diagnostic::error("duplicate-key", summary, Some(faults.at(second)));
    if let Some(first) = first {
        fault = fault.related(faults.at(first..first + key.len()), "first given here");
    }
    faults.push(fault);
}

pub(super) fn moved(span: Option<Range<usize>>, base: usize) -> Span {
    span.map_or(Span::from(base..base), |span| Span::from(base + span.start..base + span.end))
}

/// A `locals` block: names for values of this file.
fn declare(block: &HclBlock, base: usize, evaluator: &mut Evaluator<'_>, faults: &mut Faults) {
    for structure in &block.body {
        match structure {
            Structure::Attribute(attribute) => {
                let key = Key::new(attribute.key.as_str(), moved(attribute.key.span(), base));
                evaluator.declare(key, attribute.value.clone(), base, faults);
            }
            Structure::Block(inner) => {
                faults.error("locals", "a local is written NAME = VALUE", moved(inner.ident.span(), base));
            }
        }
    }
    if let Some(label) = block.labels.first() {
        faults.error("locals", "`locals` takes no name", moved(label.span(), base));
    }
}

fn convert(block: &HclBlock, base: usize, evaluator: &Evaluator<'_>, faults: &mut Faults) -> Block {
    let kind = Key::new(block.ident.as_str(), moved(block.ident.span(), base));
    let labels: Vec<Key> = block.labels.iter().map(|label| label_key(label, base)).collect();
    let header =
        Span { start: kind.span.start, end: labels.last().map_or(kind.span.end, |label| label.span.end) };
    Block { kind, labels, header, body: convert_body(&block.body, base, evaluator, faults) }
}

fn label_key(label: &BlockLabel, base: usize) -> Key {
    Key::new(label.as_str(), moved(label.span(), base))
}

/// A body's attributes, and its nested blocks: those of one name are a list of objects.
fn convert_body(body: &Body, base: usize, evaluator: &Evaluator<'_>, faults: &mut Faults) -> Table {
    let mut table = Table::default();
    for structure in body {
        match structure {
            Structure::Attribute(attribute) => {
                let key = Key::new(attribute.key.as_str(), moved(attribute.key.span(), base));
                if let Some(node) = evaluator.node(&attribute.value, base, faults) {
                    table.0.push((key, node));
                } else {
                    // Present, though its value has a fault of its own: not to be called missing as well.
                    let span = key.span;
                    table.0.push((key, Node { span, origin: Origin::Computed, value: Value::Faulty }));
                }
            }
            Structure::Block(inner) => {
                if let Some(label) = inner.labels.first() {
                    faults.error("label", "a block within a block takes no name", moved(label.span(), base));
                }
                let key = Key::new(inner.ident.as_str(), moved(inner.ident.span(), base));
                let object = convert_body(&inner.body, base, evaluator, faults);
                table.append_block(key, Node::literal(Value::Table(object), moved(inner.span(), base)));
            }
        }
    }
    table
}
