//! An expression held against what the rows are made of: each selector leads somewhere, each operator can be asked
//! there, and each value is of the kind that it is compared with.

use regex::{Regex, RegexBuilder};

use super::parse::{Expression, Match, Operator};
use super::{FilterError, Shape};

/// What a compiled regular expression may take, of memory.
const MAX_REGEX: usize = 256 * 1024;

/// An expression that can be asked of every row.
#[derive(Debug)]
pub(super) enum Checked {
    Not(Box<Checked>),
    And(Vec<Checked>),
    Or(Vec<Checked>),
    Match { steps: Vec<Step>, test: Test, negated: bool },
}

/// One step from a value to another.
#[derive(Debug)]
pub(super) enum Step {
    Field(String),
    /// Each item of a list in turn: one that fits is enough.
    Each,
    /// A key that may not be there.
    Key(String),
}

#[derive(Debug)]
pub(super) enum Test {
    /// The value is this.
    Is(Operand),
    /// It is a list that has this among its items, a map that has it among its keys, or a text that it is part of.
    Has(Operand),
    IsEmpty,
    Matches(Regex),
}

/// What is compared with.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operand {
    Text(String),
    Bool(bool),
    Int(i128),
    Float(f64),
}

pub(super) fn check(expression: Expression, rows: &Shape) -> Result<Checked, FilterError> {
    let all = |inner: Vec<Expression>| -> Result<Vec<_>, FilterError> {
        inner.into_iter().map(|inner| check(inner, rows)).collect()
    };
    Ok(match expression {
        Expression::Not(inner) => Checked::Not(Box::new(check(*inner, rows)?)),
        Expression::And(inner) => Checked::And(all(inner)?),
        Expression::Or(inner) => Checked::Or(all(inner)?),
        Expression::Match(comparison) => comparison_of(comparison, rows)?,
    })
}

fn comparison_of(comparison: Match, rows: &Shape) -> Result<Checked, FilterError> {
    let Match { selector, operator, negated, value } = comparison;
    let (mut steps, mut shape) = (Vec::new(), rows);
    for (depth, name) in selector.iter().enumerate() {
        while let Shape::List(item) = shape {
            steps.push(Step::Each);
            shape = item;
        }
        shape = match shape {
            Shape::Struct(fields) => {
                let field = fields.iter().find(|(field, _)| field == name);
                steps.push(Step::Field(name.clone()));
                field.map(|(_, shape)| shape)
            }
            Shape::Map(value) => {
                steps.push(Step::Key(name.clone()));
                Some(*value)
            }
            _ => None,
        }
        .ok_or_else(|| FilterError::Selector(selector[..=depth].join(".")))?;
    }
    let named = || selector.join(".");
    let invalid = || FilterError::Operator { operator: name_of(operator, negated), selector: named() };
    let operand = |shape: &Shape| {
        operand_of(shape, &value).ok_or_else(|| FilterError::Value {
            value: value.clone(),
            selector: named(),
            wanted: match shape {
                Shape::Bool => "true or false",
                Shape::Int => "integer",
                _ => "number",
            },
        })
    };
    let test = match (operator, shape) {
        (Operator::Equal, Shape::Text | Shape::Bool | Shape::Int | Shape::Float) => Test::Is(operand(shape)?),
        (Operator::In, Shape::Text | Shape::Map(_)) => Test::Has(Operand::Text(value.clone())),
        (Operator::In, Shape::List(item @ (Shape::Text | Shape::Bool | Shape::Int | Shape::Float))) => {
            Test::Has(operand(item)?)
        }
        (Operator::IsEmpty, Shape::List(_) | Shape::Map(_)) => Test::IsEmpty,
        (Operator::Matches, Shape::Text) => Test::Matches(regex_of(&value)?),
        _ => return Err(invalid()),
    };
    Ok(Checked::Match { steps, test, negated })
}

/// As Consul's messages name an operator.
fn name_of(operator: Operator, negated: bool) -> &'static str {
    match (operator, negated) {
        (Operator::Equal, false) => "Equal",
        (Operator::Equal, true) => "Not Equal",
        (Operator::In, false) => "In",
        (Operator::In, true) => "Not In",
        (Operator::IsEmpty, false) => "Is Empty",
        (Operator::IsEmpty, true) => "Is Not Empty",
        (Operator::Matches, false) => "Matches",
        (Operator::Matches, true) => "Not Matches",
    }
}

fn operand_of(shape: &Shape, text: &str) -> Option<Operand> {
    Some(match shape {
        Shape::Bool => Operand::Bool(match text {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => true,
            "0" | "f" | "F" | "FALSE" | "false" | "False" => false,
            _ => return None,
        }),
        Shape::Int => Operand::Int(integer(text)?),
        Shape::Float => Operand::Float(text.parse().ok()?),
        _ => Operand::Text(text.to_owned()),
    })
}

/// An integer as Go writes one: `10`, `-3`, `0x1f`, `0o17`, `017`, `0b11`.
fn integer(text: &str) -> Option<i128> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = [("0x", 16), ("0o", 8), ("0b", 2)]
        .into_iter()
        .find_map(|(prefix, radix)| Some((radix, lower.strip_prefix(prefix)?)))
        .unwrap_or(if lower.len() > 1 && lower.starts_with('0') { (8, &lower[1..]) } else { (10, &lower) });
    // The standard library would take another sign here.
    if !digits.starts_with(|first: char| first.is_ascii_alphanumeric()) {
        return None;
    }
    i64::from_str_radix(digits, radix).ok().map(|number| sign * i128::from(number))
}

fn regex_of(expression: &str) -> Result<Regex, FilterError> {
    let built = RegexBuilder::new(expression).size_limit(MAX_REGEX).dfa_size_limit(MAX_REGEX).build();
    built.map_err(|error| FilterError::Regex {
        expression: expression.to_owned(),
        reason: match error {
            regex::Error::CompiledTooBig(_) => "it is too large".to_owned(),
            // Its last line says what is wrong; those above it draw where.
            error => error.to_string().lines().next_back().unwrap_or_default().to_owned(),
        },
    })
}
