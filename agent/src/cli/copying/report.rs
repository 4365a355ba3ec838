//! What was copied: a sentence for people, all of it for programs.

use std::fmt::Write as _;

use indicatif::BinaryBytes;
use serde_json::json;

use crate::cli::progress::Told;
use crate::cli::{Context, ExitCode, Format};
use crate::wire::lxd::operation::OperationBody;

/// Tells what was copied: a sentence for people, all of it for programs.
pub fn report(
    context: &Context,
    verb: &str,
    source: &str,
    target: &str,
    operation: &OperationBody,
) -> ExitCode {
    let told = Told::of(&operation.metadata).unwrap_or_default();
    for note in &told.unset {
        context.output.note(format!("Warning: {note}"));
    }
    match context.output.format() {
        Format::Json => context.output.json(&json!({
            "source": source, "target": target, "protocol": told.protocol, "reason": told.reason,
            "total": told.total, "received": told.sent, "reused": told.reused,
            "unset": told.unset,
        })),
        Format::Text if context.output.quiet() => {}
        Format::Text => context.output.line(sentence(verb, source, target, &told)),
    }
    ExitCode::Done
}

fn sentence(verb: &str, source: &str, target: &str, told: &Told) -> String {
    let mut sentence = format!("{verb} {source} to {target}");
    if let Some(sent) = told.sent {
        let total = BinaryBytes(told.total.unwrap_or(told.done));
        // Writing to a String does not fail.
        let _ = write!(sentence, ": {total}, of which {} were sent", BinaryBytes(sent));
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
        let line = sentence("Copied", "east:default/a", "west:default/a", &all);
        assert_eq!(
            line,
            "Copied east:default/a to west:default/a: 3.00 MiB, of which 1.00 MiB were sent and 2.00 MiB were there already (comity)."
        );
        assert_eq!(sentence("Copied", "a:c1", "b:c1", &Told::default()), "Copied a:c1 to b:c1.");
    }
}
