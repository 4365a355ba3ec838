//! JSON files: a small parser of our own, because serde_json keeps no spans, takes a key given twice, and stops at
//! the first fault. After a fault it goes on behind the top-level entry, or the block, that is faulty.

use std::collections::HashMap;

use super::blocks::has_kind;
use super::limits::{self, MAX_DEPTH};
use super::{Key, Node, Span, Table, Value};
use crate::diagnostic::secret::quoted;
use crate::diagnostic::{Diagnostic, Faults};

/// Members of objects at this depth and above are recovered: the root's, and those of a kind.
const RECOVERED_DEPTH: usize = 2;

/// The root object, without what is faulty, or the objects one after the other where they are config entries. Empty
/// if there is none.
pub fn parse(source: &str, faults: &mut Faults) -> Vec<Table> {
    let mut parser = Parser { source, bytes: source.as_bytes(), at: 0, faults };
    parser.skip_blank();
    if parser.peek().is_some_and(|byte| byte != b'{') {
        parser.fault(parser.at..parser.at + 1, "A declaration file in JSON is one object.");
        return Vec::new();
    }
    if parser.peek().is_none() {
        return vec![Table::default()];
    }
    let mut roots = Vec::new();
    loop {
        let Ok(root) = parser.object(1) else { return roots };
        roots.push(root);
        parser.skip_blank();
        match parser.peek() {
            None => return roots,
            Some(b'{') if roots.first().is_some_and(has_kind) => {}
            Some(_) => {
                parser.fault(parser.at..parser.at + 1, "Nothing may follow the object.");
                return roots;
            }
        }
    }
}

/// The objects of what must be config entries: one after the other, or in one list.
pub fn entries(source: &str, faults: &mut Faults) -> Vec<Table> {
    if !source.trim_start_matches([' ', '\t', '\n', '\r']).starts_with('[') {
        return parse(source, faults);
    }
    let mut parser = Parser { source, bytes: source.as_bytes(), at: 0, faults };
    parser.skip_blank();
    let Ok(items) = parser.list(0) else { return Vec::new() };
    parser.skip_blank();
    if parser.peek().is_some() {
        parser.fault(parser.at..parser.at + 1, "Nothing may follow the list.");
    }
    let mut tables = Vec::with_capacity(items.len());
    for item in items {
        match item.value {
            Value::Table(table) => tables.push(table),
            _ => drop(parser.fault(item.span.into(), "Each config entry of a list is an object.")),
        }
    }
    tables
}

/// The fault has been told.
struct Told;

struct Parser<'s, 'f> {
    source: &'s str,
    bytes: &'s [u8],
    at: usize,
    faults: &'f mut Faults,
}

