//! What can be set of a project.

use std::collections::BTreeMap;

use schema::diagnostic::nearest::nearest;
use serde::{Deserialize, Serialize};

/// LXD's features: what a project has of its own. They are kept and shown; there is nothing here yet that projects
/// could share or not.
const FEATURES: [&str; 6] = [
    "features.images",
    "features.networks",
    "features.networks.zones",
    "features.profiles",
    "features.storage.buckets",
    "features.storage.volumes",
];
/// Those that LXD gives a project whose maker does not say.
const USUAL: [&str; 4] =
    ["features.images", "features.profiles", "features.storage.buckets", "features.storage.volumes"];
const RESTRICTED: &str = "restricted";
const USER: &str = "user.";
const MAX_KEY: usize = 200;
const MAX_VALUE: usize = 64 * 1024;
const MAX_KEYS: usize = 1000;

/// Keys that are all known, with values that make sense.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Config(BTreeMap<String, String>);

/// Why something cannot be set. The value is never repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("Invalid project configuration key {key:?}{}", near.map(|near| format!(", did you mean {near:?}?")).unwrap_or_default())]
    Unknown { key: String, near: Option<&'static str> },
    #[error("Invalid project configuration key {0:?} value: it is true or false")]
    Truth(String),
    #[error("A key has at most {MAX_KEY} bytes and a value at most {MAX_VALUE}")]
    TooLong,
    #[error("At most {MAX_KEYS} keys can be set")]
    TooMany,
}

impl Config {
    /// Every feature, as `default` has them.
    pub fn usual() -> Self {
        Self(FEATURES.into_iter().map(|key| (key.to_owned(), "true".to_owned())).collect())
    }

    /// Whether what could reach out of the project is refused there.
    pub fn is_restricted(&self) -> bool {
        self.0
            .get(RESTRICTED)
            .is_some_and(|value| matches!(&*value.to_ascii_lowercase(), "true" | "1" | "yes" | "on"))
    }

    /// Keys that are set to nothing are left out.
    pub fn read(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let mut config = BTreeMap::new();
        for (key, value) in pairs {
            if key.len() > MAX_KEY || value.len() > MAX_VALUE {
                return Err(ConfigError::TooLong);
            }
            let boolean = FEATURES.contains(&key.as_str()) || key == RESTRICTED;
            let users = key.strip_prefix(USER).is_some_and(|rest| !rest.is_empty());
            if !boolean && !users {
                let near = nearest(&key, FEATURES.into_iter().chain([RESTRICTED]));
                return Err(ConfigError::Unknown { key: key.chars().take(64).collect(), near });
            }
            let lower = value.to_ascii_lowercase();
            if boolean
                && !value.is_empty()
                && !["true", "1", "yes", "on", "false", "0", "no", "off"].contains(&lower.as_str())
            {
                return Err(ConfigError::Truth(key));
            }
            if !value.is_empty() {
                config.insert(key, value);
            }
        }
        if config.len() > MAX_KEYS { Err(ConfigError::TooMany) } else { Ok(Self(config)) }
    }

    /// With the features that a project has unless it is said otherwise when it is made.
    #[must_use]
    pub fn with_usual(mut self) -> Self {
        for key in USUAL {
            self.0.entry(key.to_owned()).or_insert_with(|| "true".to_owned());
        }
        self
    }

    pub fn entries(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(key: &str, value: &str) -> Result<Config, String> {
        Config::read([(key.to_owned(), value.to_owned())]).map_err(|error| error.to_string())
    }

    #[test]
    fn only_what_is_known_and_makes_sense_is_taken() {
        assert_eq!(
            read("features.image", "true").unwrap_err(),
            "Invalid project configuration key \"features.image\", did you mean \"features.images\"?"
        );
        assert!(read("restricted", "hunter2").unwrap_err().contains("true or false"));
        assert!(read("limits.cpu", "1").is_err() && read("user.", "1").is_err());
        assert_eq!(read("user.x", "1").unwrap().entries()["user.x"], "1");
        assert!(read("user.x", "").unwrap().entries().is_empty());
        let made = read("features.images", "false").unwrap().with_usual();
        assert_eq!((made.entries()["features.images"].as_str(), made.entries().len()), ("false", 4));
    }
}
