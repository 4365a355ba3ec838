//! Whether a token that can be read (a JWT) is the provider's word, about now, and meant for this cluster.
//!
//! Pure: keys and time are arguments. What is not said by a key of the provider's is not looked at.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::crypto;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256, Sha384, Sha512};

use super::keys::{Keys, algorithm};
use crate::wire::printable;

/// How far two clocks may be apart.
const LEEWAY: SignedDuration = SignedDuration::from_secs(60);
/// Keys that are tried of a provider which does not say by which it signed.
const MAX_TRIES: usize = 8;
/// What a token may call itself.
const TYPES: [&str; 3] = ["jwt", "at+jwt", "application/at+jwt"];

/// What is asked of a token.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    pub issuer: &'a str,
    /// What it must be for, if that is set.
    pub audience: Option<&'a str>,
    /// What this cluster is to the provider: a token is for one of these where no audience is set.
    pub clients: &'a [&'a str],
}

/// What a token says, its signature proven.
pub type Claims = Map<String, Value>;

/// Why a token is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    #[error("it is signed by {0:?}, and only signatures by keys that the provider publishes are taken")]
    Algorithm(String),
    #[error("it is a token of another kind: {0:?}")]
    Kind(String),
    #[error("the provider publishes no key by which it is signed")]
    UnknownKey,
    #[error("its signature is not the provider's")]
    Signature,
    #[error("its {0:?} is missing or is not what it should be")]
    Claim(&'static str),
    #[error("it is of another issuer: {0:?}")]
    Issuer(String),
    #[error("it is for {found}, not for {wanted}")]
    Audience { found: String, wanted: String },
    #[error("it is an ID token; an access token is needed")]
    IdToken,
    #[error("the ID token beside it was given with another access token")]
    Beside,
    #[error("it expired at {at}, which is {} ago by this machine's clock ({now})", spelled(*.by))]
    Expired { at: Timestamp, by: SignedDuration, now: Timestamp },
    #[error(
        "it is from {} in the future by this machine's clock ({now}): set this clock or the provider's right",
        spelled(*.by)
    )]
    Future { by: SignedDuration, now: Timestamp },
}

/// A token that can be read, before anything of it is believed.
#[derive(Debug)]
pub struct Unproven<'a> {
    token: &'a str,
    header: Map<String, Value>,
}

impl<'a> Unproven<'a> {
    /// `None` where it is nothing that could be read: the provider alone knows what it stands for.
    pub fn read(token: &'a str) -> Option<Self> {
        let mut parts = token.split('.');
        let (header, _, _) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let header: Map<String, Value> = json(header)?;
        header.contains_key("alg").then_some(Self { token, header })
    }

    /// Which key it says it is signed by.
    fn key_id(&self) -> Option<&str> {
        self.header.get("kid").and_then(Value::as_str)
    }

    /// What it says, if one of `keys` has signed it.
    pub fn prove(&self, keys: &Keys) -> Result<Claims, TokenFault> {
        let text = |name: &str| self.header.get(name).and_then(Value::as_str);
        let named = text("alg").unwrap_or_default();
        let algorithm = algorithm(named).ok_or_else(|| TokenFault::Algorithm(shown(named)))?;
        let kind = text("typ").unwrap_or("JWT");
        if !TYPES.contains(&kind.to_ascii_lowercase().as_str()) {
            return Err(TokenFault::Kind(shown(kind)));
        }
        if self.header.contains_key("crit") {
            // It asks for what is not understood here, and says that it must be.
            return Err(TokenFault::Claim("crit"));
        }
        let candidates = keys.candidates(self.key_id(), algorithm);
        if candidates.is_empty() {
            return Err(TokenFault::UnknownKey);
        }
        let (message, signature) = self.token.rsplit_once('.').ok_or(TokenFault::Signature)?;
        let signed = |key: &&jsonwebtoken::DecodingKey| {
            crypto::verify(signature, message.as_bytes(), key, algorithm).unwrap_or(false)
        };
        if !candidates.iter().take(MAX_TRIES).any(signed) {
            return Err(TokenFault::Signature);
        }
        let claims = message.split_once('.').and_then(|(_, claims)| json(claims));
        claims.ok_or(TokenFault::Claim("claims"))
    }

