//! One-time tokens by which a client becomes trusted, and the clients that are.
//!
//! Of a token the store holds the digest of its secret, never the secret. Redeeming is one commit that marks the token
//! as used and writes the identity, guarded on both, so of any number of redeemers one wins. A used token stays until
//! it expires, so that the next who tries it hears *used* and not *unknown*; time is the issuer's clock alone.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::certificate::{Validity, check_validity, fingerprint, to_pem};
use super::cluster_identity::ClusterIdentity;
use super::identity::{Identities, IdentityKind, IdentityRecord};
use super::{Access, Fingerprint, Permission};
use crate::store::value::{ValueError, decode, encode};
use crate::store::{CommitError, Entry, Guard, Op, Revision, Store, StoreError, Txn, keys};
use crate::wire::token::{Secret, SecretDigest, TokenError, TrustToken};

/// How long a token is good for, unless it is said otherwise (LXD's default).
pub const LIFETIME: SignedDuration = SignedDuration::from_hours(15 * 24);
/// How long an expired token is kept, so that its bearer hears that it has expired.
const KEPT_AFTER: SignedDuration = SignedDuration::from_hours(24);
/// Most tokens kept at a time.
const MAX_TOKENS: usize = 1000;
/// Longest name of a client.
const MAX_NAME: usize = 128;
/// Tries of a commit that others get in the way of.
const TRIES: usize = 10;

/// The clients that are trusted, and the tokens by which others may become so.
pub struct Clients {
    store: Arc<dyn Store>,
    identities: Arc<Identities>,
    /// This cluster's certificate.
    identity: Arc<ClusterIdentity>,
}

/// What `/token/ID` holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct TokenRecord {
    name: String,
    access: Access,
    digest: SecretDigest,
    created_by: String,
    created_at: Timestamp,
    expires_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    used_by: Option<Fingerprint>,
}

/// A token fresh from the mint. Its text is nowhere else.
#[derive(Debug)]
pub struct Minted {
    pub id: Uuid,
    pub token: TrustToken,
    pub created_at: Timestamp,
}

/// A token as lists show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenReport {
    pub id: Uuid,
    pub name: String,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
}

