//! Who is known: identities by the fingerprint of their certificate, and the policy that groups add up to.
//!
//! One task for each prefix (identities, groups, links' groups, what an identity provider's groups are worth, sessions) follows the store, so a question costs one
//! lookup in memory and the answer is never older than the last commit that was told. What cannot be read is nobody:
//! a damaged identity is untrusted, a damaged group gives no right.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use schema::name::LinkName;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use uuid::Uuid;

use super::oidc::session::Sessions;
use super::pki::{Entry as StoreEntry, Pki, Standing};
use super::policy::Policy;
use super::shown::Shown;
use super::{Access, Fingerprint, Groups, IdentityId, Who};
use crate::store::{Revision, Snapshot, Store, StoreError, Watch, keys};
use crate::task::Tasks;
use crate::wire::token::SecretDigest;

#[cfg(test)]
mod tests;
mod view;

use view::View;

const GROUPS: &str = "/declared/auth_group/";
const LINKS: &str = "/declared/cluster_link/";
/// Everything that is followed.
const PREFIXES: [&str; 5] =
    [keys::IDENTITY, GROUPS, LINKS, keys::IDENTITY_PROVIDER_GROUP, keys::OIDC_SESSION];
/// How long a broken watch is left before it is begun again.
const RETRY: Duration = Duration::from_millis(500);
/// How long an answer waits for a commit to be seen. It is seen within a millisecond or the store is in trouble.
const SEEN_WITHIN: Duration = Duration::from_secs(2);

/// What `/identity/FINGERPRINT` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityRecord {
    pub kind: IdentityKind,
    /// As lists show it; a link's identity has the link's name.
    pub name: String,
    /// For a link's identity the groups that count are those of the link's declaration, where there is one.
    pub access: Access,
    /// PEM, so that a list can show it; empty where it is known by something else.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub certificate_pem: String,
}

/// What an identity is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdentityKind {
    /// A client by certificate. With groups it is LXD's fine-grained kind, else one of the trust store.
    Client,
    /// A user of the cluster, by a certificate of its own authority, who came by itself and has no groups yet.
    Newcomer,
    /// Such a user who was given groups. Nobody, where that authority is not this agent's any more.
    User,
    /// A node of the cluster, by such a certificate (LXD: server certificate). It is no client.
    Node { id: Uuid },
    /// A certificate for reading metrics (LXD: metrics certificate).
    Metrics,
    /// The cluster at the other end of a link.
    ClusterLink {
        link: LinkName,
        #[serde(default)]
        backing: Backing,
    },
    /// Somebody whom an identity provider vouches for (LXD: OIDC client).
    Oidc,
    /// Whoever sends its token with a request (LXD: client token bearer).
    Bearer {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<BearerToken>,
    },
}

/// What stands behind a linked cluster's identity.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backing {
    /// The declared link of its name, whose groups it has.
    #[default]
    Declaration,
    /// Nothing but itself: it calls here over a one-way link of its own, and has the groups that it was given.
    Itself,
}

/// What a bearer is known by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BearerToken {
    pub digest: SecretDigest,
    pub expires_at: Timestamp,
}

impl IdentityKind {
    /// The link whose declaration says what the identity may do.
    pub fn declared_link(&self) -> Option<&LinkName> {
        match self {
            Self::ClusterLink { link, backing: Backing::Declaration } => Some(link),
            _ => None,
        }
    }
}

impl IdentityKind {
    /// It is there because its certificate was shown, and not because anybody wanted it.
    pub fn came_by_itself(&self) -> bool {
        matches!(self, Self::Newcomer | Self::Node { .. })
    }
}

