//! `meta` and its like: free keys with texts, within Consul's limits.

use std::collections::BTreeMap;

use super::fields::Fields;
use crate::diagnostic::secret::quoted;
use crate::document::Value;

const MAX_ENTRIES: usize = 64;
const MAX_KEY: usize = 128;
const MAX_VALUE: usize = 512;

/// The field `name`.
pub fn decode(fields: &mut Fields<'_, '_>, name: &'static str) -> BTreeMap<String, String> {
    let mut meta = BTreeMap::new();
    let Some((table, span)) = fields.table(name) else { return meta };
    let place = fields.place.field(name);
    if table.0.len() > MAX_ENTRIES {
        fields.fault("too-large", format!("{place} exceeds maximum element count {MAX_ENTRIES}"), span);
    }
    for (key, node) in &table.0 {
        if key.text.len() > MAX_KEY {
            let summary = format!("{place} key {} exceeds maximum length {MAX_KEY}", quoted(&key.text));
            fields.fault("too-large", summary, key.span);
        }
        let text = match &node.value {
            Value::String(text) => text.clone(),
            Value::Bool(value) => value.to_string(),
            Value::Integer(integer) => integer.to_string(),
            Value::Float(float) => float.to_string(),
            Value::Faulty => continue,
            Value::Null | Value::List(_) | Value::Table(_) => {
                fields.wrong_type(name, "an object of strings", node);
                continue;
            }
        };
        if text.len() > MAX_VALUE {
            let summary =
                format!("{place} value for key {} exceeds maximum length {MAX_VALUE}", quoted(&key.text));
            fields.fault("too-large", summary, node.span);
        }
        meta.insert(key.text.clone(), text);
    }
    meta
}
