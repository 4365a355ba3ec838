//! The keys that can be set, and what each may be.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use schema::diagnostic::nearest::nearest;
use schema::diagnostic::secret::without_tokens;
use serde::{Deserialize, Serialize};

use super::expiry::{DEFAULT_TOKEN_EXPIRY, ExpiryError, expiry};
use super::listen::Listen;
use super::{acme, login};

const HTTPS_ADDRESS: &str = "core.https_address";
const REMOTE_TOKEN_EXPIRY: &str = "core.remote_token_expiry";
const TRUST_CA_CERTIFICATES: &str = "core.trust_ca_certificates";
const KEYS: [&str; 17] = [
    HTTPS_ADDRESS,
    REMOTE_TOKEN_EXPIRY,
    TRUST_CA_CERTIFICATES,
    acme::AGREE_TOS,
    acme::CA_URL,
    acme::CHALLENGE,
    acme::DOMAIN,
    acme::EMAIL,
    acme::HTTP_PORT,
    login::AUDIENCE,
    login::CLIENT_ID,
    login::CLIENT_SECRET,
    login::DEVICE_CLIENT_ID,
    login::GROUPS_CLAIM,
    login::ISSUER,
    login::SCOPES,
    login::SESSION_EXPIRY,
];
/// Keys beneath this are the users' own.
const USER: &str = "user.";
/// Longest key or value, in bytes, and most keys.
const MAX_KEY: usize = 200;
const MAX_VALUE: usize = 64 * 1024;
const MAX_KEYS: usize = 1000;

/// Settings that are all known and make sense. An address that is set to nothing is kept: it means to listen nowhere,
/// where one that is not set means to listen where it is usual.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Config(BTreeMap<String, String>);

/// Why something cannot be set. The value is never repeated: it may be a secret in the wrong place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("Unknown server configuration key {key:?}{}", near.map(|near| format!(", did you mean {near:?}?")).unwrap_or_default())]
    Unknown { key: String, near: Option<&'static str> },
    #[error(
        "There is no trust password: one secret that many know cannot be taken back from one of them. Clients become \
         trusted by tokens, each for one client and one use: `comity trust add --name NAME` or `lxc config trust add \
         --name NAME` here makes one, `remote add NAME TOKEN` there redeems it"
    )]
    TrustPassword,
    #[error("Invalid value for {key:?}: {reason}")]
    Value { key: &'static str, reason: String },
    #[error("A key has at most {MAX_KEY} bytes and a value at most {MAX_VALUE}")]
    TooLong,
    #[error("At most {MAX_KEYS} keys can be set")]
    TooMany,
}

impl Config {
    /// Settings made of every pair, none of them to be left out.
    pub fn read(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        for (key, value) in pairs {
            config.set(&key, &value)?;
        }
        config.check()?;
        Ok(config)
    }

    /// What `set` cannot see, one key at a time.
    pub fn check(&self) -> Result<(), ConfigError> {
        login::check_whole(self)
    }

    /// Whether `key` is one that can be set.
    pub fn check_key(key: &str) -> Result<(), ConfigError> {
        match Self::default().set(key, "") {
            Err(error @ ConfigError::Unknown { .. }) => Err(error),
            _ => Ok(()),
        }
    }

