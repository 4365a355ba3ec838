//! The secret of a token that is being redeemed, as it lies in the store until the exchange has ended.
//!
//! It must outlive a crash, so a digest would not do. It is encrypted under a key derived from the cluster's private
//! key: a copy of the store alone, or the store's history, tells nothing. Whoever holds the private key as well
//! needs no token; against that reader this does not help, nor could it. BLAKE3 as keyed function gives both the
//! key stream and the check; no cipher had to be added for 64 bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::trust::certificate::KeyPair;
use crate::wire::token::Secret;

/// A secret that only the holder of the cluster's key can read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// Base64 of as many random bytes as make each use of the key stream another.
    nonce: String,
    /// Base64.
    text: String,
    /// BLAKE3, keyed, over nonce and text.
    check: String,
}

/// It was sealed under another key, or is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the token kept for this link cannot be read with the cluster's present key")]
pub struct UnsealError;

impl Sealed {
    pub fn seal(secret: &Secret, key: &KeyPair) -> Self {
        Self::with(secret, key.key().secret_der(), uuid::Uuid::new_v4().as_bytes())
    }

    pub fn open(&self, key: &KeyPair) -> Result<Secret, UnsealError> {
        self.open_with(key.key().secret_der())
    }

    fn with(secret: &Secret, key: &[u8], nonce: &[u8]) -> Self {
        let keys = Keys::derive(key);
        let mut text = secret.expose().as_bytes().to_vec();
        keys.apply(nonce, &mut text);
        let check = keys.check(nonce, &text).to_string();
        Self { nonce: STANDARD.encode(nonce), text: STANDARD.encode(text), check }
    }

    fn open_with(&self, key: &[u8]) -> Result<Secret, UnsealError> {
        let keys = Keys::derive(key);
        let nonce = STANDARD.decode(&self.nonce).map_err(|_| UnsealError)?;
        let mut text = STANDARD.decode(&self.text).map_err(|_| UnsealError)?;
        let check = blake3::Hash::from_hex(&self.check).map_err(|_| UnsealError)?;
        // `blake3::Hash` compares in constant time.
        if keys.check(&nonce, &text) != check {
            return Err(UnsealError);
        }
        keys.apply(&nonce, &mut text);
        String::from_utf8(text).map(Secret::new).map_err(|_| UnsealError)
    }
}

struct Keys {
    stream: Zeroizing<[u8; 32]>,
    check: Zeroizing<[u8; 32]>,
}

impl Keys {
    fn derive(key: &[u8]) -> Self {
        Self {
            stream: Zeroizing::new(blake3::derive_key("comity 2026 sealed link token: key stream", key)),
            check: Zeroizing::new(blake3::derive_key("comity 2026 sealed link token: check", key)),
        }
    }

    /// Adds the key stream: seals what is open, opens what is sealed.
    fn apply(&self, nonce: &[u8], text: &mut [u8]) {
        let mut stream = Zeroizing::new(vec![0; text.len()]);
        blake3::Hasher::new_keyed(&self.stream).update(nonce).finalize_xof().fill(&mut stream);
        text.iter_mut().zip(stream.iter()).for_each(|(byte, pad)| *byte ^= pad);
    }

    fn check(&self, nonce: &[u8], text: &[u8]) -> blake3::Hash {
        let length = u64::try_from(nonce.len()).unwrap_or(u64::MAX).to_be_bytes();
        blake3::Hasher::new_keyed(&self.check).update(&length).update(nonce).update(text).finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_with_its_key_alone_and_only_whole() {
        let secret = Secret::new("c0ffee".to_owned());
        let sealed = Sealed::with(&secret, b"key", b"nonce");
        assert_eq!(sealed.open_with(b"key").unwrap().expose(), "c0ffee");
        assert!(sealed.open_with(b"other").is_err());
        assert!(!serde_json::to_string(&sealed).unwrap().contains("c0ffee"));

        let mut damaged = sealed.clone();
        damaged.text = STANDARD.encode("decaff");
        assert!(damaged.open_with(b"key").is_err());
        assert_ne!(Sealed::with(&secret, b"key", b"other").text, sealed.text);
    }
}
