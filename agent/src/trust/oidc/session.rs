//! Sessions: what a login leaves behind here, so that not every request has to show the provider's word again.
//!
//! A session is known by a secret that its client keeps as a cookie, of which only the digest is stored, and goes on
//! whatever becomes of the provider or of the access token that began it. It ends when its time is over, when it is
//! deleted, or with its identity. What the provider said of its user's groups belongs to it.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::store::keys;
use crate::wire::token::SecretDigest;

/// What `/oidc-session/UUID` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// Whose it is.
    pub email: String,
    /// As the provider calls them.
    pub username: String,
    /// Of the secret that the client keeps.
    pub cookie: SecretDigest,
    /// Of the access token that began it, or was shown with it last.
    pub token: SecretDigest,
    /// The provider's groups that they are in, by that token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Where the login came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user_agent: String,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
}

/// All sessions, and what finds them.
#[derive(Debug, Default)]
pub struct Sessions {
    records: BTreeMap<Uuid, Arc<SessionRecord>>,
    by_cookie: HashMap<String, Uuid>,
    by_token: HashMap<String, Uuid>,
}

impl Sessions {
    pub fn get(&self, id: &Uuid) -> Option<&Arc<SessionRecord>> {
        self.records.get(id)
    }

    /// The one whose client keeps the secret of this digest.
    pub fn by_cookie(&self, digest: &SecretDigest) -> Option<Uuid> {
        let id = self.by_cookie.get(digest.as_str())?;
        self.records.get(id)?.cookie.is(digest).then_some(*id)
    }

    /// The one that the access token of this digest belongs to.
    pub fn by_token(&self, digest: &SecretDigest) -> Option<Uuid> {
        self.by_token.get(digest.as_str()).copied()
    }

    pub fn all(&self) -> impl Iterator<Item = (&Uuid, &Arc<SessionRecord>)> {
        self.records.iter()
    }

    /// Those of one identity, the oldest first.
    pub fn of(&self, email: &str) -> Vec<Uuid> {
        let mut found: Vec<_> = self.records.iter().filter(|(_, session)| session.email == email).collect();
        found.sort_by_key(|(_, session)| session.created_at);
        found.into_iter().map(|(id, _)| *id).collect()
    }

    pub fn count(&self) -> usize {
        self.records.len()
    }

    pub fn put(&mut self, id: Uuid, session: SessionRecord) {
        self.remove(&id);
        self.by_cookie.insert(session.cookie.as_str().to_owned(), id);
        self.by_token.insert(session.token.as_str().to_owned(), id);
        self.records.insert(id, Arc::new(session));
    }

    pub fn remove(&mut self, id: &Uuid) {
        if let Some(session) = self.records.remove(id) {
            self.by_cookie.remove(session.cookie.as_str());
            // Another may have been begun with the same token since.
            if self.by_token.get(session.token.as_str()) == Some(id) {
                self.by_token.remove(session.token.as_str());
            }
        }
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

/// The session that a store key is of.
pub fn session_id(key: &str) -> Option<Uuid> {
    key.strip_prefix(keys::OIDC_SESSION)?.parse().ok()
}
