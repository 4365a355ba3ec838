//! From a document to what its declarations come to, kind by kind.

use crate::diagnostic::nearest::suggestion;
use crate::diagnostic::secret::{looks_secret, quoted};
use crate::diagnostic::{Diagnostic, Faults};
use crate::document::{Block, Content, Document, Node, Span, Table, Value, is_kind};
use crate::kind::fields::{Form, label_text};
use crate::kind::{self, Declaration, Decoded, Kind};

/// Config entry kinds of Consul that are taken, with ours.
const ENTRY_KINDS: [(&str, Kind); 4] = [
    ("exported-services", Kind::ExportedServices),
    ("service-intentions", Kind::ServiceIntentions),
    ("sameness-group", Kind::SamenessGroup),
    ("service-defaults", Kind::ServiceDefaults),
];

/// Those that Consul has besides.
const OTHER_ENTRY_KINDS: [&str; 15] = [
    "proxy-defaults",
    "service-router",
    "service-splitter",
    "service-resolver",
    "ingress-gateway",
    "terminating-gateway",
    "mesh",
    "api-gateway",
    "bound-api-gateway",
    "http-route",
    "tcp-route",
    "file-system-certificate",
    "inline-certificate",
    "jwt-provider",
    "control-plane-request-limit",
];

/// Whether Consul has a config entry kind of this name.
pub fn is_known_kind(word: &str) -> bool {
    ENTRY_KINDS.iter().any(|(name, _)| *name == word) || OTHER_ENTRY_KINDS.contains(&word)
}

/// Every declaration of a document, decoded, with its place.
pub fn decode(document: &Document, faults: &mut Faults) -> Vec<(Span, Decoded)> {
    match &document.content {
        Content::Blocks(blocks) => {
            blocks.iter().filter_map(|block| Some((block.header, decode_block(block, faults)?))).collect()
        }
        Content::Entries(tables) => tables
            .iter()
            .filter_map(|table| decode_entry(table, faults))
            .map(|entry| (entry.header, entry.decoded))
            .collect(),
    }
}

fn decode_block(block: &Block, faults: &mut Faults) -> Option<Decoded> {
    let word = &block.kind;
    let Some(kind) = Kind::from_word(&word.text) else {
        let words = Kind::ALL.map(Kind::as_str);
        let summary = format!("unknown kind {}{}", quoted(&word.text), suggestion(&word.text, words));
        let mut fault = Diagnostic::error("unknown-kind", summary, Some(faults.at(word.span)))
            .detail(format!("A block is one of {}, or locals.", words.join(", ")));
        if looks_secret(&word.text) {
            fault = fault.hiding_source();
        }
        faults.push(fault);
        return None;
    };
    let [label] = &block.labels[..] else {
        let summary = format!("a {kind} has one name: {kind} \"NAME\" {{ … }}");
        faults.error("name-count", summary, block.header);
        return None;
    };
    let declaration =
        Declaration { form: Form::Block, name: label_text(label), header: block.header, table: &block.body };
    Some(kind::decode(kind, &declaration, faults))
}

/// A config entry, decoded.
pub struct DecodedEntry {
    pub kind: Kind,
    pub name: String,
    pub header: Span,
    pub decoded: Decoded,
}

/// Decodes one config entry; `None` if not even its kind and name can be told.
pub fn decode_entry(table: &Table, faults: &mut Faults) -> Option<DecodedEntry> {
    let Some((_, word)) = table.0.iter().find(|(key, _)| is_kind(&key.text)) else {
        let at = table.0.first().map_or(Span::default(), |(key, _)| key.span);
        faults.error("no-kind", "Payload does not contain a kind/Kind key at the top level", at);
        return None;
    };
    let kind = entry_kind(word, faults)?;
    let table = weak_table(table);
    let name = table.0.iter().find(|(key, _)| Form::Entry.spells(&key.text, "name"));
    let (text, header) = match name {
        Some((_, node @ Node { value: Value::String(text), .. })) => (text.clone(), node.span),
        Some((_, Node { value: Value::Faulty, .. })) => return None,
        Some((_, node)) => {
            faults.error("wrong-type", format!("Name is a string, not {}", node.value.noun()), node.span);
            return None;
        }
        None => (String::new(), word.span),
    };
    let label = crate::document::Key { text, span: header };
    let declaration = Declaration { form: Form::Entry, name: label_text(&label), header, table: &table };
    let decoded = kind::decode(kind, &declaration, faults);
    Some(DecodedEntry { kind, name: label.text, header, decoded })
}

fn entry_kind(word: &Node, faults: &mut Faults) -> Option<Kind> {
    if word.value == Value::Faulty {
        return None;
    }
    let Value::String(text) = &word.value else {
        faults.error("wrong-type", "Kind value in payload is not a string", word.span);
        return None;
    };
    if let Some((_, kind)) = ENTRY_KINDS.iter().find(|(name, _)| name == text) {
        return Some(*kind);
    }
    let at = Some(faults.at(word.span));
    let taken = "Taken are exported-services, service-intentions, sameness-group and service-defaults.";
    let mut fault = if OTHER_ENTRY_KINDS.contains(&text.as_str()) {
        Diagnostic::error("not-taken", format!("config entries of kind {text:?} are not taken yet"), at)
            .detail(taken)
    } else {
        let kinds = ENTRY_KINDS.iter().map(|(name, _)| *name).chain(OTHER_ENTRY_KINDS);
        let summary = format!("invalid config entry kind: {}{}", bare(text), suggestion(text, kinds));
        Diagnostic::error("unknown-kind", summary, at).detail(taken)
    };
    if looks_secret(text) {
        fault = fault.hiding_source();
    }
    faults.push(fault);
    None
}

/// Without quotes, as Consul has it, unless it must be hidden or cut.
fn bare(text: &str) -> String {
    let shown = quoted(text);
    if shown.len() == text.len() + 2 { text.to_owned() } else { shown }
}

/// An entry's scalars as strings, which all of its fields are or may be written as: Consul types them weakly.
fn weak_table(table: &Table) -> Table {
    Table(table.0.iter().map(|(key, node)| (key.clone(), weak(node))).collect())
}

fn weak(node: &Node) -> Node {
    let value = match &node.value {
        Value::Bool(value) => Value::String(value.to_string()),
        Value::Integer(integer) => Value::String(integer.to_string()),
        Value::Float(float) => Value::String(float.to_string()),
        Value::List(items) => Value::List(items.iter().map(weak).collect()),
        Value::Table(table) => Value::Table(weak_table(table)),
        other => other.clone(),
    };
    Node { span: node.span, origin: node.origin, value }
}
