//! Who is calling: certificates, keys, tokens, identities.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub mod acme;
pub mod attempts;
pub mod authority;
mod caller;
pub mod certificate;
pub mod client_token;
pub mod cluster_identity;
pub mod entity;
pub mod forget;
pub mod groups;
pub mod identity;
mod identity_id;
pub mod lineage;
pub mod mesh;
pub mod oidc;
pub mod pki;
pub mod policy;
pub mod provider_group;
pub mod server_identity;
pub mod shown;
pub mod succession;
mod unseen;

pub use caller::{Access, Caller, Origin, Who};
pub use groups::Groups;
pub use identity_id::{IdentityId, IdentityIdError};

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
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        // Written at once: the answer to nearly every request has one or two.
        let mut text = [0; 64];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
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

/// Proof that a caller may do something. `authorize::Permit` is the one implementation; functions of this floor,
/// which cannot name it, demand the trait, so that an unchecked call does not compile there either.
pub trait Permission: Send + Sync {
    /// Who it was granted to.
    fn caller(&self) -> &Caller;
}
