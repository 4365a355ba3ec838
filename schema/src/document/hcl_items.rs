//! Cuts an HCL file into its top-level items, so that each can be parsed, and be wrong, on its own.
//!
//! The cutter knows brackets, strings, heredocs and comments, nothing else, and never recurses. A parser of whole
//! files would stop at the first fault; one with recovery would have to be written. Every step is linear: a
//! bracket that is never closed is searched for once, after which items also end at the next line that plainly
//! begins a block.

use std::ops::Range;

use super::limits::{MAX_DEPTH, MAX_KEYS};
use crate::kind::Kind;

/// One top-level item: an attribute or a block, or what is in the place of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub span: Range<usize>,
    /// The bracket or quote that is still open at the end.
    pub unclosed: Option<usize>,
    /// The first bracket beyond the depth limit.
    pub too_deep: Option<usize>,
    /// A bracket with more keys than an object may have.
    pub crowded: Option<usize>,
    /// The first quote that its line does not close.
    pub open_string: Option<usize>,
}

impl Item {
    pub fn is_within_limits(&self) -> bool {
        self.too_deep.is_none() && self.crowded.is_none()
    }
}

/// The items of a file, one after the other.
pub struct Items<'s> {
    source: &'s str,
    at: usize,
    /// Set once something was left open to the end of the file: line beginnings are trusted from then on. Holds
    /// the next of them, so that it is looked for once.
    next_header: Option<usize>,
}

impl<'s> Items<'s> {
    pub fn new(source: &'s str) -> Self {
        Self { source, at: 0, next_header: None }
    }
}

impl Iterator for Items<'_> {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        let start = skip_blank(self.source.as_bytes(), self.at);
        if start >= self.source.len() {
            return None;
        }
        let whole = self.source.len();
        let header_after = |at| next_header(self.source, at, whole).unwrap_or(whole);
        let item = match self.next_header {
            None => {
                let item = scan(self.source.as_bytes(), start, whole);
                if item.unclosed.is_some() {
                    let end = *self.next_header.insert(header_after(start));
                    scan(self.source.as_bytes(), start, end)
                } else {
                    item
                }
            }
            Some(known) => {
                let end = if known > start { known } else { *self.next_header.insert(header_after(start)) };
                scan(self.source.as_bytes(), start, end)
            }
        };
        self.at = item.span.end;
        Some(item)
    }
}

/// Cuts a faulty item at each line that plainly begins a block. One piece means that there is none.
pub fn pieces(source: &str, item: &Range<usize>) -> Vec<Item> {
    let mut pieces = Vec::new();
    let mut start = item.start;
    while start < item.end {
        let end = next_header(source, start, item.end).unwrap_or(item.end);
        pieces.push(scan_all(source.as_bytes(), start, end));
        start = end;
    }
    pieces
}

/// The start of the next line after `from` and before `end` that reads like `cluster_link "west" {`.
fn next_header(source: &str, from: usize, end: usize) -> Option<usize> {
    let mut at = from;
    while let Some(offset) = source.get(at..end)?.find('\n') {
        at += offset + 1;
        let line = source[at..end].lines().next().unwrap_or_default();
        if is_header(line) {
            return Some(at);
        }
    }
    None
}

fn is_header(line: &str) -> bool {
    let word_end = line
        .bytes()
        .position(|b| !(b.is_ascii_alphanumeric() || b == b'_' || b == b'-'))
        .unwrap_or(line.len());
    let (word, rest) = line.split_at(word_end);
    let known = Kind::from_word(word).is_some() || word == "locals";
    let labelled = !word.is_empty() && rest.trim_start().starts_with('"') && rest.trim_end().ends_with('{');
    (known && rest.contains('{')) || labelled
}

/// Past blanks, empty lines and comments.
fn skip_blank(bytes: &[u8], mut at: usize) -> usize {
    loop {
        match bytes.get(at) {
            Some(b' ' | b'\t' | b'\r' | b'\n') => at += 1,
            _ => match comment_end(bytes, at) {
                Some(end) => at = end,
                None => return at,
            },
        }
    }
}

/// The end of the comment that begins at `at`, if one does. A line comment ends before its newline.
fn comment_end(bytes: &[u8], at: usize) -> Option<usize> {
    let line_end = |from: usize| {
        bytes[from..].iter().position(|&b| b == b'\n').map_or(bytes.len(), |offset| from + offset)
    };
    match (bytes.get(at)?, bytes.get(at + 1)) {
        (b'#', _) | (b'/', Some(b'/')) => Some(line_end(at)),
        (b'/', Some(b'*')) => {
            let body = at + 2;
            Some(
                bytes[body..]
                    .windows(2)
                    .position(|pair| pair == b"*/")
                    .map_or(bytes.len(), |offset| body + offset + 2),
            )
        }
        _ => None,
    }
}

/// What is open at a point of the scan.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    Brace,
    Bracket,
    Paren,
    Quote,
    /// `${` or `%{` within a quote.
    Interpolation,
}

/// From `start` to the newline that ends the item, or to `end`.
fn scan(bytes: &[u8], start: usize, end: usize) -> Item {
    scan_until(bytes, start, end, true)
}

/// From `start` to `end`, however many items that is.
fn scan_all(bytes: &[u8], start: usize, end: usize) -> Item {
    scan_until(bytes, start, end, false)
}