    /// Sets one key. Nothing takes it away again, except that an empty address is one of its own.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), ConfigError> {
        if key.len() > MAX_KEY || value.len() > MAX_VALUE {
            return Err(ConfigError::TooLong);
        }
        match key {
            "core.trust_password" if value.is_empty() => return Ok(()),
            "core.trust_password" => return Err(ConfigError::TrustPassword),
            HTTPS_ADDRESS => {
                let listen = listen(value).map_err(|reason| wrong(HTTPS_ADDRESS, reason))?;
                let zero = matches!(listen, Listen::At(at) if at.port() == 0)
                    || matches!(listen, Listen::Everywhere(0));
                if zero {
                    return Err(wrong(HTTPS_ADDRESS, "port 0 would be another one at each start".to_owned()));
                }
            }
            REMOTE_TOKEN_EXPIRY if !value.is_empty() => {
                expiry(value).map_err(|error: ExpiryError| wrong(REMOTE_TOKEN_EXPIRY, error.to_string()))?;
            }
            TRUST_CA_CERTIFICATES if !value.is_empty() => {
                truth(value).ok_or_else(|| wrong(TRUST_CA_CERTIFICATES, "it is true or false".to_owned()))?;
            }
            REMOTE_TOKEN_EXPIRY | TRUST_CA_CERTIFICATES => {}
            _ if KEYS.contains(&key) => {
                let known = KEYS.into_iter().find(|known| *known == key && !value.is_empty());
                let check = if key.starts_with("oidc.") { login::check } else { acme::check };
                known.map_or(Ok(()), |known| check(known, value))?;
            }
            _ if key.strip_prefix(USER).is_some_and(|rest| !rest.is_empty()) => {}
            _ => {
                let near = nearest(key, KEYS);
                // What is far longer than any key may be a secret in the wrong place.
                let key = without_tokens(key).chars().take(64).collect();
                return Err(ConfigError::Unknown { key, near });
            }
        }
        if value.is_empty() && key != HTTPS_ADDRESS {
            self.0.remove(key);
        } else {
            self.0.insert(key.to_owned(), value.to_owned());
        }
        if self.0.len() > MAX_KEYS { Err(ConfigError::TooMany) } else { Ok(()) }
    }

    /// Each key that is set, with its value.
    pub fn entries(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// Keys whose values are not the same in both.
    pub fn differing(&self, other: &Self) -> Vec<String> {
        let mut keys: Vec<String> = self
            .0
            .keys()
            .chain(other.0.keys())
            .filter(|key| self.0.get(*key) != other.0.get(*key))
            .cloned()
            .collect();
        keys.sort();
        keys.dedup();
        keys
    }

    /// Where to listen; `None` where nothing is set.
    pub fn https_address(&self) -> Option<Listen> {
        self.0.get(HTTPS_ADDRESS).and_then(|value| listen(value).ok())
    }

    /// How long a token is good for whose maker says nothing else.
    pub fn token_expiry(&self) -> SignedDuration {
        self.0.get(REMOTE_TOKEN_EXPIRY).and_then(|value| expiry(value).ok()).unwrap_or(DEFAULT_TOKEN_EXPIRY)
    }

    /// Whether a certificate that the CA has signed is trusted without a token, where there is a CA.
    pub fn trust_ca_certificates(&self) -> bool {
        self.0.get(TRUST_CA_CERTIFICATES).and_then(|value| truth(value)).unwrap_or(false)
    }
}

pub(super) fn wrong(key: &'static str, reason: String) -> ConfigError {
    ConfigError::Value { key, reason }
}

fn listen(value: &str) -> Result<Listen, String> {
    if value.is_empty() { Ok(Listen::Nowhere) } else { value.parse() }
}

/// As LXD reads a boolean.
pub(super) fn truth(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(key: &str, value: &str) -> String {
        Config::default().set(key, value).unwrap_err().to_string()
    }

    #[test]
    fn a_key_is_known_whatever_it_may_be_set_to() {
        for known in ["core.https_address", "core.trust_password", "oidc.issuer", "acme.domain", "user.x"] {
            Config::check_key(known).unwrap();
        }
        assert_eq!(
            Config::check_key("oidc.isuer").unwrap_err().to_string(),
            r#"Unknown server configuration key "oidc.isuer", did you mean "oidc.issuer"?"#
        );
    }

    #[test]
    fn what_is_unknown_or_makes_no_sense_is_refused_without_its_value() {
        assert_eq!(
            refused("core.https_adress", "x"),
            r#"Unknown server configuration key "core.https_adress", did you mean "core.https_address"?"#
        );
        assert!(refused("core.trust_password", "hunter2").contains("comity trust add"));
        for (key, value) in [
            (HTTPS_ADDRESS, "hunter2"),
            (HTTPS_ADDRESS, "127.0.0.1:0"),
            (REMOTE_TOKEN_EXPIRY, "hunter2"),
            (TRUST_CA_CERTIFICATES, "hunter2"),
            ("user.", "hunter2"),
            ("users.x", "hunter2"),
        ] {
            let message = refused(key, value);
            assert!(message.contains(key) && !message.contains("hunter2"), "{message}");
        }
        assert!(matches!(Config::default().set("user.x", &"x".repeat(65_537)), Err(ConfigError::TooLong)));
    }

    #[test]
    fn what_is_set_to_nothing_is_not_set_and_an_empty_address_is_nowhere() {
        let mut config = Config::default();
        assert_eq!(config.https_address(), None);
        for (key, value) in [(HTTPS_ADDRESS, ":8444"), (TRUST_CA_CERTIFICATES, "yes"), ("user.x", "1")] {
            config.set(key, value).unwrap();
        }
        assert_eq!(config.https_address(), Some(Listen::Everywhere(8444)));
        assert!(config.trust_ca_certificates());
        let other = config.clone();
        for key in [HTTPS_ADDRESS, TRUST_CA_CERTIFICATES, "user.x"] {
            config.set(key, "").unwrap();
        }
        assert_eq!(config.https_address(), Some(Listen::Nowhere));
        assert_eq!(config.entries().len(), 1);
        assert_eq!(other.differing(&config), [HTTPS_ADDRESS, TRUST_CA_CERTIFICATES, "user.x"]);
    }
}
