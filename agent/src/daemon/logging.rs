//! The agent's log: standard error, as text or one JSON object a line.
//!
//! What libraries say is kept to warnings. `COMITY_LOG` sets another filter, e.g. `debug,hyper=info`. Targets are all
//! that is filtered on: the richer filter language compiles regular expressions, which an idle agent would carry.

use std::io::IsTerminal as _;

use serde::Deserialize;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

mod feed;

const USUAL: &str = "info,hyper=warn,h2=warn,hyper_util=warn,rustls=warn,notify=warn";

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Sets up the log of this process. `COMITY_LOG` that cannot be read is reported in it.
pub fn start(format: LogFormat) {
    let asked = std::env::var("COMITY_LOG").ok().filter(|text| !text.is_empty());
    let usual = || USUAL.parse::<Targets>().unwrap_or_default();
    let (filter, fault) = match asked.as_deref().map(str::parse::<Targets>) {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (usual(), Some(error)),
        None => (usual(), None),
    };
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let layer = match format {
        LogFormat::Text => lines.with_ansi(colour).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).with_ansi(false).boxed(),
    };
    // A second start in one process (tests) keeps the first log.
    let feed = feed::Feed.with_filter(filter.clone());
    let _ = tracing_subscriber::registry().with(layer.with_filter(filter)).with(feed).try_init();
    if let Some(error) = fault {
        tracing::warn!(%error, "COMITY_LOG is not a filter; the usual one is used");
    }
}
