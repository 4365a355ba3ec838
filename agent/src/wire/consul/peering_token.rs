//! A token in Consul's form. It holds our own form's keys as well, so whatever takes one takes the other; what decides is
//! ours, above all the certificate's fingerprint, by which the issuer is known before the secret is sent.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::peering::Remote;
use crate::wire::token::{MAX_TOKEN, Secret, TrustToken};

/// A token's content.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PeeringToken {
    /// PEM: here the cluster's certificate, which is pinned.
    #[serde(rename = "CA")]
    pub ca: Option<Vec<String>>,
    /// Where the issuer is reached, where that is not where it listens.
    pub manual_server_addresses: Option<Vec<String>>,
    pub server_addresses: Option<Vec<String>>,
    pub server_name: String,
    /// What the issuer's programs call the peering.
    #[serde(rename = "PeerID")]
    pub peer_id: String,
    pub establishment_secret: Secret,
    pub remote: Remote,
}

/// Both forms at once.
#[derive(Serialize)]
struct Both<'a> {
    #[serde(flatten)]
    consuls: &'a PeeringToken,
    #[serde(flatten)]
    ours: &'a TrustToken,
}

/// A token that was read.
#[derive(Debug)]
pub enum Read {
    Both(PeeringToken, TrustToken),
    /// One that was made by another surface.
    Ours(TrustToken),
    /// A cluster's that is no comity agent's.
    Consuls(PeeringToken),
}

/// Why a text is no token, in Consul's words and order. Never repeats any of it but addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeeringTokenError {
    #[error("failed to decode token: the token is longer than {MAX_TOKEN} characters")]
    TooLong,
    #[error("failed to decode token: illegal base64 data at input byte {0}")]
    Base64(usize),
    #[error("unexpected end of JSON input")]
    Short,
    #[error("invalid JSON in the token: part of it may be missing")]
    Json,
    #[error("peering token invalid CA: {0}")]
    Ca(&'static str),
    #[error("peering token server addresses value is empty")]
    NoAddresses,
    #[error("{0} is not a valid peering server address")]
    Address(String),
    #[error("peering token server name value is empty")]
    NoServerName,
    #[error("peering token peer ID value is empty")]
    NoPeerId,
}

/// Longest part of an address that a message repeats.
const SHOWN: usize = 100;

impl PeeringToken {
    /// The text that is handed over.
    pub fn encode(&self, ours: &TrustToken) -> Secret {
        // Structs of strings, lists of them and a time always serialise.
        Secret::in_base64(&serde_json::to_vec(&Both { consuls: self, ours }).unwrap_or_default())
    }

    /// Whether its parts will do, in Consul's order.
    pub fn check(&self) -> Result<(), PeeringTokenError> {
        let ca = self.ca.as_deref().unwrap_or_default();
        for pem in ca {
            let read = x509_parser::pem::parse_x509_pem(pem.as_bytes());
            let (_, block) = read.map_err(|_| PeeringTokenError::Ca("no PEM-encoded data found"))?;
            if block.label != "CERTIFICATE" {
                return Err(PeeringTokenError::Ca("first PEM-block should be CERTIFICATE type"));
            }
            block.parse_x509().map_err(|_| PeeringTokenError::Ca("x509: malformed certificate"))?;
        }
        let manual = self.manual_server_addresses.as_deref().unwrap_or_default();
        let own = self.server_addresses.as_deref().unwrap_or_default();
        if manual.is_empty() && own.is_empty() {
            return Err(PeeringTokenError::NoAddresses);
        }
        manual.iter().chain(own).try_for_each(|address| check_address(address))?;
        if !ca.is_empty() && self.server_name.is_empty() {
            return Err(PeeringTokenError::NoServerName);
        }
        if self.peer_id.is_empty() {
            return Err(PeeringTokenError::NoPeerId);
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.ca.is_none()
            && self.manual_server_addresses.is_none()
            && self.server_addresses.is_none()
            && self.server_name.is_empty()
            && self.peer_id.is_empty()
    }
}

/// `HOST:PORT`, with a port from 1.
pub fn check_address(address: &str) -> Result<(), PeeringTokenError> {
    let fault = || PeeringTokenError::Address(address.chars().take(SHOWN).collect());
    let (host, port) = address.rsplit_once(':').ok_or_else(fault)?;
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = match bracketed {
        Some(inside) => inside,
        None if host.contains([':', '[', ']']) => return Err(fault()),
        None => host,
    };
    let port = port.parse::<u16>().map_err(|_| fault())?;
    if host.is_empty() || port == 0 { Err(fault()) } else { Ok(()) }
}

/// Reads a token of either form and checks what it says.
pub fn read(text: &str) -> Result<Read, PeeringTokenError> {
    if text.len() > MAX_TOKEN {
        return Err(PeeringTokenError::TooLong);
    }
    let json = decode(text)?;
    // By way of an object: a struct is read from a list too.
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&json)
        .map_err(|error| if error.is_eof() { PeeringTokenError::Short } else { PeeringTokenError::Json })?;
    let consuls: PeeringToken = serde_json::from_value(object.into()).map_err(|_| PeeringTokenError::Json)?;
    // The same checks as where a token of ours is taken.
    let ours = TrustToken::decode(text).ok();
    match ours {
        Some(ours) if consuls.is_empty() => Ok(Read::Ours(ours)),
        ours => {
            consuls.check()?;
            Ok(match ours {
                Some(ours) => Read::Both(consuls, ours),
                None => Read::Consuls(consuls),
            })
        }
    }
}

