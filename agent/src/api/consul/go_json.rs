//! JSON as Go's strict decoder takes it: keys in any case, unknown ones refused, null for nothing, and its words for
//! what is wrong. No value is ever repeated: it may be a token.
//!
//! A type to be read derives `Deserialize` with `#[serde(rename_all = "PascalCase", default)]`, and each name that a
//! field may have besides (snake_case, for some) is its `alias`. `flatten` would hide from here which keys are known.

use std::fmt;

use schema::diagnostic::secret::{looks_secret, without_tokens};
use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, Visitor};
use serde_json::{Map, Number, Value};

/// Longest key that a message repeats.
const LONGEST_KEY: usize = 100;

/// What is wrong, as Go words it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct GoJsonError(String);

impl de::Error for GoJsonError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(format!("json: {}", without_tokens(&message.to_string())))
    }
}

/// Reads `body` as a `T`.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, GoJsonError> {
    let value = serde_json::from_slice(body).map_err(|error| syntax(body, &error))?;
    T::deserialize(Decoder { value, place: &Place::default() })
}

fn syntax(body: &[u8], error: &serde_json::Error) -> GoJsonError {
    if body.iter().all(u8::is_ascii_whitespace) {
        return GoJsonError("EOF".to_owned());
    }
    if error.is_eof() {
        return GoJsonError("unexpected EOF".to_owned());
    }
    let (line, column) = (error.line(), error.column());
    let text = body.split(|byte| *byte == b'\n').nth(line.saturating_sub(1)).unwrap_or_default();
    let found = text.get(column.saturating_sub(1)).copied().filter(u8::is_ascii_graphic);
    GoJsonError(match found {
        Some(found) => format!("invalid character '{}' at line {line} column {column}", char::from(found)),
        None => format!("invalid JSON at line {line} column {column}"),
    })
}

/// Where in the document a value is, for messages.
#[derive(Debug, Default)]
struct Place<'a> {
    /// The type that the document is read as.
    root: &'a str,
    above: Option<&'a Place<'a>>,
    key: &'a str,
}

impl Place<'_> {
    fn path(&self) -> String {
        match self.above.map(Place::path) {
            Some(above) if !above.is_empty() => format!("{above}.{}", self.key),
            _ => self.key.to_owned(),
        }
    }
}

/// One value of the document.
struct Decoder<'a> {
    value: Value,
    place: &'a Place<'a>,
}

impl Decoder<'_> {
    fn mismatch(&self, wanted: &str) -> GoJsonError {
        let found = match &self.value {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let path = self.place.path();
        let into = match (self.place.root, path.as_str()) {
            (_, "") => "Go value".to_owned(),
            ("", path) => format!("Go struct field {path}"),
            (root, path) => format!("Go struct field {root}.{path}"),
        };
        GoJsonError(format!("json: cannot unmarshal {found} into {into} of type {wanted}"))
    }

    fn number(&self, wanted: &str) -> Result<Number, GoJsonError> {
        match &self.value {
            Value::Number(number) => Ok(number.clone()),
            Value::Null => Ok(Number::from(0)),
            _ => Err(self.mismatch(wanted)),
        }
    }

    fn map(self) -> Result<Map<String, Value>, GoJsonError> {
        match self.value {
            Value::Object(map) => Ok(map),
            Value::Null => Ok(Map::new()),
            _ => Err(self.mismatch("map[string]interface {}")),
        }
    }
}

macro_rules! unsigned {
    ($($method:ident $visit:ident $type:ty, $go:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, GoJsonError> {
            let number = self.number($go)?;
            let read = number.as_u64().and_then(|number| <$type>::try_from(number).ok());
            visitor.$visit(read.ok_or_else(|| self.mismatch($go))?)
        }
    )*};
}

