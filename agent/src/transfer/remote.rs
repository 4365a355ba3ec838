//! The other side of a transfer, as a client tells of it: where its operation is, the secrets, and its certificate.
//!
//! The secrets are a map, as LXD has it. A `control` secret that begins with `OURS` says that whoever made it speaks
//! our chunk stream as well; LXD takes any text for a secret and does not look at it. A name of its own in the map
//! would say the same, but a client that relays connects every name of one side to that name of the other, and so could
//! not relay between one of ours and LXD.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::TransferError;
use super::asker::Asker;
use super::bridge::Stream;
use crate::client::Client;
use crate::trust::Fingerprint;
use crate::trust::certificate::{KeyPair, fingerprint, from_pem};
use crate::wire::token::Secret;
use crate::wire::volume::TRANSFER_PROTOCOL;

/// What a `control` secret of ours begins with.
const OURS: &str = "comity-";
/// The connection that a transfer is agreed on over.
pub const CONTROL: &str = "control";
/// The connection that LXD sends files over.
pub const FS: &str = "fs";

impl From<BTreeMap<String, Secret>> for Secrets {
    fn from(map: BTreeMap<String, Secret>) -> Self {
        Self(map)
    }
}

/// Secrets by what they are for. Never logged: `Secret` does not print itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secrets(BTreeMap<String, Secret>);

impl Secrets {
    /// New ones for an operation of ours.
    pub(super) fn random() -> Self {
        let control = Secret::new(format!("{OURS}{}", Secret::random().expose()));
        Self([(CONTROL.to_owned(), control), (FS.to_owned(), Secret::random())].into())
    }

    pub fn get(&self, name: &str) -> Option<&Secret> {
        self.0.get(name)
    }

    pub(super) fn pairs(&self) -> Vec<(&'static str, Secret)> {
        [CONTROL, FS].into_iter().filter_map(|name| Some((name, self.get(name)?.clone()))).collect()
    }

    /// Whether the side that made them speaks our chunk stream.
    pub fn are_ours(&self) -> bool {
        self.get(CONTROL).is_some_and(|secret| secret.expose().starts_with(OURS))
    }
}

/// An operation on another server.
#[derive(Debug, Clone)]
pub struct Remote {
    /// `https://HOST:PORT/1.0/operations/ID`, each with another address of the same server.
    pub operations: Vec<String>,
    pub secrets: Secrets,
    /// The server's certificate, PEM: the connection is pinned to it.
    pub certificate: String,
}

/// Why what a client tells of the other side is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RemoteError {
    #[error("the operation must be a URL such as https://HOST:8443/1.0/operations/ID")]
    NoOperation,
    #[error("the operation's URLs must differ in their address alone")]
    Several,
    #[error("the other side's certificate is needed in PEM, since the connection to it is pinned")]
    NoCertificate,
    #[error("the secret \"control\" is missing")]
    NoSecret,
}

/// A remote that can be dialled.
#[derive(Debug, Clone)]
pub struct Peer {
    addresses: Vec<String>,
    identity: Option<Arc<KeyPair>>,
    asker: Asker,
    pin: Fingerprint,
    id: Uuid,
    path: String,
    secrets: Secrets,
}

impl Remote {
    /// Reads what `asker` told. `identity` is what we show to servers of our own kind.
    pub fn peer(&self, identity: Arc<KeyPair>, asker: Asker) -> Result<Peer, RemoteError> {
        let certificate = from_pem(&self.certificate).ok_or(RemoteError::NoCertificate)?;
        let (mut addresses, mut path) = (Vec::new(), None);
        for url in &self.operations {
            let rest = url.strip_prefix("https://").ok_or(RemoteError::NoOperation)?;
            let (address, operation) = rest.split_once('/').ok_or(RemoteError::NoOperation)?;
            if path.get_or_insert(operation) != &operation {
                return Err(RemoteError::Several);
            }
            addresses.push(address.to_owned());
        }
        let path = path.ok_or(RemoteError::NoOperation)?;
        let id = path.strip_prefix("1.0/operations/").and_then(|id| id.parse().ok());
        let id: Uuid = id.ok_or(RemoteError::NoOperation)?;
        if self.secrets.get(CONTROL).is_none() {
            return Err(RemoteError::NoSecret);
        }
        let pin = fingerprint(&certificate);
        // LXD would have to be told nothing of us; ours may have bound its offer to our key.
        let identity = self.secrets.are_ours().then_some(identity);
        let (path, secrets) = (format!("/1.0/operations/{id}"), self.secrets.clone());
        Ok(Peer { addresses, identity, asker, pin, id, path, secrets })
    }
}

