//! The tokens of HCL 1.

use std::ops::Range;

/// One token; a faulty one says why.
#[derive(Debug, Clone, PartialEq)]
pub enum Token<'s> {
    Word(&'s str),
    String(String),
    Integer(i64),
    Float(f64),
    Assign,
    Comma,
    Open(char),
    Close(char),
    Bad(&'static str),
    End,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Spanned<'s> {
    pub token: Token<'s>,
    pub span: Range<usize>,
}

/// Reads tokens, with one to look ahead.
pub struct Lexer<'s> {
    source: &'s str,
    at: usize,
    ahead: Option<Spanned<'s>>,
    /// No `}` that could close a `${` stands before this place: not to be looked for again.
    no_brace_before: usize,
}

impl<'s> Lexer<'s> {
    pub fn new(source: &'s str) -> Self {
        Self { source, at: 0, ahead: None, no_brace_before: 0 }
    }

    /// Goes on from `at`, the start of a line.
    pub fn go_to(&mut self, at: usize) {
        self.at = at;
        self.ahead = None;
    }

    pub fn put_back(&mut self, token: Spanned<'s>) {
        self.ahead = Some(token);
    }

    pub fn peek(&mut self) -> &Spanned<'s> {
        let token = self.next();
        self.ahead.insert(token)
    }

    pub fn next(&mut self) -> Spanned<'s> {
        if let Some(token) = self.ahead.take() {
            return token;
        }
        self.skip_blank();
        let start = self.at;
        let Some(first) = self.source[start..].chars().next() else {
            let last = self.source.char_indices().next_back().map_or(0, |(at, _)| at);
            return Spanned { token: Token::End, span: last..start };
        };
        self.at += first.len_utf8();
        let token = match first {
            '=' => Token::Assign,
            ',' => Token::Comma,
            '{' | '[' => Token::Open(first),
            '}' | ']' => Token::Close(first),
            '"' => self.string(start),
            '<' => self.heredoc(),
            '0'..='9' | '-' | '+' => self.number(start),
            c if c.is_alphabetic() || c == '_' => {
                self.at = start
                    + length(&self.source[start..], |c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'));
                Token::Word(&self.source[start..self.at])
            }
            _ => Token::Bad("This character has no meaning here."),
        };
        // An open quote is told of at the quote; the lexer has gone to the end of its line.
        let span = if token == Token::Bad(OPEN_STRING) { start..start + 1 } else { start..self.at };
        Spanned { token, span }
    }

    fn skip_blank(&mut self) {
        loop {
            let rest = &self.source[self.at..];
            let blank = rest.len() - rest.trim_start().len();
            let rest = &rest[blank..];
            self.at += blank;
            if rest.starts_with('#') || rest.starts_with("//") {
                self.at += rest.find('\n').unwrap_or(rest.len());
            } else if let Some(comment) = rest.strip_prefix("/*") {
                self.at += comment.find("*/").map_or(rest.len(), |offset| offset + 4);
            } else {
                return;
            }
        }
    }

    /// A quoted string. `${ … }` may hold quotes, as in HCL 1, but only where it is closed on the same line: an
    /// open `${` is plain text.
    fn string(&mut self, start: usize) -> Token<'s> {
        let mut text = String::new();
        loop {
            let rest = &self.source[self.at..];
            let plain = rest.find(['"', '\\', '$', '\n']).unwrap_or(rest.len());
            text.push_str(&rest[..plain]);
            self.at += plain;
            let rest = &rest[plain..];
            match rest.as_bytes() {
                [b'"', ..] => {
                    self.at += 1;
                    return Token::String(text);
                }
                [b'\\', ..] => match escape(rest) {
                    Some((c, length)) => {
                        text.push(c);
                        self.at += length;
                    }
                    None => return self.bad_string(start, "There is no such escape."),
                },
                [b'$', b'{', ..] if self.at >= self.no_brace_before => {
                    let line = rest.find('\n').map_or(rest, |end| &rest[..end]);
                    if let Some(end) = interpolation_end(line) {
                        text.push_str(&line[..end]);
                        self.at += end;
                    } else {
                        self.no_brace_before = self.at + line.len();
                        text.push('$');
                        self.at += 1;
                    }
                }
                [b'$', ..] => {
                    text.push('$');
                    self.at += 1;
                }
                _ => return self.bad_string(start, OPEN_STRING),
            }
        }
    }

    fn bad_string(&mut self, start: usize, why: &'static str) -> Token<'s> {
        let rest = &self.source[start..];
        self.at = start + rest.find('\n').unwrap_or(rest.len());
        Token::Bad(why)
    }

    fn heredoc(&mut self) -> Token<'s> {
        let rest = &self.source[self.at..];
        let Some(rest) = rest.strip_prefix('<') else {
            return Token::Bad("This character has no meaning here.");
        };
        let (indented, rest) = rest.strip_prefix('-').map_or((false, rest), |rest| (true, rest));
        let (marker, body) = rest.split_once('\n').unwrap_or((rest, ""));
        let marker = marker.trim_end();
        if marker.is_empty() || !marker.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-') {
            return Token::Bad("A heredoc begins with << and a marker alone on its line.");
        }
        let mut lines = Vec::new();
        let mut at = self.source.len() - body.len();
        for line in body.split_inclusive('\n') {
            at += line.len();
            if line.trim() == marker {
                // The newline stays outside, as it ends the item.
                self.at = if line.ends_with('\n') { at - 1 } else { at };
                return Token::String(heredoc_text(&lines, indented));
            }
            lines.push(line);
        }
        self.at = self.source.len();
        Token::Bad("This heredoc is never closed.")
    }

    fn number(&mut self, start: usize) -> Token<'s> {
        let rest = &self.source[start..];
        self.at = start + length(rest, |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+'));
        let text = &self.source[start..self.at];
        let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
        let integer = hex.map_or_else(|| text.parse(), |digits| i64::from_str_radix(digits, 16));
        match (integer, text.parse::<f64>()) {
            (Ok(integer), _) => Token::Integer(integer),
            (Err(_), Ok(float)) if float.is_finite() => Token::Float(float),
            _ => Token::Bad("This is not a number; a text is written in double quotes."),
        }
    }
}

