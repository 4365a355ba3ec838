//! The HTTP permissions and JWT requirements of an intention: checked by Consul's rules, so that a file that is
//! taken today is one that can be enforced later, and kept only as "there are some".

use super::ACTIONS;
use crate::diagnostic::Diagnostic;
use crate::document::Span;
use crate::kind::fields::{Fields, Place};

const PATHS: [&str; 3] = ["path_exact", "path_prefix", "path_regex"];
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE"];

/// The entry's own `JWT`: true if it asks for any provider, which nothing can satisfy yet.
pub fn jwt(fields: &mut Fields<'_, '_>) -> bool {
    let Some(span) = providers(fields) else { return false };
    let at = fields.faults.at(span);
    fields.faults.push(
        Diagnostic::warning(
            "not-enforced",
            format!("{} is not enforced yet", fields.place.field("jwt")),
            Some(at),
        )
        .detail("Until it is, every source of this entry is denied."),
    );
    true
}

/// The place of the providers in a `JWT`, if there are any.
fn providers(fields: &mut Fields<'_, '_>) -> Option<Span> {
    let (table, span) = fields.table("jwt")?;
    let parent = fields.place;
    let place = Place::Field(&parent, "jwt");
    let mut jwt = Fields::new(table, span, place, &mut *fields.faults);
    let tables = jwt.tables("providers");
    let is_any = !tables.is_empty();
    for (index, table, span) in tables {
        let mut provider =
            Fields::new(table, span, Place::Item(&place, "providers", index), &mut *jwt.faults);
        if provider.text("name").is_none_or(|name| name.text.is_empty()) {
            provider.missing_with("name", "JWT provider name is required".to_owned());
        }
        let inner = provider.place;
        for (index, table, span) in provider.tables("verify_claims") {
            let place = Place::Item(&inner, "verify_claims", index);
            let mut claim = Fields::new(table, span, place, &mut *provider.faults);
            claim.texts("path");
            claim.text("value");
            claim.finish();
        }
        provider.finish();
    }
    jwt.finish();
    is_any.then_some(span)
}

/// The place of a source's `Permissions`, if there are any.
pub fn permissions(fields: &mut Fields<'_, '_>) -> Option<Span> {
    let span = fields.span("permissions")?;
    let tables = fields.tables("permissions");
    let is_any = !tables.is_empty();
    let parent = fields.place;
    for (index, table, span) in tables {
        let place = Place::Item(&parent, "permissions", index);
        permission(Fields::new(table, span, place, &mut *fields.faults));
    }
    is_any.then_some(span)
}

fn permission(mut fields: Fields<'_, '_>) {
    if !fields.text("action").is_some_and(|action| ACTIONS.contains(&action.text)) {
        let field = fields.place.field("action");
        fields.missing_with("action", format!("{field} must be set to 'allow' or 'deny'"));
    }
    providers(&mut fields);
    if let Some((table, span)) = fields.table("http") {
        let parent = fields.place;
        let place = Place::Field(&parent, "http");
        http(Fields::new(table, span, place, &mut *fields.faults), span);
    } else {
        let field = fields.place.field("http");
        fields.missing_with("http", format!("{field} is required"));
    }
    fields.finish();
}

fn http(mut fields: Fields<'_, '_>, span: Span) {
    let mut paths = 0;
    for name in PATHS {
        let Some(path) = fields.text(name).filter(|path| !path.text.is_empty()) else { continue };
        paths += 1;
        if name != "path_regex" && !path.text.starts_with('/') {
            let summary = format!("{} doesn't start with '/': {path}", fields.place.field(name));
            fields.fault("bad-value", summary, path.span);
        }
    }
    let path = fields.place.path();
    if paths > 1 {
        let summary =
            format!("{path} should only contain at most one of PathExact, PathPrefix, or PathRegex");
        fields.fault("bad-value", summary, span);
    }
    let parent = fields.place;
    let headers = fields.tables("header");
    let has_headers = !headers.is_empty();
    for (index, table, span) in headers {
        header(Fields::new(table, span, Place::Item(&parent, "header", index), &mut *fields.faults), span);
    }
    let methods = fields.texts("methods");
    let mut known: Vec<String> = Vec::new();
    for method in &methods {
        let upper = method.text.to_ascii_uppercase();
        if !METHODS.contains(&upper.as_str()) {
            fields.fault(
                "bad-value",
                format!("{path}.Methods contains an invalid method {method}"),
                method.span,
            );
        } else if known.contains(&upper) {
            fields.fault(
                "bad-value",
                format!("{path}.Methods contains {method} more than once"),
                method.span,
            );
        } else {
            known.push(upper);
        }
    }
    if paths == 0 && !has_headers && methods.is_empty() {
        fields.fault("bad-value", format!("{path} should not be empty"), span);
    }
    fields.finish();
}

fn header(mut fields: Fields<'_, '_>, span: Span) {
    let path = fields.place.path();
    if fields.text("name").is_none_or(|name| name.text.is_empty()) {
        fields.missing_with("name", format!("{path} missing required Name field"));
    }
    let mut matches = usize::from(fields.boolean("present") == Some(true));
    let mut by_text = 0;
    for name in ["exact", "prefix", "suffix", "contains"] {
        by_text += usize::from(fields.text(name).is_some_and(|text| !text.text.is_empty()));
    }
    matches += by_text + usize::from(fields.text("regex").is_some_and(|text| !text.text.is_empty()));
    if matches != 1 {
        let summary =
            format!("{path} should only contain one of Present, Exact, Prefix, Suffix, Contains, or Regex");
        fields.fault("bad-value", summary, span);
    }
    fields.boolean("invert");
    if fields.boolean("ignore_case") == Some(true) && by_text == 0 {
        let summary =
            format!("{path} should set one of Exact, Prefix, Suffix, or Contains when using IgnoreCase");
        fields.fault("bad-value", summary, span);
    }
    fields.finish();
}
