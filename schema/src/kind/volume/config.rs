//! LXD's keys of a custom volume.

use crate::diagnostic::nearest::nearest;
use crate::snapshot::{Lifetime, Pattern, Schedule};

/// The keys that there are, besides `user.*` and `volatile.*`.
pub const KEYS: [&str; 6] = [
    "security.shifted",
    "security.unmapped",
    "size",
    "snapshots.expiry",
    "snapshots.pattern",
    "snapshots.schedule",
];
const MAX_KEY: usize = 200;
const MAX_VALUE: usize = 64 * 1024;
/// Most keys of one volume.
pub const MAX_KEYS: usize = 1000;

/// Why a key cannot be set. The value is never repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("there is no such key of a volume{}", near.map(|near| format!("; did you mean {near:?}?")).unwrap_or_default())]
    Unknown { near: Option<&'static str> },
    #[error("{0}")]
    Value(String),
    #[error("a key has at most {MAX_KEY} bytes and a value at most {MAX_VALUE}")]
    TooLong,
    #[error("\"volatile.\" keys are the agent's own")]
    Volatile,
}

/// Whether a volume can have `value` for `key`. Nothing is the same as not set.
pub fn check(key: &str, value: &str) -> Result<(), ConfigError> {
    if key.len() > MAX_KEY || value.len() > MAX_VALUE {
        return Err(ConfigError::TooLong);
    }
    if ["user.", "volatile."].iter().any(|prefix| key.len() > prefix.len() && key.starts_with(prefix)) {
        return Ok(());
    }
    if !KEYS.contains(&key) {
        return Err(ConfigError::Unknown { near: nearest(key, KEYS) });
    }
    if value.is_empty() {
        return Ok(());
    }
    let said = |error: &dyn std::fmt::Display| ConfigError::Value(error.to_string());
    match key {
        "size" => size(value).map(drop).ok_or_else(|| said(&SIZE)),
        "snapshots.expiry" => value.parse::<Lifetime>().map(drop).map_err(|e| said(&e)),
        "snapshots.pattern" => value.parse::<Pattern>().map(drop).map_err(|e| said(&e)),
        "snapshots.schedule" => match value.parse::<Schedule>() {
            Ok(schedule) if schedule.startup => Err(said(&"a volume is not started")),
            Ok(_) => Ok(()),
            Err(error) => Err(said(&error)),
        },
        _ => boolean(value).map(drop).ok_or_else(|| said(&"it is true or false")),
    }
}

const SIZE: &str = "it is a number of bytes, with a unit such as MiB or GB if you like";

/// A size in LXD's writing: `10GiB`, `5MB`, `512`.
pub fn size(text: &str) -> Option<u64> {
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(at);
    let one: u64 = match unit.trim_start() {
        "" | "B" | "bytes" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "PB" => 1_000_000_000_000_000,
        "EB" => 1_000_000_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "PiB" => 1 << 50,
        "EiB" => 1 << 60,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(one).filter(|bytes| i64::try_from(*bytes).is_ok())
}

fn boolean(text: &str) -> Option<bool> {
    match &*text.to_ascii_lowercase() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_and_makes_sense_is_taken() {
        for (key, value) in [
            ("size", "10GiB"),
            ("size", ""),
            ("security.shifted", "true"),
            ("snapshots.expiry", "1w"),
            ("snapshots.pattern", "snap%d"),
            ("snapshots.schedule", "@daily"),
            ("user.x", "anything"),
            ("volatile.uuid", "anything"),
        ] {
            assert_eq!(check(key, value), Ok(()), "{key}");
        }
        assert_eq!(
            check("snapshot.expiry", "1w"),
            Err(ConfigError::Unknown { near: Some("snapshots.expiry") })
        );
        for (key, value) in [
            ("size", "10 zettabytes"),
            ("size", "99EiB"),
            ("security.shifted", "perhaps"),
            ("snapshots.expiry", "soon"),
            ("snapshots.pattern", "a b"),
            ("snapshots.schedule", "@startup"),
            ("snapshots.schedule", "often"),
        ] {
            let error = check(key, value).unwrap_err();
            assert!(matches!(&error, ConfigError::Value(text) if !text.contains(value)), "{key}: {error}");
        }
        assert!(check("user.", "x").is_err());
    }
}
