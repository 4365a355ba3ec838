//! `volume "POOL/NAME" {}`: a custom storage volume (LXD: storage volume of type custom).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::fields::{Place, bad_name};
use super::{Declaration, Decoded};
use crate::diagnostic::Faults;
use crate::record::{Record, RecordKey};

/// A volume as declared; pool and name are in the record's key. Its data is never part of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Volume {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// LXD's keys of a custom volume: `size`, `snapshots.*`, `user.*`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<String, String>,
}

/// Decodes one block.
pub fn decode(declaration: &Declaration<'_>, faults: &mut Faults) -> Decoded {
    let root = Place::Root(declaration.form);
    let mut decoded = Decoded::default();
    let key = parse_label(declaration, faults);
    let mut fields = declaration.fields(&root, faults);
    let volume = Volume { description: fields.string("description"), config: BTreeMap::new() };
    fields.finish();
    if let Some(key) = key {
        decoded.record(key, Record::Volume(volume), declaration.header);
    }
    decoded
}

fn parse_label(declaration: &Declaration<'_>, faults: &mut Faults) -> Option<RecordKey> {
    let label = declaration.name;
    let Some((pool, volume)) = label.text.split_once('/') else {
        let message = "a volume is named POOL/NAME, such as \"default/orders\"";
        if crate::diagnostic::secret::looks_secret(label.text) {
            bad_name(
                faults,
                "the name of this volume",
                label,
                &crate::name::NameError::TooLong(label.text.len()),
            );
        } else {
            faults.error("bad-name", message, label.span);
        }
        return None;
    };
    let mut tell = |error| bad_name(faults, "the name of this volume", label, &error);
    match (pool.parse(), volume.parse()) {
        (Ok(pool), Ok(volume)) => Some(RecordKey::Volume { pool, volume }),
        (Err(error), _) | (_, Err(error)) => {
            tell(error);
            None
        }
    }
}
