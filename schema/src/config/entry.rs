//! Config entries on their own, as they are written to an agent: no manifest, no folder, one after the other.
//!
//! Consul tells two stages of a fault apart, and answers each with another status: what cannot be decoded, and what
//! is decoded and breaks a rule. The stage is told by the fault's code.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::declare;
use crate::diagnostic::{Diagnostic, Faults, Severity, Sources};
use crate::document::{self, Content, Syntax};
use crate::kind::Kind;
use crate::kind::entry::Entry as Rest;
use crate::record::{Record, RecordKey};

/// Largest config entry, or file of entries, bytes: 50,000 sources fit.
pub const MAX_ENTRY: usize = 8 * 1024 * 1024;

/// An entry and what it comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub kind: Kind,
    pub name: String,
    pub records: BTreeMap<RecordKey, Record>,
}

/// An entry with what is wrong with it; whole if that is nothing.
#[derive(Debug, Clone)]
pub struct ReadEntry {
    pub entry: Entry,
    pub faults: Vec<Diagnostic>,
}

/// What a text holds.
#[expect(clippy::struct_field_names, reason = "entries are what they are; any other word would say less")]
#[derive(Debug, Clone, Default)]
pub struct Entries {
    pub entries: Vec<ReadEntry>,
    /// Faults of the text, and of entries of which not even kind and name could be told.
    pub faults: Vec<Diagnostic>,
    /// What is worth saying and no fault.
    pub warnings: Vec<Diagnostic>,
    pub sources: Sources,
}

/// What kind of rule a fault breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// How an entry is written: syntax, keys, types.
    Decoding,
    /// What it may say.
    Validation,
}

/// Codes of faults in how an entry is written.
const DECODING: [&str; 13] = [
    "syntax",
    "no-kind",
    "unknown-kind",
    "unknown-key",
    "wrong-type",
    "not-taken",
    "duplicate-key",
    "nested-too-deep",
    "too-many-keys",
    "too-many-faults",
    "not-utf8",
    "file-too-large",
    "entry-count",
];

/// The stage at which `fault` is found.
pub fn stage(fault: &Diagnostic) -> Stage {
    if DECODING.contains(&fault.code) { Stage::Decoding } else { Stage::Validation }
}

/// Whether Consul has a kind of this name, taken here or not.
pub fn is_known_kind(word: &str) -> bool {
    declare::is_known_kind(word)
}

/// Reads the entries in `bytes`; `path` is what messages call them.
pub fn entries(path: &Arc<str>, bytes: &[u8], syntax: Syntax) -> Entries {
    let parsed = document::parse_entries(path, bytes, syntax, MAX_ENTRY);
    let mut read = Entries::default();
    read.sources.0.insert(Arc::clone(path), parsed.source);
    sort(parsed.diagnostics, &mut read.faults, &mut read.warnings);
    let tables = match parsed.document.map(|document| document.content) {
        Some(Content::Entries(tables)) => tables,
        _ => Vec::new(),
    };
    for table in &tables {
        let mut faults = Faults::new(path);
        match declare::decode_entry(table, &mut faults) {
            None => sort(faults.into_list(), &mut read.faults, &mut read.warnings),
            Some(decoded) => {
                let parts: Vec<RecordKey> =
                    decoded.decoded.records.iter().map(|part| part.key.clone()).filter(is_part).collect();
                let records = decoded.decoded.records.into_iter().map(|part| (part.key, part.record));
                let mut records = records.collect();
                note_order(parts, &mut records);
                let entry = Entry { kind: decoded.kind, name: decoded.name, records };
                let mut own = Vec::new();
                sort(faults.into_list(), &mut own, &mut read.warnings);
                read.entries.push(ReadEntry { entry, faults: own });
            }
        }
    }
    read
}

/// Whether the key names one of several parts of an entry.
fn is_part(key: &RecordKey) -> bool {
    matches!(key, RecordKey::Export(_) | RecordKey::Intention { .. })
}

/// Has the entry remember in which order its writer has the parts.
fn note_order(parts: Vec<RecordKey>, records: &mut BTreeMap<RecordKey, Record>) {
    let own = match parts.first() {
        Some(RecordKey::Export(_)) => RecordKey::ExportEntry,
        Some(RecordKey::Intention { destination, .. }) => RecordKey::IntentionEntry(destination.clone()),
        _ => return,
    };
    let mut rest = match records.get(&own) {
        Some(Record::ExportEntry(rest) | Record::IntentionEntry(rest)) => rest.clone(),
        _ => Rest::default(),
    };
    rest.note_order(parts);
    if rest.is_empty() {
        return;
    }
    let record = match own {
        RecordKey::ExportEntry => Record::ExportEntry(rest),
        _ => Record::IntentionEntry(rest),
    };
    records.insert(own, record);
}

fn sort(diagnostics: Vec<Diagnostic>, faults: &mut Vec<Diagnostic>, warnings: &mut Vec<Diagnostic>) {
    for diagnostic in diagnostics {
        match diagnostic.severity {
            Severity::Error => faults.push(diagnostic),
            Severity::Warning => warnings.push(diagnostic),
        }
    }
}

