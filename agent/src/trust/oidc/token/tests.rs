use jsonwebtoken::{Algorithm, EncodingKey};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _};
use serde_json::json;

use super::*;

const ISSUER: &str = "https://login.example";
const NOW: i64 = 1_800_000_000;

/// A provider's key, and what it publishes of it.
struct Signer {
    private: EncodingKey,
    published: Value,
}

impl Signer {
    fn new(id: &str) -> Self {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        // An uncompressed point: 4, x, y.
        let (x, y) = pair.der_bytes()[1..].split_at(32);
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let published = json!({ "kty": "EC", "crv": "P-256", "kid": id, "x": part(x), "y": part(y) });
        Self { private: EncodingKey::from_ec_der(&pair.serialize_der()), published }
    }

    fn keys(&self) -> Keys {
        Keys::read(json!({ "keys": [self.published] })).unwrap()
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = message(header, claims);
        let signature = crypto::sign(message.as_bytes(), &self.private, Algorithm::ES256).unwrap();
        format!("{message}.{signature}")
    }
}

fn message(header: &Value, claims: &Value) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()))
}

fn claims() -> Value {
    json!({ "iss": ISSUER, "sub": "1", "aud": "comity", "exp": NOW + 300, "iat": NOW, "email": "a@example.com" })
}

fn header() -> Value {
    json!({ "alg": "ES256", "kid": "one", "typ": "JWT" })
}

fn prove(token: &str, keys: &Keys) -> Result<Claims, TokenFault> {
    Unproven::read(token).expect("it can be read").prove(keys)
}

#[test]
fn only_what_a_published_key_signed_is_read() {
    let (signer, other) = (Signer::new("one"), Signer::new("one"));
    let keys = signer.keys();
    let good = signer.sign(&header(), &claims());
    assert_eq!(prove(&good, &keys).unwrap()["email"], "a@example.com");
    assert_eq!(prove(&signer.sign(&json!({ "alg": "ES256" }), &claims()), &keys).unwrap()["sub"], "1");
    assert_eq!(prove(&other.sign(&header(), &claims()), &keys), Err(TokenFault::Signature));
    let unknown = json!({ "alg": "ES256", "kid": "two" });
    assert_eq!(prove(&signer.sign(&unknown, &claims()), &keys), Err(TokenFault::UnknownKey));
    // What was signed is what is read.
    let (_, signature) = good.rsplit_once('.').unwrap();
    let mut changed = claims();
    changed["email"] = "b@example.com".into();
    let forged = format!("{}.{signature}", message(&header(), &changed));
    assert_eq!(prove(&forged, &keys), Err(TokenFault::Signature));
}

#[test]
fn a_signature_that_anybody_can_make_is_none() {
    let signer = Signer::new("one");
    let keys = signer.keys();
    let public = signer.published.to_string();
    for name in ["none", "None", "NONE", "HS256", "HS512", ""] {
        let message = message(&json!({ "alg": name, "kid": "one" }), &claims());
        let by_public_key =
            crypto::sign(message.as_bytes(), &EncodingKey::from_secret(public.as_bytes()), Algorithm::HS256);
        for signature in ["", "AAAA", &by_public_key.unwrap()] {
            let fault = prove(&format!("{message}.{signature}"), &keys).unwrap_err();
            assert_eq!(fault, TokenFault::Algorithm(name.to_owned()));
        }
    }
    // Of another family than the key is.
    let wrong = signer.sign(&json!({ "alg": "RS256", "kid": "one" }), &claims());
    assert_eq!(prove(&wrong, &keys), Err(TokenFault::UnknownKey));
    let critical = signer.sign(&json!({ "alg": "ES256", "crit": ["x"], "x": 1 }), &claims());
    assert_eq!(prove(&critical, &keys), Err(TokenFault::Claim("crit")));
    let other = signer.sign(&json!({ "alg": "ES256", "typ": "logout+jwt" }), &claims());
    assert!(matches!(prove(&other, &keys), Err(TokenFault::Kind(_))));
    for opaque in ["abc", "a.b", "a.b.c", "a.b.c.d.e", "...", ""] {
        assert!(Unproven::read(opaque).is_none(), "{opaque}");
    }
}

