//! Config entry files in HCL 1, as Consul reads them: a small parser of our own.
//!
//! HCL 1 takes what HCL 2 refuses: quoted keys, items without commas or newlines between them, `${x` as plain text,
//! a block and a list of objects as the same thing. Strings are literal, never templates. After a fault it goes on
//! with the next line that begins a top-level item.

use std::ops::Range;

use super::blocks::is_kind;
use super::hcl_items::Items;
use super::limits::{self, MAX_DEPTH};
use super::{Key, Node, Origin, Span, Table, Value};
use crate::diagnostic::secret::quoted;
use crate::diagnostic::{Diagnostic, Faults};
use crate::kind::Kind;

mod lexer;

use lexer::{Lexer, Token};

/// True if the file has a top-level `Kind = …` and so is a config entry.
pub fn is_entry(source: &str) -> bool {
    for (index, item) in Items::new(source).enumerate() {
        let text = &source[item.span];
        let word_end =
            |text: &str| text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
        let unquoted = text.strip_prefix('"').unwrap_or(text);
        let (word, rest) = unquoted.split_at(word_end(unquoted));
        let rest = rest.strip_prefix('"').unwrap_or(rest).trim_start();
        if is_kind(word) && rest.starts_with('=') {
            return true;
        }
        // The first block tells: no config entry begins with one of ours.
        if index == 0 && (Kind::from_word(word).is_some() || word == "locals") && !rest.starts_with('=') {
            return false;
        }
    }
    false
}

/// The entries' tables, without what is faulty. A second `Kind` begins the next entry; each of several begins with its
/// own, since it could not be told otherwise whose the keys before it are.
pub fn parse(source: &str, faults: &mut Faults) -> Vec<Table> {
    let mut parser = Parser { lexer: Lexer::new(source), source, faults, done: Vec::new() };
    let mut table = Table::default();
    loop {
        match parser.items(&mut table, 0) {
            Ok(()) if parser.lexer.peek().token == Token::End => {
                let mut tables = parser.done;
                tables.push(table);
                return tables;
            }
            // A closing bracket too many.
            Ok(()) => {
                let token = parser.lexer.next();
                parser.fault(token.span.clone(), "Nothing is open here that this could close.");
                parser.recover(token.span.start);
            }
            Err(Told { at }) => parser.recover(at),
        }
    }
}

/// The fault has been told; it is at this place.
struct Told {
    at: usize,
}

struct Parser<'s, 'f> {
    lexer: Lexer<'s>,
    source: &'s str,
    faults: &'f mut Faults,
    /// Entries before the one that is being read.
    done: Vec<Table>,
}

impl Parser<'_, '_> {
    fn fault(&mut self, span: Range<usize>, detail: &str) -> Told {
        let at = span.start;
        self.faults.push(
            Diagnostic::error("syntax", "this is not valid HCL", Some(self.faults.at(span))).detail(detail),
        );
        Told { at }
    }

    /// On to the next line that begins with a word or a quoted key at its very start.
    fn recover(&mut self, from: usize) {
        let mut at = from;
        while let Some(offset) = self.source[at..].find('\n') {
            at += offset + 1;
            if self.source[at..].starts_with(|c: char| c.is_ascii_alphabetic() || c == '"') {
                return self.lexer.go_to(at);
            }
        }
        self.lexer.go_to(self.source.len());
    }

    /// Items up to a closing brace, which is left, or the end.
    fn items(&mut self, table: &mut Table, depth: usize) -> Result<(), Told> {
        loop {
            let next = self.lexer.next();
            let text = match next.token {
                Token::End | Token::Close('}' | ']') => {
                    self.lexer.put_back(next);
                    return Ok(());
                }
                Token::Comma => continue,
                Token::Word(word) => word.to_owned(),
                Token::String(text) => text,
                Token::Bad(why) => return Err(self.fault(next.span, why)),
                _ => return Err(self.fault(next.span, "Expected a key here.")),
            };
            let key = Key::new(text, next.span);
            if depth == 0
                && is_kind(&key.text)
                && table.0.first().is_some_and(|(first, _)| is_kind(&first.text))
            {
                self.done.push(std::mem::take(table));
            }
            match self.item_value(depth) {
                Ok(node) => self.insert(table, key, node),
                Err(told) => {
                    let faulty = Node { span: key.span, origin: Origin::Computed, value: Value::Faulty };
                    table.0.push((key, faulty));
                    return Err(told);
                }
            }
        }
    }

