//! The text of an expression into its tree.
//!
//! By descent, one function a rule. No rule tries another twice at the same place, so the time is that of the length.

use super::FilterError;

const MAX_LENGTH: usize = 16 * 1024;
const MAX_DEPTH: usize = 64;
const MAX_COMPARISONS: usize = 256;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expression {
    Not(Box<Expression>),
    And(Vec<Expression>),
    Or(Vec<Expression>),
    Match(Match),
}

/// One comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Match {
    pub selector: Vec<String>,
    pub operator: Operator,
    /// Whether it is to fail where the operator would hold.
    pub negated: bool,
    /// Empty for the operator that has none.
    pub value: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    In,
    IsEmpty,
    Matches,
}

pub(super) fn parse(text: &str) -> Result<Expression, FilterError> {
    if text.len() > MAX_LENGTH {
        return Err(FilterError::TooLong(MAX_LENGTH));
    }
    let mut reader = Reader { text, at: 0, depth: 0, comparisons: 0 };
    reader.space();
    let expression = reader.or()?;
    reader.space();
    if reader.at < text.len() {
        return Err(reader.expected("no match found, expected: \"and\", \"or\" or the end"));
    }
    Ok(expression)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    comparisons: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn expected(&self, expected: &'static str) -> FilterError {
        FilterError::Syntax { at: self.at, expected }
    }

    /// Passes over spaces; tells whether there were any.
    fn space(&mut self) -> bool {
        let rest = self.rest();
        let spaces = rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
        self.at += spaces;
        spaces > 0
    }

    /// Passes over `token`, if it is what comes next.
    fn take(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    /// Passes over words with spaces before each of them, and one after where `open`; over nothing if they are not
    /// what comes next.
    fn words(&mut self, words: &[&str], open: bool) -> bool {
        let begun = self.at;
        let found = words.iter().all(|word| self.space() && self.take(word)) && (!open || self.space());
        if !found {
            self.at = begun;
        }
        found
    }

    fn or(&mut self) -> Result<Expression, FilterError> {
        let mut all = vec![self.and()?];
        while self.words(&["or"], true) {
            all.push(self.and()?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Expression::Or(all) })
    }

    fn and(&mut self) -> Result<Expression, FilterError> {
        let mut all = vec![self.not()?];
        while self.words(&["and"], true) {
            all.push(self.not()?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Expression::And(all) })
    }

    fn not(&mut self) -> Result<Expression, FilterError> {
        let mut negated = false;
        loop {
            let begun = self.at;
            // A field may be called `not`.
            if !(self.take("not") && self.space()) || self.at_operator() {
                self.at = begun;
                break;
            }
            negated = !negated;
        }
        let operand = self.group()?;
        Ok(if negated { Expression::Not(Box::new(operand)) } else { operand })
    }

    /// Whether what comes next can follow a selector only.
    fn at_operator(&self) -> bool {
        let rest = self.rest();
        let word = |word: &str| {
            rest.strip_prefix(word).is_some_and(|rest| rest.starts_with([' ', '\t', '\r', '\n']))
        };
        rest.starts_with("==")
            || rest.starts_with("!=")
            || ["in", "contains", "matches"].into_iter().any(word)
    }

    fn group(&mut self) -> Result<Expression, FilterError> {
        if !self.take("(") {
            return self.comparison().map(Expression::Match);
        }
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(FilterError::TooDeep(MAX_DEPTH));
        }
        self.space();
        let inner = self.or()?;
        self.space();
        if !self.take(")") {
            return Err(self.expected("Unmatched parentheses"));
        }
        self.depth -= 1;
        Ok(inner)
    }

    fn comparison(&mut self) -> Result<Match, FilterError> {
        self.comparisons += 1;
        if self.comparisons > MAX_COMPARISONS {
            return Err(FilterError::TooMany(MAX_COMPARISONS));
        }
        let selector = self.selector()?;
        if let Some(selector) = &selector
            && let Some((operator, negated)) = self.operator()
        {
            let value = match operator {
                Operator::IsEmpty => String::new(),
                _ => self.value()?,
            };
            return Ok(Match { selector: selector.clone(), operator, negated, value });
        }
        // The other way round: the value first.
        let value = match selector {
            Some(selector) => selector.join("."),
            None => self.value()?,
        };
        let negated = if self.words(&["in"], true) {
            false
        } else if self.words(&["not", "in"], true) {
            true
        } else {
            return Err(self.expected("no match found, expected: an operator"));
        };
        let selector = self.selector()?.ok_or_else(|| self.expected("Invalid selector"))?;
        Ok(Match { selector, operator: Operator::In, negated, value })
    }

    fn operator(&mut self) -> Option<(Operator, bool)> {
        let begun = self.at;
        self.space();
        let symbol = [("==", false), ("!=", true)].into_iter().find(|(symbol, _)| self.take(symbol));
        if let Some((_, negated)) = symbol {
            self.space();
            return Some((Operator::Equal, negated));
        }
        self.at = begun;
        let worded: [(&[&str], bool, Operator, bool); 6] = [
            (&["is", "empty"], false, Operator::IsEmpty, false),
            (&["is", "not", "empty"], false, Operator::IsEmpty, true),
            (&["contains"], true, Operator::In, false),
            (&["not", "contains"], true, Operator::In, true),
            (&["matches"], true, Operator::Matches, false),
            (&["not", "matches"], true, Operator::Matches, true),
        ];
        let (_, _, operator, negated) =
            worded.into_iter().find(|(words, open, ..)| self.words(words, *open))?;
        Some((operator, negated))
    }

    /// `Name`, `Service.Meta["a key"].b`; `None` if none begins here.
    fn selector(&mut self) -> Result<Option<Vec<String>>, FilterError> {
        let Some(first) = self.identifier() else { return Ok(None) };
        let mut steps = vec![first];
        loop {
            let begun = self.at;
            if self.take(".") {
                let Some(step) = self.identifier() else {
                    self.at = begun;
                    return Ok(Some(steps));
                };
                steps.push(step);
            } else if self.take("[") {
                self.space();
                let step = self.quoted()?.ok_or_else(|| self.expected("Invalid index"))?;
                self.space();
                if !self.take("]") {
                    return Err(self.expected("Unclosed index expression"));
                }
                steps.push(step);
            } else {
                return Ok(Some(steps));
            }
        }
    }

    fn identifier(&mut self) -> Option<String> {
        let rest = self.rest();
        if !rest.starts_with(|first: char| first.is_ascii_alphabetic()) {
            return None;
        }
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
        self.at += end;
        Some(rest[..end].to_owned())
    }

    fn value(&mut self) -> Result<String, FilterError> {
        if let Some(bare) = self.selector()? {
            return Ok(bare.join("."));
        }
        if let Some(number) = self.number()? {
            return Ok(number);
        }
        self.quoted()?.ok_or_else(|| self.expected("no match found, expected: a value"))
    }

    fn number(&mut self) -> Result<Option<String>, FilterError> {
        let rest = self.rest();
        let digits = rest.strip_prefix('-').unwrap_or(rest);
        if !digits.starts_with(|first: char| first.is_ascii_digit()) {
            return Ok(None);
        }
        let is_part = |c: char| c.is_ascii_digit() || c == '.' || c == '-';
        let end = rest.find(|c: char| !is_part(c)).unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        let ends = after.is_empty() || after.starts_with([' ', '\t', '\r', '\n', ')']);
        if !ends || !is_number(number) {
            return Err(self.expected("Invalid number literal"));
        }
        self.at += end;
        Ok(Some(number.to_owned()))
    }

    /// A text in double quotes, with Go's escapes, or in backticks, as it stands; `None` if none begins here.
    fn quoted(&mut self) -> Result<Option<String>, FilterError> {
        let Some(quote @ ('"' | '`')) = self.rest().chars().next() else { return Ok(None) };
        let inner = &self.rest()[1..];
        let Some(end) = inner.find(quote) else { return Err(self.expected("Unterminated string literal")) };
        let raw = &inner[..end];
        let text = match quote {
            '`' => Some(raw.replace('\r', "")),
            _ => unquoted(raw),
        };
        let text = text.ok_or_else(|| self.expected("invalid syntax"))?;
        self.at += end + 2;
        Ok(Some(text))
    }
}

