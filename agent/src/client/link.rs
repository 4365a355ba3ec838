//! Calls about cluster links.

use std::time::Duration;

use http::Method;
use schema::name::LinkName;

use super::tagged::Tagged;
use super::{Client, ClientError, NO_BODY};
use crate::wire::cluster_link::{
    Activated, LinkPost, LinkPut, LinkRename, LinkReport, LxdLink, LxdLinkState, MintRequest, MintResponse,
    RedeemRequest,
};
use crate::wire::token::Secret;

impl Client {
    /// Every link, and what is true of it.
    pub async fn links(&self) -> Result<Vec<LinkReport>, ClientError> {
        self.request(Method::GET, "/control/v1/links", NO_BODY).await
    }

    pub async fn link(&self, name: &LinkName) -> Result<LinkReport, ClientError> {
        self.request(Method::GET, &format!("/control/v1/links/{name}"), NO_BODY).await
    }

    /// The link once it is ACTIVE, or as it is when `limit` has passed.
    pub async fn link_when_active(
        &self,
        name: &LinkName,
        limit: Duration,
    ) -> Result<LinkReport, ClientError> {
        let path = format!("/control/v1/links/{name}?wait=active&timeout_ms={}", limit.as_millis());
        let client = self.clone().with_timeout(limit + Duration::from_secs(5));
        client.request(Method::GET, &path, NO_BODY).await
    }

    /// Has the agent issue a token for a declared link.
    pub async fn mint_link_token(
        &self,
        name: &LinkName,
        request: &MintRequest,
    ) -> Result<MintResponse, ClientError> {
        self.request(Method::POST, &format!("/control/v1/links/{name}/token"), Some(request)).await
    }

    /// Has the agent redeem a peer's token for a declared link.
    pub async fn redeem_link_token(
        &self,
        name: &LinkName,
        request: &RedeemRequest,
    ) -> Result<LinkReport, ClientError> {
        self.request(Method::POST, &format!("/control/v1/links/{name}/redeem"), Some(request)).await
    }

    /// Has the agent pin what the declaration of a public link names.
    pub async fn pin_link(&self, name: &LinkName) -> Result<LinkReport, ClientError> {
        self.request(Method::POST, &format!("/control/v1/links/{name}/pin"), NO_BODY).await
    }

    /// Makes a link by hand, in LXD's shape. For a pending one the answer is the token, as LXD gives it.
    pub async fn create_link(&self, link: &LinkPost) -> Result<serde_json::Value, ClientError> {
        self.lxd(Method::POST, "/1.0/cluster/links", Some(link)).await
    }

    pub async fn delete_link(&self, name: &LinkName) -> Result<(), ClientError> {
        let _: serde_json::Value =
            self.lxd(Method::DELETE, &format!("/1.0/cluster/links/{name}"), NO_BODY).await?;
        Ok(())
    }

    /// The redeemer's call to the issuer: consumes the token and makes the link there.
    pub async fn activate_link(&self, activation: &LinkPost) -> Result<Activated, ClientError> {
        let answer: serde_json::Value =
            self.lxd(Method::POST, "/1.0/cluster/links", Some(activation)).await?;
        // Only our own agents say more than that it worked.
        Ok(serde_json::from_value(answer).unwrap_or_default())
    }

    /// The calling side of a unidirectional link redeems its token: the issuer knows its certificate from then on.
    pub async fn redeem_identity_token(&self, token: &Secret) -> Result<(), ClientError> {
        let body = serde_json::json!({ "trust_token": token.expose() });
        let _: serde_json::Value = self.lxd(Method::POST, "/1.0/auth/identities/tls", Some(&body)).await?;
        Ok(())
    }

    /// A link as LXD shows it, to be changed.
    pub async fn lxd_link(&self, name: &LinkName) -> Result<Tagged<LxdLink>, ClientError> {
        self.tagged(&format!("/1.0/cluster/links/{name}")).await
    }

    /// Changes what can be changed of a link, if it still is what `tag` was given for.
    pub async fn put_link(&self, name: &LinkName, put: &LinkPut, tag: &str) -> Result<(), ClientError> {
        self.if_match(Method::PUT, &format!("/1.0/cluster/links/{name}"), put, tag).await
    }

    pub async fn rename_link(&self, name: &LinkName, to: &LinkName) -> Result<(), ClientError> {
        let body = LinkRename { name: to.to_string() };
        let _: serde_json::Value =
            self.lxd(Method::POST, &format!("/1.0/cluster/links/{name}"), Some(&body)).await?;
        Ok(())
    }

    /// Has the agent ask each of the peer's addresses.
    pub async fn link_members(&self, name: &LinkName) -> Result<LxdLinkState, ClientError> {
        self.lxd(Method::GET, &format!("/1.0/cluster/links/{name}/state"), NO_BODY).await
    }
}
