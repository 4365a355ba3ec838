//! `?filter=`: Consul's expressions over the rows of a list, as go-bexpr 0.1.2 reads and judges them (the version that
//! Consul 1.21 has).
//!
//! An expression is read, held against what the rows are made of (`Shape`), so that a selector that there is none of is
//! an error even where there are no rows, and then applied to each row's JSON. Pure, and bounded: in length, in depth,
//! in comparisons and in what a regular expression may grow to.

use serde::Serialize;
use serde_json::Value;

use super::answer::ConsulError;
use super::asked::Asked;

mod check;
mod evaluate;
mod parse;
#[cfg(test)]
mod tests;

use check::{Checked, check};

/// What a value may be, and so what may be asked of it. Rows are a `Struct`.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    Text,
    Bool,
    Int,
    Float,
    List(&'static Shape),
    /// With any keys.
    Map(&'static Shape),
    Struct(&'static [(&'static str, Shape)]),
}

/// Why an expression cannot be used. A mistyped one is repeated in part, as Consul does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    #[error("the expression is longer than {0} bytes")]
    TooLong(usize),
    #[error("the expression is nested deeper than {0} levels")]
    TooDeep(usize),
    #[error("the expression makes more than {0} comparisons")]
    TooMany(usize),
    #[error("1:{} ({at}): {expected}", at + 1)]
    Syntax { at: usize, expected: &'static str },
    #[error("Selector {0:?} is not valid")]
    Selector(String),
    #[error("Invalid match operator {operator:?} for selector {selector:?}")]
    Operator { operator: &'static str, selector: String },
    #[error("Failed to coerce value {value:?} for selector {selector:?}: it is no {wanted}")]
    Value { value: String, selector: String, wanted: &'static str },
    #[error("Failed to compile regular expression {expression:?}: {reason}")]
    Regex { expression: String, reason: String },
}

/// An expression that fits the rows it is for.
#[derive(Debug)]
pub struct Filter(Checked);

impl Filter {
    pub fn compile(expression: &str, rows: &Shape) -> Result<Self, FilterError> {
        check(parse::parse(expression)?, rows).map(Self)
    }

    /// Whether a row, as its JSON, is one of those that are asked for.
    pub fn keeps(&self, row: &Value) -> bool {
        evaluate::holds(&self.0, row)
    }

    /// Drops the rows that are not asked for.
    pub fn retain<T: Serialize>(&self, rows: &mut Vec<T>) -> Result<(), ConsulError> {
        let mut failed = None;
        rows.retain(|row| match serde_json::to_value(row) {
            Ok(row) => self.keeps(&row),
            Err(error) => {
                failed = Some(error);
                false
            }
        });
        // What is answered is made of derived types with text keys, which always serialise.
        failed.map_or(Ok(()), |error| Err(ConsulError::internal(&error)))
    }
}

/// Drops the rows that are not asked for, where anything was asked.
pub fn retain<T: Serialize>(filter: Option<&Filter>, rows: &mut Vec<T>) -> Result<(), ConsulError> {
    filter.map_or(Ok(()), |filter| filter.retain(rows))
}

impl Asked {
    /// The filter that was asked for, if one was, over rows of this shape.
    pub fn filter(&self, rows: &Shape) -> Result<Option<Filter>, ConsulError> {
        let expression = self.get("filter");
        if expression.is_empty() {
            return Ok(None);
        }
        let filter = Filter::compile(expression, rows);
        filter.map(Some).map_err(|error| {
            ConsulError::refused(format!("Failed to create boolean expression evaluator: {error}"))
        })
    }
}
