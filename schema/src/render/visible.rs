//! Text from outside, made safe for a terminal.
//!
//! Names of files, descriptions and what a peer says may hold escape sequences, which a terminal would obey, or marks
//! that turn the direction of writing, which make a text read as another. They are shown as escapes instead.

use std::borrow::Cow;
use std::fmt::Write as _;

/// `text` with every character a terminal would act upon as `\u{…}`. Line ends and tabs stay.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if acts(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// The same for HCL, whose escapes have four digits.
pub(super) fn in_hcl(text: String) -> String {
    if !text.contains(acts) {
        return text;
    }
    text.chars().fold(String::with_capacity(text.len() + 8), |mut shown, c| {
        if acts(c) {
            // Writing to a String does not fail.
            let _ = write!(shown, "\\u{:04x}", u32::from(c));
        } else {
            shown.push(c);
        }
        shown
    })
}

/// True for control characters, and for those that change the direction of writing; all within four digits.
pub(super) fn acts(c: char) -> bool {
    (c.is_control() && !matches!(c, '\n' | '\t'))
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_the_terminal_as_a_command() {
        assert_eq!(visible("plain é\n\ttext"), "plain é\n\ttext");
        assert_eq!(visible("a\u{1b}[31mb\u{9b}2J\r\u{202e}"), "a\\u{1b}[31mb\\u{9b}2J\\u{d}\\u{202e}");
        assert_eq!(in_hcl("\"a\u{9b}\u{202e}\"".to_owned()), "\"a\\u009b\\u202e\"");
    }
}
