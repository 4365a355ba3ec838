//! Websockets of other servers: the handshake. What is said over them is for who asked.

use http::Method;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;

use super::trust::segment;
use super::upgrade::Upgraded;
use super::{Client, ClientError};
use crate::wire::token::Secret;

impl Client {
    /// Connects to a websocket that a secret alone opens (LXD: an operation's). What comes back speaks its frames.
    pub async fn websocket(&self, path: &str, secret: &Secret) -> Result<Upgraded, ClientError> {
        let path = format!("{path}?secret={}", segment(secret.expose()));
        let key = generate_key();
        let headers = [("sec-websocket-version", "13"), ("sec-websocket-key", key.as_str())];
        self.upgrade_with(Method::GET, &path, "websocket", &headers).await
    }
}
