//! Consul's namespaces and partitions: there is one of each here, `default`, and naming it is allowed.

use super::fields::{Fields, Form, Text};
use crate::diagnostic::Diagnostic;

/// The field `namespace` of a part of an entry.
pub fn namespace(fields: &mut Fields<'_, '_>) {
    take(fields, "namespace");
}

/// The field `partition` of an entry or a part of it.
pub fn partition(fields: &mut Fields<'_, '_>) {
    take(fields, "partition");
}

fn take(fields: &mut Fields<'_, '_>, name: &'static str) {
    // Ours are Consul's Community words; blocks have no such thing to name.
    if fields.place.form() == Form::Block {
        return;
    }
    if let Some(text) = fields.text(name) {
        check(fields, name, text);
    }
}

/// The fault of a value other than `default`.
pub fn check(fields: &mut Fields<'_, '_>, name: &'static str, text: Text<'_>) {
    if matches!(text.text, "" | "default") {
        return;
    }
    let at = fields.faults.at(text.span);
    fields.faults.push(
        Diagnostic::error(
            "not-taken",
            format!("{} {text} is not known here", fields.place.field(name)),
            Some(at),
        )
        .detail(format!("There is one {name}, \"default\". Leave the key out, or name that.")),
    );
}
