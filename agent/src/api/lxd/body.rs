//! Request bodies under `/1.0`: an object with known keys.
//!
//! A key that nobody reads is refused where it matters: whoever mistypes `restricted` must not get what is unrestricted.

use schema::diagnostic::nearest::nearest;
use schema::diagnostic::secret::looks_secret;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::answer::LxdError;

/// Reads `body`, which may have these keys and no others. No value is ever repeated: it may be a token.
pub fn decode<T: DeserializeOwned>(body: &[u8], known: &[&str]) -> Result<T, LxdError> {
    let mut value = object(body)?;
    let Value::Object(fields) = &mut value else {
        return Err(LxdError::bad_request("Invalid request body: it must be a JSON object"));
    };
    if let Some(unknown) = fields.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(LxdError::bad_request(unknown_key(unknown, known)));
    }
    // Go's clients send what they have not as null.
    fields.retain(|_, value| !value.is_null());
    T::deserialize(&value)
        .map_err(|error| LxdError::bad_request(format!("Invalid request body: {}", kind_of(&error))))
}

/// Reads `body` as clients of any version send it: keys that are not known here are passed over. For what is no harm when it
/// is not understood.
pub fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, LxdError> {
    let mut value: Value =
        if body.is_empty() { Value::Object(serde_json::Map::new()) } else { object(body)? };
    if let Value::Object(fields) = &mut value {
        // Go's clients send what they have not as null.
        fields.retain(|_, value| !value.is_null());
    }
    T::deserialize(&value)
        .map_err(|error| LxdError::bad_request(format!("Invalid request body: {}", kind_of(&error))))
}

fn object(body: &[u8]) -> Result<Value, LxdError> {
    let value: Value = serde_json::from_slice(body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        LxdError::bad_request(format!("Invalid request body: not JSON at line {line} column {column}"))
    })?;
    if value.is_object() {
        Ok(value)
    } else {
        Err(LxdError::bad_request("Invalid request body: it must be a JSON object"))
    }
}

fn unknown_key(key: &str, known: &[&str]) -> String {
    if looks_secret(key) || key.len() > 100 {
        return "Unknown key in request body".to_owned();
    }
    match nearest(key, known.iter().copied()) {
        Some(near) => format!("Unknown key {key:?} in request body; did you mean {near:?}?"),
        None => format!("Unknown key {key:?} in request body"),
    }
}

/// What is wrong, without the value that serde puts into its message: `invalid type: string "…", expected a map`.
fn kind_of(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once("expected ") {
        Some((_, expected)) if !looks_secret(expected) && expected.len() < 100 => {
            format!("a value has the wrong type, expected {expected}")
        }
        _ => "a value has the wrong type".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct Body {
        name: String,
    }

    #[test]
    fn says_what_is_wrong_and_never_repeats_a_value() {
        let fault =
            |body: &str| decode::<Body>(body.as_bytes(), &["name", "restricted"]).unwrap_err().message;
        assert_eq!(fault(r#"{"nmae":"x"}"#), "Unknown key \"nmae\" in request body; did you mean \"name\"?");
        assert_eq!(fault("[1]"), "Invalid request body: it must be a JSON object");
        assert!(fault("{").starts_with("Invalid request body: not JSON"));
        for value in [r#"{"name":{"a":"topsecret"}}"#, r#"{"name":["topsecret"]}"#, r#"{"name":1}"#] {
            assert_eq!(fault(value), "Invalid request body: a value has the wrong type, expected a string");
        }
        let token = "eyJjbGllbnRfbmFtZSI6ImxhcHRvcCIsImZpbmdlcnByaW50IjoiYWJjIn0=";
        assert!(!fault(&format!(r#"{{"{token}":1}}"#)).contains("eyJ"));
    }
}
