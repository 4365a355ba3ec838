//! What has been set about an identity provider.

use jiff::SignedDuration;

use super::token::Expected;
use crate::wire::token::Secret;

/// An identity provider, and what this cluster is to it.
#[derive(Debug, Clone)]
pub struct OidcConfig {
    pub issuer: String,
    /// Of logins in a browser, and of devices too where those have no other.
    pub client_id: String,
    pub client_secret: Option<Secret>,
    pub device_client_id: Option<String>,
    /// What an access token must be for, if that is said.
    pub audience: Option<String>,
    /// The claim that lists the groups of the provider that somebody is in.
    pub groups_claim: Option<String>,
    pub scopes: Vec<String>,
    /// How long a login is good for.
    pub session_expiry: SignedDuration,
}

impl OidcConfig {
    /// The client that a command line is.
    pub fn device_client(&self) -> &str {
        self.device_client_id.as_deref().unwrap_or(&self.client_id)
    }

    /// Whether this is what `other` is.
    pub fn is(&self, other: &Self) -> bool {
        let plain = |config: &Self| {
            let Self {
                issuer,
                client_id,
                device_client_id,
                audience,
                groups_claim,
                scopes,
                session_expiry,
                ..
            } = config.clone();
            (issuer, client_id, device_client_id, audience, groups_claim, scopes, session_expiry)
        };
        let secret = |config: &Self| config.client_secret.as_ref().map(Secret::digest);
        plain(self) == plain(other) && secret(self) == secret(other)
    }

    /// Whether whoever was let in by `other` would be by this, with the same groups: else their sessions end.
    pub fn vouches_as(&self, other: &Self) -> bool {
        self.issuer == other.issuer
            && self.client_id == other.client_id
            && self.device_client_id == other.device_client_id
            && self.audience == other.audience
            && self.groups_claim == other.groups_claim
    }

    /// What a token is asked for.
    pub fn expected<'a>(&'a self, clients: &'a [&'a str]) -> Expected<'a> {
        Expected { issuer: &self.issuer, audience: self.audience.as_deref(), clients }
    }

    /// Everything that this cluster is to the provider.
    pub fn clients(&self) -> Vec<&str> {
        let device = self.device_client_id.as_deref().filter(|id| *id != self.client_id);
        [self.client_id.as_str()].into_iter().chain(device).collect()
    }
}
