//! The keys that a provider signs with, as it publishes them (JWKS).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

/// Most keys that are looked at. A provider has two or three.
const MAX_KEYS: usize = 50;
/// Shortest RSA modulus, in bytes: 2048 bits.
const MIN_MODULUS: usize = 256;

/// What a token may be signed by: keys that only the provider has the private half of. Neither `none` nor anything
/// with a shared secret is among them, since the public key would do for that.
pub const ALGORITHMS: [(&str, Algorithm); 9] = [
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];

/// A provider's keys, those that can be used here.
#[derive(Debug, Default)]
pub struct Keys(Vec<Key>);

#[derive(Debug)]
struct Key {
    id: Option<String>,
    /// What it may be used with, and nothing else.
    algorithms: Vec<Algorithm>,
    public: DecodingKey,
}

/// The set, each key still as it came: one that is not understood is no fault of the others'.
#[derive(Deserialize)]
struct Published {
    keys: Vec<Value>,
}

/// A key, as far as it is of interest.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Keys {
    /// Reads what a provider publishes; `None` if that is no set of keys.
    pub fn read(published: Value) -> Option<Self> {
        let Published { keys } = serde_json::from_value(published).ok()?;
        Some(Self(keys.into_iter().take(MAX_KEYS).filter_map(Key::read).collect()))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those that may have signed something by `algorithm`: the one of this id, or any where no id is told.
    pub fn candidates(&self, id: Option<&str>, algorithm: Algorithm) -> Vec<&DecodingKey> {
        let fits = |key: &&Key| {
            key.algorithms.contains(&algorithm) && id.is_none_or(|id| key.id.as_deref() == Some(id))
        };
        self.0.iter().filter(fits).map(|key| &key.public).collect()
    }
}

impl Key {
    fn read(published: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(published).ok()?;
        if jwk.purpose.as_deref().is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        let length = |part: &str| URL_SAFE_NO_PAD.decode(part).map_or(0, |bytes| bytes.len());
        let (family, key): (&[&str], _) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => {
                let (n, e) = (jwk.n?, jwk.e?);
                if length(&n) < MIN_MODULUS {
                    return None;
                }
                let all: &[&str] = &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"];
                (all, DecodingKey::from_rsa_components(&n, &e))
            }
            ("EC", Some(curve @ ("P-256" | "P-384"))) => {
                let (x, y) = (jwk.x?, jwk.y?);
                let (name, bytes) = if curve == "P-256" { (&["ES256"], 32) } else { (&["ES384"], 48) };
                if length(&x) != bytes || length(&y) != bytes {
                    return None;
                }
                (name, DecodingKey::from_ec_components(&x, &y))
            }
            ("OKP", Some("Ed25519")) => (&["EdDSA"], DecodingKey::from_ed_components(&jwk.x?)),
            _ => return None,
        };
        let wanted = |name: &&str| {
            // RFC 9864 has a name of its own for this curve.
            let own = |alg: &str| alg == *name || (*name == "EdDSA" && alg == "Ed25519");
            jwk.alg.as_deref().is_none_or(own)
        };
        let names = family.iter().copied().filter(|name| wanted(name));
        let algorithms: Vec<Algorithm> = names.filter_map(algorithm).collect();
        let key = key.ok()?;
        if algorithms.is_empty() { None } else { Some(Self { id: jwk.kid, algorithms, public: key }) }
    }
}

/// The algorithm of this name, if it is one that is taken.
pub fn algorithm(name: &str) -> Option<Algorithm> {
    let name = if name == "Ed25519" { "EdDSA" } else { name };
    ALGORITHMS.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_taken_for_what_they_are_for_and_others_are_passed_over() {
        let (x, y) = (URL_SAFE_NO_PAD.encode([1; 32]), URL_SAFE_NO_PAD.encode([2; 32]));
        let long = URL_SAFE_NO_PAD.encode([0xff; 256]);
        let keys = Keys::read(json!({ "keys": [
            { "kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": "a", "use": "sig" },
            { "kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": "for secrets", "use": "enc" },
            { "kty": "EC", "crv": "secp256k1", "x": x, "y": y, "kid": "unknown" },
            { "kty": "EC", "crv": "P-384", "x": x, "y": y, "kid": "short" },
            { "kty": "RSA", "n": long, "e": "AQAB", "kid": "b" },
            { "kty": "RSA", "n": long, "e": "AQAB", "kid": "c", "alg": "PS256" },
            { "kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "weak" },
            { "kty": "oct", "k": "c2VjcmV0", "kid": "shared", "alg": "HS256" },
            "nonsense",
        ] }))
        .unwrap();
        assert_eq!(keys.0.len(), 3);
        assert_eq!(keys.candidates(Some("a"), Algorithm::ES256).len(), 1);
        assert!(keys.candidates(Some("a"), Algorithm::RS256).is_empty());
        assert_eq!(keys.candidates(None, Algorithm::RS256).len(), 1);
        assert_eq!(keys.candidates(None, Algorithm::PS256).len(), 2);
        assert!(keys.candidates(Some("c"), Algorithm::RS256).is_empty());
        assert!(Keys::read(json!({ "key": [] })).is_none());
        for name in ["none", "None", "HS256", "HS512", ""] {
            assert_eq!(algorithm(name), None);
        }
    }
}
