//! The HTTP permissions and JWT requirements of an intention: checked by Consul's rules and kept as they are, so that
//! a file that is taken today is one that can be enforced later. Until then, whatever has them is denied.

use serde::{Deserialize, Serialize};

use super::{ACTIONS, Action};
use crate::diagnostic::Diagnostic;
use crate::document::Span;
use crate::kind::fields::{Fields, Place};

const PATHS: [&str; 3] = ["path_exact", "path_prefix", "path_regex"];
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE"];

/// What may be asked of a service over HTTP (Consul: IntentionPermission).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Permission {
    pub action: Action,
    pub http: HttpMatch,
    #[serde(default, skip_serializing_if = "Jwt::is_empty")]
    pub jwt: Jwt,
}

/// The requests that a permission is about: at most one of the paths, and every header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct HttpMatch {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path_exact: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path_prefix: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path_regex: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub header: Vec<HeaderMatch>,
    /// In upper case; none means any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
}

/// What a header must be: one of `present` and the texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct HeaderMatch {
    pub name: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub present: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub exact: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub suffix: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub contains: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub regex: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub invert: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ignore_case: bool,
}

/// The providers whose tokens are asked for (Consul: IntentionJWTRequirement).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Jwt {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub providers: Vec<JwtProvider>,
}

impl Jwt {
    pub fn is_empty(&self) -> bool {
        self.providers.is_empty()
    }
}

/// A provider, by its name, and what its tokens must claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct JwtProvider {
    pub name: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verify_claims: Vec<Claim>,
}

/// A claim by its path, and the value that it must have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Claim {
    pub path: Vec<String>,
    pub value: String,
}

/// The entry's own `JWT`, which nothing can satisfy yet.
pub fn jwt(fields: &mut Fields<'_, '_>) -> Jwt {
    let Some((jwt, span)) = requirement(fields) else { return Jwt::default() };
    if !jwt.is_empty() {
        let at = fields.faults.at(span);
        fields.faults.push(
            Diagnostic::warning(
                "not-enforced",
                format!("{} is not enforced yet", fields.place.field("jwt")),
                Some(at),
            )
            .detail("Until it is, every source of this entry is denied."),
        );
    }
    jwt
}

/// A `JWT` and its place.
fn requirement(fields: &mut Fields<'_, '_>) -> Option<(Jwt, Span)> {
    let (table, span) = fields.table("jwt")?;
    let parent = fields.place;
    let place = Place::Field(&parent, "jwt");
    let mut inner = Fields::new(table, span, place, &mut *fields.faults);
    let mut jwt = Jwt::default();
    for (index, table, span) in inner.tables("providers") {
        let mut fields =
            Fields::new(table, span, Place::Item(&place, "providers", index), &mut *inner.faults);
        let mut provider = JwtProvider { name: fields.string("name"), verify_claims: Vec::new() };
        if provider.name.is_empty() {
            fields.missing_with("name", "JWT provider name is required".to_owned());
        }
        let at = fields.place;
        for (index, table, span) in fields.tables("verify_claims") {
            let place = Place::Item(&at, "verify_claims", index);
            let mut claim = Fields::new(table, span, place, &mut *fields.faults);
            let path = claim.texts("path").iter().map(|part| part.text.to_owned()).collect();
            provider.verify_claims.push(Claim { path, value: claim.string("value") });
            claim.finish();
        }
        fields.finish();
        jwt.providers.push(provider);
    }
    inner.finish();
    Some((jwt, span))
}

/// A source's `Permissions`, and where they are if there are any.
pub fn permissions(fields: &mut Fields<'_, '_>) -> (Vec<Permission>, Option<Span>) {
    let Some(span) = fields.span("permissions") else { return (Vec::new(), None) };
    let tables = fields.tables("permissions");
    let is_any = !tables.is_empty();
    let parent = fields.place;
    let mut permissions = Vec::new();
    for (index, table, span) in tables {
        let place = Place::Item(&parent, "permissions", index);
        permissions.extend(permission(Fields::new(table, span, place, &mut *fields.faults)));
    }
    (permissions, is_any.then_some(span))
}