/// Faults as Consul words them: the unknown keys together, else the first, of how it is written before what it says.
/// `None` if there are none.
pub fn told(faults: &[Diagnostic]) -> Option<(Stage, String)> {
    let decoding = || faults.iter().filter(|fault| stage(fault) == Stage::Decoding);
    let keys: Vec<String> = decoding().filter(|fault| fault.code == "unknown-key").map(line).collect();
    if keys.len() > 1 && decoding().all(|fault| fault.code == "unknown-key") {
        let list: String = keys.iter().flat_map(|key| ["\t* ", key, "\n"]).collect();
        return Some((Stage::Decoding, format!("{} errors occurred:\n{list}\n", keys.len())));
    }
    let first = decoding().next().or(faults.first())?;
    Some((stage(first), line(first)))
}

/// One fault in a line.
fn line(fault: &Diagnostic) -> String {
    match fault.code {
        // Consul's words for it stand in the detail, with the whole path of the key.
        "unknown-key" if fault.detail.starts_with("invalid config key") => {
            fault.detail.lines().next().unwrap_or_default().to_owned()
        }
        "syntax" | "file-too-large" | "nested-too-deep" | "too-many-keys" | "bad-name"
            if !fault.detail.is_empty() =>
        {
            format!("{}: {}", fault.summary, fault.detail)
        }
        _ => fault.summary.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, syntax: Syntax) -> Entries {
        entries(&Arc::from("entry"), text.as_bytes(), syntax)
    }

    fn fault(text: &str) -> (Stage, String) {
        let read = read(text, Syntax::Json);
        let own = read.entries.into_iter().flat_map(|entry| entry.faults);
        told(&read.faults.into_iter().chain(own).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn several_entries_of_one_text_are_read_apart() {
        let hcl = r#"
            Kind = "service-intentions"
            Name = "web"
            Sources = [{ Name = "api", Action = "allow" }]

            Kind = "service-intentions"
            Name = "db"
            Sources = [{ Name = "web", Action = "deny" }]
        "#;
        let json = r#"{"Kind":"service-intentions","Name":"web","Sources":[{"Name":"api","Action":"allow"}]}
            {"Name":"db","Kind":"service-intentions","Sources":[{"Name":"web","Action":"deny"}]}"#;
        let list = format!(" [{}]\n", json.replacen("}\n", "},\n", 1));
        for (text, syntax) in [(hcl, Syntax::Hcl), (json, Syntax::Json), (&list, Syntax::Json)] {
            let read = read(text, syntax);
            assert!(read.faults.is_empty(), "{:?}", read.faults);
            let names: Vec<_> = read.entries.iter().map(|read| read.entry.name.as_str()).collect();
            assert_eq!(names, ["web", "db"]);
            assert!(read.entries.iter().all(|read| read.faults.is_empty() && read.entry.records.len() == 1));
        }
    }

    #[test]
    fn a_list_holds_entries_and_nothing_else() {
        assert!(read("[]", Syntax::Json).entries.is_empty());
        for (text, words) in [
            ("[1]", "Each config entry of a list is an object."),
            ("[] {}", "Nothing may follow the list."),
            ("[{}", "Expected `,` or `]` here, but the file ends."),
        ] {
            let faults = read(text, Syntax::Json).faults;
            assert!(faults.iter().any(|fault| fault.detail == words), "{text}: {faults:?}");
        }
    }

    #[test]
    fn a_declaration_is_known_for_one() {
        for (text, syntax, is_one) in [
            ("service_defaults \"web\" { protocol = \"http\" }", Syntax::Hcl, true),
            ("service \"a\" { port = env(\"PORT\") }", Syntax::Hcl, true),
            (r#"{"service_defaults": {"web": {"protocol": "http"}}}"#, Syntax::Json, true),
            ("[service_defaults.web]\nprotocol = \"http\"\n", Syntax::Toml, true),
            ("Kind = \"service-defaults\"\nName = \"web\"\n", Syntax::Hcl, false),
            ("Name = \"web\"\n", Syntax::Hcl, false),
            (r#"[{"service_defaults": {}}]"#, Syntax::Json, false),
        ] {
            assert_eq!(document::is_declaration(text.as_bytes(), syntax), is_one, "{text}");
        }
    }

    #[test]
    fn a_body_whose_line_ends_were_taken_away_is_still_read() {
        let text = r#"Kind = "service-intentions"Name = "backend-service"Sources = [  {    Name   = "frontend-service"    Peer   = "cluster-02"    Action = "allow"  }]"#;
        let read = read(text, Syntax::Hcl);
        assert!(read.faults.is_empty() && read.entries[0].faults.is_empty(), "{read:?}");
        assert_eq!(read.entries[0].entry.records.len(), 1);
    }

    #[test]
    fn a_fault_of_form_is_told_apart_from_one_of_meaning() {
        assert_eq!(fault("{").0, Stage::Decoding);
        assert_eq!(
            fault(r#"{"Name":"x"}"#),
            (Stage::Decoding, "Payload does not contain a kind/Kind key at the top level".to_owned())
        );
        let (stage, text) = fault(r#"{"Kind":"nope","Name":"x"}"#);
        assert!(stage == Stage::Decoding && text.starts_with("invalid config entry kind: nope"), "{text}");
        assert_eq!(
            fault(r#"{"Kind":"service-intentions","Name":"x","Foo":1,"Sources":[{"Bar":2,"Name":"a","Action":"allow"}]}"#),
            (
                Stage::Decoding,
                "2 errors occurred:\n\t* invalid config key \"Sources[0].Bar\"\n\t* invalid config key \"Foo\"\n\n".to_owned()
            )
        );
        assert_eq!(
            fault(r#"{"Kind":"service-intentions","Name":"x"}"#),
            (Stage::Validation, "At least one source is required".to_owned())
        );
    }
}
