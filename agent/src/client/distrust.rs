//! Why a server refused: whether it knows this client at all, which its `Forbidden` does not tell.

use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use jiff::Timestamp;

use super::login::LoginError;
use super::{Client, ClientError, MAX_ERROR, Target};
use crate::trust::certificate::{KeyPair, expires_at};
use crate::wire::lxd::Envelope;
use crate::wire::lxd::server::ServerInfo;
use crate::wire::printable;

impl Client {
    /// `refusal`, told apart: a certificate past its time, or trust that was taken back or never given, are said to be
    /// so, with what to do. Everything else stays what it is.
    pub(super) async fn told_apart(&self, refusal: ClientError) -> ClientError {
        let bare = match &refusal {
            ClientError::Refused { status: StatusCode::FORBIDDEN, code, message, .. } => {
                code == "untrusted" || message == "Forbidden"
            }
            _ => false,
        };
        if !bare {
            return refusal;
        }
        match (&self.target, &self.session) {
            (_, Some(_)) => self.powerless().await.unwrap_or(refusal),
            (Target::Pinned { identity: Some(identity), .. }, None)
                if self.trusts_us().await == Some(false) =>
            {
                self.untrusted(identity, Timestamp::now())
            }
            _ => refusal,
        }
    }

    /// Why somebody who has logged in is refused: a login that has ended where no provider can renew it, or rights that
    /// nobody has given yet.
    async fn powerless(&self) -> Option<ClientError> {
        let server = self.told().await?;
        if server.auth != "trusted" {
            return Some(self.login(LoginError::Ended { agent: self.agent() }));
        }
        let (agent, user) = (self.agent(), printable(&server.auth_user_name?));
        Some(ClientError::Refused {
            message: format!("{agent} does not let {user} do that"),
            agent,
            status: StatusCode::FORBIDDEN,
            code: "forbidden".to_owned(),
            hint: Some(format!(
                "There, an administrator puts somebody into a group that may: `comity auth identity group add oidc/{user} GROUP`."
            )),
        })
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

    /// Whether `GET /1.0`, which answers anybody, says that the caller is trusted. `None` if it does not answer.
    async fn trusts_us(&self) -> Option<bool> {
        Some(self.told().await?.auth == "trusted")
    }

    /// What `GET /1.0` tells, asked once and without following up on a refusal.
    async fn told(&self) -> Option<ServerInfo> {
        let body = Full::default().map_err(|never| match never {}).boxed_unsync();
        let mut request = http::Request::builder().method(Method::GET).uri("/1.0").body(body).ok()?;
        self.introduce(request.headers_mut()).await.ok()?;
        let (sender, driver) = self.connect().await.ok()?;
        let response = self.send(sender, driver, request).await.ok()?;
        let body = Limited::new(response.into_body(), MAX_ERROR).collect().await.ok()?.to_bytes();
        let envelope: Envelope = serde_json::from_slice(&body).ok()?;
        serde_json::from_value(envelope.metadata).ok()
    }
}
