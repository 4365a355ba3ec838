//! One document tree with spans for HCL, TOML and JSON.
//!
//! Each syntax has its own reader; all end here, so that a kind is decoded once and every message has a place. A
//! file holds either *config entries* in Consul's form, or a set of *blocks*. Serde was passed over for decoding: it
//! drops spans, stops at the first fault, and cannot say what was meant.

use std::ops::Range;
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Faults};
use crate::kind::Kind;

mod blocks;
mod eval;
mod hcl;
mod hcl1;
mod hcl_items;
mod hcl_plain;
mod json;
pub mod limits;
mod toml;

pub use blocks::is_kind;

/// What values may ask of the world outside the files. The world is the caller's: this crate does no I/O.
pub trait Inputs {
    /// The environment variable `name`, or why it cannot be had.
    fn env(&self, name: &str) -> Result<String, String>;
    /// The text of `wanted`, a path relative to the folder of `declaring_path`, or why it cannot be had.
    fn file(&self, declaring_path: &str, wanted: &str) -> Result<String, String>;
}

/// Inputs of a place that has none, such as a test or an editor: each request is refused.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoInputs;

impl Inputs for NoInputs {
    fn env(&self, _name: &str) -> Result<String, String> {
        Err("environment variables cannot be read here".to_owned())
    }

    fn file(&self, _declaring_path: &str, _wanted: &str) -> Result<String, String> {
        Err("files cannot be read here".to_owned())
    }
}

/// A byte range; files are small enough for `u32`, and a tree has many of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    pub start: u32,
    pub end: u32,
}

impl From<Range<usize>> for Span {
    fn from(range: Range<usize>) -> Self {
        // The size limit of a file keeps offsets far below this.
        let narrow = |offset: usize| u32::try_from(offset).unwrap_or(u32::MAX);
        Self { start: narrow(range.start), end: narrow(range.end) }
    }
}

impl From<Span> for Range<usize> {
    fn from(span: Span) -> Self {
        span.start as usize..span.end as usize
    }
}

/// Where a value's text came from, which decides how it may be shown and how leniently it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Written out at its span.
    Literal,
    /// The result of an expression, perhaps of `env` or `file`: never repeated in a message.
    Computed,
    /// Nested blocks, which are a list and an object at once.
    Blocks,
}

/// A value with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub span: Span,
    pub origin: Origin,
    pub value: Value,
}

impl Node {
    pub fn literal(value: Value, span: impl Into<Span>) -> Self {
        Self { span: span.into(), origin: Origin::Literal, value }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    String(String),
    List(Vec<Node>),
    Table(Table),
    /// Something whose fault has been reported; passed over wherever it is met.
    Faulty,
}

impl Value {
    /// What a message calls it.
    pub fn noun(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Integer(_) | Value::Float(_) => "a number",
            Value::String(_) => "a string",
            Value::List(_) => "a list",
            Value::Table(_) => "an object",
            Value::Faulty => "a faulty value",
        }
    }
}

/// A key or a label with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    pub text: String,
    pub span: Span,
}

impl Key {
    pub fn new(text: impl Into<String>, span: impl Into<Span>) -> Self {
        Self { text: text.into(), span: span.into() }
    }
}

/// Keys with values, in the order of the file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Table(pub Vec<(Key, Node)>);

impl Table {
    /// Adds a nested block: blocks of one name, one after the other, are a list.
    fn append_block(&mut self, key: Key, object: Node) {
        let blocks = self.0.iter_mut().rev().find(|(known, node)| {
            node.origin == Origin::Blocks && known.text.eq_ignore_ascii_case(&key.text)
        });
        if let Some((_, Node { value: Value::List(items), .. })) = blocks {
            items.push(object);
        } else {
            let node = Node { span: object.span, origin: Origin::Blocks, value: Value::List(vec![object]) };
            self.0.push((key, node));
        }
    }
}