impl IdentityRecord {
    /// The list that it is in: where its path begins.
    pub fn collection(&self) -> &'static str {
        match self.kind {
            IdentityKind::Oidc => "/1.0/auth/identities/oidc",
            IdentityKind::Bearer { .. } => "/1.0/auth/identities/bearer",
            IdentityKind::Client
            | IdentityKind::Newcomer
            | IdentityKind::User
            | IdentityKind::Node { .. }
            | IdentityKind::Metrics
            | IdentityKind::ClusterLink { .. } => "/1.0/auth/identities/tls",
        }
    }

    /// An entry of LXD's trust store (`/1.0/certificates`): what it may do does not come from groups.
    pub fn is_legacy(&self) -> bool {
        match self.kind {
            IdentityKind::Client => !matches!(self.access, Access::Groups(_)),
            IdentityKind::Metrics => true,
            IdentityKind::Newcomer
            | IdentityKind::User
            | IdentityKind::Node { .. }
            | IdentityKind::ClusterLink { .. }
            | IdentityKind::Oidc
            | IdentityKind::Bearer { .. } => false,
        }
    }
}

/// The identities and groups of the store, followed.
pub struct Identities {
    view: RwLock<View>,
    /// Who answers for certificates, and what they have taken back.
    pki: Arc<Pki>,
    changed: watch::Sender<u64>,
    /// Up to which revision each of the prefixes is known.
    seen: [watch::Sender<Revision>; PREFIXES.len()],
}

impl Identities {
    /// Reads what there is, then follows it until `tasks` end.
    pub async fn start(store: Arc<dyn Store>, tasks: &Tasks) -> Result<Arc<Self>, StoreError> {
        Self::start_with(store, Pki::none(), tasks).await
    }

    /// The same, where authorities have a say as well.
    pub async fn start_with(
        store: Arc<dyn Store>,
        pki: Arc<Pki>,
        tasks: &Tasks,
    ) -> Result<Arc<Self>, StoreError> {
        let mut revoked = pki.changed();
        let identities = Arc::new(Self {
            view: RwLock::default(),
            pki,
            changed: watch::Sender::default(),
            seen: Default::default(),
        });
        for prefix in PREFIXES {
            let watch = identities.read(&*store, prefix).await?;
            let follow = Arc::clone(&identities).follow(store.clone(), prefix, watch);
            let ending = tasks.ending();
            tasks.spawn("identities", async move {
                ending.run_until_cancelled(follow).await;
            });
        }
        let (told, ending) = (Arc::clone(&identities), tasks.ending());
        tasks.spawn("revocations", async move {
            while ending.run_until_cancelled(revoked.changed()).await.is_some_and(|changed| changed.is_ok()) {
                told.reconsider();
            }
        });
        Ok(identities)
    }

    /// Has everybody who is connected looked at again: what they are trusted by may have changed.
    pub fn reconsider(&self) {
        self.changed.send_modify(|generation| *generation += 1);
    }

    pub fn pki(&self) -> &Arc<Pki> {
        &self.pki
    }

    /// Who shows this certificate. One that is unknown or out of its time is nobody's.
    pub fn caller(&self, certificate: Option<&CertificateDer<'_>>) -> Who {
        match certificate {
            None => Who::Anonymous { certificate: None },
            Some(der) => self.caller_showing(&Shown::new(der.clone().into_owned())),
        }
    }

    /// The same, of a certificate that was read when its connection was made.
    pub fn caller_showing(&self, shown: &Shown) -> Who {
        let (fingerprint, now) = (shown.fingerprint, Timestamp::now());
        if let Err(reason) = shown.check(now) {
            tracing::info!(%fingerprint, %reason, "a client certificate is not taken");
            return Who::Anonymous { certificate: Some(fingerprint) };
        }
        if self.pki.is_none() && !self.needs_authority(&fingerprint.into()) {
            return self.caller_by_fingerprint(fingerprint);
        }
        self.vouched(shown, now)
    }

    /// Whether an identity is one only for as long as the cluster's own authority vouches for it.
    fn needs_authority(&self, id: &IdentityId) -> bool {
        let kind = self.view().identities.get(id).map(|identity| identity.kind.clone());
        matches!(kind, Some(IdentityKind::Newcomer | IdentityKind::User | IdentityKind::Node { .. }))
    }

