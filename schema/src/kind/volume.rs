//! `volume "POOL/NAME" {}`: a custom storage volume (LXD: storage volume of type custom).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::fields::{Fields, Place, bad_name};
use super::{Declaration, Decoded};
use crate::diagnostic::Faults;
use crate::diagnostic::secret::quoted;
use crate::document::Value;
use crate::record::{Record, RecordKey};

pub mod config;

use config::ConfigError;

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
    let volume = Volume { description: fields.string("description"), config: config(&mut fields) };
    fields.finish();
    if let Some(key) = key {
        decoded.record(key, Record::Volume(volume), declaration.header);
    }
    decoded
}

/// The field `config`: LXD's keys, with texts, numbers or truths for values.
fn config(fields: &mut Fields<'_, '_>) -> BTreeMap<String, String> {
    let mut config = BTreeMap::new();
    let Some((table, span)) = fields.table("config") else { return config };
    if table.0.len() > config::MAX_KEYS {
        fields.fault("too-large", format!("config has more than {} keys", config::MAX_KEYS), span);
        return config;
    }
    for (key, node) in &table.0 {
        let text = match &node.value {
            Value::String(text) => text.clone(),
            Value::Bool(value) => value.to_string(),
            Value::Integer(integer) => integer.to_string(),
            Value::Faulty => continue,
            Value::Float(_) | Value::Null | Value::List(_) | Value::Table(_) => {
                fields.wrong_type("config", "an object of strings", node);
                continue;
            }
        };
        let checked = match config::check(&key.text, &text) {
            Ok(()) if key.text.starts_with("volatile.") => Err(ConfigError::Volatile),
            checked => checked,
        };
        match checked {
            Ok(()) if text.is_empty() => {}
            Ok(()) => {
                config.insert(key.text.clone(), text);
            }
            Err(error @ ConfigError::Value(_)) => {
                fields.fault("bad-value", format!("config key {}: {error}", quoted(&key.text)), node.span);
            }
            Err(error) => {
                fields.fault("unknown-key", format!("config key {}: {error}", quoted(&key.text)), key.span);
            }
        }
    }
    config
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
