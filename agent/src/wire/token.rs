//! The trust token: what one side hands the other, by whatever way it likes, so that they come to trust each other.
//!
//! Base64 of LXD's JSON, so that LXD's tools can carry it. The receiver checks the fingerprint before the secret
//! leaves its hands; the issuer stores only the secret's digest. Nothing here ever prints a secret.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroize;

/// Longest text taken for a token. Ours are about 400 characters; the rest is room for addresses.
pub const MAX_TOKEN: usize = 16 * 1024;

/// The header with the ID token of an OpenID Connect login, beside an access token that only the provider can read:
/// without it nobody here could tell that the access token was given for this cluster and not for another service.
pub const ID_TOKEN: http::HeaderName = http::HeaderName::from_static("x-comity-oidc-id-token");

/// A secret in text form (64 hexadecimal digits when we made it).
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

/// SHA-256 of a secret's text: what is stored of it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretDigest(String);

/// A trust token's content (LXD's field names).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TrustToken {
    /// What the redeemer will be called here.
    #[serde(default)]
    pub client_name: String,
    /// SHA-256 of the issuer's cluster certificate.
    #[serde(default)]
    pub fingerprint: String,
    /// Where the issuer listens, `host:port`.
    #[serde(default)]
    pub addresses: Vec<String>,
    #[serde(default)]
    pub secret: Secret,
    /// For people: the issuer's own record decides. LXD writes a zero time where there is no end.
    #[serde(default)]
    pub expires_at: Timestamp,
    /// LXD's identity type; empty for a client of the certificates API.
    #[serde(default, rename = "type")]
    pub kind: String,
}

/// The `type` of a token that makes a cluster link.
pub const TYPE_CLUSTER_LINK: &str = "Cluster link certificate";
/// The `type` of a token that makes an identity with groups.
pub const TYPE_IDENTITY: &str = "Client certificate";

/// Why a text is not a token. Never repeats any of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the token is empty")]
    Empty,
    #[error("the token is longer than {MAX_TOKEN} characters")]
    TooLong,
    #[error("the token is not base64: part of it may be missing, or it was wrapped when it was copied")]
    Base64,
    #[error("the token does not hold what a token holds: part of it may be missing")]
    Json,
    #[error("No client name in certificate add token")]
    NoName,
    #[error("No server addresses in certificate add token")]
    NoAddresses,
    #[error("No secret in certificate add token")]
    NoSecret,
    #[error("No certificate fingerprint in certificate add token")]
    NoFingerprint,
}

impl Secret {
    /// From 32 random bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        use std::fmt::Write as _;
        let mut text = String::with_capacity(64);
        for byte in bytes {
            // Writing to a String does not fail.
            let _ = write!(text, "{byte:02x}");
        }
        Self(text)
    }

    /// The text of what is handed over whole.
    pub fn in_base64(bytes: &[u8]) -> Self {
        Self(STANDARD.encode(bytes))
    }

    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// 32 bytes from the system's randomness: a hash over three version 4 UUIDs, of 122 random bits each.
    pub fn random() -> Self {
        let mut hash = Sha256::new();
        for _ in 0..3 {
            hash.update(uuid::Uuid::new_v4().as_bytes());
        }
        Self::from_bytes(hash.finalize().into())
    }

    /// The secret itself: for sending it, nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }

    pub fn digest(&self) -> SecretDigest {
        use std::fmt::Write as _;
        let mut text = String::with_capacity(64);
        for byte in Sha256::digest(self.0.as_bytes()) {
            // Writing to a String does not fail.
            let _ = write!(text, "{byte:02x}");
        }
        SecretDigest(text)
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

impl SecretDigest {
    /// 64 hexadecimal digits: for finding what has this digest.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether both are the same, in time that does not depend on where they differ.
    pub fn is(&self, other: &SecretDigest) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }

    /// Whether `secret` is the one, in time that does not depend on where they differ.
    pub fn matches(&self, secret: &Secret) -> bool {
        self.0.as_bytes().ct_eq(secret.digest().0.as_bytes()).into()
    }
}

impl fmt::Debug for SecretDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretDigest(redacted)")
    }
}

/// Whether a text is a token that an agent made, good or not: to be shown to nobody else.
pub fn is_ours(text: &str) -> bool {
    /// What is in all of them.
    #[derive(Deserialize)]
    struct Ours {
        #[serde(rename = "secret")]
        _secret: Secret,
    }
    let json = STANDARD.decode(text.trim()).ok();
    json.is_some_and(|json| serde_json::from_slice::<Ours>(&json).is_ok())
}

impl TrustToken {
    /// The text that is handed over.
    pub fn encode(&self) -> Secret {
        // A struct of strings and a time always serialises.
        Secret(STANDARD.encode(serde_json::to_vec(self).unwrap_or_default()))
    }

    /// Reads a token's text; blanks around it and line breaks within it are passed over.
    pub fn decode(text: &str) -> Result<Self, TokenError> {
        if text.len() > MAX_TOKEN {
            return Err(TokenError::TooLong);
        }
        let text: String = text.split_whitespace().collect();
        if text.is_empty() {
            return Err(TokenError::Empty);
        }
        let json = STANDARD.decode(text).map_err(|_| TokenError::Base64)?;
        let token: Self = serde_json::from_slice(&json).map_err(|_| TokenError::Json)?;
        if token.client_name.is_empty() {
            return Err(TokenError::NoName);
        }
        if token.addresses.is_empty() {
            return Err(TokenError::NoAddresses);
        }
        if token.secret.0.is_empty() {
            return Err(TokenError::NoSecret);
        }
        if token.fingerprint.is_empty() {
            return Err(TokenError::NoFingerprint);
        }
        Ok(token)
    }
}
