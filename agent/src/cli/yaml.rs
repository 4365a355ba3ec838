//! YAML, as LXD's users read and edit it.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::CliError;

/// Largest document that is read; what is edited by hand is far smaller.
const MAX_TEXT: usize = 1024 * 1024;

/// A document, with a line end.
pub fn text(value: &impl Serialize) -> String {
    // Through JSON, so that a type's own order and words are those of `--format json`.
    let value = serde_json::to_value(value).unwrap_or_default();
    let mut text = serde_saphyr::to_string(&value).unwrap_or_default();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// Reads a document. A fault is told with its place, and without what stands there.
pub fn read<T: DeserializeOwned>(text: &str) -> Result<T, CliError> {
    let fault =
        |why: String| CliError::failed(format!("this is not what is expected here: {why}")).code("bad-yaml");
    if text.len() > MAX_TEXT {
        return Err(fault(format!("it is longer than {MAX_TEXT} bytes")));
    }
    let value: serde_json::Value = serde_saphyr::from_str(text).map_err(|error| match error.location() {
        Some(at) => fault(format!("not YAML at line {} column {}", at.line(), at.column())),
        None => fault("not YAML".to_owned()),
    })?;
    T::deserialize(value).map_err(|error| fault(error.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let value = json!({
            "description": "",
            "config": {"user.a": "yes", "user.b": "1", "user.c": "line\nline", "user.d": ": #"},
            "used_by": [],
            "groups": ["a", "b"],
            "on": true,
            "count": 3,
        });
        let text = text(&value);
        assert!(text.starts_with("description: \"\"\nconfig:\n  user.a: "), "{text}");
        assert_eq!(read::<Value>(&text).unwrap(), value);
    }

    #[test]
    fn a_fault_has_its_place() {
        let error = read::<Value>("a: [1\nb: }").unwrap_err();
        assert!(error.message.contains("line"), "{}", error.message);
    }
}
