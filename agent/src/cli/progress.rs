//! A transfer's progress on the terminal: one line on standard error, as wide as the terminal is.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{BinaryBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use schema::render::visible;
use serde::Deserialize;
use serde_json::Value;

use super::{Context, Format};
use crate::transfer::{Meter, Progress, Stage};

/// How often the line is drawn anew at most.
const DRAWS_A_SECOND: u8 = 10;
/// As wide as a terminal is that does not say so.
const USUAL_WIDTH: usize = 80;
/// What the line begins with: a sign of life and a space.
const BEGINNING: usize = 2;
/// A bar that is shorter says nothing, and a longer one no more.
const BAR: std::ops::RangeInclusive<usize> = 10..=30;

/// How far a transfer is, or how it ended, as an operation tells it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Told {
    /// What carries it, and why that was chosen.
    pub protocol: Option<String>,
    pub reason: Option<String>,
    pub stage: String,
    pub done: u64,
    pub total: Option<u64>,
    /// Bytes a second, lately, of what is sent or read.
    pub rate: Option<u64>,
    /// Seconds until it is all done, once that can be told.
    pub left: Option<u64>,
    pub files_done: u64,
    pub files_total: Option<u64>,
    /// Bytes that the target had already.
    pub reused: u64,
    /// Bytes that went over the wire.
    pub sent: Option<u64>,
    /// What could not be set, in sentences.
    pub unset: Vec<String>,
    /// As LXD prints it, where no more is told.
    #[serde(skip)]
    pub line: Option<String>,
}

impl Told {
    /// What an operation's metadata says of a transfer, if anything.
    pub fn of(metadata: &Value) -> Option<Self> {
        let fields = metadata.as_object()?;
        let line = fields.iter().find_map(|(key, value)| {
            value.as_str().filter(|_| key.ends_with("_progress")).map(|line| visible(line).into_owned())
        });
        let ours = match fields.get("comity") {
            Some(ours @ Value::Object(_)) => Some(ours),
            _ => fields.contains_key("stage").then_some(metadata),
        };
        let told = ours.and_then(|ours| serde_json::from_value::<Self>(ours.clone()).ok());
        match (told, line) {
            (Some(told), line) => Some(Self { line, ..told }),
            (None, Some(line)) => Some(Self { line: Some(line), ..Self::default() }),
            (None, None) => None,
        }
    }

    /// The same in one line of at most `width` columns. What says least goes first where there is no room for all.
    fn within(&self, width: usize) -> String {
        if self.stage.is_empty() {
            return cut(self.line.as_deref().unwrap_or_default(), width);
        }
        let amount = match self.total {
            Some(total) => format!("{} of {}", BinaryBytes(self.done), BinaryBytes(total)),
            None => BinaryBytes(self.done).to_string(),
        };
        let rate = self.rate.filter(|rate| *rate > 0).map(|rate| format!("{}/s", BinaryBytes(rate)));
        let left = self.left.map(|left| format!("{} left", duration(left)));
        let reused = (self.reused > 0).then(|| format!("{} reused", BinaryBytes(self.reused)));
        let files = self.files_total.filter(|total| *total > 0);
        let files = files.map(|total| format!("{} of {total} files", self.files_done));
        let mut more: Vec<String> = [rate, left, reused, files].into_iter().flatten().collect();
        let share = self.total.filter(|total| *total > 0);
        let share = share.map(|total| (u128::from(self.done) * 100 / u128::from(total)).min(100));
        let percent = share.map(|share| format!(" {share}%")).unwrap_or_default();
        let tail = loop {
            let mut tail = format!("{percent} {amount}");
            for part in &more {
                tail.push_str(", ");
                tail.push_str(part);
            }
            if self.stage.len() + tail.len() <= width || more.pop().is_none() {
                break tail;
            }
        };
        let room = width.saturating_sub(self.stage.len() + tail.len() + " []".len());
        let bar = match share {
            Some(share) if room >= *BAR.start() => {
                let length = room.min(*BAR.end());
                let full = usize::try_from(share).unwrap_or_default() * length / 100;
                format!(" [{}{}]", "=".repeat(full), " ".repeat(length - full))
            }
            _ => String::new(),
        };
        cut(&format!("{}{bar}{tail}", self.stage), width)
    }
}

impl From<&Progress> for Told {
    fn from(progress: &Progress) -> Self {
        Self {
            stage: progress.stage.as_str().to_owned(),
            done: progress.done,
            total: progress.total,
            rate: Some(progress.rate),
            left: progress.left,
            files_done: progress.files_done,
            files_total: progress.files_total,
            reused: progress.reused,
            ..Self::default()
        }
    }
}

/// `text` in at most `width` columns.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    kept.trim_end().to_owned() + "…"
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h {:02}m", seconds / 3600, seconds % 3600 / 60),
    }
}

