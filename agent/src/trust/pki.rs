//! Certificates that others vouch for: by an authority of the administrator's (`server.ca`, LXD's PKI mode) and by the
//! cluster's own (`--cluster-ca`), and what those have taken back (`ca.crl`).
//!
//! Signatures are checked once: a certificate's when its connection is made, a list's when it is read. What is left for
//! each request is a look at the clock and one in a hash set. Authorities are read at the start; lists whenever their
//! file changes, beside the runtime's threads, and put in place as one pointer.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use jiff::Timestamp;
use rustls_pki_types::{CertificateDer, TrustAnchor};
use tokio::sync::watch;

use super::shown::Shown;
use crate::wire::status::{AuthorityStatus, PkiStatus, RefusedList};

mod authority;
mod crl;
mod der;
mod follow;
mod lists;
mod path;
mod role;
mod table;
#[cfg(test)]
mod tests;

pub use authority::AuthorityError;
pub use path::{NoWay, Way};
pub use role::Role;
pub use table::{Entry, Mode, Standing, Unknowns, Why, Word};

use authority::{Authority, Source};
use follow::Stamp;
use lists::Lists;

/// The authorities of clients, in the data folder.
const SERVER_CA: &str = "server.ca";
/// What authorities have revoked, in the data folder.
const CA_CRL: &str = "ca.crl";
/// Largest file of lists: some million entries.
const MAX_LISTS: u64 = 64 << 20;

/// Whom to trust of those that the store does not know: asked each time, so that a setting acts at once.
pub type AskUnknowns = Box<dyn Fn() -> Unknowns + Send + Sync>;

/// The authorities, and what they have revoked.
pub struct Pki {
    authorities: Vec<Authority>,
    anchors: Vec<TrustAnchor<'static>>,
    mode: Mode,
    unknowns: AskUnknowns,
    crl: PathBuf,
    /// The file of lists as it was read at the start.
    seen: Option<Stamp>,
    lists: RwLock<Arc<Lists>>,
    news: Mutex<News>,
    changed: watch::Sender<u64>,
}

/// What there is to tell of the lists.
#[derive(Default)]
struct News {
    refused: Option<RefusedList>,
    /// Stale lists that were warned of.
    stale: HashSet<(usize, Timestamp)>,
}