    /// Who shows a certificate, where authorities have a say.
    fn vouched(&self, shown: &Shown, now: Timestamp) -> Who {
        let fingerprint = shown.fingerprint;
        let known = self.caller_by_id(&fingerprint.into());
        let entry = match &known {
            None => StoreEntry::None,
            Some(Who::Peer { .. }) => StoreEntry::Pinned,
            Some(_) if self.needs_authority(&fingerprint.into()) => StoreEntry::User,
            Some(_) => StoreEntry::Client,
        };
        let nobody = Who::Anonymous { certificate: Some(fingerprint) };
        let (standing, objection) = self.pki.standing(shown, entry, now);
        match standing {
            Standing::Entry => known.unwrap_or(nobody),
            Standing::Everything => Who::Signed { fingerprint, name: shown.common_name() },
            Standing::Node(id) => Who::Node { fingerprint, id },
            // Written down when it came, or refused then with the reason.
            Standing::Newcomer(_) => nobody,
            Standing::Nobody(why) => {
                if let Some(objection) = objection {
                    tracing::info!(%fingerprint, %why, %objection, "a client certificate is not taken");
                }
                nobody
            }
        }
    }

    /// Who a fingerprint belongs to now, for a connection whose certificate was looked at when it was made.
    pub fn caller_by_fingerprint(&self, fingerprint: Fingerprint) -> Who {
        self.caller_by_id(&fingerprint.into()).unwrap_or(Who::Anonymous { certificate: Some(fingerprint) })
    }

    /// Who an identity is as a caller, once it has proven to be that identity.
    pub fn caller_by_id(&self, id: &IdentityId) -> Option<Who> {
        let view = self.view();
        let identity = view.identities.get(id)?;
        let name = || identity.name.clone();
        Some(match (&identity.kind, id.fingerprint()) {
            (IdentityKind::Client | IdentityKind::Newcomer | IdentityKind::User, Some(_))
            | (IdentityKind::Oidc, None) => {
                Who::Client { id: id.clone(), name: name(), access: identity.access.clone() }
            }
            (IdentityKind::Bearer { token: Some(token) }, None) if token.expires_at > Timestamp::now() => {
                Who::Client { id: id.clone(), name: name(), access: identity.access.clone() }
            }
            (IdentityKind::Metrics, Some(fingerprint)) => Who::Metrics { fingerprint, name: name() },
            (IdentityKind::ClusterLink { link, backing }, Some(fingerprint)) => {
                let declared = view.link_groups.get(link);
                if *backing == Backing::Itself && declared.is_some() {
                    // The name is refused to both, so this is a store that was put together by hand. What is granted to
                    // the link is not this cluster's, and nobody could tell the two apart.
                    return None;
                }
                let groups = match (declared, &identity.access) {
                    (Some(declared), _) => declared.clone(),
                    (None, Access::Groups(groups)) => groups.clone(),
                    // A link is never unrestricted: what is not written down is not granted.
                    (None, Access::Unrestricted | Access::Projects(_)) => Groups::default(),
                };
                Who::Peer { link: link.clone(), fingerprint, groups }
            }
            _ => return None,
        })
    }

    /// Whose token has this digest now, if it is anybody's and has not expired.
    pub fn caller_by_bearer(&self, digest: &SecretDigest) -> Option<Who> {
        let id = self.view().bearers.get(digest.as_str())?.clone();
        let known = self.get(&id)?;
        let IdentityKind::Bearer { token: Some(token) } = &known.kind else { return None };
        if token.digest.is(digest) { self.caller_by_id(&id) } else { None }
    }

    pub fn get(&self, id: &IdentityId) -> Option<Arc<IdentityRecord>> {
        self.view().identities.get(id).cloned()
    }

    /// Shows every identity to `look`, which must be quick: nobody can change one meanwhile.
    pub fn each(&self, mut look: impl FnMut(&IdentityId, &Arc<IdentityRecord>)) {
        self.view().identities.iter().for_each(|(id, identity)| look(id, identity));
    }

    /// Whose session this is now, if it goes on: with the groups of ours that those of the provider's are worth which
    /// its login told of.
    pub fn caller_by_session(&self, session: &Uuid) -> Option<Who> {
        let (session, policy) = {
            let view = self.view();
            (view.sessions.get(session)?.clone(), view.policy.clone())
        };
        if session.expires_at <= Timestamp::now() {
            return None;
        }
        match self.caller_by_id(&IdentityId::Email(session.email.clone()))? {
            Who::Client { id, name, access: Access::Groups(own) } => {
                let access = Access::Groups(own.and(&policy.groups_for_provider_groups(&session.groups)));
                Some(Who::Client { id, name, access })
            }
            _ => None,
        }
    }

