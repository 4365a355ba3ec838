//! The identities themselves: added without a token, read, changed, removed.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;

use super::super::certificate::admission::check_admissible;
use super::super::certificate::{fingerprint, to_pem};
use super::super::entity::Entity;
use super::super::forget;
use super::super::identity::{IdentityKind, IdentityRecord};
use super::super::shown::Shown;
use super::super::{Access, Caller, Fingerprint, IdentityId, Permission};
use super::{ClientError, Clients, check_name};
use crate::audit::{Action, Record, Writes};
use crate::store::value::{decode, encode};
use crate::store::{CommitError, Guard, Op, Revision, Txn, keys};

/// Somebody who is to be trusted by its certificate, without a token.
#[derive(Debug)]
pub struct Newcomer<'a> {
    pub name: &'a str,
    pub kind: IdentityKind,
    pub access: Access,
    pub certificate: &'a CertificateDer<'a>,
}

/// An identity as it was read: what a change is made from, and what it is guarded on.
#[derive(Debug, Clone)]
pub struct Held {
    pub id: IdentityId,
    pub record: IdentityRecord,
    revision: Revision,
}

/// What is told of a change.
#[derive(Debug, Clone, Copy)]
enum Change {
    Created,
    Updated,
    Deleted,
}

/// The commit that made it.
struct Told<'a> {
    id: &'a IdentityId,
    writes: Writes,
    revision: Revision,
    now: Timestamp,
}

impl Clients {
    /// Trusts a client by its certificate, without a token.
    pub async fn add(
        &self,
        by: &impl Permission,
        newcomer: Newcomer<'_>,
        now: Timestamp,
    ) -> Result<Fingerprint, ClientError> {
        let Newcomer { name, kind, access, certificate } = newcomer;
        check_name(name)?;
        check_admissible(certificate, now)?;
        self.check_signed(&Shown::new(certificate.clone().into_owned()), now)?;
        let _naming = self.naming.lock().await;
        if let Access::Groups(_) = &access {
            self.check_vacant(name, now).await?;
        }
        let shown = fingerprint(certificate);
        let kind = self.kind_of(kind, &access, certificate, now);
        let identity =
            IdentityRecord { kind, name: name.to_owned(), access, certificate_pem: to_pem(certificate) };
        match self.write(by.caller(), shown, &identity, Txn::default(), now).await {
            Err(ClientError::Commit(CommitError::Conflict(_))) => Err(ClientError::AlreadyTrusted),
            Err(error) => Err(error),
            Ok(()) => {
                tracing::info!(name, fingerprint = %shown, by = %by.caller(), "a client is now trusted");
                Ok(shown)
            }
        }
    }

    /// The entry of the trust store that `wanted` names: by fingerprint, by its beginning, or by name. Identities
    /// with groups are not among them, and neither are links'.
    pub fn find(&self, wanted: &str) -> Result<(Fingerprint, Arc<IdentityRecord>), ClientError> {
        let prefix = wanted.to_ascii_lowercase();
        let mut found = Vec::new();
        self.identities.each(|id, identity| {
            if let Some(fingerprint) = id.fingerprint()
                && identity.is_legacy()
            {
                let begins = wanted.len() >= 4 && fingerprint.to_string().starts_with(&prefix);
                if begins || identity.name == wanted {
                    found.push((fingerprint, Arc::clone(identity)));
                }
            }
        });
        match found.len() {
            0 => Err(ClientError::NotFound),
            1 => found.pop().ok_or(ClientError::NotFound),
            _ => Err(ClientError::Ambiguous),
        }
    }

    /// An identity as the store has it at this moment.
    pub async fn read(&self, id: &IdentityId) -> Result<Held, ClientError> {
        let entry = self.store.get(&keys::identity(&id.key_part())).await?.ok_or(ClientError::NotFound)?;
        Ok(Held { id: id.clone(), record: decode(&entry)?, revision: entry.modify_revision })
    }

    /// Makes an identity be as `record` says. With another certificate it is another identity from then on, known by
    /// that one's fingerprint. Nothing is done if it has changed since it was read.
    pub async fn change(
        &self,
        by: &impl Permission,
        held: Held,
        mut record: IdentityRecord,
        certificate: Option<&CertificateDer<'_>>,
        now: Timestamp,
    ) -> Result<IdentityId, ClientError> {
        if record.name != held.record.name {
            check_name(&record.name)?;
        }
        if record.kind == IdentityKind::Newcomer && record.access != held.record.access {
            // Somebody has given it something.
            record.kind = IdentityKind::User;
        }
        let key = keys::identity(&held.id.key_part());
        let mut guards = vec![Guard { key: key.clone(), modify_revision: held.revision }];
        let mut ops = Vec::new();
        let id = match certificate {
            None => held.id.clone(),
            Some(certificate) => {
                record.certificate_pem = to_pem(certificate);
                IdentityId::from(fingerprint(certificate))
            }
        };
        if id == held.id {
            if record == held.record {
                return Ok(id);
            }
            ops.push(Op::Put { key, value: encode(&record) });
        } else {
            if let Some(certificate) = certificate {
                check_admissible(certificate, now)?;
                self.check_signed(&Shown::new(certificate.clone().into_owned()), now)?;
            }
            let new = keys::identity(&id.key_part());
            guards.push(Guard { key: new.clone(), modify_revision: Revision(0) });
            ops.push(Op::Delete { key });
            ops.push(Op::Put { key: new, value: encode(&record) });
            // What groups grant on it follows, so that nobody who brings the old certificate back comes into that.
            let moved = forget::permissions_moved(&*self.store, &held.id, &id).await?;
            guards.extend(moved.guards);
            ops.extend(moved.ops);
        }
        let txn = Txn { guards, ops };
        let writes = Writes::of(&txn);
        match self.store.commit(txn).await {
            Ok(revision) => {
                self.identities.seen(revision).await;
                self.tell(by.caller(), Change::Updated, &record, Told { id: &id, writes, revision, now });
                tracing::info!(identity = %held.id, %id, by = %by.caller(), "changed an identity");
                Ok(id)
            }
            Err(CommitError::Conflict(keys)) if keys == [keys::identity(&id.key_part())] && id != held.id => {
                Err(ClientError::AlreadyTrusted)
            }
            Err(CommitError::Conflict(_)) => Err(ClientError::Moved),
            Err(error) => Err(error.into()),
        }
    }

