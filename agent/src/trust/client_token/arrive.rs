//! Whoever comes by a certificate of the cluster's own authority for the first time: written down by itself, so that
//! the administrator sees who is there. It has no rights by that, and there is an end to how many there may be.

use std::cmp::Ordering;

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;

use super::super::certificate::{from_pem, to_pem};
use super::super::identity::{IdentityKind, IdentityRecord};
use super::super::pki::{Entry, Role, Standing, Word};
use super::super::shown::Shown;
use super::super::{Access, Caller, Groups, IdentityId, Origin, Permission, Who};
use super::{ClientError, Clients};
use crate::store::{CommitError, Txn};

/// Most identities that came by themselves and were given nothing since.
const MAX_ARRIVED: usize = 1000;
/// Most nodes, which stay what they are.
const MAX_NODES: usize = 10_000;
/// Tries for a name that is not taken.
const MAX_SUFFIX: usize = 100;

/// Another certificate of the same user's.
enum Other {
    None,
    /// The one that this is known by was made before.
    Older(IdentityId),
    Newer,
}

/// Whoever came, on its own behalf.
struct Itself(Caller);

impl Permission for Itself {
    fn caller(&self) -> &Caller {
        &self.0
    }
}

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
            Standing::Newcomer(name) => {
                match self.other_of(&name, shown, now) {
                    Other::None => {}
                    Other::Older(held) => return self.follow(&name, held, shown, origin, now).await,
                    Other::Newer => {
                        let fingerprint = shown.fingerprint;
                        tracing::info!(name, %fingerprint, "a newer certificate of this user's is known here, so this one is nobody's");
                        return;
                    }
                }
                (IdentityKind::Newcomer, name)
            }
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

    /// The other certificate by which a user of the cluster is known, if there is one.
    fn other_of(&self, user: &str, shown: &Shown, now: Timestamp) -> Other {
        let pki = self.identities.pki();
        let mut found = None;
        self.identities.each(|id, known| {
            let is_client = matches!(known.kind, IdentityKind::User | IdentityKind::Newcomer);
            if known.name == user && is_client {
                found = Some((id.clone(), from_pem(&known.certificate_pem)));
            }
        });
        let Some((id, Some(other))) = found else { return Other::None };
        let (ours, others) = (pki.user_since(&shown.der, now), pki.user_since(&other, now));
        let (Some((ours, since)), Some((others, before))) = (ours, others) else { return Other::None };
        match since.cmp(&before) {
            _ if ours != others => Other::None,
            Ordering::Greater => Other::Older(id),
            Ordering::Less => Other::Newer,
            // Made in the same second: nothing tells which was meant to follow which.
            Ordering::Equal => Other::None,
        }
    }

    /// Has a user be known by a newer certificate from now on, with all that they may do: the authority says that it is
    /// the same user. The older one is nobody's after this.
    async fn follow(&self, user: &str, known: IdentityId, shown: &Shown, origin: Origin, now: Timestamp) {
        let who = Who::Anonymous { certificate: Some(shown.fingerprint) };
        let by = Itself(Caller { who, origin, shown: None });
        let followed = async {
            let held = self.read(&known).await?;
            let record = held.record.clone();
            self.change(&by, held, record, Some(&shown.der), now).await
        };
        let (name, fingerprint) = (user, shown.fingerprint);
        match followed.await {
            Ok(_) => {
                tracing::info!(name, before = %known, %fingerprint, "a user came by a newer certificate, and is known by that now");
            }
            // By another connection of its own, a moment ago.
            Err(ClientError::AlreadyTrusted | ClientError::Moved | ClientError::NotFound) => {}
            Err(error) => {
                tracing::warn!(name, %fingerprint, %error, "a user's newer certificate was not taken, so it is nobody's");
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
        let is_node = |kind: &IdentityKind| matches!(kind, IdentityKind::Node { .. });
        self.identities.each(|_, known| {
            arrived += usize::from(known.kind.came_by_itself() && is_node(&known.kind) == is_node(&kind));
            names.insert(known.name.clone());
        });
        let most = if is_node(&kind) { MAX_NODES } else { MAX_ARRIVED };
        if arrived >= most {
            return Err(ClientError::TooManyArrived(most));
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

    /// What an entry with this certificate is: a user of the cluster where its own authority says so, so that whoever is
    /// trusted by that is trusted no longer than that authority is.
    pub(super) fn kind_of(
        &self,
        kind: IdentityKind,
        access: &Access,
        certificate: &CertificateDer<'_>,
        now: Timestamp,
    ) -> IdentityKind {
        let by_groups = kind == IdentityKind::Client && matches!(access, Access::Groups(_));
        let is_user = by_groups && self.identities.pki().user_since(certificate, now).is_some();
        if is_user { IdentityKind::User } else { kind }
    }

    /// Whether a certificate may become, or stay, an entry of the store.
    pub(super) fn check_signed(&self, shown: &Shown, now: Timestamp) -> Result<(), ClientError> {
        let pki = self.identities.pki();
        pki.may_enter(shown, now).map_err(|objection| {
            // The authority answers for it, but not as for a client: what LXD says would mislead.
            if let Word::Role(Role::Node(id)) = pki.word(shown, now).0 {
                return ClientError::Node(id);
            }
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