const OPEN_STRING: &str = "This string is never closed.";

fn length(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|c| !belongs(c)).unwrap_or(text.len())
}

/// The character that an escape stands for, and the escape's length.
fn escape(text: &str) -> Option<(char, usize)> {
    let code = |digits: usize| {
        let hex = text.get(2..2 + digits).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))?;
        Some((char::from_u32(u32::from_str_radix(hex, 16).ok()?)?, 2 + digits))
    };
    match text.as_bytes().get(1)? {
        b'"' => Some(('"', 2)),
        b'\\' => Some(('\\', 2)),
        b'n' => Some(('\n', 2)),
        b't' => Some(('\t', 2)),
        b'r' => Some(('\r', 2)),
        b'a' => Some(('\u{7}', 2)),
        b'b' => Some(('\u{8}', 2)),
        b'f' => Some(('\u{c}', 2)),
        b'v' => Some(('\u{b}', 2)),
        b'x' => code(2),
        b'u' => code(4),
        b'U' => code(8),
        _ => None,
    }
}

/// The length of the `${ … }` that begins `line`, if its braces are closed.
fn interpolation_end(line: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, byte) in line.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// With `<<-` the smallest indentation is taken off every line.
fn heredoc_text(lines: &[&str], indented: bool) -> String {
    let indent = |line: &&&str| line.len() - line.trim_start_matches([' ', '\t']).len();
    let common = if indented {
        lines.iter().filter(|line| !line.trim().is_empty()).map(|line| indent(&line)).min().unwrap_or(0)
    } else {
        0
    };
    lines.iter().map(|line| line.get(common.min(indent(&line))..).unwrap_or(line)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(source: &str) -> Vec<Token<'_>> {
        let mut lexer = Lexer::new(source);
        std::iter::from_fn(|| Some(lexer.next().token).filter(|token| *token != Token::End)).collect()
    }

    #[test]
    fn strings_are_literal() {
        let text = |text: &str| vec![Token::String(text.to_owned())];
        assert_eq!(tokens(r#""${x""#), text("${x"));
        assert_eq!(tokens(r#""${env("X")} %{host}""#), text("${env(\"X\")} %{host}"));
        assert_eq!(tokens(r#""a\n\"é\u00e9""#), text("a\n\"éé"));
        assert_eq!(tokens("<<-E\n  a\n    b\n  E\n"), text("a\n  b\n"));
        assert_eq!(tokens("\"a\nb"), [Token::Bad(OPEN_STRING), Token::Word("b")]);
    }

    #[test]
    fn the_end_is_told_of_at_the_last_character_however_wide() {
        let source = "Sources = [\u{11cb5}";
        let mut lexer = Lexer::new(source);
        while lexer.peek().token != Token::End {
            lexer.next();
        }
        assert_eq!(&source[lexer.next().span], "\u{11cb5}");
        assert_eq!(Lexer::new("").next().span, 0..0);
    }

    #[test]
    fn numbers_are_hcl_ones() {
        assert_eq!(
            tokens("8500 -1 0x1f 1.5"),
            [Token::Integer(8500), Token::Integer(-1), Token::Integer(31), Token::Float(1.5)]
        );
    }
}
