//! Works out the values of HCL expressions: literals are taken with their spans, the rest is evaluated by hcl-rs.
//!
//! A value may use `local.NAME`, `env("X")`, `file("x")`, templates, conditions and arithmetic: nothing that could
//! make two runs on the same inputs differ, and nothing that could make a small file grow without bound (no `for`,
//! no splat, a budget). `env`, `file` and locals become variables of hcl-rs' context before it sees the
//! expression, so that text from outside is never parsed again, and each fault keeps its own place.

use std::cell::Cell;
use std::collections::BTreeMap;

use hcl_edit::Span as _;
use hcl_edit::expr::Expression;

use super::{Inputs, Key, Node, Origin, Span, Table, Value};
use crate::diagnostic::{Diagnostic, Faults};

mod rewrite;

use rewrite::Rewrite;

/// Longest expression that is not a literal, bytes.
const MAX_EXPRESSION: usize = 16 * 1024;
/// Largest value of a local, bytes.
const MAX_LOCAL: usize = 16 * 1024;
/// Largest text from `env` or `file`, bytes.
const MAX_INPUT: usize = 64 * 1024;
/// What all computed values of one file may come to, bytes.
const MAX_COMPUTED: usize = 16 * 1024 * 1024;
/// How many locals may build on one another in a chain.
const MAX_CHAIN: usize = 32;

/// The locals of one file, and the way to the world.
pub struct Evaluator<'i> {
    inputs: &'i dyn Inputs,
    known: BTreeMap<String, hcl::Value>,
    /// Declared; `None` once its value is known, or known to be faulty.
    declared: BTreeMap<String, Local>,
    spent: Cell<usize>,
}

struct Local {
    key: Key,
    pending: Option<(Expression, usize)>,
}

/// What a name after `local.` stands for.
enum Lookup<'e> {
    Known(&'e hcl::Value),
    /// Declared, but its own value is faulty or not known yet.
    Unsettled,
    Unknown,
}

impl<'i> Evaluator<'i> {
    pub fn new(inputs: &'i dyn Inputs) -> Self {
        Self { inputs, known: BTreeMap::new(), declared: BTreeMap::new(), spent: Cell::new(0) }
    }

    /// Adds a local whose expression was parsed from text that starts at `base`.
    pub fn declare(&mut self, key: Key, value: Expression, base: usize, faults: &mut Faults) {
        if let Some(first) = self.declared.get(&key.text) {
            faults.push(
                Diagnostic::error(
                    "duplicate-name",
                    format!("local.{} is declared twice", key.text),
                    Some(faults.at(key.span)),
                )
                .related(faults.at(first.key.span), "first declared here"),
            );
            return;
        }
        self.declared.insert(key.text.clone(), Local { key, pending: Some((value, base)) });
    }

    /// Works out the locals, whatever their order in the file.
    pub fn settle(&mut self, faults: &mut Faults) {
        for _ in 0..MAX_CHAIN {
            let names: Vec<String> = self
                .declared
                .iter()
                .filter(|(_, local)| local.pending.as_ref().is_some_and(|(value, _)| self.is_ready(value)))
                .map(|(name, _)| name.clone())
                .collect();
            if names.is_empty() {
                break;
            }
            for name in names {
                self.settle_one(&name, faults);
            }
        }
        for (name, local) in &mut self.declared {
            if local.pending.take().is_some() {
                faults.push(
                    Diagnostic::error("locals", format!("local.{name} cannot be worked out"), Some(faults.at(local.key.span)))
                        .detail(format!(
                            "It builds on itself, or on a chain of more than {MAX_CHAIN} locals, or on one that cannot be worked out."
                        )),
                );
            }
        }
    }

    /// True if every local that `value` names is settled or unknown.
    fn is_ready(&self, value: &Expression) -> bool {
        rewrite::locals_of(value).iter().all(|name| !matches!(self.lookup(name), Lookup::Unsettled))
    }

    fn settle_one(&mut self, name: &str, faults: &mut Faults) {
        let Some((value, base)) = self.declared.get_mut(name).and_then(|local| local.pending.take()) else {
            return;
        };
        let span = super::hcl::moved(value.span(), base);
        let before = faults.len();
        let node = self.node(&value, base, faults);
        let Some(value) = node.filter(|_| faults.len() == before).map(|node| value_of(&node)) else { return };
        if size(&value) > MAX_LOCAL {
            return faults.push(
                Diagnostic::error("too-large", format!("local.{name} is too large"), Some(faults.at(span)))
                    .detail(format!("A local has at most {} KiB.", MAX_LOCAL / 1024)),
            );
        }
        self.known.insert(name.to_owned(), value);
    }

