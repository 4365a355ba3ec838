//! How traffic looks: a table, or a screen full of it.

use std::fmt::Write as _;
use std::time::Duration;

use indicatif::HumanBytes;
use schema::name::{LinkName, ServiceName};
use schema::render::visible;

use super::{Report, Row};
use crate::cli::output::{Table, aligned};
use crate::wire::traffic::Denial;

pub(super) const NOTHING: &str = "No connection was made, denied or failed since the agent started";

const HEAD: [&str; 12] = [
    "SOURCE",
    "DESTINATION",
    "CONNECTIONS",
    "OPEN",
    "DENIED",
    "FAILED",
    "NEW/S",
    "SENT/S",
    "RECEIVED/S",
    "P50",
    "P99",
    "DECIDED BY",
];

/// The whole of it.
pub(super) fn boxed(report: &Report) -> Table {
    let mut table = Table::new(HEAD);
    for row in &report.rows {
        table.row(cells(row));
    }
    table
}

/// As much of it as `width` columns and `height` lines hold, its sums first.
pub(super) fn screen(report: &Report, interval: Duration, width: usize, height: usize) -> String {
    let sum = |of: &dyn Fn(&Row) -> f64| report.rows.iter().map(of).sum::<f64>();
    let open: u64 = report.rows.iter().map(|row| row.total.open).sum();
    let mut lines = vec![
        format!(
            "{}: {open} open, {}/s new, {}/s denied, {}/s failed, {} sent, {} received; every {interval:?}, q ends",
            report.cluster,
            number(sum(&|row| row.connections_per_second)),
            number(sum(&|row| row.denied_per_second)),
            number(sum(&|row| row.failed_per_second)),
            bytes(sum(&|row| row.sent_bytes_per_second)),
            bytes(sum(&|row| row.received_bytes_per_second)),
        ),
        String::new(),
    ];
    if report.rows.is_empty() {
        lines.push(NOTHING.to_owned());
    } else {
        let room = height.saturating_sub(lines.len() + 1);
        let hidden = report.rows.len().saturating_sub(room);
        // The last line says how many there are besides.
        let shown = if hidden > 0 { room.saturating_sub(1) } else { room };
        let rows = std::iter::once(HEAD.map(str::to_owned)).chain(report.rows.iter().take(shown).map(cells));
        lines.extend(aligned(rows).lines().map(str::to_owned));
        if hidden > 0 {
            lines.push(format!("… and {} more", report.rows.len() - shown));
        }
    }
    cut(lines.iter().map(String::as_str), width, height)
}

/// What is shown while the agent does not answer.
pub(super) fn trouble(trouble: &str, width: usize) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = write!(text, "{}\n\nasking again; q ends", visible(trouble));
    cut(text.lines(), width, usize::MAX)
}

fn cut<'a>(lines: impl Iterator<Item = &'a str>, width: usize, height: usize) -> String {
    let line = |line: &str| line.chars().take(width).collect::<String>();
    lines.take(height).map(line).collect::<Vec<_>>().join("\n")
}

fn cells(row: &Row) -> [String; 12] {
    let total = &row.total;
    [
        end(total.source.as_ref(), total.source_peer.as_ref()),
        end(total.destination.as_ref(), total.destination_peer.as_ref()),
        total.connections.to_string(),
        total.open.to_string(),
        total.denied.to_string(),
        total.failed.to_string(),
        number(row.connections_per_second),
        bytes(row.sent_bytes_per_second),
        bytes(row.received_bytes_per_second),
        row.set_up_p50_us.map(time).unwrap_or_default(),
        row.set_up_p99_us.map(time).unwrap_or_default(),
        decided(row),
    ]
}

/// A service as `comity explain` has it.
fn end(service: Option<&ServiceName>, peer: Option<&LinkName>) -> String {
    let service = service.map_or("(others)", ServiceName::as_str);
    peer.map_or_else(|| service.to_owned(), |peer| format!("{service}@{peer}"))
}

/// The rule, or what stood in the way of one being asked.
fn decided(row: &Row) -> String {
    let total = &row.total;
    let because = || total.denied_because.iter().max_by_key(|(_, count)| **count).map(|(why, _)| *why);
    match (&total.rule, total.precedence, &total.destination_peer) {
        (Some(rule), Some(precedence), _) => format!("{rule} ({precedence})"),
        (Some(rule), None, _) => rule.to_string(),
        (None, _, Some(peer)) => match because() {
            // Where some were carried, the peer has decided on those.
            Some(Denial::User) if total.connections == 0 => said(Denial::User).to_owned(),
            _ => format!("the peer {peer}"),
        },
        (None, _, None) => because().map(said).unwrap_or_default().to_owned(),
    }
}

fn said(denial: Denial) -> &'static str {
    match denial {
        Denial::Rule | Denial::Permissions => "an intention",
        Denial::NoRule => "no intention matches",
        Denial::NotExported => "not exported to the peer",
        Denial::NotDeclared => "no such service",
        Denial::NoPort => "the service has no port",
        Denial::NoLink => "the caller is of no link",
        Denial::Peer => "the peer",
        Denial::User => "the user may not use the upstream",
        Denial::Leaf => "the certificate is not good",
    }
}

/// A rate a second, as exact as it is small.
fn number(rate: f64) -> String {
    if rate == 0.0 {
        "0".to_owned()
    } else if rate < 10.0 {
        format!("{rate:.1}")
    } else {
        format!("{rate:.0}")
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Rates are positive and finite.
fn bytes(rate: f64) -> String {
    HumanBytes(rate.round() as u64).to_string()
}

#[allow(clippy::cast_precision_loss)]
fn time(micros: u64) -> String {
    let millis = micros as f64 / 1_000.0;
    match micros {
        0..10_000 => format!("{millis:.2} ms"),
        10_000..1_000_000 => format!("{millis:.0} ms"),
        _ => format!("{:.1} s", millis / 1_000.0),
    }
}
