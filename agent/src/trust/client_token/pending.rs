//! Tokens that can still be redeemed: lists, groups of those that are pending identities, revoking, forgetting.

use jiff::Timestamp;
use uuid::Uuid;

use super::super::identity::IdentityKind;
use super::super::{Access, Groups, Permission};
use super::record::{TokenOf, TokenRecord, TokenReport};
use super::{ClientError, Clients, KEPT_AFTER};
use crate::audit::{Action, Actor, Record};
use crate::store::value::{decode, encode};
use crate::store::{Entry, Guard, Op, StoreError, Txn, keys};

impl Clients {
    /// Tokens that can still be redeemed at `now`, oldest first.
    pub async fn pending(&self, now: Timestamp) -> Result<Vec<TokenReport>, ClientError> {
        let mut reports: Vec<TokenReport> = self
            .tokens()
            .await?
            .into_iter()
            .filter(|(_, record)| record.is_pending(now))
            .filter_map(|(entry, record)| Some(record.report(keys::last_part(&entry.key).parse().ok()?)))
            .collect();
        reports.sort_by_key(|report| report.created_at);
        Ok(reports)
    }

    /// The identities that are pending at `now`, oldest first.
    pub async fn pending_identities(&self, now: Timestamp) -> Result<Vec<TokenReport>, ClientError> {
        let mut pending = self.pending(now).await?;
        pending.retain(|token| token.purpose.is_identity());
        Ok(pending)
    }

    /// Takes back every token with this id or name that can still be redeemed at `now`.
    pub async fn revoke(
        &self,
        by: &impl Permission,
        wanted: &str,
        now: Timestamp,
    ) -> Result<usize, ClientError> {
        let mut revoked = self.tokens().await?;
        revoked.retain(|(entry, token)| {
            let named = token.name == wanted || keys::last_part(&entry.key) == wanted;
            named && token.is_pending(now)
        });
        if revoked.is_empty() {
            return Err(ClientError::Unknown);
        }
        let number = revoked.len();
        let ops = revoked.iter().flat_map(|(entry, record)| record.delete(entry.key.clone())).collect();
        let revision = self.store.commit(Txn { guards: Vec::new(), ops }).await?;
        for (entry, token) in &revoked {
            let record = Record::new(by.caller(), Action::TokenRevoked, now).at(revision);
            let id = keys::last_part(&entry.key);
            self.audit.record(record.with("token", id).with("name", token.name.as_str()));
        }
        tracing::info!(tokens = number, by = %by.caller(), "revoked trust tokens");
        Ok(number)
    }

    /// Puts a pending identity into these groups instead of those it is in.
    pub async fn regroup_pending(
        &self,
        by: &impl Permission,
        id: Uuid,
        groups: Groups,
        now: Timestamp,
    ) -> Result<(), ClientError> {
        let key = keys::token(&id.to_string());
        let entry = self.store.get(&key).await?.ok_or(ClientError::NotFound)?;
        let mut record: TokenRecord = decode(&entry)?;
        if !record.purpose.is_identity() || !record.is_pending(now) {
            return Err(ClientError::NotFound);
        }
        record.access = Access::Groups(groups);
        let guards = vec![Guard { key: key.clone(), modify_revision: entry.modify_revision }];
        let ops = vec![Op::Put { key, value: encode(&record) }];
        let revision = self.store.commit(Txn { guards, ops }).await?;
        let record = Record::new(by.caller(), Action::IdentityUpdated, now).at(revision);
        self.audit.record(record.on(format!("/1.0/auth/identities/tls/{id}")));
        tracing::info!(token = %id, by = %by.caller(), "changed the groups of a pending identity");
        Ok(())
    }

    /// Tells of each token for the trust store that expired after `since`, by `now`, without having been used. It is
    /// kept for its bearer to hear that it has.
    pub async fn tell_expired(&self, since: Timestamp, now: Timestamp) -> Result<(), ClientError> {
        for (entry, token) in self.tokens().await? {
            let unused = token.used_by.is_none() && !token.purpose.is_identity();
            if unused && since < token.expires_at && token.expires_at <= now {
                let record = Record::new(Actor::agent(), Action::TokenExpired, now);
                let id = keys::last_part(&entry.key);
                self.audit.record(record.with("token", id).with("name", token.name.as_str()));
            }
        }
        Ok(())
    }

    /// Forgets what has been expired for so long that nobody need be told, and pending identities as soon as they
    /// have. Tokens of older versions get the key that they are found by.
    pub async fn prune(&self, now: Timestamp) -> Result<(), ClientError> {
        let (mut ops, mut expired) = (Vec::new(), Vec::new());
        for (entry, record) in self.tokens().await? {
            let pending_identity = record.purpose.is_identity() && record.used_by.is_none();
            let kept_until = if pending_identity {
                record.expires_at
            } else {
                record.expires_at.saturating_add(KEPT_AFTER).unwrap_or(Timestamp::MAX)
            };
            if kept_until <= now {
                if pending_identity {
                    expired.push(keys::last_part(&entry.key).to_owned());
                }
                ops.extend(record.delete(entry.key));
            } else if !self.indexed.load(std::sync::atomic::Ordering::Acquire)
                && let Ok(id) = keys::last_part(&entry.key).parse()
            {
                let key = keys::token_digest(record.digest.as_str());
                ops.push(Op::Put { key, value: encode(&TokenOf { id }) });
            }
        }
        self.prune_bearers(now).await?;
        self.prune_sessions(now).await?;
        if !ops.is_empty() {
            let revision = self.store.commit(Txn { guards: Vec::new(), ops }).await?;
            for id in expired {
                let record = Record::new(Actor::agent(), Action::TokenExpired, now).at(revision);
                self.audit.record(record.with("token", id));
            }
        }
        self.indexed.store(true, std::sync::atomic::Ordering::Release);
        Ok(())
    }

    /// Fails if an identity with groups, or a pending one, has this name.
    pub(super) async fn check_vacant(&self, name: &str, now: Timestamp) -> Result<(), ClientError> {
        let taken = || ClientError::NameTaken(name.to_owned());
        let known = self.identities.all();
        let has_name = known.values().any(|identity| {
            identity.name == name
                && matches!(
                    (&identity.kind, &identity.access),
                    (
                        IdentityKind::Client
                            | IdentityKind::Newcomer
                            | IdentityKind::User
                            | IdentityKind::Node { .. }
                            | IdentityKind::ClusterLink { .. },
                        Access::Groups(_)
                    )
                )
        });
        if has_name || self.pending_identities(now).await?.iter().any(|token| token.name == name) {
            return Err(taken());
        }
        Ok(())
    }

    pub(super) async fn tokens(&self) -> Result<Vec<(Entry, TokenRecord)>, StoreError> {
        let mut tokens = Vec::new();
        for entry in self.store.range(keys::TOKEN).await?.entries {
            match decode(&entry) {
                Ok(record) => tokens.push((entry, record)),
                // One that cannot be read must not make the others useless.
                Err(error) => tracing::error!(%error, "a token cannot be read"),
            }
        }
        Ok(tokens)
    }
}
