//! A transfer's progress on the terminal: stage, bytes, rate and time left, on standard error.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::{Context, Format};

/// How often the line is drawn anew at most.
const DRAWS_A_SECOND: u8 = 10;

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
        bar.set_style(style("{spinner} {msg} {binary_bytes} ({binary_bytes_per_sec})"));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    pub fn set(&self, stage: &str, done: u64, total: Option<u64>) {
        if self.0.message() != stage {
            // Each stage has a rate of its own.
            self.0.reset();
            self.0.set_message(stage.to_owned());
            self.0.set_style(style(match total {
                Some(_) => "{spinner} {msg} [{bar:30}] {binary_bytes}/{binary_total_bytes} ({binary_bytes_per_sec}, {eta} left)",
                None => "{spinner} {msg} {binary_bytes} ({binary_bytes_per_sec})",
            }));
        }
        if let Some(total) = total {
            self.0.set_length(total);
        }
        self.0.set_position(done);
    }

    pub fn clear(&self) {
        self.0.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are the constants above.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}
