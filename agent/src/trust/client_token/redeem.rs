//! Redeeming tokens: one lookup, one comparison, one commit.

use jiff::Timestamp;

use super::super::certificate::admission::check_admissible;
use super::super::certificate::to_pem;
use super::super::identity::{Backing, IdentityKind, IdentityRecord};
use super::super::shown::Shown;
use super::super::{Caller, Fingerprint};
use super::record::{Purpose, TokenOf, TokenRecord};
use super::{ClientError, Clients, TRIES};
use crate::audit::{Action, Record};
use crate::store::value::{decode, encode};
use crate::store::{CommitError, Entry, Guard, Op, Revision, Txn, keys};
use crate::wire::token::{Secret, TYPE_CLUSTER_LINK, TrustToken};

/// Where a token is redeemed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counter {
    /// `POST /1.0/certificates`.
    Certificates,
    /// `POST /1.0/auth/identities/tls`.
    Identities,
}

impl Clients {
    /// Trusts the client that showed `certificate`, if `text` is a token for this counter that is good at `now`.
    /// Doing it again with the same certificate gives the same answer, so that a client which did not hear it may
    /// ask again. A token that is wrong costs two lookups, however many tokens there are.
    pub async fn redeem(
        &self,
        by: &Caller,
        counter: Counter,
        text: &str,
        showing: &Shown,
        now: Timestamp,
    ) -> Result<IdentityRecord, ClientError> {
        let token = TrustToken::decode(text)?;
        let (certificate, shown) = (&showing.der, showing.fingerprint);
        for _ in 0..TRIES {
            let (entry, record) = self.issued(&token, counter).await?;
            // Linked clusters are pinned, and nobody signs for them.
            if !matches!(record.purpose, Purpose::ClusterLink { .. })
                && let Err(error) = self.check_signed(showing, now)
            {
                // As with LXD, an entry's token is used up by that, and a pending identity goes on waiting.
                if counter == Counter::Certificates && record.is_pending(now) {
                    self.spend(entry, record, shown).await?;
                }
                return Err(error);
            }
            let known = self.store.get(&keys::identity(&shown.to_string())).await?;
            match (record.used_by, &known) {
                (Some(user), Some(identity)) if user == shown && !record.spent => {
                    return Ok(decode(identity)?);
                }
                (Some(_), _) => return Err(ClientError::Used),
                (None, _) if record.expires_at <= now => {
                    if record.purpose.is_identity() {
                        // LXD deletes the pending identity at once; `prune` would, a little later.
                        self.discard(&entry, &record).await?;
                    }
                    return Err(ClientError::Expired);
                }
                // It came by itself before it had a token, and is given now what the token is for.
                (None, Some(identity)) if is_newcomer(identity) => {}
                (None, Some(_)) => {
                    // Spent all the same: whoever holds it cannot keep it for another certificate.
                    if counter == Counter::Certificates {
                        self.spend(entry, record, shown).await?;
                    }
                    return Err(ClientError::AlreadyTrusted);
                }
                (None, None) => {}
            }
            check_admissible(certificate, now)?;
            let kind = match &record.purpose {
                Purpose::ClusterLink { name } => {
                    IdentityKind::ClusterLink { link: name.clone(), backing: Backing::Itself }
                }
                Purpose::Certificate | Purpose::Identity => {
                    self.kind_of(IdentityKind::Client, &record.access, certificate, now)
                }
            };
            let identity = IdentityRecord {
                kind,
                name: record.name.clone(),
                access: record.access.clone(),
                certificate_pem: to_pem(certificate),
            };
            let id = keys::last_part(&entry.key).to_owned();
            let record_guard = record.purpose.vacancy();
            let used = TokenRecord { used_by: Some(shown), ..record };
            let token_guard = Guard { key: entry.key.clone(), modify_revision: entry.modify_revision };
            let token_op = Op::Put { key: entry.key, value: encode(&used) };
            // The name of a link that was declared meanwhile is not for another cluster.
            let mut guards = vec![token_guard];
            guards.extend(record_guard);
            let beside = Txn { guards, ops: vec![token_op] };
            let over = known.map_or(Revision(0), |known| known.modify_revision);
            match self.write_over(by, shown, &identity, over, beside, now).await {
                Err(ClientError::Commit(CommitError::Conflict(_))) => {}
                Err(error) => return Err(error),
                Ok(()) => {
                    let record = Record::new(by, Action::TokenRedeemed, now);
                    self.audit.record(record.with("token", id).with("name", identity.name.as_str()));
                    tracing::info!(name = identity.name, fingerprint = %shown, "a client is now trusted");
                    return Ok(identity);
                }
            }
        }
        Err(ClientError::Contended)
    }

    /// The record of a token, whatever has become of it.
    async fn issued(
        &self,
        token: &TrustToken,
        counter: Counter,
    ) -> Result<(Entry, TokenRecord), ClientError> {
        let found = self.by_secret(&token.secret).await?;
        match (found, counter) {
            (Some((_, record)), Counter::Certificates) if record.purpose.is_identity() => {
                Err(ClientError::ForIdentities)
            }
            (Some(found), Counter::Certificates) => Ok(found),
            (Some(found), Counter::Identities) if found.1.purpose.is_identity() => Ok(found),
            // What the text says of itself is no secret: it is told to whoever took the wrong counter.
            (None, Counter::Identities) if token.kind == TYPE_CLUSTER_LINK => Err(ClientError::ForLinks),
            _ => Err(ClientError::Unknown),
        }
    }

    /// Finds a token by the digest of its secret. The secret is hashed before anything is compared, so how long a
    /// lookup takes tells nothing about it; the digests are then compared in constant time all the same.
    async fn by_secret(&self, secret: &Secret) -> Result<Option<(Entry, TokenRecord)>, ClientError> {
        let digest = secret.digest();
        let Some(index) = self.store.get(&keys::token_digest(digest.as_str())).await? else {
            return Ok(None);
        };
        let TokenOf { id } = decode(&index)?;
        let Some(entry) = self.store.get(&keys::token(&id.to_string())).await? else { return Ok(None) };
        let record: TokenRecord = decode(&entry)?;
        Ok(record.digest.matches(secret).then_some((entry, record)))
    }

    async fn spend(&self, entry: Entry, record: TokenRecord, by: Fingerprint) -> Result<(), ClientError> {
        let guards = vec![Guard { key: entry.key.clone(), modify_revision: entry.modify_revision }];
        let spent = TokenRecord { used_by: Some(by), spent: true, ..record };
        let ops = vec![Op::Put { key: entry.key, value: encode(&spent) }];
        match self.store.commit(Txn { guards, ops }).await {
            Ok(_) => Ok(()),
            // Somebody else was quicker with it.
            Err(CommitError::Conflict(_)) => Err(ClientError::Used),
            Err(error) => Err(error.into()),
        }
    }

    async fn discard(&self, entry: &Entry, record: &TokenRecord) -> Result<(), ClientError> {
        let guards = vec![Guard { key: entry.key.clone(), modify_revision: entry.modify_revision }];
        let ops = record.delete(entry.key.clone()).into();
        match self.store.commit(Txn { guards, ops }).await {
            Ok(_) | Err(CommitError::Conflict(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn is_newcomer(identity: &Entry) -> bool {
    decode::<IdentityRecord>(identity).is_ok_and(|identity| identity.kind == IdentityKind::Newcomer)
}
