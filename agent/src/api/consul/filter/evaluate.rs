//! A checked expression asked of one row.

use serde_json::Value;

use super::check::{Checked, Operand, Step, Test};

pub(super) fn holds(expression: &Checked, row: &Value) -> bool {
    match expression {
        Checked::Not(inner) => !holds(inner, row),
        Checked::And(all) => all.iter().all(|inner| holds(inner, row)),
        Checked::Or(any) => any.iter().any(|inner| holds(inner, row)),
        Checked::Match { steps, test, negated } => follow(steps, row, test, *negated),
    }
}

/// Goes on along `steps` from `value`. What Consul's JSON leaves out is what Go has for nothing: an empty text, list or
/// map, 0, false.
fn follow(steps: &[Step], value: &Value, test: &Test, negated: bool) -> bool {
    let Some((step, rest)) = steps.split_first() else { return passes(test, value) != negated };
    match step {
        Step::Field(name) => follow(rest, value.get(name).unwrap_or(&Value::Null), test, negated),
        Step::Each => {
            let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
            items.iter().any(|item| follow(rest, item, test, negated))
        }
        Step::Key(name) => match value.get(name) {
            Some(value) => follow(rest, value, test, negated),
            // What is not there is empty, and is nothing else.
            None => matches!(test, Test::IsEmpty) != negated,
        },
    }
}

fn passes(test: &Test, value: &Value) -> bool {
    match test {
        Test::Is(operand) => is(value, operand),
        Test::Has(operand) => match (value, operand) {
            (Value::Array(items), operand) => items.iter().any(|item| is(item, operand)),
            (Value::Object(map), Operand::Text(key)) => map.contains_key(key),
            (Value::String(text), Operand::Text(part)) => text.contains(part.as_str()),
            // A text that was left out is empty, and has the empty text in it; so has no list or map.
            _ => false,
        },
        Test::IsEmpty => match value {
            Value::Array(items) => items.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => true,
        },
        Test::Matches(regex) => regex.is_match(value.as_str().unwrap_or_default()),
    }
}

fn is(value: &Value, operand: &Operand) -> bool {
    match operand {
        Operand::Text(text) => value.as_str().unwrap_or_default() == text,
        Operand::Bool(wanted) => value.as_bool().unwrap_or_default() == *wanted,
        Operand::Int(wanted) => {
            let signed = value.as_i64().map(i128::from);
            signed.or_else(|| value.as_u64().map(i128::from)).unwrap_or_default() == *wanted
        }
        // Both were read from text: what is written the same is the same.
        #[allow(clippy::float_cmp)]
        Operand::Float(wanted) => value.as_f64().unwrap_or_default() == *wanted,
    }
}
