//! Reads the fields of one table: finds each by its spelling, checks its type, and reports what is left over.
//!
//! A kind takes its fields one after the other and then calls [`Fields::finish`]. Every fault goes to [`Faults`] and
//! the field counts as absent, so that one run tells of all of them. A config entry is read more leniently than a
//! block, as Consul reads it: keys in any case, numbers for strings, a lone object for a list.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use crate::diagnostic::nearest::{nearest, suggestion};
use crate::diagnostic::secret::{looks_secret, quoted};
use crate::diagnostic::{Diagnostic, Faults, sentence};
use crate::document::limits::{MAX_KEYS, too_many_keys};
use crate::document::{Node, Origin, Span, Table, Value};
use crate::name::NameError;

pub mod place;

pub use place::{Form, Place};

/// A text with the place it stands at.
#[expect(clippy::struct_field_names, reason = "a text is what it is; any other word would say less")]
#[derive(Debug, Clone, Copy)]
pub struct Text<'a> {
    pub text: &'a str,
    pub span: Span,
    /// The result of an expression, perhaps of `env`: not to be repeated.
    computed: bool,
    /// Which element of its field's list it is.
    index: Option<usize>,
}

impl fmt::Display for Text<'_> {
    /// As a message may show it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.computed { f.write_str("what this comes to") } else { f.write_str(&quoted(self.text)) }
    }
}

/// The fields of one table, being read.
pub struct Fields<'a, 'f> {
    table: &'a Table,
    /// Where to point when something is missing.
    header: Span,
    pub place: Place<'a>,
    known: Vec<&'static str>,
    /// Second spellings, which must be met letter by letter.
    aliases: Vec<&'static str>,
    /// Missing fields, held back: an unknown key may turn out to be one of them, mistyped.
    missing: Vec<(String, Diagnostic)>,
    pub faults: &'f mut Faults,
}

impl<'a, 'f> Fields<'a, 'f> {
    pub fn new(table: &'a Table, header: Span, place: Place<'a>, faults: &'f mut Faults) -> Self {
        static EMPTY: Table = Table(Vec::new());
        let crowded = table.0.len() > MAX_KEYS;
        if crowded {
            too_many_keys(faults, header.start as usize);
        }
        Self {
            table: if crowded { &EMPTY } else { table },
            header,
            place,
            known: Vec::new(),
            aliases: Vec::new(),
            missing: Vec::new(),
            faults,
        }
    }

    fn is_entry(&self) -> bool {
        self.place.form() == Form::Entry
    }

    /// The value of `name`, if it is there and not null. In an entry `name` is also found without its underscores.
    pub fn take(&mut self, name: &'static str) -> Option<&'a Node> {
        self.take_alias(name, name)
    }

    /// As [`Fields::take`], with a second spelling that entries may use.
    pub fn take_alias(&mut self, name: &'static str, alias: &'static str) -> Option<&'a Node> {
        self.known.push(name);
        let has_alias = alias != name && self.is_entry();
        if has_alias {
            self.aliases.push(alias);
        }
        let form = self.place.form();
        let mut found = self.table.0.iter().filter(|(key, _)| {
            form.spells(&key.text, name) || (has_alias && key.text.eq_ignore_ascii_case(alias))
        });
        let (first, node) = found.next()?;
        if let Some((second, _)) = found.next() {
            let fault = Diagnostic::error(
                "duplicate-key",
                format!("{} is given twice, in two spellings", self.place.field(name)),
                Some(self.faults.at(second.span)),
            )
            .related(self.faults.at(first.span), "first given here");
            self.faults.push(fault);
        }
        match node.value {
            Value::Null | Value::Faulty => None,
            _ => Some(node),
        }
    }

    /// True if `name` is there, even as null or faulty: it is not to be called missing.
    fn mentions(&self, name: &str) -> bool {
        self.table.0.iter().any(|(key, _)| self.place.form().spells(&key.text, name))
    }

