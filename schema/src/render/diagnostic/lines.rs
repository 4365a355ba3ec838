//! Lines and columns of one source text, and what is shown of a line.

use std::borrow::Cow;
use std::ops::Range;

use crate::diagnostic::secret::masked;

/// Longest line that is shown whole, bytes.
const WIDEST: usize = 4096;
/// What is shown of a longer one, before and after the start of the fault, bytes.
const BEFORE: usize = 60;
const AFTER: usize = 100;
/// How far up the block that a line is in is looked for.
const CONTEXT_LINES: usize = 1000;
/// Characters are counted ahead at every multiple of this, so that no column costs more than one step to find.
const STRIDE: usize = 1024;

/// A source text, made ready.
pub struct Lines<'s> {
    /// With every secret masked, byte for byte.
    text: Cow<'s, str>,
    /// Where each line starts.
    starts: Vec<usize>,
    /// How many characters stand before each multiple of [`STRIDE`]; empty if bytes are characters.
    characters: Vec<usize>,
}

/// A place as people count: both from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

/// The line of a fault, or the part of it around the fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    pub code: String,
    /// The fault, within `code`.
    pub highlight: Range<usize>,
    cut: bool,
}

impl Window {
    pub fn is_cut(&self) -> bool {
        self.cut
    }
}

impl<'s> Lines<'s> {
    pub fn new(text: &'s str) -> Self {
        let text = tamed(masked(text));
        let newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        let mut characters = Vec::new();
        if !text.is_ascii() {
            let mut count = 0;
            for chunk in text.as_bytes().chunks(STRIDE) {
                characters.push(count);
                count += starts_of_characters(chunk);
            }
            characters.push(count);
        }
        let starts = std::iter::once(0).chain(newlines).collect();
        Self { text, starts, characters }
    }

    pub fn position(&self, byte: usize) -> Position {
        let byte = byte.min(self.text.len());
        let line = self.line(byte);
        Position {
            line: line + 1,
            column: self.characters_before(byte) - self.characters_before(self.starts[line]) + 1,
        }
    }

    /// The index of the line of `byte`.
    fn line(&self, byte: usize) -> usize {
        // The first start is 0, so at least one is not beyond `byte`.
        self.starts.partition_point(|start| *start <= byte) - 1
    }

    fn characters_before(&self, byte: usize) -> usize {
        match self.characters.get(byte / STRIDE) {
            Some(before) => {
                before + starts_of_characters(&self.text.as_bytes()[byte / STRIDE * STRIDE..byte])
            }
            None => byte,
        }
    }

    fn line_range(&self, line: usize) -> Range<usize> {
        let start = self.starts[line];
        let end = self.starts.get(line + 1).map_or(self.text.len(), |next| next - 1);
        start..end.max(start)
    }

    /// What is shown of the first line of `span`.
    pub fn window(&self, span: &Range<usize>) -> Window {
        let start = self.boundary(span.start.min(self.text.len()));
        let line = self.line_range(self.line(start));
        let end = self.boundary(span.end.clamp(start, line.end.max(start)));
        let (from, to) = if line.len() <= WIDEST {
            (line.start, line.end)
        } else {
            (
                self.boundary(start.saturating_sub(BEFORE).max(line.start)),
                self.boundary((start + AFTER).min(line.end)),
            )
        };
        let code = self.text[from..to].trim_end_matches('\r').to_owned();
        let clamp = |at: usize| at.clamp(from, from + code.len()) - from;
        Window { highlight: clamp(start)..clamp(end), cut: from != line.start || to != line.end, code }
    }

    /// `at`, or the start of the character that it is within.
    fn boundary(&self, at: usize) -> usize {
        (0..=at).rev().find(|at| self.text.is_char_boundary(*at)).unwrap_or(0)
    }

    /// The first line of the block that `byte` is in, without its brace; `None` if it is in none.
    pub fn context(&self, byte: usize) -> Option<String> {
        let line = self.line(byte.min(self.text.len()));
        for index in (0..=line).rev().take(CONTEXT_LINES) {
            let text = &self.text[self.line_range(index)];
            let text = text.trim_end();
            if text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '[') && text.len() <= WIDEST {
                let header = text.strip_suffix('{').or_else(|| text.strip_prefix('[')?.strip_suffix(']'))?;
                return Some(header.trim_end().to_owned());
            }
        }
        None
    }
}

/// C1 controls, which some terminals obey and the renderer lets pass, as a dot of as many bytes.
fn tamed(text: Cow<'_, str>) -> Cow<'_, str> {
    let c1 = '\u{80}'..='\u{9f}';
    if text.contains(|c| c1.contains(&c)) {
        Cow::Owned(text.chars().map(|c| if c1.contains(&c) { '\u{b7}' } else { c }).collect())
    } else {
        text
    }
}

/// Bytes that begin a character of UTF-8.
fn starts_of_characters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| (**byte & 0xc0) != 0x80).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_wherever_they_are() {
        let text = format!("{}x\nzweite é Zeile", "é".repeat(3000));
        let lines = Lines::new(&text);
        assert_eq!(lines.position(6000), Position { line: 1, column: 3001 });
        assert_eq!(lines.position(6002), Position { line: 2, column: 1 });
        let at = text.find("Zeile").unwrap();
        assert_eq!(lines.position(at), Position { line: 2, column: 10 });
        assert_eq!(lines.position(text.len() + 9).line, 2);
    }

    #[test]
    fn long_lines_are_cut_and_secrets_masked() {
        let text = format!("{{\"a\": {}, \"b\": \"{}\"}}", "1, ".repeat(5000), "0123456789abcdef".repeat(4));
        let lines = Lines::new(&text);
        let at = text.find("\"b\"").unwrap();
        let window = lines.window(&(at..at + 3));
        assert!(window.is_cut() && window.code.len() <= 200);
        assert_eq!(&window.code[window.highlight.clone()], "\"b\"");
        assert!(window.code.contains("****") && !window.code.contains("0123456789"));
    }

    #[test]
    fn every_span_has_a_window() {
        let text = "é\r\n\nx";
        let lines = Lines::new(text);
        for start in 0..=text.len() + 1 {
            for end in start..=text.len() + 2 {
                let window = lines.window(&(start..end));
                assert!(window.highlight.end <= window.code.len());
            }
        }
    }
}
