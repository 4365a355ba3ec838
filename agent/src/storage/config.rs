//! LXD's keys of a storage pool.

use std::collections::BTreeMap;

use schema::diagnostic::nearest::nearest;
use schema::kind::volume::config as volume;

/// Where the pool is; said when it is made and never again.
pub const SOURCE: &str = "source";
/// LXD's note of what was said.
pub const INITIAL_SOURCE: &str = "volatile.initial_source";
pub const COMPRESSION: &str = "rsync.compression";
pub const BANDWIDTH: &str = "rsync.bwlimit";
/// What volumes of the pool get that do not say otherwise when they are made.
const VOLUME: &str = "volume.";
const USER: &str = "user.";
const MAX_KEY: usize = 200;
const MAX_VALUE: usize = 64 * 1024;
const MAX_KEYS: usize = 1000;

/// Why something cannot be set. The value is never repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("Invalid option for storage pool: {key:?}{}", near.map(|near| format!(", did you mean {near:?}?")).unwrap_or_default())]
    Unknown { key: String, near: Option<&'static str> },
    #[error("Invalid value for option {key:?} of the storage pool: {why}")]
    Value { key: String, why: String },
    #[error(
        "A key has at most {MAX_KEY} bytes and a value at most {MAX_VALUE}, and a pool at most {MAX_KEYS} keys"
    )]
    TooLarge,
}

/// Checks what a pool is to be set to. Keys that are set to nothing are left out.
pub fn read(
    pairs: impl IntoIterator<Item = (String, String)>,
) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut config = BTreeMap::new();
    for (key, value) in pairs {
        if key.len() > MAX_KEY || value.len() > MAX_VALUE || config.len() >= MAX_KEYS {
            return Err(ConfigError::TooLarge);
        }
        check(&key, &value)?;
        if !value.is_empty() {
            config.insert(key, value);
        }
    }
    Ok(config)
}

fn check(key: &str, value: &str) -> Result<(), ConfigError> {
    let shown = || key.chars().take(64).collect::<String>();
    let wrong = |why: String| Err(ConfigError::Value { key: shown(), why });
    match key {
        SOURCE | INITIAL_SOURCE => Ok(()),
        COMPRESSION if value.is_empty() || is_truth(value) => Ok(()),
        COMPRESSION => wrong("it is true or false".to_owned()),
        BANDWIDTH if value.is_empty() || volume::size(value).is_some() => Ok(()),
        BANDWIDTH => wrong("it is a number of bytes a second, such as 10MiB".to_owned()),
        _ if key.strip_prefix(USER).is_some_and(|rest| !rest.is_empty()) => Ok(()),
        _ => match key.strip_prefix(VOLUME).map(|of_volume| volume::check(of_volume, value)) {
            Some(Ok(())) => Ok(()),
            Some(Err(volume::ConfigError::Unknown { .. })) | None => {
                let near = nearest(key, [SOURCE, COMPRESSION, BANDWIDTH]);
                Err(ConfigError::Unknown { key: shown(), near })
            }
            Some(Err(why)) => wrong(why.to_string()),
        },
    }
}

/// What a volume is set to that is made in a pool: what it says, and the pool's usual for the rest.
pub fn of_new_volume(
    pool: &BTreeMap<String, String>,
    said: BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let usual =
        pool.iter().filter_map(|(key, value)| Some((key.strip_prefix(VOLUME)?.to_owned(), value.clone())));
    let mut config: BTreeMap<String, String> = usual.collect();
    config.extend(said);
    config.retain(|_, value| !value.is_empty());
    config
}

/// Most bytes of data that a volume is to have, where its configuration says so. Nothing is no limit, as with LXD.
pub fn size(of_volume: &BTreeMap<String, String>) -> Option<u64> {
    of_volume.get("size").and_then(|size| volume::size(size)).filter(|size| *size > 0)
}

/// Whether a text is one of LXD's words for true or false.
fn is_truth(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    ["true", "1", "yes", "on", "false", "0", "no", "off"].contains(&lower.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_one(key: &str, value: &str) -> Result<BTreeMap<String, String>, String> {
        read([(key.to_owned(), value.to_owned())]).map_err(|error| error.to_string())
    }

    #[test]
    fn only_what_is_known_and_makes_sense_is_taken() {
        assert!(read_one("rsync.compression", "false").is_ok() && read_one("rsync.bwlimit", "10MiB").is_ok());
        assert!(read_one("volume.snapshots.expiry", "1w").is_ok() && read_one("user.x", "1").is_ok());
        assert!(read_one("user.x", "").unwrap().is_empty());
        assert_eq!(
            read_one("rsync.compresion", "true").unwrap_err(),
            "Invalid option for storage pool: \"rsync.compresion\", did you mean \"rsync.compression\"?"
        );
        for (key, value) in
            [("zfs.pool_name", "x"), ("volume.zfs", "x"), ("rsync.bwlimit", "fast"), ("volume.size", "big")]
        {
            assert!(read_one(key, value).is_err(), "{key}");
        }
    }

    #[test]
    fn a_new_volume_gets_what_it_does_not_say() {
        let pairs = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let pool = pairs(&[("volume.size", "1GiB"), ("volume.snapshots.expiry", "1w"), ("source", "/x")]);
        let said = pairs(&[("size", "2GiB"), ("user.x", "")]);
        assert_eq!(of_new_volume(&pool, said), pairs(&[("size", "2GiB"), ("snapshots.expiry", "1w")]));
        assert_eq!(size(&pairs(&[("size", "2KiB")])), Some(2048));
        assert_eq!((size(&pairs(&[("size", "0")])), size(&pool)), (None, None));
    }
}
