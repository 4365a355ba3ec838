//! What was shown over a connection besides a certificate: a connection may carry the requests of several, and ends
//! with any of them, so that nobody's answers go on behind another's.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use uuid::Uuid;

use crate::trust::Who;
use crate::trust::identity::Identities;
use crate::wire::token::SecretDigest;

/// Most that are kept in mind of one connection: the newest.
const MOST: usize = 64;

/// What was shown, and was good then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// A bearer's token.
    Bearer(SecretDigest),
    /// A session of somebody whom the identity provider vouches for.
    Session(Uuid),
}

impl Credential {
    /// Whose it is now.
    fn caller(&self, identities: &Identities) -> Option<Who> {
        match self {
            Credential::Bearer(digest) => identities.caller_by_bearer(digest),
            Credential::Session(session) => identities.caller_by_session(session),
        }
    }
}

/// All that was shown over one connection.
#[derive(Debug, Default)]
pub struct Credentials(Mutex<VecDeque<Credential>>);

impl Credentials {
    pub fn add(&self, credential: Credential) {
        // Whole between statements, so a panic elsewhere leaves nothing half done.
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.contains(&credential) {
            return;
        }
        if shown.len() >= MOST {
            shown.pop_front();
        }
        shown.push_back(credential);
    }

    /// Who the connection is known by: the first of those who are still somebody.
    pub fn caller(&self, identities: &Identities) -> Option<Who> {
        self.all().iter().find_map(|credential| credential.caller(identities))
    }

    /// Whether one of them is nobody's by now.
    pub fn lost_any(&self, identities: &Identities) -> bool {
        self.all().iter().any(|credential| credential.caller(identities).is_none())
    }

    fn all(&self) -> VecDeque<Credential> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::SqliteStore;
    use crate::task::Tasks;
    use crate::wire::token::Secret;

    #[tokio::test]
    async fn each_is_kept_once_and_any_that_is_lost_is_noticed() {
        let identities = Identities::start(SqliteStore::scratch(), &Tasks::new()).await.unwrap();
        let shown = Credentials::default();
        assert!(!shown.lost_any(&identities) && shown.caller(&identities).is_none());
        let nobodys = Credential::Bearer(Secret::new("x".to_owned()).digest());
        shown.add(nobodys.clone());
        shown.add(nobodys);
        assert!(shown.lost_any(&identities) && shown.all().len() == 1);
        for _ in 0..2 * MOST {
            shown.add(Credential::Session(Uuid::new_v4()));
        }
        assert_eq!(shown.all().len(), MOST);
    }
}
