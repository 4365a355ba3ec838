//! Whoever comes by a certificate of the cluster's own authority for the first time: written down by itself, so that
//! the administrator sees who is there. It has no rights by that, and there is an end to how many there may be.

use jiff::Timestamp;

use super::super::certificate::to_pem;
use super::super::identity::{IdentityKind, IdentityRecord};
use super::super::pki::{Entry, Role, Standing, Word};
use super::super::shown::Shown;
use super::super::{Access, Caller, Groups, Origin, Who};
use super::{ClientError, Clients};
use crate::store::{CommitError, Txn};

/// Most identities that came by themselves and were given nothing since.
const MAX_ARRIVED: usize = 1000;
/// Tries for a name that is not taken.
const MAX_SUFFIX: usize = 100;

impl Clients {
    /// Takes note of who shows a certificate that the store does not know, if the cluster's authority answers for it.
    pub async fn arrive(&self, shown: &Shown, origin: Origin, now: Timestamp) {
        let pki = self.identities.pki();
        if pki.is_none() || shown.check(now).is_err() {
            return;
        }
        // Cheap for whoever is known, and for whom no authority of the cluster signed.
        if self.identities.get(&shown.fingerprint.into()).is_some() {
            return;
        }
        let (kind, wanted) = match pki.standing(shown, Entry::None, now).0 {
            Standing::Newcomer(name) => (IdentityKind::Newcomer, name),
            Standing::Node(id) => (IdentityKind::Node { id }, format!("node-{id}")),
            Standing::Entry | Standing::Everything | Standing::Nobody(_) => return,
        };
        let who = Who::Anonymous { certificate: Some(shown.fingerprint) };
        let by = Caller { who, origin, shown: None };
        match self.write_down(&by, kind, &wanted, shown, now).await {
            Ok(name) if name == wanted => {
                tracing::info!(name, fingerprint = %shown.fingerprint, "came for the first time, and has no rights yet");
            }
            Ok(name) => {
                let fingerprint = shown.fingerprint;
                tracing::warn!(
                    wanted, name, %fingerprint,
                    "came for the first time under a name that somebody else has here, and got another; it has no rights yet"
                );
            }
            Err(error) => {
                let fingerprint = shown.fingerprint;
                tracing::warn!(wanted, %fingerprint, %error, "who came for the first time was not written down, so it is nobody");
            }
        }
    }

    async fn write_down(
        &self,
        by: &Caller,
        kind: IdentityKind,
        wanted: &str,
        shown: &Shown,
        now: Timestamp,
    ) -> Result<String, ClientError> {
        // Names are given one at a time.
        let _naming = self.naming.lock().await;
        let (mut arrived, mut names) = (0, std::collections::HashSet::new());
        self.identities.each(|_, known| {
            arrived += usize::from(known.kind.came_by_itself());
            names.insert(known.name.clone());
        });
        if arrived >= MAX_ARRIVED {
            return Err(ClientError::TooManyArrived(MAX_ARRIVED));
        }
        names.extend(self.pending_identities(now).await?.into_iter().map(|token| token.name));
        let name = std::iter::once(wanted.to_owned())
            .chain((2..MAX_SUFFIX).map(|number| format!("{wanted}-{number}")))
            .find(|name| !names.contains(name))
            .ok_or_else(|| ClientError::NameTaken(wanted.to_owned()))?;
        let access = Access::Groups(Groups::default());
        let certificate_pem = to_pem(&shown.der);
        let identity = IdentityRecord { kind, name: name.clone(), access, certificate_pem };
        match self.write(by, shown.fingerprint, &identity, Txn::default(), now).await {
            // By another connection of its own, a moment ago.
            Ok(()) | Err(ClientError::Commit(CommitError::Conflict(_))) => Ok(name),
            Err(error) => Err(error),
        }
    }

    /// Whether a certificate may become, or stay, an entry of the store.
    pub(super) fn check_signed(&self, shown: &Shown, now: Timestamp) -> Result<(), ClientError> {
        self.identities.pki().may_enter(shown, now).map_err(|objection| {
            let objection = objection.map(|objection| objection.to_string()).unwrap_or_default();
            tracing::info!(fingerprint = %shown.fingerprint, objection, "no authority answers for a certificate");
            ClientError::NotSigned
        })
    }

    /// Why whoever shows this may not come as an agent, over a link's protocol; `None` where that is not settled by
    /// its certificate.
    pub fn not_an_agent(&self, shown: &Shown, now: Timestamp) -> Option<String> {
        match self.identities.pki().word(shown, now).0 {
            Word::Role(Role::Node(id)) => Some(format!(
                "node {id} is recognised as a node of this cluster; agents cannot join a cluster yet, so there is nothing to do for it"
            )),
            Word::Role(Role::User(name)) => Some(format!(
                "the certificate is user {name}'s, who is a client of the API and no agent: an agent shows a node's (`comity ca create-node-certificate`)"
            )),
            Word::Role(Role::ControlService) => Some(
                "the certificate is the control service's, which is shown to clients and joins nothing"
                    .to_owned(),
            ),
            Word::Revoked => Some("the certificate has been revoked".to_owned()),
            Word::Unsigned | Word::Signed | Word::Void => None,
        }
    }
}
