//! The short way for plain blocks: those of literals only, which nearly all are.
//!
//! hcl-edit keeps every blank and comment of a file, which costs ten times what reading the values does. This
//! reader takes a strict part of HCL 2 (names, quoted strings without escapes or templates, whole numbers,
//! booleans, lists, objects, nested blocks, line comments) and gives up on anything else, faults among it, so that
//! the long way remains the only judge. A property test holds the two ways to the same tree.

use std::ops::Range;

use super::{Block, Key, Node, Span, Table, Value};

/// More keys than this in one table, and the check for a key given twice is left to the long way.
const MOST_KEYS: usize = 64;
/// Digits that fit an `i64` whatever they are.
const MOST_DIGITS: usize = 18;

/// The block that `item` is, if it is plain.
pub fn read(source: &str, item: &Range<usize>) -> Option<Block> {
    let mut reader = Reader { bytes: source.get(..item.end)?.as_bytes(), source, at: item.start };
    let kind = reader.ident()?;
    if kind.text == "locals" {
        return None;
    }
    let mut labels = Vec::new();
    loop {
        reader.blanks();
        match reader.peek()? {
            b'"' => labels.push(reader.label()?),
            b'{' => break,
            _ => return None,
        }
    }
    let header =
        Span { start: kind.span.start, end: labels.last().map_or(kind.span.end, |label| label.span.end) };
    let body = reader.body()?;
    reader.line_end()?;
    (reader.at >= item.end).then_some(Block { kind, labels, header, body })
}

struct Reader<'s> {
    source: &'s str,
    /// Up to the end of the item.
    bytes: &'s [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.at += 1;
        }
    }

    fn blanks_and_newlines(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n')) {
            self.at += 1;
        }
    }

    /// A line comment, up to its newline.
    fn comment(&mut self) {
        let rest = &self.bytes[self.at..];
        if rest.starts_with(b"#") || rest.starts_with(b"//") {
            self.at += rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        }
    }

    /// Blanks, perhaps a comment, and a newline or the end.
    fn line_end(&mut self) -> Option<()> {
        self.blanks();
        self.comment();
        match self.peek() {
            Some(b'\n') => {
                self.at += 1;
                Some(())
            }
            None => Some(()),
            Some(_) => None,
        }
    }

    fn ident(&mut self) -> Option<Key> {
        let start = self.at;
        if !matches!(self.peek()?, b'a'..=b'z' | b'A'..=b'Z' | b'_') {
            return None;
        }
        while matches!(self.peek(), Some(b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-')) {
            self.at += 1;
        }
        Some(Key::new(&self.source[start..self.at], start..self.at))
    }

    /// A quoted string that means what it says.
    fn string(&mut self) -> Option<&str> {
        self.take(b'"')?;
        let start = self.at;
        loop {
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Some(&self.source[start..self.at - 1]);
                }
                b'\\' | 0..=0x1f | 0x7f => return None,
                b'$' | b'%' if self.bytes.get(self.at + 1) == Some(&b'{') => return None,
                _ => self.at += 1,
            }
        }
    }

    fn label(&mut self) -> Option<Key> {
        let start = self.at;
        let text = self.string()?.to_owned();
        Some(Key::new(text, start..self.at))
    }

    /// `{}`, `{ a = 1 }`, or a brace, lines of attributes and blocks, and a brace on a line of its own.
    fn body(&mut self) -> Option<Table> {
        let mut table = Table::default();
        self.take(b'{')?;
        self.blanks();
        if self.take(b'}').is_some() {
            return Some(table);
        }
        if self.peek()?.is_ascii_lowercase() {
            self.attribute(&mut table)?;
            self.blanks();
            self.take(b'}')?;
            return Some(table);
        }
        self.line_end()?;
        loop {
            self.blanks();
            match self.peek()? {
                b'\n' => self.at += 1,
                b'#' | b'/' => self.line_end()?,
                b'}' => {
                    self.at += 1;
                    return Some(table);
                }
                _ => {
                    self.entry(&mut table)?;
                    self.line_end()?;
                }
            }
        }
    }

    /// An attribute or a nested block.
    fn entry(&mut self, table: &mut Table) -> Option<()> {
        let key = self.ident()?;
        self.blanks();
        if self.peek()? == b'{' {
            let body = self.body()?;
            let span = key.span.start as usize..self.at;
            table.append_block(key, Node::literal(Value::Table(body), span));
            return Some(());
        }
        self.assigned(table, key)
    }

    fn attribute(&mut self, table: &mut Table) -> Option<()> {
        let key = self.ident()?;
        self.assigned(table, key)
    }

    /// `= VALUE`, the value of `key`.
    fn assigned(&mut self, table: &mut Table, key: Key) -> Option<()> {
        self.blanks();
        self.take(b'=')?;
        self.blanks();
        let node = self.value()?;
        push_new(table, key, node)
    }

    fn value(&mut self) -> Option<Node> {
        let start = self.at;
        let value = match self.peek()? {
            b'"' => Value::String(self.string()?.to_owned()),
            b'0'..=b'9' => Value::Integer(self.number()?),
            b'[' => Value::List(self.list()?),
            b'{' => Value::Table(self.object()?),
            _ => match self.ident()?.text.as_str() {
                "true" => Value::Bool(true),
                "false" => Value::Bool(false),
                _ => return None,
            },
        };
        Some(Node::literal(value, start..self.at))
    }

    fn number(&mut self) -> Option<i64> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        let digits = &self.source[start..self.at];
        if digits.len() > MOST_DIGITS || (digits.len() > 1 && digits.starts_with('0')) {
            return None;
        }
        digits.parse().ok()
    }

    fn list(&mut self) -> Option<Vec<Node>> {
        let mut items = Vec::new();
        self.take(b'[')?;
        loop {
            self.blanks_and_newlines();
            if self.take(b']').is_some() {
                return Some(items);
            }
            items.push(self.value()?);
            self.blanks_and_newlines();
            match self.peek()? {
                b',' => self.at += 1,
                b']' => {}
                _ => return None,
            }
        }
    }

    fn object(&mut self) -> Option<Table> {
        let mut table = Table::default();
        self.take(b'{')?;
        loop {
            self.blanks_and_newlines();
            if self.take(b'}').is_some() {
                return Some(table);
            }
            self.attribute(&mut table)?;
            self.blanks();
            match self.peek()? {
                b',' | b'\n' => self.at += 1,
                b'}' => {}
                _ => return None,
            }
        }
    }
}