    fn lookup(&self, name: &str) -> Lookup<'_> {
        match (self.known.get(name), self.declared.contains_key(name)) {
            (Some(value), _) => Lookup::Known(value),
            (None, true) => Lookup::Unsettled,
            (None, false) => Lookup::Unknown,
        }
    }

    /// The value of `expr`, parsed from text that starts at `base`; `None` if it is faulty.
    pub fn node(&self, expr: &Expression, base: usize, faults: &mut Faults) -> Option<Node> {
        let span = super::hcl::moved(expr.span(), base);
        let value = match expr {
            Expression::Null(_) => Value::Null,
            Expression::Bool(value) => Value::Bool(*value.value()),
            Expression::Number(number) => number_value(number.value()),
            Expression::String(text) => Value::String(text.value().clone()),
            Expression::Array(array) => {
                // A faulty element stands in its place: the index of the others is part of their messages.
                let element =
                    |expr| self.node(expr, base, &mut *faults).unwrap_or(Node::literal(Value::Faulty, span));
                Value::List(array.iter().map(element).collect())
            }
            Expression::Object(object) => {
                let mut table = Table::default();
                for (key, value) in object {
                    let Some(key) = self.object_key(key, base, span, faults) else { continue };
                    let value = self.node(value.expr(), base, faults).unwrap_or(Node {
                        span: key.span,
                        origin: Origin::Computed,
                        value: Value::Faulty,
                    });
                    table.0.push((key, value));
                }
                Value::Table(table)
            }
            other => return self.computed(other, base, span, faults),
        };
        Some(Node::literal(value, span))
    }

    fn object_key(
        &self,
        key: &hcl_edit::expr::ObjectKey,
        base: usize,
        within: Span,
        faults: &mut Faults,
    ) -> Option<Key> {
        use hcl_edit::expr::ObjectKey;
        match key {
            ObjectKey::Ident(ident) => Some(Key::new(ident.as_str(), super::hcl::moved(ident.span(), base))),
            ObjectKey::Expression(expr) => {
                let node = self.node(expr, base, faults)?;
                if let Value::String(text) = node.value {
                    return Some(Key { text, span: node.span });
                }
                let span = if node.span == Span::default() { within } else { node.span };
                faults.error("wrong-type", format!("a key is a string, not {}", node.value.noun()), span);
                None
            }
        }
    }

    /// The value of a string in TOML or JSON, which is a template as it would be in HCL.
    pub fn template(&self, text: &str, span: Span, faults: &mut Faults) -> Option<Node> {
        match template_expression(text) {
            Ok(expr) => self.computed(&expr, span.end as usize, span, faults),
            Err(message) => {
                faults.push(
                    Diagnostic::error("template", "this template is not valid", Some(faults.at(span)))
                        .detail(format!("{message} A literal `${{` is written `$${{`.")),
                );
                None
            }
        }
    }

    fn computed(&self, expr: &Expression, base: usize, span: Span, faults: &mut Faults) -> Option<Node> {
        let at = faults.at(span);
        if (span.end - span.start) as usize > MAX_EXPRESSION {
            faults.push(
                Diagnostic::error("too-large", "this expression is too long", Some(at))
                    .detail(format!("An expression has at most {} KiB.", MAX_EXPRESSION / 1024)),
            );
            return None;
        }
        let value = Rewrite::new(self, base, span, faults).value(expr)?;
        self.spent.set(self.spent.get() + size(&value));
        if self.spent.get() > MAX_COMPUTED {
            faults.push(
                Diagnostic::error("too-large", "this file's values grow too large", Some(at)).detail(
                    format!(
                        "What the expressions of one file come to is at most {} MiB in all.",
                        MAX_COMPUTED / (1024 * 1024)
                    ),
                ),
            );
            return None;
        }
        Some(node_of(value, span))
    }
}

/// A text with `${ }` in it as an expression.
pub fn template_expression(text: &str) -> Result<Expression, String> {
    let template = hcl_edit::parser::parse_template(text)
        .map_err(|error| crate::diagnostic::sentence(error.message()))?;
    Ok(Expression::StringTemplate(hcl_edit::template::StringTemplate::from(template)))
}

fn number_value(number: &hcl::Number) -> Value {
    match number.as_i64() {
        Some(integer) => Value::Integer(integer),
        // Beyond an i64 nothing here is a valid number, whichever it is.
        None => Value::Float(number.as_f64().unwrap_or(f64::MAX)),
    }
}

fn node_of(value: hcl::Value, span: Span) -> Node {
    let value = match value {
        hcl::Value::Null => Value::Null,
        hcl::Value::Bool(value) => Value::Bool(value),
        hcl::Value::Number(number) => number_value(&number),
        hcl::Value::String(text) => Value::String(text),
        hcl::Value::Array(items) => Value::List(items.into_iter().map(|item| node_of(item, span)).collect()),
        hcl::Value::Object(object) => Value::Table(Table(
            object.into_iter().map(|(key, value)| (Key { text: key, span }, node_of(value, span))).collect(),
        )),
    };
    Node { span, origin: Origin::Computed, value }
}

fn value_of(node: &Node) -> hcl::Value {
    match &node.value {
        Value::Null | Value::Faulty => hcl::Value::Null,
        Value::Bool(value) => hcl::Value::Bool(*value),
        Value::Integer(integer) => hcl::Value::Number((*integer).into()),
        Value::Float(float) => hcl::Number::from_f64(*float).map_or(hcl::Value::Null, hcl::Value::Number),
        Value::String(text) => hcl::Value::String(text.clone()),
        Value::List(items) => hcl::Value::Array(items.iter().map(value_of).collect()),
        Value::Table(table) => hcl::Value::Object(
            table.0.iter().map(|(key, value)| (key.text.clone(), value_of(value))).collect(),
        ),
    }
}

/// About what a value costs in memory, bytes. Depth is bounded by the file's.
fn size(value: &hcl::Value) -> usize {
    16 + match value {
        hcl::Value::String(text) => text.len(),
        hcl::Value::Array(items) => items.iter().map(size).sum(),
        hcl::Value::Object(object) => object.iter().map(|(key, value)| key.len() + size(value)).sum(),
        _ => 0,
    }
}