    /// What `look` finds among the sessions.
    pub fn sessions<T>(&self, look: impl FnOnce(&Sessions) -> T) -> T {
        look(&self.view().sessions)
    }

    /// Whether any cluster is known as the peer of this link.
    pub fn is_linked(&self, link: &LinkName) -> bool {
        self.view().links.contains_key(link)
    }

    /// The groups that a link's declaration names, if it is declared.
    pub fn link_groups(&self, link: &LinkName) -> Option<Groups> {
        self.view().link_groups.get(link).cloned()
    }

    /// Every identity.
    pub fn all(&self) -> BTreeMap<IdentityId, Arc<IdentityRecord>> {
        self.view().identities.clone()
    }

    pub fn policy(&self) -> Arc<Policy> {
        self.view().policy.clone()
    }

    /// Rises with every change of identities, links' groups or groups.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Waits until what `revision` did to identities is seen here: after a commit that changed some, before the answer.
    pub async fn seen(&self, revision: Revision) {
        self.seen_of(keys::IDENTITY, revision).await;
    }

    /// The same of groups.
    pub async fn groups_seen(&self, revision: Revision) {
        self.seen_of(GROUPS, revision).await;
    }

    /// The same of what an identity provider's groups are worth.
    pub async fn provider_groups_seen(&self, revision: Revision) {
        self.seen_of(keys::IDENTITY_PROVIDER_GROUP, revision).await;
    }

    /// The same of sessions.
    pub async fn sessions_seen(&self, revision: Revision) {
        self.seen_of(keys::OIDC_SESSION, revision).await;
    }

    async fn seen_of(&self, prefix: &str, revision: Revision) {
        let Some(seen) = self.seen_sender(prefix) else { return };
        let mut seen = seen.subscribe();
        let wait = seen.wait_for(|seen| *seen >= revision);
        if tokio::time::timeout(SEEN_WITHIN, wait).await.is_err() {
            tracing::warn!(%revision, prefix, "a change has not been seen yet");
        }
    }

    fn seen_sender(&self, prefix: &str) -> Option<&watch::Sender<Revision>> {
        self.seen.get(PREFIXES.iter().position(|known| *known == prefix)?)
    }

    fn view(&self) -> RwLockReadGuard<'_, View> {
        // Writers leave the view whole between statements, so a panic in one leaves nothing half done.
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in everything under `prefix`, and watches it from there.
    async fn read(&self, store: &dyn Store, prefix: &str) -> Result<Watch, StoreError> {
        let snapshot = store.range(prefix).await?;
        let watch = store.watch(prefix, snapshot.revision).await?;
        self.replace(prefix, &snapshot);
        Ok(watch)
    }

    async fn follow(self: Arc<Self>, store: Arc<dyn Store>, prefix: &'static str, mut watch: Watch) {
        loop {
            while let Some(Ok(batch)) = watch.recv().await {
                self.update(prefix, batch.revision, |view| {
                    batch.events.iter().for_each(|event| view.take(event));
                });
            }
            // Too far behind, or the store failed: begin again from what there is now.
            watch = loop {
                tokio::time::sleep(RETRY).await;
                match self.read(&*store, prefix).await {
                    Ok(watch) => break watch,
                    Err(StoreError::Closed) => return,
                    Err(error) => {
                        tracing::error!(%error, prefix, "identities cannot be followed; trying again");
                    }
                }
            };
        }
    }

    fn replace(&self, prefix: &str, snapshot: &Snapshot) {
        self.update(prefix, snapshot.revision, |view| {
            view.clear(prefix);
            snapshot.entries.iter().for_each(|entry| view.put(entry));
        });
    }

    fn update(&self, prefix: &str, revision: Revision, change: impl FnOnce(&mut View)) {
        change(&mut self.view.write().unwrap_or_else(PoisonError::into_inner));
        self.changed.send_modify(|generation| *generation += 1);
        if let Some(seen) = self.seen_sender(prefix) {
            seen.send_replace(revision);
        }
    }
}