/// Base64 with Go's word for where it is wrong. Blanks are passed over: terminals wrap long lines.
fn decode(text: &str) -> Result<Vec<u8>, PeeringTokenError> {
    let text: String = text.split_whitespace().collect();
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    STANDARD.decode(&text).map_err(|_| {
        let wrong = text.bytes().position(|byte| !known(byte) && byte != b'=');
        PeeringTokenError::Base64(wrong.unwrap_or(text.len() - text.len() % 4))
    })
}

impl fmt::Debug for PeeringToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeeringToken").field("peer_id", &self.peer_id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::{Value, json};

    use super::*;
    use crate::trust::certificate::KeyPair;
    use crate::wire::token::TYPE_CLUSTER_LINK;

    fn refused(token: &Value) -> String {
        read(&STANDARD.encode(token.to_string())).unwrap_err().to_string()
    }

    fn ours() -> TrustToken {
        TrustToken {
            client_name: "west".to_owned(),
            fingerprint: "0".repeat(64),
            addresses: vec!["127.0.0.1:8443".to_owned()],
            secret: Secret::random(),
            expires_at: Timestamp::MAX,
            kind: TYPE_CLUSTER_LINK.to_owned(),
        }
    }

    #[test]
    fn faults_are_told_in_consuls_order_and_words() {
        let pem = KeyPair::generate("east", &[]).unwrap().pem;
        let empty = "peering token server addresses value is empty";
        for (token, why) in [
            (json!({}), empty),
            (json!({"CA": []}), empty),
            (json!({"CA": ["notavalidcert"]}), "peering token invalid CA: no PEM-encoded data found"),
            (
                json!({"CA": [pem], "ServerAddresses": ["1.2.3.4"]}),
                "1.2.3.4 is not a valid peering server address",
            ),
            (
                json!({"CA": [pem], "ManualServerAddresses": ["1.2.3.4"]}),
                "1.2.3.4 is not a valid peering server address",
            ),
            (
                json!({"ServerAddresses": ["1.2.3.4:0"], "PeerID": "x"}),
                "1.2.3.4:0 is not a valid peering server address",
            ),
            (
                json!({"CA": [pem], "ServerAddresses": ["1.2.3.4:80"]}),
                "peering token server name value is empty",
            ),
            (
                json!({"CA": [pem], "ServerAddresses": ["[::1]:80"], "ServerName": "s"}),
                "peering token peer ID value is empty",
            ),
            (json!([]), "invalid JSON in the token: part of it may be missing"),
        ] {
            assert_eq!(refused(&token), why, "{token}");
        }
        for (text, why) in [
            ("+++/+++", "failed to decode token: illegal base64 data at input byte 4"),
            ("a b!", "failed to decode token: illegal base64 data at input byte 2"),
            ("Cg==", "unexpected end of JSON input"),
            ("e30K", empty),
        ] {
            assert_eq!(read(text).unwrap_err().to_string(), why, "{text}");
        }
    }

    #[test]
    fn one_token_is_read_by_both_surfaces() {
        let consuls = PeeringToken {
            server_addresses: Some(vec!["127.0.0.1:8443".to_owned()]),
            peer_id: "some".to_owned(),
            ..PeeringToken::default()
        };
        let text = consuls.encode(&ours());
        assert_eq!(TrustToken::decode(text.expose()).unwrap().client_name, "west");
        assert!(matches!(read(text.expose()), Ok(Read::Both(read, _)) if read.peer_id == "some"));
        assert!(matches!(read(ours().encode().expose()), Ok(Read::Ours(_))));
        let alone = STANDARD.encode(serde_json::to_vec(&consuls).unwrap());
        assert!(matches!(read(&alone), Ok(Read::Consuls(_))));
    }
}
