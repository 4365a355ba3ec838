//! Hands the log's lines to those who listen to logging events.

use std::fmt;

use jiff::Timestamp;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::task::lines::{self, Line};

/// A layer that costs nothing while nobody listens.
pub struct Feed;

impl<S: Subscriber> Layer<S> for Feed {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if !lines::are_heard() {
            return;
        }
        let mut read = Read::default();
        event.record(&mut read);
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            Level::DEBUG | Level::TRACE => "debug",
        };
        lines::tell(Line { time: Timestamp::now(), level, message: read.message, context: read.context });
    }
}

#[derive(Default)]
struct Read {
    message: String,
    context: Map<String, Value>,
}

impl Visit for Read {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.context.insert(field.name().to_owned(), value.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[tokio::test]
    async fn a_line_is_told_with_its_fields() {
        let mut heard = lines::subscribe();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(Feed), || {
            tracing::warn!(link = %"west", number = 3, "it is a test of the feed");
        });
        let line = loop {
            let line = heard.recv().await.unwrap();
            if line.message == "it is a test of the feed" {
                break line;
            }
        };
        assert_eq!((line.level, &line.context["link"]), ("warning", &"west".into()));
        assert_eq!(line.context["number"], "3");
    }
}