impl Parser<'_, '_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_blank(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Tells of a syntax fault, at whole characters.
    fn fault(&mut self, span: std::ops::Range<usize>, detail: &str) -> Told {
        let length = self.source.len();
        let start =
            (0..=span.start.min(length)).rev().find(|at| self.source.is_char_boundary(*at)).unwrap_or(0);
        let end =
            (span.end.min(length)..=length).find(|at| self.source.is_char_boundary(*at)).unwrap_or(length);
        self.faults.push(
            Diagnostic::error("syntax", "this is not valid JSON", Some(self.faults.at(start..end)))
                .detail(detail),
        );
        Told
    }

    fn expected(&mut self, what: &str) -> Told {
        let found = if self.peek().is_some() { "" } else { ", but the file ends" };
        self.fault(self.at..self.at + 1, &format!("Expected {what} here{found}."))
    }

    fn value(&mut self, depth: usize) -> Result<Node, Told> {
        self.skip_blank();
        let start = self.at;
        let value = match self.peek() {
            Some(b'{' | b'[') if depth > MAX_DEPTH => {
                limits::too_deep(self.faults, start);
                return Err(Told);
            }
            Some(b'{') => Value::Table(self.object(depth)?),
            Some(b'[') => Value::List(self.list(depth)?),
            Some(b'"') => Value::String(self.string()?),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            _ => self.word()?,
        };
        Ok(Node::literal(value, start..self.at))
    }

    /// An object whose members are at `depth`.
    fn object(&mut self, depth: usize) -> Result<Table, Told> {
        let mut table = Table::default();
        let mut known: HashMap<String, Span> = HashMap::new();
        self.at += 1;
        self.skip_blank();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(table);
        }
        loop {
            self.skip_blank();
            let start = self.at;
            match self.member(depth) {
                Ok((key, node)) => {
                    if let Some(first) = known.get(&key.text) {
                        let summary = format!("the key {} is given twice", quoted(&key.text));
                        let fault =
                            Diagnostic::error("duplicate-key", summary, Some(self.faults.at(key.span)))
                                .related(self.faults.at(*first), "first given here");
                        self.faults.push(fault);
                    } else {
                        known.insert(key.text.clone(), key.span);
                        table.0.push((key, node));
                    }
                }
                Err(Told) if depth <= RECOVERED_DEPTH && self.skip_member(start) => {}
                Err(Told) => return Err(Told),
            }
            self.skip_blank();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(table);
                }
                _ => {
                    self.expected("`,` or `}`");
                    if depth > RECOVERED_DEPTH || !self.skip_member(self.at) {
                        return Err(Told);
                    }
                }
            }
        }
    }

    fn member(&mut self, depth: usize) -> Result<(Key, Node), Told> {
        if self.peek() != Some(b'"') {
            return Err(self.expected("a key in double quotes"));
        }
        let start = self.at;
        let text = self.string()?;
        let span = Span::from(start..self.at);
        self.skip_blank();
        if self.peek() != Some(b':') {
            return Err(self.expected("`:`"));
        }
        self.at += 1;
        let node = self.value(depth + 1)?;
        Ok((Key { text, span }, node))
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, Told> {
        let mut items = Vec::new();
        self.at += 1;
        self.skip_blank();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(items);
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.skip_blank();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(items);
                }
                _ => return Err(self.expected("`,` or `]`")),
            }
        }
    }

    fn string(&mut self) -> Result<String, Told> {
        let start = self.at;
        self.at += 1;
        let mut text = String::new();
        loop {
            let plain = self.bytes[self.at..]
                .iter()
                .position(|b| matches!(b, b'"' | b'\\' | 0..=0x1f))
                .unwrap_or(self.bytes.len() - self.at);
            text.push_str(&self.source[self.at..self.at + plain]);
            self.at += plain;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => text.push(self.escape()?),
                Some(b'\n') | None => {
                    return Err(self.fault(start..start + 1, "This string is never closed."));
                }
                Some(_) => {
                    return Err(self
                        .fault(self.at..self.at + 1, "A control character in a string is written \\u00XX."));
                }
            }
        }
    }

    fn escape(&mut self) -> Result<char, Told> {
        let start = self.at;
        self.at += 2;
        Ok(match self.bytes.get(start + 1) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let high = self.hex();
                let code = match high {
                    Some(high @ 0xd800..=0xdbff) if self.bytes[self.at..].starts_with(b"\\u") => {
                        self.at += 2;
                        self.hex()
                            .filter(|low| (0xdc00..=0xdfff).contains(low))
                            .map(|low| 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00))
                    }
                    other => other,
                };
                match code.and_then(char::from_u32) {
                    Some(c) => c,
                    None => return Err(self.fault(start..start + 2, "This escape is no character.")),
                }
            }
            _ => return Err(self.fault(start..start + 2, "There is no such escape.")),
        })
    }

    fn hex(&mut self) -> Option<u32> {
        let digits =
            self.source.get(self.at..self.at + 4).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
        self.at += 4;
        u32::from_str_radix(digits, 16).ok()
    }

    fn number(&mut self) -> Result<Value, Told> {
        let start = self.at;
        let length = self.bytes[start..]
            .iter()
            .position(|b| !matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'))
            .unwrap_or(self.bytes.len() - start);
        self.at += length;
        // serde_json knows exactly what a JSON number is.
        match serde_json::from_str::<serde_json::Number>(&self.source[start..self.at]) {
            Ok(number) => Ok(match number.as_i64() {
                Some(integer) => Value::Integer(integer),
                None => Value::Float(number.as_f64().unwrap_or(f64::MAX)),
            }),
            Err(_) => Err(self.fault(start..self.at, "This is not a number.")),
        }
    }

    fn word(&mut self) -> Result<Value, Told> {
        let start = self.at;
        let length = self.bytes[start..].iter().take_while(|b| b.is_ascii_alphanumeric()).count();
        let value = match &self.source[start..start + length] {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            "null" => Value::Null,
            "" => return Err(self.expected("a value")),
            _ => return Err(self.fault(start..start + length, "A text is written in double quotes.")),
        };
        self.at += length;
        Ok(value)
    }

    /// Goes from the start of a faulty member to the `,` or `}` behind it. False if there is none.
    fn skip_member(&mut self, from: usize) -> bool {
        let mut open: Vec<u8> = Vec::new();
        let mut braces = 0;
        self.at = from;
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => {
                    self.at += 1;
                    while let Some(byte) = self.peek() {
                        match byte {
                            b'\\' => self.at += 1,
                            b'"' | b'\n' => break,
                            _ => {}
                        }
                        self.at += 1;
                    }
                }
                b'{' => {
                    open.push(b'}');
                    braces += 1;
                }
                b'[' => open.push(b']'),
                // A list that is not closed ends with the object that it is in.
                b'}' if braces > 0 => {
                    while open.pop() == Some(b']') {}
                    braces -= 1;
                }
                b'}' => return true,
                b',' if open.is_empty() => return true,
                b']' if open.last() == Some(&b']') => drop(open.pop()),
                _ => {}
            }
            self.at += 1;
        }
        self.at = self.at.min(self.bytes.len());
        false
    }
}
