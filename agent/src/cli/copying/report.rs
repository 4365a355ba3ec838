//! What was copied: a sentence for people, all of it for programs.

use std::fmt::Write as _;

use indicatif::BinaryBytes;
use serde_json::json;

use crate::cli::progress::Told;
use crate::cli::{Context, ExitCode, Format};
use crate::wire::lxd::operation::OperationBody;

/// What was copied, from where to where.
#[derive(Debug, Clone, Copy)]
pub struct Ends<'a> {
    pub source: &'a str,
    pub target: &'a str,
    /// Snapshots that came along, where that is known: all figures are of these, too.
    pub snapshots: Option<usize>,
}

/// Tells what was copied: a sentence for people, all of it for programs.
pub fn report(context: &Context, verb: &str, ends: Ends<'_>, operation: &OperationBody) -> ExitCode {
    let told = Told::of(&operation.metadata).unwrap_or_default();
    for note in &told.unset {
        context.output.note(format!("Warning: {note}"));
    }
    match context.output.format() {
        Format::Json => context.output.json(&json!({
            "id": operation.id, "source": ends.source, "target": ends.target, "snapshots": ends.snapshots,
            "protocol": told.protocol, "reason": told.reason, "total": told.total, "sent": told.sent,
            "reused": told.reused, "unset": told.unset,
        })),
        Format::Text if context.output.quiet() => {}
        Format::Text => context.output.line(sentence(verb, ends, &told)),
    }
    ExitCode::Done
}

fn sentence(verb: &str, ends: Ends<'_>, told: &Told) -> String {
    let with = match ends.snapshots {
        None | Some(0) => String::new(),
        Some(1) => " with 1 snapshot".to_owned(),
        Some(snapshots) => format!(" with {snapshots} snapshots"),
    };
    let mut sentence = format!("{verb} {}{with} to {}", ends.source, ends.target);
    // Writing to a String does not fail.
    if let (Some(sent), None) = (told.sent, told.total) {
        // LXD does not tell how much there is in all.
        let _ = write!(sentence, ": {} were sent", BinaryBytes(sent));
    }
    if let (Some(sent), Some(total)) = (told.sent, told.total) {
        let _ = write!(sentence, ": {}, of which {} were sent", BinaryBytes(total), BinaryBytes(sent));
        if told.reused > 0 {
            let _ = write!(sentence, " and {} were there already", BinaryBytes(told.reused));
        }
    }
    if let Some(protocol) = &told.protocol {
        let _ = write!(sentence, " ({protocol})");
    }
    sentence + "."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_copied_is_told_as_far_as_it_is_known() {
        let all = Told {
            total: Some(3 << 20),
            sent: Some(1 << 20),
            reused: 2 << 20,
            protocol: Some("comity".to_owned()),
            ..Told::default()
        };
        let ends = Ends { source: "east:default/a", target: "west:default/a", snapshots: None };
        let line = sentence("Copied", ends, &all);
        assert_eq!(
            line,
            "Copied east:default/a to west:default/a: 3.00 MiB, of which 1.00 MiB were sent and 2.00 MiB were there already (comity)."
        );
        let line = sentence("Copied", Ends { snapshots: Some(2), ..ends }, &all);
        assert!(line.starts_with("Copied east:default/a with 2 snapshots to west:default/a: "), "{line}");
        let ends = Ends { source: "a:c1", target: "b:c1", snapshots: Some(0) };
        assert_eq!(sentence("Copied", ends, &Told::default()), "Copied a:c1 to b:c1.");
        let of_lxd = Told { sent: Some(1 << 20), protocol: Some("rsync".to_owned()), ..Told::default() };
        assert_eq!(sentence("Copied", ends, &of_lxd), "Copied a:c1 to b:c1: 1.00 MiB were sent (rsync).");
    }
}