    pub fn wrong_type(&mut self, name: &'static str, expected: &str, node: &Node) {
        let summary = format!("{} is {expected}, not {}", self.place.field(name), node.value.noun());
        self.faults.error("wrong-type", summary, node.span);
    }

    /// A fault of the value of a field.
    pub fn fault(&mut self, code: &'static str, summary: impl Into<String>, span: Span) {
        self.faults.error(code, summary, span);
    }

    pub fn text(&mut self, name: &'static str) -> Option<Text<'a>> {
        let node = self.take(name)?;
        self.text_of(name, node)
    }

    /// The text in `node`, the value of `name` or an element of it.
    pub fn text_of(&mut self, name: &'static str, node: &'a Node) -> Option<Text<'a>> {
        match &node.value {
            Value::String(text) => {
                Some(Text { text, span: node.span, computed: node.origin == Origin::Computed, index: None })
            }
            Value::Faulty => None,
            _ => {
                self.wrong_type(name, "a string", node);
                None
            }
        }
    }

    /// As [`Fields::text`], with a second spelling that entries may use.
    pub fn text_alias(&mut self, name: &'static str, alias: &'static str) -> Option<Text<'a>> {
        let node = self.take_alias(name, alias)?;
        self.text_of(name, node)
    }

    pub fn required_text(&mut self, name: &'static str) -> Option<Text<'a>> {
        let text = self.text(name);
        if text.is_none() && !self.mentions(name) {
            self.missing(name);
        }
        text
    }

    pub fn missing(&mut self, name: &str) {
        self.missing_with(name, format!("{} is missing", self.place.field(name)));
    }

    /// The fault of a field that is absent or empty, in words of its own.
    pub fn missing_with(&mut self, name: &str, summary: String) {
        let form = self.place.form();
        let given = self.table.0.iter().find(|(key, _)| form.spells(&key.text, name));
        match given {
            Some((_, node)) if node.value == Value::Faulty => {}
            Some((_, node)) => self.faults.error("missing-key", summary, node.span),
            None => {
                let at = self.faults.at(self.header);
                self.missing.push((form.spell(name), Diagnostic::error("missing-key", summary, Some(at))));
            }
        }
    }

    /// A text, as it is; empty if absent.
    pub fn string(&mut self, name: &'static str) -> String {
        self.text(name).map(|text| text.text.to_owned()).unwrap_or_default()
    }

    /// A name, whatever it names.
    pub fn name<T: FromStr<Err = NameError>>(&mut self, name: &'static str) -> Option<T> {
        let text = self.text(name)?;
        self.parse_name(name, text)
    }

    pub fn parse_name<T: FromStr<Err = NameError>>(
        &mut self,
        name: &'static str,
        text: Text<'_>,
    ) -> Option<T> {
        match text.text.parse() {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                let place = match text.index {
                    Some(index) => format!("{}[{index}]", self.place.field(name)),
                    None => self.place.field(name),
                };
                bad_name(self.faults, &place, text, &error);
                None
            }
        }
    }

    /// A list of texts.
    pub fn texts(&mut self, name: &'static str) -> Vec<Text<'a>> {
        let mut texts = Vec::new();
        for (index, node) in self.list(name).iter().enumerate() {
            match &node.value {
                Value::String(text) => {
                    let computed = node.origin == Origin::Computed;
                    texts.push(Text { text, span: node.span, computed, index: Some(index) });
                }
                Value::Faulty => {}
                other => {
                    let summary =
                        format!("{}[{index}] is a string, not {}", self.place.field(name), other.noun());
                    self.faults.error("wrong-type", summary, node.span);
                }
            }
        }
        texts
    }

    /// The elements of a list of objects, each to be read on its own.
    pub fn tables(&mut self, name: &'static str) -> Vec<(usize, &'a Table, Span)> {
        let mut tables = Vec::new();
        for (index, node) in self.list(name).iter().enumerate() {
            match self.as_table(node) {
                Some((table, span)) => tables.push((index, table, span)),
                None if node.value == Value::Faulty => {}
                None => {
                    let summary = format!(
                        "{}[{index}] is an object, not {}",
                        self.place.field(name),
                        node.value.noun()
                    );
                    self.faults.error("wrong-type", summary, node.span);
                }
            }
        }
        tables
    }

    /// A list of names, sorted, each once.
    pub fn names<T: FromStr<Err = NameError> + Ord>(&mut self, name: &'static str) -> Vec<T> {
        let texts = self.texts(name);
        let mut names: Vec<T> = texts.into_iter().filter_map(|text| self.parse_name(name, text)).collect();
        names.sort();
        names.dedup();
        names
    }

    /// The elements of a list. Nested blocks are one, and in an entry so is a lone object.
    fn list(&mut self, name: &'static str) -> &'a [Node] {
        let Some(node) = self.take(name) else { return &[] };
        match &node.value {
            Value::List(items) => items,
            Value::Table(_) if self.is_entry() => std::slice::from_ref(node),
            _ => {
                self.wrong_type(name, "a list", node);
                &[]
            }
        }
    }

    /// Where the value of `name` is.
    pub fn span(&self, name: &str) -> Option<Span> {
        let form = self.place.form();
        self.table.0.iter().find(|(key, _)| form.spells(&key.text, name)).map(|(_, node)| node.span)
    }

    /// An object. One nested block is one, and in an entry so is a list of one object.
    pub fn table(&mut self, name: &'static str) -> Option<(&'a Table, Span)> {
        let node = self.take(name)?;
        let table = self.as_table(node);
        if table.is_none() {
            self.wrong_type(name, "an object", node);
        }
        table
    }

    fn as_table(&self, node: &'a Node) -> Option<(&'a Table, Span)> {
        match &node.value {
            Value::Table(table) => Some((table, node.span)),
            Value::List(items) if node.origin == Origin::Blocks || self.is_entry() => match &items[..] {
                [Node { value: Value::Table(table), span, .. }] => Some((table, *span)),
                _ => None,
            },
            _ => None,
        }
    }

    pub fn boolean(&mut self, name: &'static str) -> Option<bool> {
        let node = self.take(name)?;
        match &node.value {
            Value::Bool(value) => Some(*value),
            Value::String(text) if self.is_entry() && matches!(text.as_str(), "true" | "1") => Some(true),
            Value::String(text) if self.is_entry() && matches!(text.as_str(), "false" | "0") => Some(false),
            _ => {
                self.wrong_type(name, "true or false", node);
                None
            }
        }
    }

    /// A port, 1 to 65535.
    pub fn port(&mut self, name: &'static str) -> Option<u16> {
        let node = self.take(name)?;
        let port = match &node.value {
            Value::Integer(integer) => u16::try_from(*integer).ok(),
            Value::Float(_) => None,
            _ => {
                self.wrong_type(name, "a number", node);
                return None;
            }
        };
        let port = port.filter(|port| *port > 0);
        if port.is_none() {
            let summary = format!("{} is a port: a whole number from 1 to 65535", self.place.field(name));
            self.fault("bad-value", summary, node.span);
        }
        port
    }

    pub fn required_port(&mut self, name: &'static str) -> Option<u16> {
        let port = self.port(name);
        if port.is_none() && !self.mentions(name) {
            self.missing(name);
        }
        port
    }

    /// A whole number, 0 to `most`.
    pub fn count(&mut self, name: &'static str, most: u32) -> Option<u32> {
        let node = self.take(name)?;
        let Value::Integer(integer) = &node.value else {
            self.wrong_type(name, "a number", node);
            return None;
        };
        let count = u32::try_from(*integer).ok().filter(|count| *count <= most);
        if count.is_none() {
            let summary = format!("{} is a whole number from 0 to {most}", self.place.field(name));
            self.fault("bad-value", summary, node.span);
        }
        count
    }

    /// One of a few words.
    pub fn word<T: Copy>(&mut self, name: &'static str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(name)?;
        let found = words.iter().find(|(word, _)| *word == text.text).map(|(_, value)| *value);
        if found.is_none() {
            let list: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            let near = suggestion(text.text, words.iter().map(|(word, _)| *word));
            let summary = format!("{} cannot be {text}{near}", self.place.field(name));
            let at = self.faults.at(text.span);
            self.faults.push(
                Diagnostic::error("bad-value", summary, Some(at))
                    .detail(format!("It is one of {}.", list.join(", "))),
            );
        }
        found
    }

    /// A time such as `"10s"` or `"1m30s"`, in milliseconds.
    pub fn duration_ms(&mut self, name: &'static str, within: Range<u64>) -> Option<u64> {
        let text = self.text(name)?;
        match super::duration::parse_ms(text.text) {
            Some(ms) if within.contains(&ms) => Some(ms),
            Some(_) => {
                let (low, high) =
                    (super::duration::text(within.start), super::duration::text(within.end - 1));
                let summary = format!("{} is at least {low} and at most {high}", self.place.field(name));
                self.fault("bad-value", summary, text.span);
                None
            }
            None => {
                let summary = format!("{} is a time such as \"10s\" or \"1m30s\"", self.place.field(name));
                self.fault("bad-value", summary, text.span);
                None
            }
        }
    }

    /// Reports the keys that no one took.
    pub fn finish(self) {
        self.finish_with(|_| None);
    }

    /// As [`Fields::finish`]; `hint` may say more about a key than that it is unknown.
    pub fn finish_with(mut self, hint: impl Fn(&str) -> Option<&'static str>) {
        let form = self.place.form();
        for (key, node) in &self.table.0 {
            if self.known.iter().any(|name| form.spells(&key.text, name))
                || self.aliases.iter().any(|alias| key.text.eq_ignore_ascii_case(alias))
            {
                continue;
            }
            let spelled: Vec<String> = self.known.iter().map(|name| form.spell(name)).collect();
            let near = nearest(&key.text, spelled.iter().map(String::as_str));
            self.missing.retain(|(name, _)| near != Some(name));
            let near = near.map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
            let summary = format!("unknown key {}{near}", quoted(&key.text));
            let mut fault = Diagnostic::error("unknown-key", summary, Some(self.faults.at(key.span)));
            if form == Form::Entry && !looks_secret(&key.text) {
                fault = fault.detail(format!("invalid config key \"{}\"", self.place.spelled(&key.text)));
            }
            if let Some(hint) = hint(&key.text) {
                fault = fault.detail(hint);
            }
            let secret = |value: &Value| matches!(value, Value::String(text) if looks_secret(text));
            if looks_secret(&key.text) || secret(&node.value) || hint(&key.text).is_some() {
                fault = fault.hiding_source();
            }
            self.faults.push(fault);
        }
        for (_, fault) in self.missing {
            self.faults.push(fault);
        }
    }
}

/// The fault of a text that is not a name. What looks like a token is never shown.
pub fn bad_name(faults: &mut Faults, place: &str, text: Text<'_>, error: &NameError) {
    let secret = looks_secret(text.text);
    let what = if secret { "looks like a token or a key, not a name" } else { "is not a name" };
    let mut fault = Diagnostic::error("bad-name", format!("{place} {what}"), Some(faults.at(text.span)))
        .detail(sentence(&error.to_string()));
    if secret {
        let why = sentence(&error.to_string());
        fault = fault.detail(format!("{why} A token is given by token_file or token_env.")).hiding_source();
    }
    faults.push(fault);
}

/// A label as a [`Text`], to be parsed as a field's value would be.
pub fn label_text(key: &crate::document::Key) -> Text<'_> {
    Text { text: &key.text, span: key.span, computed: false, index: None }
}
