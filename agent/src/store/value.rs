//! What is kept under a key: versioned JSON, `{"v":1,"data":…}`.
//!
//! The version is the envelope's and the record's at once; a later form is read by a migration here and written
//! when the record is next changed, never by a sweep, which would wake every watcher. Errors tell the place in the
//! text, never the text: a value may hold what a log must not.

use schema::name::ManifestName;
use schema::record::Record;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Entry;

/// The version written by this program.
const VERSION: u32 = 1;

/// The value of a `/declared/` key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declared {
    /// The manifest that declared it; `None` for what was made by hand or through a compat surface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<ManifestName>,
    /// The file that declared it, as its apply named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    pub record: Record,
}

impl Declared {
    /// What no manifest declares.
    pub fn by_hand(record: Record) -> Self {
        Self { owner: None, file: None, record }
    }
}

/// Why a value could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ValueError {
    #[error("the value of {key} was written by a newer version (form {found}, this program knows {VERSION})")]
    Newer { key: String, found: u32 },
    #[error("the value of {key} is damaged: {category} at column {column}")]
    Damaged { key: String, category: &'static str, column: usize },
}

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    v: u32,
    data: T,
}

/// The stored form of `data`.
pub fn encode<T: Serialize>(data: &T) -> Vec<u8> {
    // JSON fails only on a map whose key is no string and on a `Serialize` that reports an error of its own. What is
    // stored is made of derived structs, names and strings, which do neither; the tests of each kind hold that.
    serde_json::to_vec(&Envelope { v: VERSION, data }).expect("stored types are plain data")
}

/// What `entry` holds.
pub fn decode<T: DeserializeOwned>(entry: &Entry) -> Result<T, ValueError> {
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    match serde_json::from_slice::<Envelope<T>>(&entry.value) {
        Ok(envelope) if envelope.v == VERSION => Ok(envelope.data),
        Ok(envelope) => Err(ValueError::Newer { key: entry.key.clone(), found: envelope.v }),
        // A newer form may not even fit the type; say so rather than "damaged".
        Err(error) => match serde_json::from_slice::<Version>(&entry.value) {
            Ok(version) if version.v > VERSION => {
                Err(ValueError::Newer { key: entry.key.clone(), found: version.v })
            }
            _ => Err(ValueError::Damaged {
                key: entry.key.clone(),
                category: match error.classify() {
                    serde_json::error::Category::Io => "unreadable",
                    serde_json::error::Category::Syntax => "not JSON",
                    serde_json::error::Category::Data => "unexpected content",
                    serde_json::error::Category::Eof => "cut short",
                },
                column: error.column(),
            }),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Revision;

    fn entry(value: &[u8]) -> Entry {
        Entry {
            key: "/declared/volume/default/orders".to_owned(),
            value: value.into(),
            create_revision: Revision(1),
            modify_revision: Revision(1),
        }
    }

    #[test]
    fn survives_and_names_its_version() {
        let declared = Declared::by_hand(Record::Volume(schema::kind::volume::Volume::default()));
        let bytes = encode(&declared);
        assert_eq!(String::from_utf8_lossy(&bytes), r#"{"v":1,"data":{"record":{"volume":{}}}}"#);
        assert_eq!(decode::<Declared>(&entry(&bytes)).unwrap(), declared);
    }

    #[test]
    fn faults_never_repeat_the_value() {
        let message = decode::<Declared>(&entry(br#"{"v":1,"data":"hunter2"}"#)).unwrap_err().to_string();
        assert!(message.contains("unexpected content") && !message.contains("hunter2"), "{message}");
        let newer = decode::<Declared>(&entry(br#"{"v":2,"data":"hunter2"}"#)).unwrap_err();
        assert!(matches!(newer, ValueError::Newer { found: 2, .. }));
    }
}
