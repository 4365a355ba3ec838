//! What snapshots are called that nobody names: `snap%d`, or a pattern with the date in it.
//!
//! LXD renders patterns with a template language; of that there is here what patterns are made of in practice: the moment
//! of creation in Go's layout, `{{ creation_date|date:'2006-01-02_15-04-05' }}`, and `%d`, a number that counts up.

use std::fmt::Write as _;
use std::str::FromStr;

use crate::name::{NameError, SnapshotName};

/// A name with gaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// The moment of creation, in a layout of Go's.
    Date(String),
    Number,
}

/// The moment that a snapshot is named for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moment {
    pub year: i16,
    pub month: u8,
    pub day: u8,
    pub hour: u8,
    pub minute: u8,
    pub second: u8,
}

/// Why a text is no pattern. The text is not repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("Snapshot pattern may contain '%d' only once")]
    Numbers,
    #[error(
        "a pattern holds text, %d and {{{{ creation_date|date:'2006-01-02_15-04-05' }}}}; other templates are not rendered"
    )]
    Template,
    #[error("what it makes is no name for a snapshot: {0}")]
    Name(#[from] NameError),
}

impl Default for Pattern {
    fn default() -> Self {
        Self(vec![Piece::Text("snap".to_owned()), Piece::Number])
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            texts(before, &mut pieces)?;
            let (inside, after) = after.split_once("}}").ok_or(PatternError::Template)?;
            pieces.push(Piece::Date(date(inside).ok_or(PatternError::Template)?));
            rest = after;
        }
        texts(rest, &mut pieces)?;
        if pieces.iter().filter(|piece| **piece == Piece::Number).count() > 1 {
            return Err(PatternError::Numbers);
        }
        let pattern = Self(pieces);
        // Any moment will do to see whether it makes names.
        let moment = Moment { year: 2000, month: 12, day: 31, ..Moment::default() };
        pattern.render(moment, 0).parse::<SnapshotName>()?;
        Ok(pattern)
    }
}

/// Adds text with at most a number in it.
fn texts(text: &str, pieces: &mut Vec<Piece>) -> Result<(), PatternError> {
    if text.contains("{%") || text.contains("{#") || text.contains("}}") {
        return Err(PatternError::Template);
    }
    for (at, part) in text.split("%d").enumerate() {
        if at > 0 {
            pieces.push(Piece::Number);
        }
        if !part.is_empty() {
            pieces.push(Piece::Text(part.to_owned()));
        }
    }
    Ok(())
}

/// The layout in `creation_date|date:'…'`.
fn date(inside: &str) -> Option<String> {
    let filter = inside.trim().strip_prefix("creation_date")?.trim_start().strip_prefix('|')?.trim_start();
    let layout = filter.strip_prefix("date")?.trim_start().strip_prefix(':')?.trim();
    let quoted = |quote| layout.strip_prefix(quote)?.strip_suffix(quote);
    quoted('\'').or_else(|| quoted('"')).map(str::to_owned)
}

impl Pattern {
    /// The next name: one that none of `taken` is.
    pub fn next<'a>(
        &self,
        moment: Moment,
        taken: impl Iterator<Item = &'a SnapshotName> + Clone,
    ) -> Result<SnapshotName, PatternError> {
        let numbered = self.0.contains(&Piece::Number);
        let plain = self.render(moment, 0);
        if !numbered && !taken.clone().any(|name| name.as_str() == plain) {
            return Ok(plain.parse()?);
        }
        let mut pattern = self.clone();
        if !numbered {
            pattern.0.extend([Piece::Text("-".to_owned()), Piece::Number]);
        }
        let at = pattern.0.iter().position(|piece| *piece == Piece::Number).unwrap_or(pattern.0.len());
        let (before, after) = pattern.0.split_at(at);
        let text = |pieces: &[Piece]| Self(pieces.to_vec()).render(moment, 0);
        let (before, after) = (text(before), text(&after[1..]));
        let numbers = taken.filter_map(|name| {
            name.as_str().strip_prefix(&*before)?.strip_suffix(&*after)?.parse::<u64>().ok()
        });
        let next = numbers.max().map_or(0, |last| last.saturating_add(1));
        Ok(pattern.render(moment, next).parse()?)
    }

    fn render(&self, moment: Moment, number: u64) -> String {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(part) => text.push_str(part),
                Piece::Date(layout) => moment.write(layout, &mut text),
                Piece::Number => {
                    // Writing to a String does not fail.
                    let _ = write!(text, "{number}");
                }
            }
        }
        text
    }
}

