//! Who is calling: certificates, keys, tokens, identities.

use std::fmt;
use std::str::FromStr;

use schema::name::{GroupName, LinkName};
use serde::{Deserialize, Serialize};

pub mod certificate;
pub mod client_token;
pub mod cluster_identity;
pub mod identity;
pub mod lineage;
pub mod succession;

/// SHA-256 of a certificate's DER: how LXD names certificates, and what a link pins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint(pub [u8; 32]);

/// A text that is not 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a certificate fingerprint is 64 hexadecimal digits (SHA-256)")]
pub struct FingerprintError;

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;
    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err(FingerprintError);
        }
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(pair).map_err(|_| FingerprintError)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| FingerprintError)?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = FingerprintError;
    fn try_from(text: String) -> Result<Self, FingerprintError> {
        text.parse()
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> String {
        fingerprint.to_string()
    }
}

/// Who is calling, as established by the connection and looked up anew for each request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Over the unix socket, with this user id (root's or the agent's own).
    Local { uid: u32 },
    /// A client certificate in the trust store.
    Client { fingerprint: Fingerprint, name: String, access: Access },
    /// The other side of a link, by its pinned cluster certificate.
    Peer { link: LinkName, fingerprint: Fingerprint, groups: Vec<GroupName> },
    /// No certificate, or one that nobody knows.
    Anonymous { certificate: Option<Fingerprint> },
}

impl Caller {
    /// The certificate shown, known or not.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        match self {
            Caller::Local { .. } => None,
            Caller::Client { fingerprint, .. } | Caller::Peer { fingerprint, .. } => Some(*fingerprint),
            Caller::Anonymous { certificate } => *certificate,
        }
    }

    /// Tells callers apart, as their names do not: two clients may have the same.
    pub fn identity(&self) -> String {
        match self.fingerprint() {
            Some(fingerprint) => format!("{self} {fingerprint}"),
            None => self.to_string(),
        }
    }

    pub fn is_trusted(&self) -> bool {
        !matches!(self, Caller::Anonymous { .. })
    }
}

/// As logs and messages name a caller: `local uid 0`, `client laptop`, `link west`.
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Caller::Local { uid } => write!(f, "local uid {uid}"),
            Caller::Client { name, .. } => write!(f, "client {name}"),
            Caller::Peer { link, .. } => write!(f, "link {link}"),
            Caller::Anonymous { .. } => f.write_str("anonymous"),
        }
    }
}

/// Proof that a caller may do something. `authorize::Permit` is the one implementation; functions of this floor,
/// which cannot name it, demand the trait, so that an unchecked call does not compile there either.
pub trait Permission: Send + Sync {
    /// Who it was granted to.
    fn caller(&self) -> &Caller;
}

/// What a client may do at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Everything (LXD: unrestricted client certificate).
    Unrestricted,
    /// What its groups' permissions add up to (LXD: fine-grained).
    Groups(Vec<GroupName>),
}