    /// What follows a key: `= VALUE`, `{ … }`, or further keys, each of which is a level.
    fn item_value(&mut self, depth: usize) -> Result<Node, Told> {
        let next = self.lexer.next();
        match next.token {
            Token::Assign => self.value(depth),
            Token::Open('{') => {
                let object = self.object(next.span.start, depth)?;
                Ok(Node { span: object.span, origin: Origin::Blocks, value: Value::List(vec![object]) })
            }
            Token::String(text) => {
                if depth >= MAX_DEPTH {
                    limits::too_deep(self.faults, next.span.start);
                    return Err(Told { at: next.span.start });
                }
                let key = Key::new(text, next.span);
                let inner = self.item_value(depth + 1)?;
                let span = Span { start: key.span.start, end: inner.span.end };
                let object = Node::literal(Value::Table(Table(vec![(key, inner)])), Range::from(span));
                Ok(Node { span, origin: Origin::Blocks, value: Value::List(vec![object]) })
            }
            Token::Bad(why) => Err(self.fault(next.span, why)),
            _ => Err(self.fault(next.span, "Expected `=` or `{` after the key.")),
        }
    }

    fn value(&mut self, depth: usize) -> Result<Node, Told> {
        let next = self.lexer.next();
        let value = match next.token {
            Token::String(text) => Value::String(text),
            Token::Integer(integer) => Value::Integer(integer),
            Token::Float(float) => Value::Float(float),
            Token::Word("true") => Value::Bool(true),
            Token::Word("false") => Value::Bool(false),
            Token::Word("null") => Value::Null,
            Token::Word(word) => {
                let hint = format!("A text is quoted: \"{word}\".");
                return Err(self.fault(next.span, &hint));
            }
            Token::Open('{') => return self.object(next.span.start, depth),
            Token::Open(_) => return self.list(next.span.start, depth),
            Token::Bad(why) => return Err(self.fault(next.span, why)),
            _ => return Err(self.fault(next.span, "Expected a value here.")),
        };
        Ok(Node::literal(value, next.span))
    }

    fn object(&mut self, open: usize, depth: usize) -> Result<Node, Told> {
        self.check_depth(open, depth)?;
        let mut table = Table::default();
        self.items(&mut table, depth + 1)?;
        let close = self.lexer.next();
        match close.token {
            Token::Close('}') => Ok(Node::literal(Value::Table(table), open..close.span.end)),
            _ => Err(self.fault(open..open + 1, "This brace is never closed.")),
        }
    }

    fn list(&mut self, open: usize, depth: usize) -> Result<Node, Told> {
        self.check_depth(open, depth)?;
        let mut items = Vec::new();
        loop {
            let next = self.lexer.next();
            match next.token {
                Token::Close(']') => return Ok(Node::literal(Value::List(items), open..next.span.end)),
                Token::Comma => {}
                Token::End => return Err(self.fault(open..open + 1, "This bracket is never closed.")),
                _ => {
                    self.lexer.put_back(next);
                    items.push(self.value(depth + 1)?);
                }
            }
        }
    }

    fn check_depth(&mut self, open: usize, depth: usize) -> Result<(), Told> {
        if depth < MAX_DEPTH {
            return Ok(());
        }
        limits::too_deep(self.faults, open);
        Err(Told { at: open })
    }

    /// Adds a value. Blocks and lists of one name are one list, in the order of the file.
    fn insert(&mut self, table: &mut Table, key: Key, node: Node) {
        // As far back as any real entry reaches; further would be quadratic.
        let known =
            table.0.iter_mut().rev().take(64).find(|(known, _)| known.text.eq_ignore_ascii_case(&key.text));
        let Some((first, known)) = known else { return table.0.push((key, node)) };
        match (&mut known.value, node.value) {
            (Value::List(items), Value::List(more)) => {
                items.extend(more);
                known.origin = Origin::Blocks;
            }
            (Value::List(items), object @ Value::Table(_)) => {
                items.push(Node::literal(object, Range::from(node.span)));
            }
            _ => self.faults.push(
                Diagnostic::error(
                    "duplicate-key",
                    format!("the key {} is given twice", quoted(&key.text)),
                    Some(self.faults.at(key.span)),
                )
                .related(self.faults.at(first.span), "first given here"),
            ),
        }
    }
}
