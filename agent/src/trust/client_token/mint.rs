//! Issuing tokens.

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::super::{Access, Fingerprint, Permission};
use super::record::{Purpose, TokenOf, TokenRecord};
use super::{ClientError, Clients, MAX_TOKENS, check_name};
use crate::audit::{Action, Record};
use crate::store::value::encode;
use crate::store::{Guard, Op, Revision, Txn, keys};
use crate::wire::token::{Secret, TrustToken};

/// What a token is asked for.
#[derive(Debug, Clone)]
pub struct Order<'a> {
    /// What its redeemer will be called.
    pub name: &'a str,
    pub purpose: Purpose,
    pub access: Access,
    /// Where it can be redeemed, `host:port`.
    pub addresses: &'a [String],
    pub lifetime: SignedDuration,
}

/// A token fresh from the mint. Its text is nowhere else.
#[derive(Debug)]
pub struct Minted {
    pub id: Uuid,
    pub token: TrustToken,
    pub created_at: Timestamp,
}

impl Clients {
    /// The certificate that whoever redeems a token for this will be shown: other clusters the cluster's own, clients
    /// the one for clients.
    fn fingerprint_for(&self, purpose: &Purpose) -> Fingerprint {
        match purpose {
            Purpose::ClusterLink { .. } => self.server.cluster().fingerprint(),
            Purpose::Certificate | Purpose::Identity => self.server.fingerprint(),
        }
    }

    /// Issues a token.
    pub async fn mint(
        &self,
        by: &impl Permission,
        order: Order<'_>,
        now: Timestamp,
    ) -> Result<Minted, ClientError> {
        let Order { name, purpose, access, addresses, lifetime } = order;
        check_name(name)?;
        if addresses.is_empty() {
            return Err(ClientError::NotListening);
        }
        // Names of identities are given one at a time, so that two cannot get the same.
        let _naming = self.naming.lock().await;
        if purpose.is_identity() {
            self.check_vacant(name, now).await?;
        }
        self.prune(now).await?;
        if self.tokens().await?.len() >= MAX_TOKENS {
            return Err(ClientError::TooMany);
        }
        let (id, secret) = (Uuid::new_v4(), Secret::random());
        // A lifetime beyond the end of time is as good as none.
        let expires_at = now.saturating_add(lifetime).unwrap_or(Timestamp::MAX);
        let kind = purpose.token_type();
        let fingerprint = self.fingerprint_for(&purpose).to_string();
        let vacancy = purpose.vacancy();
        let record = TokenRecord {
            name: name.to_owned(),
            purpose,
            access,
            digest: secret.digest(),
            created_by: by.caller().to_string(),
            created_at: now,
            expires_at,
            used_by: None,
            spent: false,
        };
        let index = keys::token_digest(record.digest.as_str());
        let ops = vec![
            Op::Put { key: keys::token(&id.to_string()), value: encode(&record) },
            Op::Put { key: index.clone(), value: encode(&TokenOf { id }) },
        ];
        let mut guards = vec![Guard { key: index, modify_revision: Revision(0) }];
        guards.extend(vacancy);
        let revision = self.store.commit(Txn { guards, ops }).await?;
        self.audit.record(
            Record::new(by.caller(), Action::TokenIssued, now)
                .at(revision)
                .with("token", id.to_string())
                .with("name", name)
                .with("type", kind)
                .with("expires_at", expires_at.to_string()),
        );
        tracing::info!(token = %id, name, by = %by.caller(), %expires_at, "issued a trust token");
        let token = TrustToken {
            client_name: name.to_owned(),
            fingerprint,
            addresses: addresses.to_vec(),
            secret,
            expires_at,
            kind: kind.to_owned(),
        };
        Ok(Minted { id, token, created_at: now })
    }
}
