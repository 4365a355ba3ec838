//! Every identity there is, whatever it is kept as: active ones, tokens that are to become one, links that wait.

use std::sync::Arc;

use jiff::Timestamp;

use crate::api::ApiState;
use crate::api::lxd::answer::LxdError;
use crate::authorize::Entity;
use crate::peering::Waiting;
use crate::trust::client_token::{Purpose, TokenReport};
use crate::trust::identity::{IdentityKind, IdentityRecord};
use crate::trust::{Access, Groups, IdentityId};
use crate::wire::lxd::identity::{Identity, types};

/// An identity as the API sees it.
#[derive(Debug, Clone)]
pub enum Known {
    Active {
        id: IdentityId,
        record: Arc<IdentityRecord>,
    },
    /// Nobody has redeemed its token.
    Pending(TokenReport),
    /// The same, for the peer of a bidirectional link.
    Waiting(Waiting),
}

/// All of them.
pub async fn every(state: &ApiState) -> Result<Vec<Known>, LxdError> {
    let now = Timestamp::now();
    let mut every = Vec::new();
    state.identities.each(|id, record| {
        every.push(Known::Active { id: id.clone(), record: Arc::clone(record) });
    });
    every.extend(state.clients.pending_identities(now).await?.into_iter().map(Known::Pending));
    every.extend(state.peering.waiting(now).await?.into_iter().map(Known::Waiting));
    Ok(every)
}

impl Known {
    pub fn method(&self) -> &'static str {
        match self {
            Known::Active { record, .. } => match record.kind {
                IdentityKind::Oidc => "oidc",
                IdentityKind::Bearer { .. } => "bearer",
                IdentityKind::Client
                | IdentityKind::Newcomer
                | IdentityKind::User
                | IdentityKind::Node { .. }
                | IdentityKind::Metrics
                | IdentityKind::ClusterLink { .. } => "tls",
            },
            Known::Pending(_) | Known::Waiting(_) => "tls",
        }
    }

    pub fn id(&self) -> IdentityId {
        match self {
            Known::Active { id, .. } => id.clone(),
            Known::Pending(token) => IdentityId::Token(token.id),
            Known::Waiting(waiting) => IdentityId::Token(waiting.id),
        }
    }

    pub fn identifier(&self) -> String {
        self.id().to_string()
    }

    pub fn name(&self) -> &str {
        match self {
            Known::Active { record, .. } => &record.name,
            Known::Pending(token) => &token.name,
            Known::Waiting(waiting) => waiting.link.as_str(),
        }
    }

    /// Whether its name says who is meant. That of somebody whom a provider vouches for does not: they choose it
    /// themselves, so it may be anybody's, or another's mail address.
    pub fn goes_by_name(&self) -> bool {
        self.method() != "oidc"
    }

    pub fn is_called(&self, wanted: &str) -> bool {
        self.identifier() == wanted || (self.goes_by_name() && self.name() == wanted)
    }

    pub fn entity(&self) -> Entity {
        Entity::Identity(self.id())
    }

    pub fn url(&self) -> String {
        crate::wire::lxd::entity_url::Named::simple(
            "identity",
            format!("{}/{}", self.method(), self.identifier()),
        )
        .url()
    }

    /// LXD's name of its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Known::Waiting(_) => types::CLUSTER_LINK_PENDING,
            Known::Pending(token) if matches!(token.purpose, Purpose::ClusterLink { .. }) => {
                types::CLUSTER_LINK_PENDING
            }
            Known::Pending(_) => types::CLIENT_PENDING,
            Known::Active { record, .. } => match (&record.kind, &record.access) {
                (IdentityKind::Client, Access::Groups(_)) | (IdentityKind::User, _) => types::CLIENT,
                (IdentityKind::Client, Access::Projects(_)) => types::CLIENT_RESTRICTED,
                (IdentityKind::Client, Access::Unrestricted) => types::CLIENT_UNRESTRICTED,
                (IdentityKind::Newcomer, _) => types::CLIENT_PENDING,
                (IdentityKind::Node { .. }, _) => types::SERVER,
                (IdentityKind::Metrics, Access::Unrestricted) => types::METRICS_UNRESTRICTED,
                (IdentityKind::Metrics, _) => types::METRICS_RESTRICTED,
                (IdentityKind::ClusterLink { .. }, _) => types::CLUSTER_LINK,
                (IdentityKind::Oidc, _) => types::OIDC,
                (IdentityKind::Bearer { .. }, _) => types::BEARER,
            },
        }
    }

    /// Whether what it may do comes from groups, and so can be changed here.
    pub fn is_fine_grained(&self) -> bool {
        match self {
            Known::Active { record, .. } => !record.is_legacy(),
            Known::Pending(_) | Known::Waiting(_) => true,
        }
    }

    pub fn groups(&self, state: &ApiState) -> Groups {
        let of = |access: &Access| match access {
            Access::Groups(groups) => groups.clone(),
            Access::Unrestricted | Access::Projects(_) => Groups::default(),
        };
        match self {
            // Those of the link's declaration are the ones that count.
            Known::Active { record, .. } => record
                .kind
                .declared_link()
                .and_then(|link| state.identities.link_groups(link))
                .unwrap_or_else(|| of(&record.access)),
            Known::Pending(token) => of(&token.access),
            Known::Waiting(waiting) => state.identities.link_groups(&waiting.link).unwrap_or_default(),
        }
    }

    pub fn shown(&self, state: &ApiState) -> Identity {
        let (tls_certificate, expires_at) = match self {
            Known::Active { record, .. } => {
                let expires_at = match &record.kind {
                    IdentityKind::Bearer { token: Some(token) } => Some(token.expires_at),
                    _ => None,
                };
                (record.certificate_pem.clone(), expires_at)
            }
            Known::Pending(token) => (String::new(), Some(token.expires_at)),
            Known::Waiting(waiting) => (String::new(), Some(waiting.expires_at)),
        };
        Identity {
            authentication_method: self.method().to_owned(),
            kind: self.kind().to_owned(),
            id: self.identifier(),
            name: self.name().to_owned(),
            groups: self.groups(state).iter().map(ToString::to_string).collect(),
            tls_certificate,
            expires_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_called_by_a_name_that_they_chose_themselves() {
        let known = |id: &str, kind: IdentityKind| Known::Active {
            id: id.parse().unwrap(),
            record: Arc::new(IdentityRecord {
                kind,
                name: "ceo@example.com".to_owned(),
                access: Access::Groups(Groups::default()),
                certificate_pem: String::new(),
            }),
        };
        let mallory = known("mallory@example.com", IdentityKind::Oidc);
        assert!(mallory.is_called("mallory@example.com") && !mallory.is_called("ceo@example.com"));
        // An administrator gave this one its name.
        let bearer = "00000000-0000-0000-0000-000000000007";
        let given = known(bearer, IdentityKind::Bearer { token: None });
        assert!(given.is_called("ceo@example.com") && given.is_called(bearer));
    }
}
