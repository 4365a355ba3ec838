//! Config entries as surfaces take them: text into records, and one commit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use schema::config::entry::{self, Entries, Stage};
use schema::document::Syntax;
use schema::record::{Record, RecordKey};

use super::ApiState;
use crate::apply::{ApplyError, EntryEdit, EntryOutcome};
use crate::authorize::Permit;
use crate::observe::entry::EntryKey;
use crate::store::Revision;

/// Bodies beyond this are read on a thread of their own, which other requests need not wait for.
const LONG: usize = 64 * 1024;
/// How long an answer waits for what decides to have seen what was written.
const SEEN_WITHIN: Duration = Duration::from_secs(2);

/// Why a text is no config entry that can be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    pub stage: Stage,
    /// The entry that is at fault, where that can be told.
    pub entry: Option<(&'static str, String)>,
    pub text: String,
}

/// An entry and what it says.
pub type Parsed = (EntryKey, BTreeMap<RecordKey, Record>);

/// The one entry that `body` holds.
pub async fn one(body: Bytes) -> Result<Parsed, Unfit> {
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
        return Err(decoding(
            "a config entry is an object, and not an array. `comity config write` takes an array",
        ));
    }
    let mut entries = all(body).await?;
    match (entries.pop(), entries.is_empty()) {
        (Some(entry), true) => Ok(entry),
        (None, _) => Err(decoding("EOF")),
        (Some(_), false) => Err(decoding(
            "there are several config entries in the body, and one is taken at a time; `comity config write` writes \
             several at once",
        )),
    }
}

/// Every entry that `body` holds, one after the other.
pub async fn all(body: Bytes) -> Result<Vec<Parsed>, Unfit> {
    if body.len() <= LONG {
        return parse(&body);
    }
    let parsed = tokio::task::spawn_blocking(move || parse(&body)).await;
    parsed.unwrap_or_else(|_| Err(decoding("it could not be read")))
}

/// Makes the edits, and waits until what decides about connections has seen them, so that who asks next sees them too.
pub async fn write(
    state: &ApiState,
    edits: Vec<(Permit, EntryEdit)>,
) -> Result<Vec<EntryOutcome>, ApplyError> {
    let outcomes = state.apply.edit_entries(edits).await?;
    let written = outcomes.iter().filter_map(|outcome| match outcome {
        EntryOutcome::Written(revision) => Some(*revision),
        EntryOutcome::Same | EntryOutcome::Stale => None,
    });
    if let Some(revision) = written.max() {
        seen(state, revision).await;
    }
    Ok(outcomes)
}

async fn seen(state: &ApiState, revision: Revision) {
    let mut views = state.catalog.subscribe();
    // What is late is only late: it was written.
    let _ = tokio::time::timeout(SEEN_WITHIN, views.wait_for(|view| view.revision >= revision)).await;
}

fn parse(body: &[u8]) -> Result<Vec<Parsed>, Unfit> {
    let Some(first) = body.iter().find(|byte| !byte.is_ascii_whitespace()) else {
        return Err(decoding("EOF"));
    };
    let is_json = matches!(first, b'{' | b'[' | b'"');
    let is_one_line = !is_json && !body.contains(&b'\n');
    if is_one_line && has_line_comment(body) {
        // Everything behind it would be passed over, and an entry without it may mean the opposite.
        return Err(decoding(&format!(
            "a comment hides the rest of the one line that was sent. {DATA_BINARY}"
        )));
    }
    let syntax = if is_json { Syntax::Json } else { Syntax::Hcl };
    let Entries { entries, faults, .. } = entry::entries(&Arc::from("body"), body, syntax);
    if let Some((stage, mut text)) = entry::told(&faults) {
        if is_one_line {
            text = format!("{text} {DATA_BINARY}");
        } else if !is_json {
            text = format!("{text} (The body was read as HCL: JSON begins with a brace.)");
        }
        return Err(Unfit { stage, entry: None, text });
    }
    let mut parsed = Vec::with_capacity(entries.len());
    for read in entries {
        let word = EntryKey::KINDS.into_iter().find(|(_, kind)| *kind == read.entry.kind);
        let told = entry::told(&read.faults);
        let key = EntryKey::new(read.entry.kind, &read.entry.name);
        match (told, key) {
            (None, Some(key)) => parsed.push((key, read.entry.records)),
            // A name that no entry can have is a fault already.
            (told, _) => {
                let (stage, text) =
                    told.unwrap_or((Stage::Validation, format!("{:?} is no name", read.entry.name)));
                let entry = word.map(|(word, _)| (word, read.entry.name));
                return Err(Unfit { stage, entry, text });
            }
        }
    }
    Ok(parsed)
}