impl Moment {
    /// Writes it in a layout of Go's: the reference moment, Mon Jan 2 15:04:05 2006, as it is to look.
    fn write(self, layout: &str, into: &mut String) {
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let month = MONTHS.get(usize::from(self.month).wrapping_sub(1)).copied().unwrap_or("Jan");
        let known: [(&str, String); 13] = [
            ("2006", format!("{:04}", self.year)),
            ("Jan", month.to_owned()),
            ("01", format!("{:02}", self.month)),
            ("02", format!("{:02}", self.day)),
            ("15", format!("{:02}", self.hour)),
            ("03", format!("{:02}", (self.hour + 11) % 12 + 1)),
            ("04", format!("{:02}", self.minute)),
            ("05", format!("{:02}", self.second)),
            ("06", format!("{:02}", self.year.rem_euclid(100))),
            ("PM", if self.hour < 12 { "AM" } else { "PM" }.to_owned()),
            ("1", self.month.to_string()),
            ("2", self.day.to_string()),
            ("MST", "UTC".to_owned()),
        ];
        let mut rest = layout;
        while let Some(first) = rest.chars().next() {
            if let Some((word, value)) = known.iter().find(|(word, _)| rest.starts_with(word)) {
                into.push_str(value);
                rest = &rest[word.len()..];
            } else {
                into.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(pattern: &str, taken: &[&str]) -> String {
        let moment = Moment { year: 2026, month: 3, day: 9, hour: 17, minute: 4, second: 5 };
        let taken: Vec<SnapshotName> = taken.iter().map(|name| name.parse().unwrap()).collect();
        pattern.parse::<Pattern>().unwrap().next(moment, taken.iter()).unwrap().to_string()
    }

    #[test]
    fn numbers_count_on_from_the_highest() {
        assert_eq!(next("snap%d", &[]), "snap0");
        assert_eq!(next("snap%d", &["snap0", "snap7", "snapshot", "other9"]), "snap8");
        assert_eq!(next("a%d-b", &["a3-b", "a9"]), "a4-b");
        assert_eq!(Pattern::default(), "snap%d".parse().unwrap());
    }

    #[test]
    fn the_date_is_written_in_gos_layout() {
        let pattern = "daily-{{ creation_date|date:'2006-01-02_15-04-05' }}";
        assert_eq!(next(pattern, &[]), "daily-2026-03-09_17-04-05");
        assert_eq!(next(pattern, &["daily-2026-03-09_17-04-05"]), "daily-2026-03-09_17-04-05-0");
        assert_eq!(next("{{creation_date|date:\"Jan2\"}}-%d", &["Mar9-4"]), "Mar9-5");
        assert_eq!(next("x{{ creation_date | date : '0603PM' }}", &[]), "x2605PM");
    }

    #[test]
    fn what_is_not_rendered_is_refused() {
        let wrong = |text: &str| text.parse::<Pattern>().unwrap_err();
        assert_eq!(wrong("%d%d"), PatternError::Numbers);
        for text in ["{{ creation_date }}", "{% include '/etc/passwd' %}", "{{ x", "{{ config.x }}", "}}"] {
            assert_eq!(wrong(text), PatternError::Template, "{text}");
        }
        for text in ["", "a b", "a/%d", "{{ creation_date|date:'15:04' }}"] {
            assert!(matches!(wrong(text), PatternError::Name(_)), "{text}");
        }
    }
}