fn permission(mut fields: Fields<'_, '_>) -> Option<Permission> {
    let action = fields.text("action").and_then(|action| Action::from_word(action.text));
    if action.is_none() {
        let field = fields.place.field("action");
        fields.missing_with("action", format!("{field} must be set to '{}' or '{}'", ACTIONS[0], ACTIONS[1]));
    }
    let jwt = requirement(&mut fields).map(|(jwt, _)| jwt).unwrap_or_default();
    let matched = if let Some((table, span)) = fields.table("http") {
        let parent = fields.place;
        let place = Place::Field(&parent, "http");
        Some(http(Fields::new(table, span, place, &mut *fields.faults), span))
    } else {
        let field = fields.place.field("http");
        fields.missing_with("http", format!("{field} is required"));
        None
    };
    fields.finish();
    Some(Permission { action: action?, http: matched?, jwt })
}

fn http(mut fields: Fields<'_, '_>, span: Span) -> HttpMatch {
    let mut paths = 0;
    let [path_exact, path_prefix, path_regex] = PATHS.map(|name| {
        let Some(path) = fields.text(name).filter(|path| !path.text.is_empty()) else { return String::new() };
        paths += 1;
        if name != "path_regex" && !path.text.starts_with('/') {
            let summary = format!("{} doesn't start with '/': {path}", fields.place.field(name));
            fields.fault("bad-value", summary, path.span);
        }
        path.text.to_owned()
    });
    let path = fields.place.path();
    if paths > 1 {
        let summary =
            format!("{path} should only contain at most one of PathExact, PathPrefix, or PathRegex");
        fields.fault("bad-value", summary, span);
    }
    let parent = fields.place;
    let headers = fields.tables("header");
    let has_headers = !headers.is_empty();
    let header = headers.into_iter().map(|(index, table, span)| {
        header(Fields::new(table, span, Place::Item(&parent, "header", index), &mut *fields.faults), span)
    });
    let header = header.collect();
    let methods = methods(&mut fields, &path);
    if paths == 0 && !has_headers && methods.is_empty() {
        fields.fault("bad-value", format!("{path} should not be empty"), span);
    }
    fields.finish();
    HttpMatch { path_exact, path_prefix, path_regex, header, methods }
}

fn methods(fields: &mut Fields<'_, '_>, path: &str) -> Vec<String> {
    let mut known: Vec<String> = Vec::new();
    for method in fields.texts("methods") {
        let upper = method.text.to_ascii_uppercase();
        if !METHODS.contains(&upper.as_str()) {
            let summary = format!("{path}.Methods contains an invalid method {method}");
            fields.fault("bad-value", summary, method.span);
        } else if known.contains(&upper) {
            let summary = format!("{path}.Methods contains {method} more than once");
            fields.fault("bad-value", summary, method.span);
        } else {
            known.push(upper);
        }
    }
    known
}

fn header(mut fields: Fields<'_, '_>, span: Span) -> HeaderMatch {
    let path = fields.place.path();
    let header = HeaderMatch {
        name: fields.string("name"),
        present: fields.boolean("present") == Some(true),
        exact: fields.string("exact"),
        prefix: fields.string("prefix"),
        suffix: fields.string("suffix"),
        contains: fields.string("contains"),
        regex: fields.string("regex"),
        invert: fields.boolean("invert") == Some(true),
        ignore_case: fields.boolean("ignore_case") == Some(true),
    };
    if header.name.is_empty() {
        fields.missing_with("name", format!("{path} missing required Name field"));
    }
    let texts = [&header.exact, &header.prefix, &header.suffix, &header.contains];
    let by_text = texts.into_iter().filter(|text| !text.is_empty()).count();
    if usize::from(header.present) + by_text + usize::from(!header.regex.is_empty()) != 1 {
        let summary =
            format!("{path} should only contain one of Present, Exact, Prefix, Suffix, Contains, or Regex");
        fields.fault("bad-value", summary, span);
    }
    if header.ignore_case && by_text == 0 {
        let summary =
            format!("{path} should set one of Exact, Prefix, Suffix, or Contains when using IgnoreCase");
        fields.fault("bad-value", summary, span);
    }
    fields.finish();
    header
}