const DATA_BINARY: &str = "The body is HCL in one line: `curl --data` takes line ends out of a file. Send it with \
                           --data-binary, or write it with `comity config write`.";

fn decoding(text: &str) -> Unfit {
    Unfit { stage: Stage::Decoding, entry: None, text: text.to_owned() }
}

/// Whether a comment that only a line end would close begins outside of all strings.
fn has_line_comment(line: &[u8]) -> bool {
    let (mut quoted, mut at) = (false, 0);
    while at < line.len() {
        match (quoted, line[at], line.get(at + 1)) {
            (true, b'\\', _) => at += 1,
            (_, b'"', _) => quoted = !quoted,
            (false, b'#', _) | (false, b'/', Some(b'/')) => return true,
            (false, b'/', Some(b'*')) => {
                let Some(end) = line[at + 2..].windows(2).position(|pair| pair == b"*/") else {
                    return false;
                };
                at += 2 + end + 1;
            }
            _ => {}
        }
        at += 1;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTENTIONS: &str = "Kind = \"service-intentions\"\nName = \"backend\"\nSources = [\n  {\n    Name = \"frontend\"\n    \
                              Peer = \"west\"\n    Action = \"allow\"\n  }\n]\n";

    #[test]
    fn hcl_is_read_with_and_without_its_line_ends() {
        let whole = parse(INTENTIONS.as_bytes()).unwrap();
        let stripped = parse(INTENTIONS.replace('\n', "").as_bytes()).unwrap();
        assert_eq!(whole, stripped);
        assert_eq!(whole[0].1.len(), 1);
    }

    #[test]
    fn a_comment_that_swallowed_the_rest_is_told_of() {
        let text = "Kind = \"exported-services\"\nName = \"default\"\n## What peers see, \"west\" above all\nServices = [{ Name = \
                    \"ab\", Consumers = [{ Peer = \"west\" }] }]\n";
        assert!(parse(text.as_bytes()).is_ok());
        let unfit = parse(text.replace('\n', "").as_bytes()).unwrap_err();
        assert!(unfit.stage == Stage::Decoding && unfit.text.contains("--data-binary"), "{unfit:?}");
        for (line, has) in [
            ("a = \"#\"", false),
            ("a = \"\\\"#\" // x", true),
            ("a /* # */ = 1", false),
            ("a = 1 # x", true),
        ] {
            assert_eq!(has_line_comment(line.as_bytes()), has, "{line}");
        }
    }

    #[test]
    fn an_empty_body_and_one_that_is_no_entry_are_told_apart() {
        assert_eq!(parse(b" \n").unwrap_err(), decoding("EOF"));
        let unfit = parse(br#"{"Kind":"mesh","Name":"mesh"}"#).unwrap_err();
        assert!(unfit.text.contains("mesh"), "{unfit:?}");
        let unfit = parse(br#"{"Kind":"service-intentions","Name":"web"}"#).unwrap_err();
        assert_eq!(unfit.entry, Some(("service-intentions", "web".to_owned())));
        assert_eq!(
            (unfit.stage, unfit.text.as_str()),
            (Stage::Validation, "At least one source is required")
        );
        assert!(parse(b"hello").is_err());
    }
}