/// `KIND "NAME" { … }`, or a table under its kind and name.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    pub kind: Key,
    pub labels: Vec<Key>,
    /// Kind and labels together: what a message about the whole block points at.
    pub header: Span,
    pub body: Table,
}

/// A file, parsed.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    pub path: Arc<str>,
    pub content: Content,
}

/// The two forms of a file.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    Blocks(Vec<Block>),
    /// Config entries in Consul's form, one after the other: literal strings, lenient shapes, keys in any case.
    Entries(Vec<Table>),
}

/// The syntaxes, told apart by the file's extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    Hcl,
    Toml,
    Json,
}

impl Syntax {
    /// The syntax of the file at `path`; `None` for a file that is not a declaration.
    pub fn of(path: &str) -> Option<Self> {
        let extension = path.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase())?;
        match extension.as_str() {
            "hcl" => Some(Syntax::Hcl),
            "toml" => Some(Syntax::Toml),
            "json" => Some(Syntax::Json),
            _ => None,
        }
    }
}

/// What came of parsing one file.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// What could be read, even beside faults; `None` if nothing could.
    pub document: Option<Document>,
    /// The text that the diagnostics point into.
    pub source: Arc<str>,
    pub diagnostics: Vec<Diagnostic>,
}

/// Parses the file at `path`. A file whose extension says nothing is read as HCL.
pub fn parse(path: &Arc<str>, bytes: &[u8], inputs: &dyn Inputs) -> Parsed {
    let mut faults = Faults::new(path);
    let text = limits::text(bytes, &mut faults);
    let content = text.usable.then(|| match Syntax::of(path).unwrap_or(Syntax::Hcl) {
        Syntax::Hcl if hcl1::is_entry(&text.shown) => {
            Some(Content::Entries(hcl1::parse(&text.shown, &mut faults)))
        }
        Syntax::Hcl => Some(Content::Blocks(hcl::parse(&text.shown, inputs, &mut faults))),
        Syntax::Toml => {
            Some(blocks::content(vec![toml::parse(&text.shown, &mut faults)], inputs, &mut faults))
        }
        Syntax::Json => {
            let roots = json::parse(&text.shown, &mut faults);
            (!roots.is_empty()).then(|| blocks::content(roots, inputs, &mut faults))
        }
    });
    Parsed {
        document: content.flatten().map(|content| Document { path: Arc::clone(path), content }),
        source: text.shown,
        diagnostics: faults.into_list(),
    }
}

/// Whether a text that is no config entry is a declaration: a set of blocks of our kinds.
pub fn is_declaration(bytes: &[u8], syntax: Syntax) -> bool {
    let path = match syntax {
        Syntax::Hcl => "declaration.hcl",
        Syntax::Toml => "declaration.toml",
        Syntax::Json => "declaration.json",
    };
    match parse(&Arc::from(path), bytes, &NoInputs).document.map(|document| document.content) {
        Some(Content::Blocks(blocks)) => {
            blocks.iter().any(|block| Kind::from_word(&block.kind.text).is_some())
        }
        Some(Content::Entries(_)) | None => false,
    }
}

/// Parses what must be config entries, from a file or a request: never blocks, and of at most `max` bytes.
pub fn parse_entries(path: &Arc<str>, bytes: &[u8], syntax: Syntax, max: usize) -> Parsed {
    let mut faults = Faults::new(path);
    let text = limits::text_within(bytes, max, &mut faults);
    let tables = text.usable.then(|| match syntax {
        Syntax::Hcl => hcl1::parse(&text.shown, &mut faults),
        Syntax::Toml => vec![toml::parse(&text.shown, &mut faults)],
        Syntax::Json => json::entries(&text.shown, &mut faults),
    });
    Parsed {
        document: tables.map(|tables| Document { path: Arc::clone(path), content: Content::Entries(tables) }),
        source: text.shown,
        diagnostics: faults.into_list(),
    }
}
