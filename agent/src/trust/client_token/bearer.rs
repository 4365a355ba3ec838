//! Identities that are known by a token which they send with each request (LXD: bearers).

use jiff::{SignedDuration, Timestamp};
use schema::name::GroupName;
use serde_json::json;
use uuid::Uuid;

use super::super::identity::{BearerToken, IdentityKind, IdentityRecord};
use super::super::{Access, Caller, IdentityId, Permission};
use super::roster::Held;
use super::{ClientError, Clients, check_name};
use crate::store::Txn;
use crate::wire::lxd::identity::types;
use crate::wire::token::Secret;

/// The agent, doing what time asks for.
struct Agent;

impl Permission for Agent {
    fn caller(&self) -> &Caller {
        const AGENT: &Caller = &Caller::local(0);
        AGENT
    }
}

impl Clients {
    /// Adds an identity that will be known by a token, and has none yet.
    pub async fn add_bearer(
        &self,
        by: &impl Permission,
        name: &str,
        groups: Vec<GroupName>,
        now: Timestamp,
    ) -> Result<Uuid, ClientError> {
        check_name(name)?;
        let _naming = self.naming.lock().await;
        let mut taken = false;
        self.identities.each(|_, identity| {
            taken |= identity.name == name && matches!(identity.kind, IdentityKind::Bearer { .. });
        });
        if taken {
            return Err(ClientError::NameTaken(name.to_owned()));
        }
        let id = Uuid::new_v4();
        let record = IdentityRecord {
            kind: IdentityKind::Bearer { token: None },
            name: name.to_owned(),
            access: Access::Groups(groups.into()),
            certificate_pem: String::new(),
        };
        self.write(by.caller(), IdentityId::Token(id), &record, Txn::default(), now).await?;
        Ok(id)
    }

    /// Makes a bearer's token. The one before it is worth nothing from then on.
    pub async fn issue_bearer_token(
        &self,
        by: &impl Permission,
        held: Held,
        lifetime: SignedDuration,
        now: Timestamp,
    ) -> Result<Secret, ClientError> {
        let expires_at = now.saturating_add(lifetime).unwrap_or(Timestamp::MAX);
        let secret = Secret::random();
        // Its first letters are those of the other tokens, so whatever hides those hides these.
        let text = json!({
            "type": types::BEARER,
            "client_name": held.record.name,
            "secret": secret.expose(),
            "expires_at": expires_at,
        });
        let token = Secret::in_base64(text.to_string().as_bytes());
        let known_by = BearerToken { digest: token.digest(), expires_at };
        let record =
            IdentityRecord { kind: IdentityKind::Bearer { token: Some(known_by) }, ..held.record.clone() };
        self.change(by, held, record, None, now).await?;
        Ok(token)
    }

    /// Forgets the tokens of bearers that have expired, which also ends the connections that they opened.
    pub(super) async fn prune_bearers(&self, now: Timestamp) -> Result<(), ClientError> {
        let mut expired = Vec::new();
        self.identities.each(|id, identity| {
            let is_over = matches!(
                &identity.kind,
                IdentityKind::Bearer { token: Some(token) } if token.expires_at <= now
            );
            expired.extend(is_over.then(|| id.clone()));
        });
        for id in expired {
            let held = self.read(&id).await?;
            match &held.record.kind {
                IdentityKind::Bearer { token: Some(token) } if token.expires_at <= now => {
                    self.revoke_bearer_token(&Agent, held, now).await?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes a bearer's token back.
    pub async fn revoke_bearer_token(
        &self,
        by: &impl Permission,
        held: Held,
        now: Timestamp,
    ) -> Result<(), ClientError> {
        let record = IdentityRecord { kind: IdentityKind::Bearer { token: None }, ..held.record.clone() };
        self.change(by, held, record, None, now).await.map(drop)
    }
}