    /// Whether an ID token with these claims, which are proven, was given together with this access token, where it says
    /// with which (OpenID Connect Core, section 3.1.3.6).
    pub fn goes_with(&self, claims: &Claims, access: &str) -> Result<(), TokenFault> {
        let Some(said) = claims.get("at_hash") else { return Ok(()) };
        let digest = match self.header.get("alg").and_then(Value::as_str).unwrap_or_default() {
            name if name.ends_with("256") => Sha256::digest(access).to_vec(),
            name if name.ends_with("384") => Sha384::digest(access).to_vec(),
            // Ed25519 has it within.
            _ => Sha512::digest(access).to_vec(),
        };
        let half = URL_SAFE_NO_PAD.encode(&digest[..digest.len() / 2]);
        if said.as_str().is_some_and(|said| said.trim_end_matches('=') == half) {
            return Ok(());
        }
        Err(TokenFault::Beside)
    }
}

/// Whether what a token says is for its client alone, as far as can be told: it says who has logged in, and gives no
/// access. Clients show ID tokens to others more readily than access tokens.
pub fn check_access(claims: &Claims) -> Result<(), TokenFault> {
    let is_id = ["at_hash", "c_hash", "nonce"].iter().any(|name| claims.contains_key(*name));
    if is_id { Err(TokenFault::IdToken) } else { Ok(()) }
}

/// Whether these claims are this provider's, for this cluster, at `now`. Gives when that ends.
pub fn check(claims: &Claims, expected: Expected<'_>, now: Timestamp) -> Result<Timestamp, TokenFault> {
    let text = |name: &'static str| {
        claims
            .get(name)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
            .ok_or(TokenFault::Claim(name))
    };
    let issuer = text("iss")?;
    if issuer != expected.issuer {
        return Err(TokenFault::Issuer(shown(issuer)));
    }
    text("sub")?;
    check_audience(claims, expected)?;
    let expires = time(claims, "exp")?.ok_or(TokenFault::Claim("exp"))?;
    for name in ["nbf", "iat"] {
        if let Some(begins) = time(claims, name)? {
            let by = begins.duration_since(now);
            if by > LEEWAY {
                return Err(TokenFault::Future { by, now });
            }
        }
    }
    let by = now.duration_since(expires);
    if by > LEEWAY {
        return Err(TokenFault::Expired { at: expires, by, now });
    }
    Ok(expires)
}

/// Whether claims (of a token, or of what the provider says about one) are meant for this cluster.
pub fn check_audience(claims: &Claims, expected: Expected<'_>) -> Result<(), TokenFault> {
    let audiences: Vec<&str> = match claims.get("aud") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let (met, wanted) = if let Some(wanted) = expected.audience {
        (audiences.contains(&wanted), wanted.to_owned())
    } else {
        let named = ["azp", "client_id"].map(|name| claims.get(name).and_then(Value::as_str));
        let mut meant = audiences.iter().copied().chain(named.into_iter().flatten());
        (meant.any(|one| expected.clients.contains(&one)), expected.clients.join(" or "))
    };
    if met {
        return Ok(());
    }
    let found = audiences.iter().take(4).map(|one| shown(one)).collect::<Vec<_>>().join(", ");
    let found = if found.is_empty() { "nobody in particular".to_owned() } else { found };
    Err(TokenFault::Audience { found, wanted })
}

/// A moment that a claim names, in seconds; `None` where it is not there.
pub fn time(claims: &Claims, name: &'static str) -> Result<Option<Timestamp>, TokenFault> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    #[allow(clippy::cast_possible_truncation)]
    // far more seconds than any clock tells are cut off, and refused then
    let seconds = value.as_i64().or_else(|| value.as_f64().map(|seconds| seconds as i64));
    let moment = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
    moment.map(Some).ok_or(TokenFault::Claim(name))
}

fn json(part: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

/// Others' text in a message of ours.
fn shown(text: &str) -> String {
    printable(&text.chars().take(100).collect::<String>()).replace('\n', " ")
}

/// A length of time, for people: `1 h`, `5 min`.
pub fn spelled(time: SignedDuration) -> String {
    match time.as_secs().unsigned_abs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86400),
    }
}

#[cfg(test)]
mod tests;
