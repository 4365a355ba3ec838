//! Why a server refused: whether it knows this client at all, which its `Forbidden` does not tell.

use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use jiff::Timestamp;

use super::{Client, ClientError, MAX_ERROR, Target};
use crate::trust::certificate::{KeyPair, expires_at};
use crate::wire::lxd::Envelope;
use crate::wire::lxd::server::ServerInfo;

impl Client {
    /// `refusal`, told apart: a certificate past its time, or trust that was taken back or never given, are said to be
    /// so, with what to do. Everything else stays what it is.
    pub(super) async fn told_apart(&self, refusal: ClientError) -> ClientError {
        let Target::Pinned { identity: Some(identity), .. } = &self.target else { return refusal };
        let bare = match &refusal {
            ClientError::Refused { status: StatusCode::FORBIDDEN, code, message, .. } => {
                code == "untrusted" || message == "Forbidden"
            }
            _ => false,
        };
        if !bare || self.trusts_us().await != Some(false) {
            return refusal;
        }
        self.untrusted(identity, Timestamp::now())
    }

    fn untrusted(&self, identity: &KeyPair, now: Timestamp) -> ClientError {
        let agent = self.agent();
        let expired = expires_at(&identity.certificate).filter(|end| *end < now);
        let (code, message, hint) = match expired {
            Some(end) => (
                "certificate-expired",
                format!(
                    "the certificate of this client expired at {end:.0}, so {agent} does not trust it any more"
                ),
                "Move client.crt and client.key out of the configuration folder, make a token there with `comity trust add --name NAME`, remove the remote here and add it again with that token: a new certificate is made then.",
            ),
            None => (
                "untrusted",
                format!("{agent} does not trust this client (certificate {})", identity.fingerprint),
                "The trust was taken back there, or never given. `comity trust list` there shows who is trusted; `comity trust add --name NAME` there makes a token, `comity remote add NAME TOKEN` redeems it.",
            ),
        };
        ClientError::Refused {
            agent,
            status: StatusCode::FORBIDDEN,
            code: code.to_owned(),
            message,
            hint: Some(hint.to_owned()),
        }
    }

    /// What `GET /1.0`, which answers anybody, says of the caller. `None` if it does not answer.
    async fn trusts_us(&self) -> Option<bool> {
        let body = Full::default().map_err(|never| match never {}).boxed_unsync();
        let request = http::Request::builder().method(Method::GET).uri("/1.0").body(body).ok()?;
        let (sender, driver) = self.connect().await.ok()?;
        let response = self.send(sender, driver, request).await.ok()?;
        let body = Limited::new(response.into_body(), MAX_ERROR).collect().await.ok()?.to_bytes();
        let envelope: Envelope = serde_json::from_slice(&body).ok()?;
        let server: ServerInfo = serde_json::from_value(envelope.metadata).ok()?;
        Some(server.auth == "trusted")
    }
}
