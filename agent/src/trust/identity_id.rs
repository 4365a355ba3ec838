//! What an identity is known by (LXD: identifier): the hash of its certificate, a number of our own, or an address.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Fingerprint;

/// Longest mail address (RFC 5321, section 4.5.3.1.3).
const MAX_EMAIL: usize = 254;

/// Names one identity, for ever.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum IdentityId {
    /// SHA-256 of its certificate.
    Certificate(Fingerprint),
    /// One that has no certificate: a bearer of tokens, or a pending one.
    Token(Uuid),
    /// Whom an identity provider vouches for, by mail address.
    Email(String),
}

/// A text that names no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an identity is named by a certificate fingerprint, a UUID or a mail address")]
pub struct IdentityIdError;

impl IdentityId {
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        match self {
            IdentityId::Certificate(fingerprint) => Some(*fingerprint),
            IdentityId::Token(_) | IdentityId::Email(_) => None,
        }
    }

    /// As the last part of a store key: holds no `/`.
    pub fn key_part(&self) -> String {
        self.to_string().replace('%', "%25").replace('/', "%2F")
    }

    /// From the last part of a store key.
    pub fn from_key_part(part: &str) -> Result<Self, IdentityIdError> {
        part.replace("%2F", "/").replace("%25", "%").parse()
    }
}

impl fmt::Display for IdentityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IdentityId::Certificate(fingerprint) => fingerprint.fmt(f),
            IdentityId::Token(id) => id.fmt(f),
            IdentityId::Email(address) => f.write_str(address),
        }
    }
}

impl FromStr for IdentityId {
    type Err = IdentityIdError;
    fn from_str(text: &str) -> Result<Self, IdentityIdError> {
        if let Ok(fingerprint) = text.parse() {
            return Ok(IdentityId::Certificate(fingerprint));
        }
        if let (36, Ok(id)) = (text.len(), text.parse()) {
            return Ok(IdentityId::Token(id));
        }
        let plausible = text.len() <= MAX_EMAIL
            && text.rsplit_once('@').is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty())
            && !text.chars().any(|c| c.is_control() || c.is_whitespace());
        if plausible { Ok(IdentityId::Email(text.to_owned())) } else { Err(IdentityIdError) }
    }
}

impl TryFrom<String> for IdentityId {
    type Error = IdentityIdError;
    fn try_from(text: String) -> Result<Self, IdentityIdError> {
        text.parse()
    }
}

impl From<IdentityId> for String {
    fn from(id: IdentityId) -> String {
        id.to_string()
    }
}

impl From<Fingerprint> for IdentityId {
    fn from(fingerprint: Fingerprint) -> Self {
        IdentityId::Certificate(fingerprint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_read_back_from_a_key() {
        let ids = [
            IdentityId::Certificate(Fingerprint([7; 32])),
            IdentityId::Token(Uuid::from_u128(7)),
            IdentityId::Email("a/b%2F@example.com".to_owned()),
        ];
        for id in ids {
            assert_eq!(id.to_string().parse(), Ok(id.clone()));
            assert!(!id.key_part().contains('/'));
            assert_eq!(IdentityId::from_key_part(&id.key_part()), Ok(id));
        }
        for bad in ["", "laptop", "@example.com", "a@", "a b@c", "a@b\n", &"x".repeat(64)] {
            assert!(bad.parse::<IdentityId>().is_err(), "{bad}");
        }
    }
}
