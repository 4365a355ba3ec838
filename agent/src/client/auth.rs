//! Calls about auth groups, permissions and what an identity provider's groups are worth.

use http::Method;
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::{Client, ClientError, NO_BODY};
use crate::wire::lxd::auth::{
    AuthGroup, AuthGroupPut, IdentityProviderGroup, OidcSession, PermissionInfo, Rename,
};
use crate::wire::lxd::entity_url::segment;

const GROUPS: &str = "/1.0/auth/groups";
const PROVIDER_GROUPS: &str = "/1.0/auth/identity-provider-groups";

impl Client {
    /// Every group that the caller may see.
    pub async fn groups(&self) -> Result<Vec<AuthGroup>, ClientError> {
        self.lxd(Method::GET, &format!("{GROUPS}?recursion=1"), NO_BODY).await
    }

    /// A group, and the tag that a change of it names.
    pub async fn group(&self, name: &str) -> Result<(AuthGroup, String), ClientError> {
        self.entry(GROUPS, name).await
    }

    pub async fn create_group(&self, group: &AuthGroup) -> Result<(), ClientError> {
        self.create_entry(GROUPS, group).await
    }

    /// Puts a group in place of what it was at `tag`.
    pub async fn put_group(&self, name: &str, group: &AuthGroupPut, tag: &str) -> Result<(), ClientError> {
        self.put_entry(GROUPS, name, group, tag).await
    }

    pub async fn rename_group(&self, name: &str, to: &str) -> Result<(), ClientError> {
        self.rename_entry(GROUPS, name, to).await
    }

    pub async fn delete_group(&self, name: &str) -> Result<(), ClientError> {
        self.delete_entry(GROUPS, name).await
    }

    /// Everything that could be granted on what exists, narrowed by LXD's query (`entity-type=…&project=…`).
    pub async fn permissions(&self, query: &str) -> Result<Vec<PermissionInfo>, ClientError> {
        self.lxd(Method::GET, &format!("/1.0/auth/permissions?recursion=1{query}"), NO_BODY).await
    }

    pub async fn provider_groups(&self) -> Result<Vec<IdentityProviderGroup>, ClientError> {
        self.lxd(Method::GET, &format!("{PROVIDER_GROUPS}?recursion=1"), NO_BODY).await
    }

    pub async fn provider_group(&self, name: &str) -> Result<(IdentityProviderGroup, String), ClientError> {
        self.entry(PROVIDER_GROUPS, name).await
    }

    pub async fn create_provider_group(&self, group: &IdentityProviderGroup) -> Result<(), ClientError> {
        self.create_entry(PROVIDER_GROUPS, group).await
    }

    pub async fn put_provider_group(
        &self,
        name: &str,
        group: &IdentityProviderGroup,
        tag: &str,
    ) -> Result<(), ClientError> {
        self.put_entry(PROVIDER_GROUPS, name, group, tag).await
    }

    pub async fn rename_provider_group(&self, name: &str, to: &str) -> Result<(), ClientError> {
        self.rename_entry(PROVIDER_GROUPS, name, to).await
    }

    pub async fn delete_provider_group(&self, name: &str) -> Result<(), ClientError> {
        self.delete_entry(PROVIDER_GROUPS, name).await
    }

    /// The sessions of logins that this client may see.
    pub async fn oidc_sessions(&self) -> Result<Vec<OidcSession>, ClientError> {
        self.lxd(Method::GET, "/1.0/auth/oidc-sessions?recursion=1", NO_BODY).await
    }

    pub async fn oidc_session(&self, uuid: &str) -> Result<OidcSession, ClientError> {
        self.lxd(Method::GET, &format!("/1.0/auth/oidc-sessions/{}", segment(uuid)), NO_BODY).await
    }

    pub async fn delete_oidc_session(&self, uuid: &str) -> Result<(), ClientError> {
        let path = format!("/1.0/auth/oidc-sessions/{}", segment(uuid));
        self.lxd::<serde::de::IgnoredAny>(Method::DELETE, &path, NO_BODY).await.map(drop)
    }

    async fn entry<T: DeserializeOwned>(&self, list: &str, name: &str) -> Result<(T, String), ClientError> {
        self.lxd_tagged(Method::GET, &format!("{list}/{}", segment(name)), NO_BODY, None).await
    }

    async fn create_entry(&self, list: &str, body: &impl Serialize) -> Result<(), ClientError> {
        self.lxd::<IgnoredAny>(Method::POST, list, Some(body)).await.map(drop)
    }

    async fn put_entry(
        &self,
        list: &str,
        name: &str,
        body: &impl Serialize,
        tag: &str,
    ) -> Result<(), ClientError> {
        let path = format!("{list}/{}", segment(name));
        self.lxd_tagged::<IgnoredAny>(Method::PUT, &path, Some(body), Some(tag)).await.map(drop)
    }

    async fn rename_entry(&self, list: &str, name: &str, to: &str) -> Result<(), ClientError> {
        let (path, body) = (format!("{list}/{}", segment(name)), Rename { name: to.to_owned() });
        self.lxd::<IgnoredAny>(Method::POST, &path, Some(&body)).await.map(drop)
    }

    async fn delete_entry(&self, list: &str, name: &str) -> Result<(), ClientError> {
        let path = format!("{list}/{}", segment(name));
        self.lxd::<IgnoredAny>(Method::DELETE, &path, NO_BODY).await.map(drop)
    }
}
