//! Identities, typed.

use http::Method;

use super::trust::{MintedToken, segment};
use super::{Client, ClientError, NO_BODY};
use crate::wire::lxd::identity::{
    BearerIdentityPost, BearerTokenIssued, BearerTokenPost, CurrentIdentity, Identity, IdentityPatch,
    TlsIdentityPost,
};
use crate::wire::token::{Secret, TrustToken};

const IDENTITIES: &str = "/1.0/auth/identities";

impl Client {
    /// Has a one-time token made for a TLS identity, which is pending until it is redeemed.
    pub async fn mint_identity(&self, body: &TlsIdentityPost) -> Result<MintedToken, ClientError> {
        let path = format!("{IDENTITIES}/tls");
        let token: TrustToken = self.lxd(Method::POST, &path, Some(body)).await?;
        // The id is in the `Location` alone. The name is unique, but who may make one need not be able to see it.
        let made = self.identity("tls", &token.client_name).await;
        Ok(MintedToken { id: made.map(|made| made.id).unwrap_or_default(), token })
    }

    /// Adds a TLS identity by its certificate.
    pub async fn add_identity(&self, body: &TlsIdentityPost) -> Result<(), ClientError> {
        let path = format!("{IDENTITIES}/tls");
        self.lxd::<serde::de::IgnoredAny>(Method::POST, &path, Some(body)).await.map(drop)
    }

    /// Adds one that is known by a token, and has none yet.
    pub async fn add_bearer(&self, body: &BearerIdentityPost) -> Result<(), ClientError> {
        let path = format!("{IDENTITIES}/bearer");
        self.lxd::<serde::de::IgnoredAny>(Method::POST, &path, Some(body)).await.map(drop)
    }

    /// Every identity that this client may see.
    pub async fn identities(&self) -> Result<Vec<Identity>, ClientError> {
        self.lxd(Method::GET, &format!("{IDENTITIES}?recursion=1"), NO_BODY).await
    }

    /// One, by name or identifier.
    pub async fn identity(&self, method: &str, name: &str) -> Result<Identity, ClientError> {
        self.lxd(Method::GET, &path(method, name), NO_BODY).await
    }

    /// Who this client is there, and what it may do.
    pub async fn current_identity(&self) -> Result<CurrentIdentity, ClientError> {
        self.lxd(Method::GET, &format!("{IDENTITIES}/current"), NO_BODY).await
    }

    pub async fn edit_identity(
        &self,
        method: &str,
        name: &str,
        body: &IdentityPatch,
    ) -> Result<(), ClientError> {
        self.lxd::<serde::de::IgnoredAny>(Method::PATCH, &path(method, name), Some(body)).await.map(drop)
    }

    pub async fn delete_identity(&self, method: &str, name: &str) -> Result<(), ClientError> {
        self.lxd::<serde::de::IgnoredAny>(Method::DELETE, &path(method, name), NO_BODY).await.map(drop)
    }

    /// Has a bearer's token made; the one before it is worth nothing from then on.
    pub async fn issue_bearer_token(&self, name: &str, expiry: &str) -> Result<Secret, ClientError> {
        let body = BearerTokenPost { expiry: expiry.to_owned() };
        let path = format!("{}/token", path("bearer", name));
        let issued: BearerTokenIssued = self.lxd(Method::POST, &path, Some(&body)).await?;
        Ok(issued.token)
    }

    pub async fn revoke_bearer_token(&self, name: &str) -> Result<(), ClientError> {
        let path = format!("{}/token", path("bearer", name));
        self.lxd::<serde::de::IgnoredAny>(Method::DELETE, &path, NO_BODY).await.map(drop)
    }
}

fn path(method: &str, name: &str) -> String {
    format!("{IDENTITIES}/{}/{}", segment(method), segment(name))
}
