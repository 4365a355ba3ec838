//! From the root table of a TOML or JSON file to blocks: a block is a table under its kind and name, or several of one
//! name a list of tables (`[[service.backend]]`, one for each instance). Strings are
//! templates, as they are in HCL, so that a declaration means the same in all three; those of a config entry are not.

use hcl_edit::expr::Expression;

use super::eval::{Evaluator, template_expression};
use super::{Block, Content, Inputs, Key, Node, Origin, Span, Table, Value};
use crate::diagnostic::{Diagnostic, Faults};

/// What root tables hold: config entries if the first has a `Kind`, else blocks.
pub fn content(roots: Vec<Table>, inputs: &dyn Inputs, faults: &mut Faults) -> Content {
    if roots.first().is_some_and(has_kind) {
        return Content::Entries(roots);
    }
    let root = Table(roots.into_iter().flat_map(|root| root.0).collect());
    let mut evaluator = Evaluator::new(inputs);
    for (_, node) in root.0.iter().filter(|(key, _)| key.text == "locals") {
        declare(node, &mut evaluator, faults);
    }
    evaluator.settle(faults);
    let mut blocks = Vec::new();
    for (kind, node) in root.0.into_iter().filter(|(key, _)| key.text != "locals") {
        let Value::Table(named) = node.value else {
            if node.value != Value::Faulty {
                faults.push(not_a_block(faults, &kind));
            }
            continue;
        };
        for (name, body) in named.0 {
            let bodies = match body.value {
                Value::List(items) if !items.is_empty() => items,
                _ => vec![body],
            };
            for body in bodies {
                let Value::Table(table) = body.value else {
                    if body.value != Value::Faulty {
                        faults.push(not_a_block(faults, &name));
                    }
                    continue;
                };
                let header = name.span;
                let body = evaluate_table(table, &evaluator, faults);
                blocks.push(Block { kind: kind.clone(), labels: vec![name.clone()], header, body });
            }
        }
    }
    Content::Blocks(blocks)
}

/// Whether a table is a config entry.
pub fn has_kind(table: &Table) -> bool {
    table.0.iter().any(|(key, _)| is_kind(&key.text))
}

/// Whether a key is the one that says an entry's kind: Consul takes these two spellings of it.
pub fn is_kind(key: &str) -> bool {
    matches!(key, "Kind" | "kind")
}

/// The fault of a value at the top of a file, where only blocks are.
pub fn not_a_block(faults: &Faults, key: &Key) -> Diagnostic {
    Diagnostic::error("not-a-block", "a value stands here on its own", Some(faults.at(key.span))).detail(
        "A file is either a set of blocks, such as service \"backend\", or a config entry with Kind and Name. \
         (Payload does not contain a kind/Kind key at the top level.)",
    )
}

fn declare(node: &Node, evaluator: &mut Evaluator<'_>, faults: &mut Faults) {
    let Value::Table(table) = &node.value else {
        return faults.error(
            "wrong-type",
            format!("locals is an object, not {}", node.value.noun()),
            node.span,
        );
    };
    for (key, value) in &table.0 {
        match expression(value) {
            Ok(expression) => evaluator.declare(key.clone(), expression, value.span.start as usize, faults),
            Err(message) => faults.push(
                Diagnostic::error("template", "this template is not valid", Some(faults.at(value.span)))
                    .detail(message),
            ),
        }
    }
}

/// A node as the expression that HCL would have for it.
fn expression(node: &Node) -> Result<Expression, String> {
    Ok(match &node.value {
        Value::Null | Value::Faulty => Expression::null(),
        Value::Bool(value) => Expression::from(*value),
        Value::Integer(integer) => Expression::from(*integer),
        Value::Float(float) => hcl::Number::from_f64(*float).map_or_else(Expression::null, Expression::from),
        Value::String(text) if is_template(text) => template_expression(text)?,
        Value::String(text) => Expression::from(text.as_str()),
        Value::List(items) => {
            items.iter().map(expression).collect::<Result<Vec<_>, _>>()?.into_iter().collect()
        }
        Value::Table(table) => {
            let mut object = hcl_edit::expr::Object::new();
            for (key, value) in &table.0 {
                let name = hcl_edit::expr::ObjectKey::Expression(Expression::from(key.text.as_str()));
                object.insert(name, expression(value)?);
            }
            Expression::from(object)
        }
    })
}

fn is_template(text: &str) -> bool {
    text.contains("${") || text.contains("%{")
}

fn evaluate_table(table: Table, evaluator: &Evaluator<'_>, faults: &mut Faults) -> Table {
    Table(table.0.into_iter().map(|(key, node)| (key, evaluate(node, evaluator, faults))).collect())
}

fn evaluate(node: Node, evaluator: &Evaluator<'_>, faults: &mut Faults) -> Node {
    let Node { span, origin, value } = node;
    let value = match value {
        Value::String(text) if is_template(&text) => {
            return evaluator.template(&text, span, faults).unwrap_or(faulty(span));
        }
        Value::List(items) => {
            Value::List(items.into_iter().map(|item| evaluate(item, evaluator, faults)).collect())
        }
        Value::Table(table) => Value::Table(evaluate_table(table, evaluator, faults)),
        other => other,
    };
    Node { span, origin, value }
}

fn faulty(span: Span) -> Node {
    Node { span, origin: Origin::Computed, value: Value::Faulty }
}