/// Why a certificate counts for nothing, or for no more than the store says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Objection {
    #[error(transparent)]
    NoWay(#[from] NoWay),
    #[error(transparent)]
    Role(#[from] role::RoleError),
    #[error("the authority {0} is the cluster's own, and signs clients itself or not at all")]
    Indirect(String),
    #[error("what the authorities have revoked cannot be told: {0}")]
    Closed(String),
    #[error("the authority {0} has revoked it")]
    Revoked(String),
}

impl Pki {
    /// No authorities: only the store counts.
    pub fn none() -> Arc<Self> {
        Arc::new(Self::of(Vec::new(), PathBuf::new(), Box::new(|| Unknowns::AreNobody)))
    }

    /// Those of the data folder `folder`, and the cluster's own where one is given.
    pub fn open(
        folder: &Path,
        cluster_ca: Option<&Path>,
        unknowns: AskUnknowns,
        now: Timestamp,
    ) -> Result<Arc<Self>, AuthorityError> {
        let mut authorities = Vec::new();
        let server_ca = folder.join(SERVER_CA);
        match authority::read(&server_ca, Source::ServerCa, &mut authorities) {
            Err(AuthorityError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            read => read?,
        }
        if let Some(path) = cluster_ca {
            authority::read(path, Source::ClusterCa, &mut authorities)?;
        }
        authority::connect(&mut authorities);
        let pki = Self::of(authorities, folder.join(CA_CRL), unknowns);
        pki.begin(now);
        Ok(Arc::new(pki))
    }

    fn of(authorities: Vec<Authority>, crl: PathBuf, unknowns: AskUnknowns) -> Self {
        let signs_clients = authorities.iter().any(|authority| authority.scope.clients.is_some());
        Self {
            anchors: authorities.iter().map(|authority| authority.anchor.clone()).collect(),
            mode: if signs_clients { Mode::Authorities } else { Mode::Store },
            unknowns,
            seen: Stamp::of(&crl),
            crl,
            lists: RwLock::new(Arc::new(Lists::none(&authorities))),
            news: Mutex::default(),
            changed: watch::Sender::default(),
            authorities,
        }
    }

    /// Says what there is, and reads the lists for the first time.
    fn begin(&self, now: Timestamp) {
        if self.authorities.is_empty() {
            if self.seen.is_some() {
                tracing::warn!(file = %self.crl.display(), "there is no server.ca and no --cluster-ca, so this list is not used");
            }
            return;
        }
        for authority in &self.authorities {
            let Authority { name, fingerprint, ends, .. } = authority;
            if *ends < now {
                tracing::error!(authority = name, %fingerprint, expired = %ends, "the authority's certificate has expired: nothing that it signed is trusted");
            } else if authority.begins > now {
                tracing::error!(authority = name, %fingerprint, begins = %authority.begins, "the authority's certificate is not valid yet: check this machine's clock");
            } else {
                tracing::info!(authority = name, %fingerprint, until = %ends, "certificates of this authority are recognised");
            }
        }
        if self.seen.is_none() {
            return;
        }
        let (taken, faults) = self.read(now);
        let mut lists = taken.unwrap_or_else(|| Lists::none(&self.authorities));
        if !faults.is_empty() {
            // As LXD has it: without knowing what was revoked, nothing that they signed is trusted.
            lists.closed = Some(faults.join("; "));
            let file = self.crl.display();
            tracing::error!(
                %file, reason = faults.join("; "),
                "the revocation list cannot be used, so no certificate of an authority is trusted; put a good one in its place, which is read at once"
            );
        }
        self.settle(lists, &faults, now);
    }

    /// Follows the file of lists for as long as `tasks` run.
    pub fn start(self: &Arc<Self>, tasks: &crate::task::Tasks) {
        if !self.authorities.is_empty() {
            self.follow(self.seen, tasks);
        }
    }

    /// Reads the lists anew. What is no good leaves what is in force in force.
    fn reload(&self, now: Timestamp) {
        let file = self.crl.display();
        let (taken, faults) = self.read(now);
        if !faults.is_empty() {
            let reason = faults.join("; ");
            let closed = self.lists().closed.is_some();
            if closed {
                tracing::error!(%file, reason, "the revocation list cannot be used; no certificate of an authority is trusted until there is a good one");
            } else {
                tracing::error!(%file, reason, "the revocation list was refused; the last good one stays in force");
            }
        }
        let lists = taken.unwrap_or_else(|| Lists::clone(&self.lists()));
        self.settle(lists, &faults, now);
    }

    /// What the file makes of the lists in force, and what is wrong with it.
    fn read(&self, now: Timestamp) -> (Option<Lists>, Vec<String>) {
        let text = match authority::contents(&self.crl, MAX_LISTS) {
            Ok(text) => text,
            Err(AuthorityError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                let gone = "it is gone; what was revoked stays revoked until the agent is started again";
                return (None, vec![gone.to_owned()]);
            }
            Err(error) => return (None, vec![error.to_string()]),
        };
        let before = Arc::clone(&self.lists());
        let result = before.with(&text, &self.authorities, now);
        for at in &result.fresh {
            if let (Some(list), Some(authority)) = (result.lists.of(*at), self.authorities.get(*at)) {
                let (revoked, authority) = (list.serials.len(), &authority.name);
                tracing::info!(
                    authority,
                    revoked,
                    list = list.title(),
                    next_update = list.next_update.map(tracing::field::display),
                    "took a revocation list"
                );
            }
        }
        (Some(result.lists), result.refused)
    }

    fn settle(&self, lists: Lists, faults: &[String], now: Timestamp) {
        let at = Timestamp::from_second(now.as_second()).unwrap_or(now);
        self.news().refused = (!faults.is_empty()).then(|| RefusedList { at, reason: faults.join("; ") });
        let old = {
            let mut current = self.lists.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *current, Arc::new(lists))
        };
        // Here, not where a handshake is.
        drop(old);
        self.changed.send_modify(|generation| *generation += 1);
    }

    fn warn_of_stale(&self, now: Timestamp) {
        let stale: Vec<_> = self.lists().stale(now).collect();
        for (at, due) in stale {
            if let Some(authority) = self.authorities.get(at)
                && self.news().stale.insert((at, due))
            {
                tracing::warn!(
                    authority = authority.name, %due,
                    "the revocation list has become stale: what it revokes stays revoked, and what was revoked since is not known here; put a new one in its place"
                );
            }
        }
    }

    /// Rises when something was revoked, or may have been.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether there is anybody who could vouch for a certificate.
    pub fn is_none(&self) -> bool {
        self.authorities.is_empty()
    }

    /// What a certificate counts for, by everything that is known of it.
    pub fn standing(&self, shown: &Shown, entry: Entry, now: Timestamp) -> (Standing, Option<Objection>) {
        let (word, objection) = self.word(shown, now);
        (table::standing(self.mode, &word, entry, (self.unknowns)()), objection)
    }

    /// Whether a certificate may become an entry of the store.
    pub fn may_enter(&self, shown: &Shown, now: Timestamp) -> Result<(), Option<Objection>> {
        let (word, objection) = self.word(shown, now);
        if table::may_enter(self.mode, &word) { Ok(()) } else { Err(objection) }
    }

    /// What the authorities say of a certificate.
    pub fn word(&self, shown: &Shown, now: Timestamp) -> (Word, Option<Objection>) {
        if self.authorities.is_empty() {
            return (Word::Unsigned, None);
        }
        let find = || path::find(&self.authorities, &self.anchors, &shown.der, &shown.between, now);
        match shown.way.get_or_init(find) {
            Ok(way) => self.word_on(way, now),
            Err(no_way) => {
                let named = *no_way != NoWay::Unknown && self.is_named(shown);
                (if named { Word::Void } else { Word::Unsigned }, Some(no_way.clone().into()))
            }
        }
    }

    /// Which user of which authority a certificate is of, and since when it is valid, if a cluster's own authority has
    /// signed it; whatever has become of it since.
    pub fn user_since(
        &self,
        der: &CertificateDer<'_>,
        now: Timestamp,
    ) -> Option<((usize, String), Timestamp)> {
        let (_, read) = x509_parser::parse_x509_certificate(der).ok()?;
        let at = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).ok();
        let (since, until) = (at(read.validity().not_before)?, at(read.validity().not_after)?);
        // One that has expired was somebody's all the same.
        let way = path::find(&self.authorities, &self.anchors, der, &[], now.min(until)).ok()?;
        match way.role? {
            Ok(Role::User(name)) => Some(((way.authority, name), since)),
            _ => None,
        }
    }

    fn word_on(&self, way: &Way, now: Timestamp) -> (Word, Option<Objection>) {
        let authority = &self.authorities[way.authority];
        let void = |objection| (Word::Void, Some(objection));
        if let Err(no_way) = way.check(authority, now) {
            return void(no_way.into());
        }
        let lists = self.lists();
        if let Some(reason) = &lists.closed {
            return void(Objection::Closed(reason.clone()));
        }
        if lists.has(way.authority, &way.serial) {
            return (Word::Revoked, Some(Objection::Revoked(authority.name.clone())));
        }
        match &way.role {
            Some(Ok(role)) => (Word::Role(role.clone()), None),
            Some(Err(error)) => void(error.clone().into()),
            None if authority.scope.clients.is_some() => (Word::Signed, None),
            None => void(Objection::Indirect(authority.name.clone())),
        }
    }

    /// Whether a certificate says that it is of one of the authorities.
    fn is_named(&self, shown: &Shown) -> bool {
        let Ok((_, certificate)) = x509_parser::parse_x509_certificate(&shown.der) else { return false };
        let issuer = der::Reader::new(certificate.issuer().as_raw()).element();
        issuer.is_ok_and(|issuer| self.anchors.iter().any(|anchor| anchor.subject.as_ref() == issuer.content))
    }

    /// What `comity status` shows; `None` where there are neither authorities nor a list that waits for one.
    pub fn status(&self, now: Timestamp) -> Option<PkiStatus> {
        let idle_list = self.authorities.is_empty() && Stamp::of(&self.crl).is_some();
        if self.authorities.is_empty() && !idle_list {
            return None;
        }
        let lists = Arc::clone(&self.lists());
        let authorities = self.authorities.iter().enumerate().map(|(at, authority)| {
            let list = lists.of(at);
            AuthorityStatus {
                name: authority.name.clone(),
                fingerprint: authority.fingerprint.to_string(),
                signs_clients: authority.scope.clients.is_some(),
                cluster: authority.scope.roles,
                expires_at: authority.ends,
                revoked: list.map(|list| list.serials.len()),
                list_number: list.and_then(|list| list.shown_number()),
                next_update: list.and_then(|list| list.next_update),
                stale: list.and_then(|list| list.next_update).is_some_and(|due| due < now),
            }
        });
        Some(PkiStatus {
            trusts_unknowns: self.mode == Mode::Authorities && (self.unknowns)() == Unknowns::AreTrusted,
            authorities: authorities.collect(),
            closed: lists.closed.clone(),
            refused: self.news().refused.clone(),
            idle_list,
        })
    }

    fn lists(&self) -> RwLockReadGuard<'_, Arc<Lists>> {
        // One assignment under the lock, so a panic leaves nothing half done.
        self.lists.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn news(&self) -> std::sync::MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Pki {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pki({} authorities)", self.authorities.len())
    }
}
