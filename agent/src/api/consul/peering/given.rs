//! What a request about a peering gives, and whether it will do: Consul's rules in its words.

use std::collections::BTreeMap;

use schema::name::LinkName;

use super::super::answer::ConsulError;

const MOST_META: usize = 64;
const LONGEST_KEY: usize = 128;
const LONGEST_VALUE: usize = 512;
const RESERVED: &str = "consul-";
const LONGEST_NAME: usize = 63;
/// Longest part of something wrong that a message repeats.
const SHOWN: usize = 100;

/// A name that a peering may be given, which is less than what names links.
pub fn name(text: &str) -> Result<LinkName, ConsulError> {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let good = (1..=LONGEST_NAME).contains(&text.len())
        && text.bytes().all(|byte| letter(byte) || byte == b'-')
        && text.bytes().next().is_some_and(letter)
        && text.bytes().next_back().is_some_and(letter);
    let parsed = if good { text.parse().ok() } else { None };
    parsed.ok_or_else(|| {
        ConsulError::refused(format!(
            "{} is not a valid peer name: a valid peering name must consist of lower case alphanumeric characters or \
             '-', and must start and end with an alphanumeric character",
            shortened(text)
        ))
    })
}

/// The one partition may be named.
pub fn partition(text: &str) -> Result<(), ConsulError> {
    if matches!(text, "" | super::DEFAULT) {
        return Ok(());
    }
    let message =
        format!("Invalid Partition {:?} - Partitions are a Consul Enterprise feature", shortened(text));
    Err(ConsulError::bad_request(message))
}

pub fn meta(meta: &BTreeMap<String, String>) -> Result<(), ConsulError> {
    let invalid = |why: String| ConsulError::refused(format!("meta tags failed validation: {why}"));
    if meta.len() > MOST_META {
        return Err(invalid(format!("Node metadata cannot contain more than {MOST_META} key/value pairs")));
    }
    for (key, value) in meta {
        if let Some(why) = fault(key, value) {
            let (key, value) = (shortened(key), shortened(value));
            return Err(invalid(format!("Couldn't load metadata pair ('{key}', '{value}'): {why}")));
        }
    }
    Ok(())
}

fn fault(key: &str, value: &str) -> Option<String> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if key.is_empty() {
        Some("Key cannot be blank".to_owned())
    } else if !key.bytes().all(known) {
        Some("Key contains invalid characters".to_owned())
    } else if key.len() > LONGEST_KEY {
        Some(format!("Key is too long (limit: {LONGEST_KEY} characters)"))
    } else if key.starts_with(RESERVED) {
        Some(format!("Key prefix '{RESERVED}' is reserved for internal use"))
    } else if value.len() > LONGEST_VALUE {
        Some(format!("Value is too long (limit: {LONGEST_VALUE} characters)"))
    } else {
        None
    }
}

fn shortened(text: &str) -> String {
    let mut shown: String = text.chars().filter(|c| !c.is_control()).take(SHOWN).collect();
    if text.chars().count() > SHOWN {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_consul_takes() {
        for good in ["a", "west-dc", "1abc", &"a".repeat(63)] {
            name(good).unwrap();
        }
        for bad in ["", "-a", "a-", "West", "cluster_b", "a.b", "a b", &"a".repeat(64)] {
            let refused = name(bad).unwrap_err();
            assert_eq!(refused.status.as_u16(), 500);
            assert!(refused.message.contains("must start and end with an alphanumeric"), "{bad}");
        }
    }

    #[test]
    fn meta_is_refused_in_consuls_words() {
        let pair = |key: &str, value: &str| meta(&[(key.to_owned(), value.to_owned())].into());
        pair("env", "prod").unwrap();
        for (key, value, why) in [
            ("", "v", "Couldn't load metadata pair ('', 'v'): Key cannot be blank"),
            ("a b", "v", "Key contains invalid characters"),
            (&"k".repeat(129), "v", "Key is too long (limit: 128 characters)"),
            ("consul-x", "v", "Key prefix 'consul-' is reserved for internal use"),
            ("k", &"v".repeat(513), "Value is too long (limit: 512 characters)"),
        ] {
            let refused = pair(key, value).unwrap_err().message;
            assert!(
                refused.starts_with("meta tags failed validation: ") && refused.ends_with(why),
                "{refused}"
            );
        }
        let many = (0..65).map(|number| (format!("k{number}"), String::new())).collect();
        assert_eq!(
            meta(&many).unwrap_err().message,
            "meta tags failed validation: Node metadata cannot contain more than 64 key/value pairs"
        );
    }
}