impl Peer {
    /// The certificate that it has to show.
    pub fn pin(&self) -> Fingerprint {
        self.pin
    }

    pub fn is_ours(&self) -> bool {
        self.secrets.are_ours()
    }

    pub fn secret(&self, name: &str) -> Option<&Secret> {
        self.secrets.get(name)
    }

    /// A connection of the chunk stream, claimed with `secret`.
    pub async fn stream(&self, secret: &Secret) -> Result<Box<dyn Stream>, TransferError> {
        let path = format!("/control/v1/transfers/{}/stream", self.id);
        let stream = self.client().await?.upgrade(&path, TRANSFER_PROTOCOL, Some(secret)).await;
        stream.map(|stream| Box::new(stream) as Box<dyn Stream>).map_err(|e| self.asker.unreached(&e))
    }

    /// The stream of one of LXD's websockets; the handshake is done.
    pub async fn websocket(&self, name: &'static str) -> Result<Box<dyn Stream>, TransferError> {
        let secret = self
            .secrets
            .get(name)
            .ok_or_else(|| TransferError::Unreachable(format!("the secret {name:?} is missing")))?;
        let stream = self.client().await?.websocket(&format!("{}/websocket", self.path), secret).await;
        stream.map(|stream| Box::new(stream) as Box<dyn Stream>).map_err(|e| self.asker.unreached(&e))
    }

    async fn client(&self) -> Result<Client, TransferError> {
        let addresses = self.asker.dialled(&self.addresses).await?;
        let client = Client::pinned("the other side", addresses, self.pin, self.identity.clone());
        Ok(client.by_clients_door())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(operations: &[&str]) -> Remote {
        let pair = KeyPair::generate("x", &["x".to_owned()]).unwrap();
        Remote {
            operations: operations.iter().map(ToString::to_string).collect(),
            secrets: Secrets::random(),
            certificate: pair.pem,
        }
    }

    #[test]
    fn secrets_of_ours_are_known_and_never_printed() {
        let secrets = Secrets::random();
        assert!(secrets.are_ours());
        let control = secrets.get(CONTROL).unwrap().expose().to_owned();
        assert!(!format!("{secrets:?}").contains(&control));
        assert!(!Secrets([(CONTROL.to_owned(), Secret::random())].into()).are_ours());
        assert_eq!(secrets.pairs().len(), 2);
    }

    #[test]
    fn what_a_client_tells_is_read_strictly() {
        let identity = Arc::new(KeyPair::generate("y", &["y".to_owned()]).unwrap());
        let id = "1.0/operations/6f9ae1d8-0a9f-4f5e-8f6e-5f1b6a4a3f11";
        let read = |urls: &[&str]| remote(urls).peer(identity.clone(), Asker::Here).map(drop);
        let (one, two) = (format!("https://a:1/{id}"), format!("https://[::1]:2/{id}"));
        assert_eq!(read(&[&one, &two]), Ok(()));
        assert_eq!(read(&[]), Err(RemoteError::NoOperation));
        assert_eq!(read(&["http://a:1/1.0/operations/x"]), Err(RemoteError::NoOperation));
        assert_eq!(read(&["https://a:1/1.0/operations/../x"]), Err(RemoteError::NoOperation));
        let other = "https://a:1/1.0/operations/7f9ae1d8-0a9f-4f5e-8f6e-5f1b6a4a3f11";
        assert_eq!(read(&[&one, other]), Err(RemoteError::Several));
        let mut bare = remote(&[&one]);
        bare.certificate.clear();
        assert_eq!(bare.peer(identity.clone(), Asker::Here).unwrap_err(), RemoteError::NoCertificate);
        bare = remote(&[&one]);
        bare.secrets = Secrets::default();
        assert_eq!(bare.peer(identity, Asker::Here).unwrap_err(), RemoteError::NoSecret);
    }
}
