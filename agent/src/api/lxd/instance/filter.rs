//! `?filter=`: LXD's small language, `name eq c1 and config.user.x ne 2`.
//!
//! Clauses are `field operator value`, joined by `and` or `or` from left to right, each perhaps after `not`. A value in
//! quotes may hold spaces. A value is compared without regard to case, and as a regular expression if it is one, as LXD
//! does.

use regex::{Regex, RegexBuilder};
use serde_json::Value;

/// Longest filter, bytes.
const MAX: usize = 4096;
const MAX_CLAUSES: usize = 50;
/// What a pattern of the caller's may take up.
const MAX_PATTERN: usize = 64 * 1024;

/// What takes some of a list.
#[derive(Debug, Default)]
pub struct Filter(Vec<Clause>);

#[derive(Debug)]
struct Clause {
    joined: Joined,
    negated: bool,
    field: String,
    equal: bool,
    value: String,
    pattern: Option<Regex>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Joined {
    And,
    Or,
}

/// Why a text is no filter, in LXD's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    #[error("Invalid filter: clause has no operator")]
    NoOperator,
    #[error("Invalid filter: clause has no value")]
    NoValue,
    #[error("Invalid filter: invalid operator")]
    Operator,
    #[error("Invalid filter: clauses are joined by \"and\" or \"or\"")]
    Join,
    #[error("Invalid filter: it is longer than {MAX} bytes or has more than {MAX_CLAUSES} clauses")]
    TooLong,
}

impl Filter {
    /// Nothing takes all.
    pub fn read(text: &str) -> Result<Self, FilterError> {
        if text.len() > MAX {
            return Err(FilterError::TooLong);
        }
        let mut words = words(text).into_iter();
        let mut clauses = Vec::new();
        let mut joined = Joined::And;
        while let Some(mut field) = words.next() {
            let negated = field == "not";
            if negated {
                field = words.next().ok_or(FilterError::NoOperator)?;
            }
            let equal = match words.next().ok_or(FilterError::NoOperator)?.as_str() {
                "eq" => true,
                "ne" => false,
                _ => return Err(FilterError::Operator),
            };
            let value = words.next().ok_or(FilterError::NoValue)?;
            let pattern = RegexBuilder::new(&format!("^(?:{value})$"))
                .case_insensitive(true)
                .size_limit(MAX_PATTERN)
                .build()
                .ok();
            clauses.push(Clause { joined, negated, field, equal, value: value.to_lowercase(), pattern });
            joined = match words.next().as_deref() {
                None => break,
                Some("and") => Joined::And,
                Some("or") => Joined::Or,
                Some(_) => return Err(FilterError::Join),
            };
        }
        if clauses.len() > MAX_CLAUSES { Err(FilterError::TooLong) } else { Ok(Self(clauses)) }
    }

    /// Whether it takes what `shown` gives. Only asked for where something depends on it; what cannot be shown is not
    /// taken.
    pub fn takes<E>(&self, shown: impl FnOnce() -> Result<Value, E>) -> bool {
        if self.0.is_empty() {
            return true;
        }
        let Ok(shown) = shown() else { return false };
        self.0.iter().fold(true, |so_far, clause| {
            let holds = clause.holds(&shown);
            match clause.joined {
                Joined::And => so_far && holds,
                Joined::Or => so_far || holds,
            }
        })
    }
}

impl Clause {
    fn holds(&self, shown: &Value) -> bool {
        let found = look(shown, &self.field);
        let same = match &found {
            Some(text) => {
                text.to_lowercase() == self.value
                    || self.pattern.as_ref().is_some_and(|pattern| pattern.is_match(text))
            }
            None => self.value.is_empty(),
        };
        (same == self.equal) != self.negated
    }
}

/// The text of a field: `config.user.x` is the key `user.x` of the map `config`.
fn look(shown: &Value, field: &str) -> Option<String> {
    let direct = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    if let Some(value) = shown.get(field) {
        return direct(value);
    }
    let (first, rest) = field.split_once('.')?;
    look(shown.get(first)?, rest)
}

/// Words, of which one in quotes may hold spaces.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let quoted = matches!(first, '"' | '\'');
        let begin = if quoted { &rest[1..] } else { rest };
        let end = if quoted { begin.find(first) } else { begin.find(char::is_whitespace) };
        let end = end.unwrap_or(begin.len());
        words.push(begin[..end].to_owned());
        let after = if quoted { (end + 1).min(begin.len()) } else { end };
        rest = begin[after..].trim_start();
    }
    words
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn takes(filter: &str) -> bool {
        let shown = json!({"name": "web1", "config": {"user.x": "a b"}, "ephemeral": false, "devices": {}});
        Filter::read(filter).unwrap().takes(|| Ok::<_, ()>(shown))
    }

    #[test]
    fn clauses_are_read_from_left_to_right() {
        for (filter, expected) in [
            ("", true),
            ("name eq web1", true),
            ("name eq WEB1", true),
            ("name ne web1", false),
            ("not name eq web1", false),
            ("name eq (^web$|^web.*)", true),
            ("name eq we", false),
            ("config.user.x eq \"a b\"", true),
            ("config.user.x eq 'a b' and name eq nope", false),
            ("name eq nope or ephemeral eq false", true),
            ("absent eq x", false),
            ("devices eq x", false),
            ("name eq [", false),
        ] {
            assert_eq!(takes(filter), expected, "{filter}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for (text, error) in [
            ("foo", FilterError::NoOperator),
            ("not", FilterError::NoOperator),
            ("foo eq", FilterError::NoValue),
            ("foo is x", FilterError::Operator),
            ("a eq b c", FilterError::Join),
            ("é eq \"ü", FilterError::Join),
        ] {
            match Filter::read(text) {
                Err(found) => assert_eq!(found, error, "{text}"),
                Ok(_) => assert_eq!(text, "é eq \"ü", "an open quote ends with the text"),
            }
        }
        assert_eq!(Filter::read(&"a ".repeat(MAX)).unwrap_err(), FilterError::TooLong);
    }
}