/// Why a token or a client was refused.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(transparent)]
    Malformed(#[from] TokenError),
    #[error("this token is for {0:?}, not for a client")]
    OtherKind(String),
    #[error("this token is of another cluster; this one's certificate is {ours}")]
    OtherCluster { ours: Fingerprint },
    #[error("this cluster knows no such token: it was revoked, or never issued")]
    Unknown,
    #[error("the token has been used already")]
    Used,
    #[error("the token has expired")]
    Expired,
    #[error(transparent)]
    Certificate(#[from] Validity),
    #[error("Certificate already in trust store")]
    AlreadyTrusted,
    #[error("this certificate is a linked cluster's, not a client's")]
    LinkCertificate,
    #[error("a client's name has 1 to {MAX_NAME} characters, does not begin with '-' and holds no '/'")]
    Name,
    #[error("this agent does not listen on the network, so nobody could redeem a token")]
    NotListening,
    #[error("{MAX_TOKENS} tokens are out already; revoke some first")]
    TooMany,
    #[error("no trusted client matches")]
    NotFound,
    #[error("more than one trusted client matches; give more of the fingerprint")]
    Ambiguous,
    #[error("others keep changing the same; try again")]
    Contended,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Value(#[from] ValueError),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Clients {
    pub fn new(store: Arc<dyn Store>, identities: Arc<Identities>, identity: Arc<ClusterIdentity>) -> Self {
        Self { store, identities, identity }
    }

    /// Issues a token for a client to be called `name`, to be redeemed at one of `addresses`.
    pub async fn mint(
        &self,
        by: &impl Permission,
        name: &str,
        access: Access,
        addresses: &[String],
        now: Timestamp,
        lifetime: SignedDuration,
    ) -> Result<Minted, ClientError> {
        check_name(name)?;
        if addresses.is_empty() {
            return Err(ClientError::NotListening);
        }
        let tokens = self.tokens().await?;
        let outdated =
            |record: &TokenRecord| record.expires_at.saturating_add(KEPT_AFTER).is_ok_and(|end| end < now);
        let (outdated, kept): (Vec<_>, Vec<_>) = tokens.into_iter().partition(|(_, record)| outdated(record));
        if kept.len() >= MAX_TOKENS {
            return Err(ClientError::TooMany);
        }
        let (id, secret) = (Uuid::new_v4(), Secret::random());
        // A lifetime beyond the end of time is as good as none.
        let expires_at = now.saturating_add(lifetime).unwrap_or(Timestamp::MAX);
        let record = TokenRecord {
            name: name.to_owned(),
            access,
            digest: secret.digest(),
            created_by: by.caller().to_string(),
            created_at: now,
            expires_at,
            used_by: None,
        };
        let mut ops = vec![Op::Put { key: keys::token(&id.to_string()), value: encode(&record) }];
        ops.extend(outdated.into_iter().map(|(entry, _)| Op::Delete { key: entry.key }));
        self.store.commit(Txn { guards: Vec::new(), ops }).await?;
        tracing::info!(token = %id, name, by = %by.caller(), %expires_at, "issued a trust token");
        let token = TrustToken {
            client_name: name.to_owned(),
            fingerprint: self.identity.fingerprint().to_string(),
            addresses: addresses.to_vec(),
            secret,
            expires_at,
            kind: String::new(),
        };
        Ok(Minted { id, token, created_at: now })
    }

    /// Trusts the client that showed `certificate`, if `text` is a token that is good at `now`. Doing it again with
    /// the same certificate gives the same answer, so that a client which did not hear it may ask again.
    pub async fn redeem(
        &self,
        text: &str,
        certificate: &CertificateDer<'_>,
        now: Timestamp,
    ) -> Result<IdentityRecord, ClientError> {
        let token = TrustToken::decode(text)?;
        if !token.kind.is_empty() {
            return Err(ClientError::OtherKind(token.kind));
        }
        let named = token.fingerprint.parse::<Fingerprint>();
        if !named.is_ok_and(|named| self.identity.is_ours(&named, now)) {
            return Err(ClientError::OtherCluster { ours: self.identity.fingerprint() });
        }
        check_validity(certificate, now)?;
        let shown = fingerprint(certificate);
        for _ in 0..TRIES {
            let mut found = None;
            // All are compared, so that the time taken does not tell which one matched.
            for (entry, record) in self.tokens().await? {
                if record.digest.matches(&token.secret) {
                    found = Some((entry, record));
                }
            }
            let (entry, record) = found.ok_or(ClientError::Unknown)?;
            let known = self.store.get(&keys::identity(&shown.to_string())).await?;
            match (record.used_by, &known) {
                (Some(user), Some(identity)) if user == shown => return Ok(decode(identity)?),
                (Some(_), _) => return Err(ClientError::Used),
                (None, _) if record.expires_at <= now => return Err(ClientError::Expired),
                (None, Some(_)) => return Err(ClientError::AlreadyTrusted),
                (None, None) => {}
            }
            let identity = IdentityRecord {
                kind: IdentityKind::Client,
                name: record.name.clone(),
                access: record.access.clone(),
                certificate_pem: to_pem(certificate),
            };
            let used = TokenRecord { used_by: Some(shown), ..record };
            let token_guard = Guard { key: entry.key.clone(), modify_revision: entry.modify_revision };
            let token_op = Op::Put { key: entry.key, value: encode(&used) };
            match self.write(shown, &identity, vec![token_guard], vec![token_op]).await {
                Err(ClientError::Commit(CommitError::Conflict(_))) => {}
                Err(error) => return Err(error),
                Ok(()) => {
                    tracing::info!(name = identity.name, fingerprint = %shown, "a client is now trusted");
                    return Ok(identity);
                }
            }
        }
        Err(ClientError::Contended)
    }

    /// Trusts a client by its certificate, without a token.
    pub async fn add(
        &self,
        by: &impl Permission,
        name: &str,
        access: Access,
        certificate: &CertificateDer<'_>,
        now: Timestamp,
    ) -> Result<Fingerprint, ClientError> {
        check_name(name)?;
        check_validity(certificate, now)?;
        let shown = fingerprint(certificate);
        let identity = IdentityRecord {
            kind: IdentityKind::Client,
            name: name.to_owned(),
            access,
            certificate_pem: to_pem(certificate),
        };
        match self.write(shown, &identity, Vec::new(), Vec::new()).await {
            Err(ClientError::Commit(CommitError::Conflict(_))) => Err(ClientError::AlreadyTrusted),
            Err(error) => Err(error),
            Ok(()) => {
                tracing::info!(name, fingerprint = %shown, by = %by.caller(), "a client is now trusted");
                Ok(shown)
            }
        }
    }

    /// Tokens that can still be redeemed at `now`, oldest first.
    pub async fn pending(&self, now: Timestamp) -> Result<Vec<TokenReport>, ClientError> {
        let mut reports: Vec<TokenReport> = self
            .tokens()
            .await?
            .into_iter()
            .filter(|(_, record)| record.used_by.is_none() && record.expires_at > now)
            .filter_map(|(entry, record)| {
                let id = keys::last_part(&entry.key).parse().ok()?;
                let TokenRecord { name, created_at, expires_at, .. } = record;
                Some(TokenReport { id, name, created_at, expires_at })
            })
            .collect();
        reports.sort_by_key(|report| report.created_at);
        Ok(reports)
    }

    /// Takes back every token with this id or name that can still be redeemed at `now`.
    pub async fn revoke(
        &self,
        by: &impl Permission,
        wanted: &str,
        now: Timestamp,
    ) -> Result<usize, ClientError> {
        let mut revoked = self.pending(now).await?;
        revoked.retain(|token| token.name == wanted || token.id.to_string() == wanted);
        if revoked.is_empty() {
            return Err(ClientError::Unknown);
        }
        let ops =
            revoked.iter().map(|token| Op::Delete { key: keys::token(&token.id.to_string()) }).collect();
        self.store.commit(Txn { guards: Vec::new(), ops }).await?;
        tracing::info!(tokens = revoked.len(), by = %by.caller(), "revoked trust tokens");
        Ok(revoked.len())
    }

    /// The trusted client that `wanted` names: by fingerprint, by its beginning, or by name.
    pub fn find(&self, wanted: &str) -> Result<(Fingerprint, Arc<IdentityRecord>), ClientError> {
        let mut clients = self.identities.all();
        clients.retain(|fingerprint, identity| {
            let begins =
                wanted.len() >= 4 && fingerprint.to_string().starts_with(&wanted.to_ascii_lowercase());
            identity.kind == IdentityKind::Client && (begins || identity.name == wanted)
        });
        match clients.len() {
            0 => Err(ClientError::NotFound),
            1 => clients
                .pop_first()
                .and_then(|(id, identity)| Some((id.fingerprint()?, identity)))
                .ok_or(ClientError::NotFound),
            _ => Err(ClientError::Ambiguous),
        }
    }

    /// Ends the trust in a client. Its connections are closed by whoever watches `Identities::changed`.
    pub async fn remove(&self, by: &impl Permission, client: Fingerprint) -> Result<(), ClientError> {
        let key = keys::identity(&client.to_string());
        let entry = self.store.get(&key).await?.ok_or(ClientError::NotFound)?;
        if decode::<IdentityRecord>(&entry)?.kind != IdentityKind::Client {
            return Err(ClientError::LinkCertificate);
        }
        let guards = vec![Guard { key: key.clone(), modify_revision: entry.modify_revision }];
        let revision = self.store.commit(Txn { guards, ops: vec![Op::Delete { key }] }).await?;
        self.identities.seen(revision).await;
        tracing::info!(fingerprint = %client, by = %by.caller(), "a client is no longer trusted");
        Ok(())
    }

    /// Writes a new identity, with what else belongs into the same commit.
    async fn write(
        &self,
        fingerprint: Fingerprint,
        identity: &IdentityRecord,
        mut guards: Vec<Guard>,
        mut ops: Vec<Op>,
    ) -> Result<(), ClientError> {
        let key = keys::identity(&fingerprint.to_string());
        guards.push(Guard { key: key.clone(), modify_revision: Revision(0) });
        ops.push(Op::Put { key, value: encode(identity) });
        let revision = self.store.commit(Txn { guards, ops }).await?;
        self.identities.seen(revision).await;
        Ok(())
    }

    async fn tokens(&self) -> Result<Vec<(Entry, TokenRecord)>, StoreError> {
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

fn check_name(name: &str) -> Result<(), ClientError> {
    let good = !name.is_empty()
        && name.chars().count() <= MAX_NAME
        && !name.starts_with('-')
        && !name.contains('/')
        && !name.chars().any(char::is_control);
    if good { Ok(()) } else { Err(ClientError::Name) }
}

#[cfg(test)]
mod tests;