/// A line that comes to nothing where nobody watches.
#[derive(Debug, Clone)]
pub struct Bar {
    drawn: ProgressBar,
    watched: bool,
}

impl Bar {
    pub fn new(context: &Context) -> Self {
        let output = &context.output;
        let watched = std::io::stderr().is_terminal() && !output.quiet() && output.format() == Format::Text;
        let target = if watched {
            ProgressDrawTarget::stderr_with_hz(DRAWS_A_SECOND)
        } else {
            ProgressDrawTarget::hidden()
        };
        let drawn = ProgressBar::with_draw_target(None, target);
        // The template is a constant. It cuts what the terminal became too narrow for meanwhile.
        let style = ProgressStyle::with_template("{spinner} {wide_msg}");
        drawn.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        drawn.enable_steady_tick(Duration::from_millis(200));
        Self { drawn, watched }
    }

    /// Whether somebody sees it.
    pub fn is_watched(&self) -> bool {
        self.watched
    }

    pub fn show(&self, told: &Told) {
        if self.watched {
            self.drawn.set_message(told.within(width().saturating_sub(BEGINNING)));
        }
    }

    /// A sentence in place of figures.
    pub fn say(&self, sentence: &str) {
        self.drawn.set_message(cut(sentence, width().saturating_sub(BEGINNING)));
    }

    /// A remark that stays, above the line.
    pub fn note(&self, context: &Context, text: &str) {
        self.drawn.suspend(|| context.output.note(text));
    }

    pub fn clear(&self) {
        self.drawn.finish_and_clear();
    }

    /// Shows how much of `total` went by, as it is told how much more did.
    pub fn counter(&self, stage: Stage, total: Option<u64>) -> impl FnMut(u64) + Send + use<> {
        let (bar, meter, mut shown) = (self.clone(), Meter::default(), Instant::now());
        meter.stage(stage);
        if let Some(total) = total {
            meter.expect(total, 0);
        }
        meter.read(shown);
        move |more| {
            meter.done(more);
            let now = Instant::now();
            if now - shown >= Duration::from_secs(1) / u32::from(DRAWS_A_SECOND) {
                shown = now;
                bar.show(&Told::from(&meter.read(now)));
            }
        }
    }
}

/// How wide the terminal is at this moment.
fn width() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stderr());
    size.map(|size| usize::from(size.ws_col)).ok().filter(|width| *width > 0).unwrap_or(USUAL_WIDTH)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_an_operation_tells_is_found_in_each_of_its_shapes() {
        let ours = json!({"fs_progress": "c1: 1MB (1MB/s)", "comity": {"stage": "receiving", "done": 5, "total": 10}});
        let told = Told::of(&ours).unwrap();
        assert_eq!((told.stage.as_str(), told.done, told.total), ("receiving", 5, Some(10)));
        assert_eq!(told.line.as_deref(), Some("c1: 1MB (1MB/s)"));
        // Of LXD there is the line and no more.
        let told = Told::of(&json!({"fs_progress": "c1: 1MB\u{1b}[2J"})).unwrap();
        assert!(!told.line.unwrap().contains('\u{1b}'));
        // Before it moves, a migration's metadata are secrets.
        assert_eq!(Told::of(&json!({"control": "ab", "fs": "cd", "comity": "ef"})), None);
        assert_eq!(Told::of(&Value::Null), None);
    }

    #[test]
    fn the_line_fits_whatever_the_width() {
        let told = Told {
            stage: "receiving".to_owned(),
            done: 273 << 20,
            total: Some(420 << 20),
            rate: Some(91 << 20),
            left: Some(125),
            files_done: 6300,
            files_total: Some(10_004),
            reused: 12 << 20,
            ..Told::default()
        };
        assert_eq!(
            told.within(150),
            "receiving [===================           ] 65% 273.00 MiB of 420.00 MiB, 91.00 MiB/s, 2m 05s left, 12.00 MiB reused, 6300 of 10004 files"
        );
        assert_eq!(
            told.within(78),
            "receiving [=======    ] 65% 273.00 MiB of 420.00 MiB, 91.00 MiB/s, 2m 05s left"
        );
        assert_eq!(told.within(20), "receiving 65% 273.0…");
        for width in 0..200 {
            let line = told.within(width);
            assert!(line.chars().count() <= width.max(1), "{width}: {line}");
        }
        // What was reused is no speed, and what is not known is not told.
        let comparing = Told { rate: Some(0), left: None, files_total: None, ..told };
        let line = comparing.within(100);
        assert!(line.ends_with("65% 273.00 MiB of 420.00 MiB, 12.00 MiB reused"), "{line}");
        let lxd = Told { line: Some("c1: 1.65GB (91.42MB/s)".to_owned()), ..Told::default() };
        assert_eq!(lxd.within(12), "c1: 1.65GB…");
    }
}