    /// Ends the trust in an identity. Its connections are closed by whoever watches `Identities::changed`.
    pub async fn remove(
        &self,
        by: &impl Permission,
        id: &IdentityId,
        now: Timestamp,
    ) -> Result<(), ClientError> {
        let held = self.read(id).await?;
        let key = keys::identity(&id.key_part());
        let guards = vec![Guard { key: key.clone(), modify_revision: held.revision }];
        let mut txn = Txn { guards, ops: vec![Op::Delete { key }] };
        let mut gone: HashSet<Entity> = [Entity::Identity(id.clone())].into();
        gone.extend(id.fingerprint().map(Entity::Certificate));
        let forgotten = forget::permissions_on(&*self.store, &gone, |_| false).await?;
        txn.guards.extend(forgotten.guards);
        txn.ops.extend(forgotten.ops);
        // Whoever logs in again begins anew.
        let sessions = match id {
            IdentityId::Email(email) => self.identities.sessions(|sessions| sessions.of(email)),
            IdentityId::Certificate(_) | IdentityId::Token(_) => Vec::new(),
        };
        txn.ops.extend(sessions.iter().map(|session| Op::Delete { key: keys::oidc_session(session) }));
        let writes = Writes::of(&txn);
        match self.store.commit(txn).await {
            Ok(revision) => {
                self.identities.seen(revision).await;
                if !sessions.is_empty() {
                    self.identities.sessions_seen(revision).await;
                }
                self.tell(by.caller(), Change::Deleted, &held.record, Told { id, writes, revision, now });
            }
            Err(CommitError::Conflict(_)) => return Err(ClientError::Moved),
            Err(error) => return Err(error.into()),
        }
        tracing::info!(identity = %id, by = %by.caller(), "an identity is no longer trusted");
        Ok(())
    }

    /// Tells of a change of an identity.
    fn tell(&self, by: &Caller, action: Change, record: &IdentityRecord, told: Told<'_>) {
        let (collection, action) = match (record.is_legacy(), action) {
            (true, Change::Created) => ("/1.0/certificates", Action::CertificateCreated),
            (true, Change::Updated) => ("/1.0/certificates", Action::CertificateUpdated),
            (true, Change::Deleted) => ("/1.0/certificates", Action::CertificateDeleted),
            (false, Change::Created) => (record.collection(), Action::IdentityCreated),
            (false, Change::Updated) => (record.collection(), Action::IdentityUpdated),
            (false, Change::Deleted) => (record.collection(), Action::IdentityDeleted),
        };
        let Told { id, writes, revision, now } = told;
        let line = Record::new(by, action, now).on(format!("{collection}/{id}"));
        self.audit.record(line.committed(writes, revision).with("name", record.name.as_str()));
    }

    /// Writes a new identity, with what else belongs into the same commit.
    pub(super) async fn write(
        &self,
        by: &Caller,
        id: impl Into<IdentityId>,
        identity: &IdentityRecord,
        beside: Txn,
        now: Timestamp,
    ) -> Result<(), ClientError> {
        self.write_over(by, id, identity, Revision(0), beside, now).await
    }

    /// The same, in place of what has been there since `over`.
    pub(super) async fn write_over(
        &self,
        by: &Caller,
        id: impl Into<IdentityId>,
        identity: &IdentityRecord,
        over: Revision,
        beside: Txn,
        now: Timestamp,
    ) -> Result<(), ClientError> {
        let id = id.into();
        let key = keys::identity(&id.key_part());
        let guard = Guard { key: key.clone(), modify_revision: over };
        let op = Op::Put { key, value: encode(identity) };
        let writes = Writes::of(&Txn { guards: vec![guard.clone()], ops: vec![op.clone()] });
        let Txn { mut guards, mut ops } = beside;
        guards.push(guard);
        ops.push(op);
        let revision = self.store.commit(Txn { guards, ops }).await?;
        self.identities.seen(revision).await;
        let change = if over == Revision(0) { Change::Created } else { Change::Updated };
        self.tell(by, change, identity, Told { id: &id, writes, revision, now });
        Ok(())
    }
}