/// `0`, `-12`, `3.25`: no zeros before others, and digits on both sides of the dot.
fn is_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let text = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(whole, part)| (whole, Some(part)));
    digits(whole) && (whole == "0" || !whole.starts_with('0')) && fraction.is_none_or(digits)
}

/// What stands between double quotes, with Go's escapes done; `None` where there is one that Go has not.
fn unquoted(raw: &str) -> Option<String> {
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\n' => return None,
            '\\' => rest = escape(rest, &mut out)?,
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    // Bytes may be given one by one, and need not make up characters.
    Some(String::from_utf8_lossy(&out).into_owned())
}

/// Does the escape that `rest` begins with, after its backslash; gives what is left.
fn escape<'a>(rest: &'a str, out: &mut Vec<u8>) -> Option<&'a str> {
    let kind = rest.chars().next()?;
    let after = &rest[kind.len_utf8()..];
    let simple = match kind {
        'a' => 7,
        'b' => 8,
        't' => 9,
        'n' => 10,
        'v' => 11,
        'f' => 12,
        'r' => 13,
        '\\' => b'\\',
        'x' => {
            out.push(u8::from_str_radix(digits(after, 2, 16)?, 16).ok()?);
            return Some(&after[2..]);
        }
        '0'..='7' => {
            out.push(u8::from_str_radix(digits(rest, 3, 8)?, 8).ok()?);
            return Some(&rest[3..]);
        }
        'u' | 'U' => {
            let count = if kind == 'u' { 4 } else { 8 };
            let code = u32::from_str_radix(digits(after, count, 16)?, 16).ok()?;
            out.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut [0; 4]).as_bytes());
            return Some(&after[count..]);
        }
        _ => return None,
    };
    out.push(simple);
    Some(after)
}

fn digits(text: &str, count: usize, radix: u32) -> Option<&str> {
    let digits = text.get(..count)?;
    digits.chars().all(|c| c.is_digit(radix)).then_some(digits)
}