fn checked(change: impl FnOnce(&mut Value), audience: Option<&str>) -> Result<Timestamp, String> {
    let mut claims = claims();
    change(&mut claims);
    let Value::Object(claims) = claims else { unreachable!() };
    let expected = Expected { issuer: ISSUER, audience, clients: &["comity", "comity-cli"] };
    check(&claims, expected, Timestamp::from_second(NOW).unwrap()).map_err(|fault| fault.to_string())
}

#[test]
fn it_must_be_of_this_provider_and_for_this_cluster() {
    assert_eq!(checked(|_| {}, None).unwrap().as_second(), NOW + 300);
    for issuer in ["https://login.example/", "https://evil.example", ""] {
        assert!(checked(|claims| claims["iss"] = issuer.into(), None).is_err(), "{issuer}");
    }
    let fault = checked(|claims| claims["aud"] = json!(["x", "y"]), None).unwrap_err();
    assert_eq!(fault, "it is for x, y, not for comity or comity-cli");
    assert!(checked(|claims| claims["aud"] = json!(["x", "comity-cli"]), None).is_ok());
    assert!(checked(|claims| claims["aud"] = json!({ "comity": 1 }), None).is_err());
    let by_client = |claims: &mut Value| {
        claims["aud"] = "https://api.example".into();
        claims["client_id"] = "comity-cli".into();
    };
    assert!(checked(by_client, None).is_ok());
    // An audience that is set is the one that counts.
    assert!(checked(by_client, Some("https://other.example")).is_err());
    assert!(checked(by_client, Some("https://api.example")).is_ok());
    assert!(checked(|claims| claims["sub"] = json!(7), None).unwrap_err().contains("\"sub\""));
}

#[test]
fn a_clock_that_is_wrong_is_named() {
    let moved = |by: i64| {
        move |claims: &mut Value| {
            claims["exp"] = (NOW + 300 + by).into();
            claims["iat"] = (NOW + by).into();
        }
    };
    assert!(checked(moved(-330), None).is_ok(), "a little is borne with");
    let late = checked(moved(-7200), None).unwrap_err();
    assert!(late.contains("115 min ago by this machine's clock (2027-01-15T08:00:00Z)"), "{late}");
    let early = checked(moved(3600), None).unwrap_err();
    assert!(early.contains("60 min in the future by this machine's clock"), "{early}");
    assert!(checked(|claims| claims["nbf"] = (NOW + 3600).into(), None).is_err());
    for wrong in [json!("soon"), json!(1e300), json!(null), json!(-1e300)] {
        assert!(checked(|claims| claims["exp"] = wrong, None).unwrap_err().contains("\"exp\""));
    }
    assert!(checked(|claims| claims["exp"] = json!(1_800_000_300.7), None).is_ok());
}

#[test]
fn an_id_token_is_no_access_token_and_goes_with_one() {
    let said = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        let Value::Object(claims) = claims else { unreachable!() };
        claims
    };
    for name in ["at_hash", "c_hash", "nonce"] {
        assert_eq!(check_access(&said(name, json!("x"))), Err(TokenFault::IdToken), "{name}");
    }
    assert_eq!(check_access(&said("jti", json!("x"))), Ok(()));

    // The first is the example of the specification, appendix A.4.
    let access = "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y";
    for (algorithm, hash) in [
        ("RS256", "77QmUPtjPfzWtF2AnpK9RQ"),
        ("ES384", "jtAeDp945y1dDqU3nkIVGNZP1HjH_MFs"),
        ("PS512", "q7nS86GgvvFaZkzALLWqJYaJIKw2wCDAVfCAsm5CrBM"),
        ("EdDSA", "q7nS86GgvvFaZkzALLWqJYaJIKw2wCDAVfCAsm5CrBM"),
    ] {
        let token = format!("{}.e30.", URL_SAFE_NO_PAD.encode(json!({ "alg": algorithm }).to_string()));
        let unproven = Unproven::read(&token).unwrap();
        assert_eq!(unproven.goes_with(&said("at_hash", json!(hash)), access), Ok(()), "{algorithm}");
        let other = unproven.goes_with(&said("at_hash", json!(hash)), "another");
        assert_eq!(other, Err(TokenFault::Beside), "{algorithm}");
        assert_eq!(unproven.goes_with(&said("at_hash", json!(7)), access), Err(TokenFault::Beside));
        assert_eq!(unproven.goes_with(&said("jti", json!("x")), access), Ok(()));
    }
}
