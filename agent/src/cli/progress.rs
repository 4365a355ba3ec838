//! A transfer's progress on the terminal: stage, bytes, rate and time left, on standard error.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{BinaryBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use schema::render::visible;
use serde::Deserialize;
use serde_json::Value;

use super::{Context, Format};

/// How often the line is drawn anew at most.
const DRAWS_A_SECOND: u8 = 10;

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
    /// Bytes a second, lately.
    pub rate: Option<u64>,
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
}

/// A line that comes to nothing where nobody watches.
#[derive(Debug, Clone)]
pub struct Bar(ProgressBar);

impl Bar {
    pub fn new(context: &Context) -> Self {
        let output = &context.output;
        let watched = std::io::stderr().is_terminal() && !output.quiet() && output.format() == Format::Text;
        let target = if watched {
            ProgressDrawTarget::stderr_with_hz(DRAWS_A_SECOND)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target);
        bar.set_style(style(UNMEASURED));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    pub fn set(&self, stage: &str, done: u64, total: Option<u64>) {
        if self.0.message() != stage {
            // Each stage has a rate of its own.
            self.0.reset();
            self.0.set_message(stage.to_owned());
            self.0.set_style(style(if total.is_some() { MEASURED } else { UNMEASURED }));
        }
        if let Some(total) = total {
            self.0.set_length(total);
        }
        self.0.set_position(done);
    }

    /// What an operation tells, with what was reused and how many files there are behind it.
    pub fn show(&self, told: &Told) {
        if told.stage.is_empty() {
            if let Some(line) = &told.line {
                self.say(line);
            }
            return;
        }
        self.set(&told.stage, told.done, told.total);
        let files = told.files_total.filter(|total| *total > 0);
        let files = files.map(|total| format!("{}/{total} files", told.files_done));
        let reused = (told.reused > 0).then(|| format!("{} reused", BinaryBytes(told.reused)));
        let more: Vec<String> = files.into_iter().chain(reused).collect();
        self.0.set_prefix(more.join(", "));
    }

    /// A sentence in place of figures.
    pub fn say(&self, sentence: &str) {
        self.0.set_style(style("{spinner} {msg}"));
        self.0.set_message(sentence.to_owned());
    }

    pub fn clear(&self) {
        self.0.finish_and_clear();
    }
}

const MEASURED: &str = "{spinner} {msg} [{bar:30}] {binary_bytes}/{binary_total_bytes} {percent}% ({binary_bytes_per_sec}, {eta} left) {prefix}";
const UNMEASURED: &str = "{spinner} {msg} {binary_bytes} ({binary_bytes_per_sec}) {prefix}";

fn style(template: &str) -> ProgressStyle {
    // The templates are the constants above.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
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
}