fn scan_until(bytes: &[u8], start: usize, end: usize, stop_at_newline: bool) -> Item {
    let bytes = &bytes[..end];
    // What is open, where it was opened, and how many keys it holds so far.
    let mut open: Vec<(Open, usize, usize)> = Vec::new();
    let mut depth = 0;
    let mut too_deep = None;
    let mut crowded = None;
    let mut open_string = None;
    let mut at = start;
    while at < end {
        let top = open.last().map(|(open, ..)| *open);
        let byte = bytes[at];
        if top == Some(Open::Quote) {
            match byte {
                b'\\' => at += 1,
                b'"' => drop(open.pop()),
                // A string ends with its line; the parser will say so.
                b'\n' => {
                    let quote = open.pop().map(|(_, quote, _)| quote);
                    open_string = open_string.or(quote);
                    continue;
                }
                b'$' | b'%' if bytes.get(at + 1) == Some(&b'{') => {
                    // `$${` is a literal `${`.
                    if at > start && bytes[at - 1] == byte {
                        at += 1;
                    } else {
                        open.push((Open::Interpolation, at, 0));
                        depth += 1;
                        at += 1;
                    }
                }
                _ => {}
            }
            at += 1;
        } else if let Some(after) = comment_end(bytes, at) {
            at = after;
        } else if let Some(after) = heredoc_end(bytes, at) {
            at = after;
        } else {
            match byte {
                b'\n' if stop_at_newline && open.is_empty() => break,
                b'"' => open.push((Open::Quote, at, 0)),
                b'{' | b'[' | b'(' => {
                    let kind = match byte {
                        b'{' => Open::Brace,
                        b'[' => Open::Bracket,
                        _ => Open::Paren,
                    };
                    open.push((kind, at, 0));
                    depth += 1;
                }
                b'}' | b']' | b')' => {
                    let closes = |kind: Open| match byte {
                        b'}' => matches!(kind, Open::Brace | Open::Interpolation),
                        b']' => kind == Open::Bracket,
                        _ => kind == Open::Paren,
                    };
                    if top.is_some_and(closes) {
                        open.pop();
                        depth -= 1;
                    }
                }
                b'=' | b':' => {
                    if let Some((_, bracket, keys)) = open.last_mut() {
                        *keys += 1;
                        if *keys > MAX_KEYS && crowded.is_none() {
                            crowded = Some(*bracket);
                        }
                    }
                }
                _ => {}
            }
            at += 1;
        }
        if depth > MAX_DEPTH && too_deep.is_none() {
            too_deep = open.last().map(|(_, at, _)| *at);
        }
    }
    Item {
        span: start..at.min(end),
        unclosed: open.last().map(|(_, at, _)| *at),
        too_deep,
        crowded,
        open_string,
    }
}

/// The end of the heredoc that begins at `at`, if one does: after the line that is its marker alone.
fn heredoc_end(bytes: &[u8], at: usize) -> Option<usize> {
    let after = bytes.get(at..)?.strip_prefix(b"<<")?;
    let after = after.strip_prefix(b"-").unwrap_or(after);
    let length = after.iter().position(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')))?;
    let marker = &after[..length];
    if marker.is_empty() || !matches!(after[length..], [b'\n', ..] | [b'\r', b'\n', ..]) {
        return None;
    }
    let mut line_start = bytes.len() - after.len();
    while line_start < bytes.len() {
        let next =
            bytes[line_start..].iter().position(|&b| b == b'\n').map_or(bytes.len(), |o| line_start + o);
        if bytes[line_start..next].trim_ascii() == marker && line_start > bytes.len() - after.len() {
            return Some(next);
        }
        line_start = next + 1;
    }
    Some(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> Vec<&str> {
        Items::new(source).map(|item| &source[item.span]).collect()
    }

    #[test]
    fn items_end_where_their_brackets_do() {
        let source = "# first\na = 1 // x\nservice \"b\" {\n  c = [\n    \"}\", \"${d(\"}\")}\"\n  ]\n}\n/* } */\n\
                      e = <<-END\n  } {\n  END\nf = 2";
        assert_eq!(
            texts(source),
            [
                "a = 1 // x",
                "service \"b\" {\n  c = [\n    \"}\", \"${d(\"}\")}\"\n  ]\n}",
                "e = <<-END\n  } {\n  END",
                "f = 2"
            ]
        );
    }

    #[test]
    fn an_open_bracket_costs_one_item_only() {
        let source = "service \"a\" {\n  tags = [\n}\nservice \"b\" {}\nservice \"c\" {\nservice \"d\" {}\n";
        let items: Vec<Item> = Items::new(source).collect();
        let texts: Vec<&str> = items.iter().map(|item| source[item.span.clone()].trim()).collect();
        assert_eq!(
            texts,
            ["service \"a\" {\n  tags = [\n}", "service \"b\" {}", "service \"c\" {", "service \"d\" {}"]
        );
        assert_eq!(
            items.iter().map(|item| item.unclosed.is_some()).collect::<Vec<_>>(),
            [true, false, true, false]
        );
    }

    #[test]
    fn depth_is_measured_without_recursion() {
        let source = format!("a = {}", "[".repeat(1_000_000));
        let items: Vec<Item> = Items::new(&source).collect();
        assert_eq!(items.len(), 1);
        assert_eq!(items[0].too_deep, Some(4 + MAX_DEPTH));
    }

    #[test]
    fn many_open_brackets_are_cut_in_linear_time() {
        let source = "service \"a\" {\n".repeat(50_000);
        assert_eq!(Items::new(&source).count(), 50_000);
    }
}
