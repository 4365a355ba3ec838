//! Becoming trusted, and who is, typed.

use std::time::Duration;

use http::{Method, StatusCode};
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;

use super::{Client, ClientError, NO_BODY};
use crate::trust::certificate::from_pem;
use crate::wire::lxd::certificate::{Certificate, CertificatePatch, CertificatesPost, TokenOperation};
use crate::wire::lxd::identity::TlsIdentityPost;
use crate::wire::lxd::server::ServerInfo;
use crate::wire::token::TrustToken;
use crate::wire::trust::ClusterCertificate;
pub use crate::wire::trust::PendingToken;

/// A token as the issuer gave it out, its one copy.
#[derive(Debug, Clone)]
pub struct MintedToken {
    /// Names it in lists; no secret.
    pub id: String,
    pub token: TrustToken,
}

impl Client {
    /// What the agent says of itself, and whether it trusts this client.
    pub async fn server(&self) -> Result<ServerInfo, ClientError> {
        self.lxd(Method::GET, "/1.0", NO_BODY).await
    }

    /// The certificate that identifies the cluster, whatever clients are shown; `None` of a server that makes no such
    /// difference (LXD).
    pub async fn cluster_certificate(&self) -> Result<Option<CertificateDer<'static>>, ClientError> {
        let asked = self.request::<ClusterCertificate>(Method::GET, "/control/v1/certificate", NO_BODY).await;
        match asked {
            Ok(told) => from_pem(&told.certificate)
                .map(Some)
                .ok_or_else(|| self.unexpected(&"the cluster certificate cannot be read")),
            Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Has a one-time token made for a client to be called `name`: an identity in these groups or, without groups,
    /// an entry of the trust store that may do everything.
    pub async fn mint_token(
        &self,
        name: &str,
        groups: &[String],
        lifetime: Option<Duration>,
    ) -> Result<MintedToken, ClientError> {
        let (name, expires_in) = (name.to_owned(), expires_in(lifetime));
        if groups.is_empty() {
            let kind = "client".to_owned();
            let body =
                CertificatesPost { name, kind, token: true, expires_in, ..CertificatesPost::default() };
            return self.mint_certificate(&body).await;
        }
        let groups = groups.to_vec();
        let body = TlsIdentityPost { name, token: true, groups, expires_in, ..TlsIdentityPost::default() };
        self.mint_identity(&body).await
    }

    /// Has a one-time token made for an entry of the trust store.
    pub async fn mint_certificate(&self, body: &CertificatesPost) -> Result<MintedToken, ClientError> {
        let operation: TokenOperation = self.lxd(Method::POST, "/1.0/certificates", Some(body)).await?;
        let metadata = operation.metadata;
        let token = TrustToken {
            client_name: metadata.request.name,
            fingerprint: metadata.fingerprint,
            addresses: metadata.addresses,
            secret: metadata.secret,
            expires_at: metadata.expires_at.unwrap_or(Timestamp::MAX),
            kind: String::new(),
        };
        Ok(MintedToken { id: operation.id, token })
    }

    /// Adds an entry to the trust store by its certificate.
    pub async fn add_certificate(&self, body: &CertificatesPost) -> Result<(), ClientError> {
        self.lxd::<serde::de::IgnoredAny>(Method::POST, "/1.0/certificates", Some(body)).await.map(drop)
    }

    /// Redeems a token (its text) for the certificate that this client connects with, where it is to be redeemed.
    pub async fn redeem_token(&self, token: &str) -> Result<(), ClientError> {
        let has_groups = TrustToken::decode(token).is_ok_and(|token| !token.kind.is_empty());
        if has_groups {
            let body = TlsIdentityPost { trust_token: token.to_owned(), ..TlsIdentityPost::default() };
            return self
                .lxd::<serde::de::IgnoredAny>(Method::POST, "/1.0/auth/identities/tls", Some(&body))
                .await
                .map(drop);
        }
        let body = CertificatesPost {
            kind: "client".to_owned(),
            trust_token: token.to_owned(),
            ..CertificatesPost::default()
        };
        let sent = self.lxd::<serde::de::IgnoredAny>(Method::POST, "/1.0/certificates", Some(&body)).await;
        match sent {
            Err(error) if error.status() == Some(StatusCode::FORBIDDEN) && !self.knows_tokens().await => {
                // LXD up to 5.0 looks for it where passwords were.
                let body =
                    CertificatesPost { trust_token: String::new(), password: token.to_owned(), ..body };
                self.lxd::<serde::de::IgnoredAny>(Method::POST, "/1.0/certificates", Some(&body))
                    .await
                    .map(drop)
            }
            sent => sent.map(drop),
        }
    }

    /// Whether the server is one that looks for a token under its own name.
    async fn knows_tokens(&self) -> bool {
        self.has_extension("explicit_trust_token").await.unwrap_or(true)
            || self.cluster_certificate().await.is_ok_and(|ours| ours.is_some())
    }

    /// The entries of the trust store.
    pub async fn trusted(&self) -> Result<Vec<Certificate>, ClientError> {
        self.lxd(Method::GET, "/1.0/certificates?recursion=1", NO_BODY).await
    }

    /// One of them: by fingerprint, its beginning, or name.
    pub async fn certificate(&self, client: &str) -> Result<Certificate, ClientError> {
        let path = format!("/1.0/certificates/{}", segment(client));
        self.lxd(Method::GET, &path, NO_BODY).await
    }

    /// Changes one.
    pub async fn edit_certificate(&self, client: &str, body: &CertificatePatch) -> Result<(), ClientError> {
        let path = format!("/1.0/certificates/{}", segment(client));
        self.lxd::<serde::de::IgnoredAny>(Method::PUT, &path, Some(body)).await.map(drop)
    }

    /// Ends the trust in a client: by fingerprint, its beginning, or name.
    pub async fn distrust(&self, client: &str) -> Result<(), ClientError> {
        let path = format!("/1.0/certificates/{}", segment(client));
        self.lxd::<serde::de::IgnoredAny>(Method::DELETE, &path, NO_BODY).await.map(drop)
    }

    /// Tokens that can still be redeemed.
    pub async fn pending_tokens(&self) -> Result<Vec<PendingToken>, ClientError> {
        self.request(Method::GET, "/control/v1/trust/tokens", NO_BODY).await
    }

    /// Takes back every token that has this id or name.
    pub async fn revoke_token(&self, token: &str) -> Result<(), ClientError> {
        let path = format!("/control/v1/trust/tokens/{}", segment(token));
        self.request::<serde::de::IgnoredAny>(Method::DELETE, &path, NO_BODY).await.map(drop)
    }
}

/// How long a token is to be good for, as a body says it.
pub fn expires_in(lifetime: Option<Duration>) -> Option<u64> {
    lifetime.map(|lifetime| lifetime.as_secs().max(1))
}

/// `text` as one segment of a path.
pub(super) fn segment(text: &str) -> String {
    use std::fmt::Write as _;
    let mut segment = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            segment.push(char::from(byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(segment, "%{byte:02X}");
        }
    }
    segment
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_segment_stays_one() {
        assert_eq!(super::segment("my laptop/../x?y"), "my%20laptop%2F..%2Fx%3Fy");
    }
}