/// Adds a key that is not there yet.
fn push_new(table: &mut Table, key: Key, node: Node) -> Option<()> {
    if table.0.len() >= MOST_KEYS || table.0.iter().any(|(known, _)| known.text == key.text) {
        return None;
    }
    table.0.push((key, node));
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::diagnostic::Faults;
    use crate::document::{NoInputs, hcl};

    /// Holds the short way to the long one: what it reads must be what hcl-edit reads, to the span.
    fn agrees(source: &str) -> bool {
        let Some(block) = read(source, &(0..source.len())) else { return false };
        let mut faults = Faults::new(&"a.hcl".into());
        let long = hcl::parse_the_long_way(source, &NoInputs, &mut faults);
        assert_eq!(faults.into_list(), Vec::new(), "{source}");
        assert_eq!(long, [block], "{source}");
        true
    }

    #[test]
    fn reads_what_is_plain() {
        for plain in [
            "volume \"default/orders\" {}",
            "volume \"default/orders\" { description = \"x\" }",
            "service \"a\" { # first\n  // second\n\n  port = 80 # third\n  tags = [\"é\", \"$x\",\n  ]\n}",
            "a \"b\" \"c\" {\n x = { a = 1, b = true\n c-d = [], }\n y = false\n}  # end",
            "a {\n checks {\n  tcp = \"b\"\n }\n checks {\n }\n z = []\n}",
        ] {
            assert!(agrees(plain), "{plain}");
        }
    }

    #[test]
    fn leaves_the_rest() {
        for other in [
            "locals {\n a = 1\n}",
            "a = 1",
            "a \"b\" {\n x = \"${y}\"\n}",
            "a \"b\" {\n x = \"\\n\"\n}",
            "a \"b\" {\n x = 1\n x = 2\n}",
            "a \"b\" {\n x = 1.5\n}",
            "a \"b\" {\n x = -1\n}",
            "a \"b\" {\n x = [1][0]\n}",
            "a \"b\" {\n x = true ? 1 : 2\n}",
            "a \"b\" {\n x = local.y\n}",
            "a \"b\" {\n x = 1 y = 2\n}",
            "a \"b\" { x = 1 y = 2 }",
            "a \"b\" { x = 1\n}",
            "a \"b\" {\n x = {a = 1 b = 2}\n}",
            "a \"b\" {\r\n}",
            "a \"b\" {}\nc {}",
            "a \"b\" {\n x = 1\n",
        ] {
            assert!(read(other, &(0..other.len())).is_none(), "{other}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn both_ways_read_the_same(parts in prop::collection::vec(prop::sample::select(vec![
            "a", "b-c", "true", " ", "\n", "=", "{", "}", "[", "]", ",", "\"x\"", "1", "0", "#c\n", "//", "/*", " = ", "{\n", "\n}",
            "a = 1\n", "b = [1, 2]\n", "c {\n", "d = { e = 1 }\n", ".", "-", "\t", "\"", "é"
        ]), 0..24)) {
            agrees(&format!("a \"b\" {{\n{}\n}}", parts.concat()));
            agrees(&format!("a \"b\" {{ a = {} }}", parts.concat()));
        }
    }
}