macro_rules! signed {
    ($($method:ident $visit:ident $type:ty, $go:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, GoJsonError> {
            let number = self.number($go)?;
            let read = number.as_i64().and_then(|number| <$type>::try_from(number).ok());
            visitor.$visit(read.ok_or_else(|| self.mismatch($go))?)
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Decoder<'_> {
    type Error = GoJsonError;

    unsigned! {
        deserialize_u8 visit_u8 u8, "uint8";
        deserialize_u16 visit_u16 u16, "uint16";
        deserialize_u32 visit_u32 u32, "uint32";
        deserialize_u64 visit_u64 u64, "uint64";
        deserialize_u128 visit_u128 u128, "uint64";
    }

    signed! {
        deserialize_i8 visit_i8 i8, "int8";
        deserialize_i16 visit_i16 i16, "int16";
        deserialize_i32 visit_i32 i32, "int32";
        deserialize_i64 visit_i64 i64, "int";
        deserialize_i128 visit_i128 i128, "int";
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, GoJsonError> {
        self.value.deserialize_any(visitor).map_err(|error| unrepeated(&error))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, GoJsonError> {
        match self.value {
            Value::Bool(value) => visitor.visit_bool(value),
            Value::Null => visitor.visit_bool(false),
            _ => Err(self.mismatch("bool")),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, GoJsonError> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, GoJsonError> {
        visitor.visit_f64(self.number("float64")?.as_f64().unwrap_or_default())
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, GoJsonError> {
        self.deserialize_string(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, GoJsonError> {
        self.deserialize_string(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, GoJsonError> {
        match self.value {
            Value::String(value) => visitor.visit_string(value),
            Value::Null => visitor.visit_str(""),
            _ => Err(self.mismatch("string")),
        }
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, GoJsonError> {
        self.deserialize_string(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, GoJsonError> {
        self.deserialize_string(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, GoJsonError> {
        if self.value.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, GoJsonError> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, GoJsonError> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, GoJsonError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, GoJsonError> {
        match self.value {
            Value::Array(items) => visitor.visit_seq(Items { items: items.into_iter(), place: self.place }),
            Value::Null => visitor.visit_seq(Items { items: Vec::new().into_iter(), place: self.place }),
            _ => Err(self.mismatch("[]interface {}")),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, GoJsonError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, GoJsonError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, GoJsonError> {
        let place = self.place;
        let pairs: Vec<_> = self.map()?.into_iter().collect();
        visitor.visit_map(Object { pairs: pairs.into_iter(), value: None, place })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, GoJsonError> {
        if !matches!(self.value, Value::Object(_) | Value::Null) {
            return Err(self.mismatch(name));
        }
        let named = Place { root: name, above: None, key: "" };
        let place = if self.place.root.is_empty() { &named } else { self.place };
        let map = match self.value {
            Value::Object(map) => map,
            _ => Map::new(),
        };
        let mut pairs: Vec<(String, Value)> = Vec::with_capacity(map.len());
        for (key, value) in map {
            let exact = fields.iter().find(|field| **field == key);
            let field = exact.or_else(|| fields.iter().find(|field| field.eq_ignore_ascii_case(&key)));
            let Some(field) = field else { return Err(unknown(&key)) };
            // What is null keeps what it had, which is nothing.
            if value.is_null() {
                continue;
            }
            // Of two spellings of a key the later counts.
            pairs.retain(|(known, _)| known != field);
            pairs.push(((*field).to_owned(), value));
        }
        visitor.visit_map(Object { pairs: pairs.into_iter(), value: None, place })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, GoJsonError> {
        self.value.deserialize_enum(name, variants, visitor).map_err(|error| unrepeated(&error))
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, GoJsonError> {
        self.deserialize_string(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, GoJsonError> {
        visitor.visit_unit()
    }
}

fn unknown(key: &str) -> GoJsonError {
    if looks_secret(key) || key.len() > LONGEST_KEY {
        return GoJsonError("json: unknown field".to_owned());
    }
    GoJsonError(format!("json: unknown field {key:?}"))
}

/// serde's message without the value in it: `invalid type: string "…", expected a map`.
fn unrepeated(error: &serde_json::Error) -> GoJsonError {
    let text = error.to_string();
    let expected = text.rsplit_once("expected ").map(|(_, expected)| expected);
    match expected.filter(|expected| !looks_secret(expected) && expected.len() < LONGEST_KEY) {
        Some(expected) => GoJsonError(format!("json: cannot unmarshal a value, expected {expected}")),
        None => GoJsonError("json: cannot unmarshal a value".to_owned()),
    }
}

struct Items<'a> {
    items: std::vec::IntoIter<Value>,
    place: &'a Place<'a>,
}

impl<'de> de::SeqAccess<'de> for Items<'_> {
    type Error = GoJsonError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, GoJsonError> {
        let Some(value) = self.items.next() else { return Ok(None) };
        seed.deserialize(Decoder { value, place: self.place }).map(Some)
    }
}

struct Object<'a> {
    pairs: std::vec::IntoIter<(String, Value)>,
    value: Option<(String, Value)>,
    place: &'a Place<'a>,
}

impl<'de> de::MapAccess<'de> for Object<'_> {
    type Error = GoJsonError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, GoJsonError> {
        let Some((key, value)) = self.pairs.next() else { return Ok(None) };
        let read = seed.deserialize(StrDeserializer::<GoJsonError>::new(&key))?;
        self.value = Some((key, value));
        Ok(Some(read))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, GoJsonError> {
        // serde asks for a value after its key only.
        let (key, value) = self.value.take().unwrap_or_default();
        let place = Place { root: self.place.root, above: Some(self.place), key: &key };
        seed.deserialize(Decoder { value, place: &place })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct Inner {
        port: u16,
        tags: Vec<String>,
        #[serde(alias = "enable_tag_override")]
        enable_tag_override: Option<bool>,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename = "RegisterRequest", rename_all = "PascalCase", default)]
    struct Outer {
        peer_name: String,
        meta: BTreeMap<String, String>,
        inner: Inner,
        any: Value,
    }

    fn read(text: &str) -> Outer {
        decode(text.as_bytes()).unwrap()
    }

    #[test]
    fn keys_are_taken_in_any_case_and_null_is_nothing() {
        let read = read(
            r#"{"peername":"old","PEERNAME":"west","meta":{"K":"v"},"Any":{"x":[1]},
                "inner":{"port":80,"tags":null,"enable_tag_override":true}}"#,
        );
        assert_eq!((read.peer_name.as_str(), read.meta["K"].as_str()), ("west", "v"));
        let inner = Inner { port: 80, tags: vec![], enable_tag_override: Some(true) };
        assert_eq!((read.inner, read.any), (inner, serde_json::json!({"x": [1]})));
        assert_eq!(self::read("null"), Outer::default());
        assert_eq!(self::read(r#"{"PeerName":null,"Inner":null,"Meta":{"a":null}}"#).meta["a"], "");
    }

    #[test]
    fn what_is_wrong_is_said_in_gos_words() {
        let fault = |text: &str| decode::<Outer>(text.as_bytes()).unwrap_err().to_string();
        for (text, expected) in [
            ("", "EOF"),
            (" \n", "EOF"),
            (r#"{"PeerName":"#, "unexpected EOF"),
            (r#"{"Peer":"x"}"#, r#"json: unknown field "Peer""#),
            (r#"{"Inner":{"Foo":1}}"#, r#"json: unknown field "Foo""#),
            ("[]", "json: cannot unmarshal array into Go value of type RegisterRequest"),
            (
                r#"{"PeerName":1}"#,
                "json: cannot unmarshal number into Go struct field RegisterRequest.PeerName of type string",
            ),
            (
                r#"{"inner":{"port":"80"}}"#,
                "json: cannot unmarshal string into Go struct field RegisterRequest.Inner.Port of type uint16",
            ),
            (
                r#"{"Inner":{"Port":70000}}"#,
                "json: cannot unmarshal number into Go struct field RegisterRequest.Inner.Port of type uint16",
            ),
            ("Kind = 1", "invalid character 'K' at line 1 column 1"),
            (r#"{"PeerName":"a"} x"#, "invalid character 'x' at line 1 column 18"),
        ] {
            assert_eq!(fault(text), expected, "{text}");
        }
        let token = "eyJjbGllbnRfbmFtZSI6ImxhcHRvcCIsImZpbmdlcnByaW50IjoiYWJjIn0=";
        assert_eq!(fault(&format!(r#"{{"{token}":1}}"#)), "json: unknown field");
        assert!(!fault(&format!(r#"{{"Inner":"{token}"}}"#)).contains("eyJ"));
    }

    #[test]
    fn depth_has_a_limit() {
        let deep = format!(r#"{{"Any":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert!(decode::<Outer>(deep.as_bytes()).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_body_panics(body: Vec<u8>) {
            let _ = decode::<Outer>(&body);
        }

        #[test]
        fn no_json_panics(key in "[A-Za-z]{0,8}", number: i64, text: String) {
            for value in [serde_json::json!(number), serde_json::json!(text), serde_json::json!([text])] {
                let body = serde_json::json!({ "Inner": { &key: value }, &key: number });
                let _ = decode::<Outer>(body.to_string().as_bytes());
            }
        }
    }
}
