//! Identities that a provider vouches for, and their sessions: written when somebody logs in, ended when it is time.

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::super::identity::{IdentityKind, IdentityRecord};
use super::super::oidc::session::{SessionRecord, session_id};
use super::super::{Access, Caller, Groups, IdentityId, Origin, Permission, Who};
use super::{ClientError, Clients, TRIES};
use crate::audit::{Action, Actor, Record, Writes};
use crate::store::value::{decode, encode};
use crate::store::{CommitError, Guard, Op, Revision, Txn, keys};
use crate::wire::token::{Secret, SecretDigest};

/// Most identities that providers vouch for: whoever has an account there may make one.
const MAX_IDENTITIES: usize = 10_000;
/// Most sessions of an identity, and of all. Of one identity's the oldest gives way.
const MAX_SESSIONS_OF_ONE: usize = 50;
const MAX_SESSIONS: usize = 50_000;
/// Longest user agent that is kept, in characters.
const MAX_USER_AGENT: usize = 200;

/// Somebody whom the provider vouches for.
#[derive(Debug)]
pub struct Login<'a> {
    pub email: &'a str,
    pub name: &'a str,
    /// The provider's groups.
    pub groups: Vec<String>,
    /// Of the access token.
    pub token: &'a SecretDigest,
    pub address: Option<IpAddr>,
    pub user_agent: &'a str,
    /// How long the session goes on.
    pub lasts: SignedDuration,
}

impl Clients {
    /// Begins a session, with the secret that its client is to keep, and an identity for whoever logs in the first time:
    /// it is in no group. A token that has a session already goes on with that, with the groups that it tells now.
    pub async fn begin_session(
        &self,
        origin: Origin,
        login: Login<'_>,
        now: Timestamp,
    ) -> Result<(Uuid, Option<Secret>), ClientError> {
        for _ in 0..TRIES {
            match self.try_session(origin, &login, now).await {
                Err(ClientError::Moved) => {}
                other => return other,
            }
        }
        Err(ClientError::Contended)
    }

    async fn try_session(
        &self,
        origin: Origin,
        login: &Login<'_>,
        now: Timestamp,
    ) -> Result<(Uuid, Option<Secret>), ClientError> {
        let id = IdentityId::Email(login.email.to_owned());
        let known = self.identities.sessions(|sessions| {
            let id = sessions.by_token(login.token)?;
            sessions.get(&id).map(|session| (id, session.clone()))
        });
        if let Some((session, record)) = known
            && record.email == login.email
            && record.expires_at > now
            && self.identities.get(&id).is_some()
        {
            if record.groups != login.groups {
                let record = SessionRecord { groups: login.groups.clone(), ..(*record).clone() };
                let ops = vec![Op::Put { key: keys::oidc_session(&session), value: encode(&record) }];
                let revision = self.store.commit(Txn { guards: Vec::new(), ops }).await?;
                self.identities.sessions_seen(revision).await;
            }
            return Ok((session, None));
        }
        let (of_one, all) = self.identities.sessions(|sessions| (sessions.of(login.email), sessions.count()));
        if all >= MAX_SESSIONS {
            return Err(ClientError::TooMany);
        }
        let (session, cookie) = (Uuid::new_v4(), Secret::random());
        let record = SessionRecord {
            email: login.email.to_owned(),
            username: login.name.to_owned(),
            cookie: cookie.digest(),
            token: login.token.clone(),
            groups: login.groups.clone(),
            address: login.address,
            user_agent: printable_agent(login.user_agent),
            created_at: now,
            expires_at: now.saturating_add(login.lasts).unwrap_or(Timestamp::MAX),
        };
        let mut ops = vec![Op::Put { key: keys::oidc_session(&session), value: encode(&record) }];
        let surplus = (of_one.len() + 1).saturating_sub(MAX_SESSIONS_OF_ONE);
        ops.extend(of_one.iter().take(surplus).map(|old| Op::Delete { key: keys::oidc_session(old) }));
        let who = Who::Client {
            id: id.clone(),
            name: login.name.to_owned(),
            access: Access::Groups(Groups::default()),
        };
        let by = Caller { who, origin, shown: None };
        let key = keys::identity(&id.key_part());
        let revision = if let Some(entry) = self.store.get(&key).await? {
            let guards = vec![Guard { key, modify_revision: entry.modify_revision }];
            moved(self.store.commit(Txn { guards, ops }).await)?
        } else {
            let mut count = 0;
            self.identities.each(|_, known| count += usize::from(known.kind == IdentityKind::Oidc));
            if count >= MAX_IDENTITIES {
                return Err(ClientError::TooMany);
            }
            let identity = IdentityRecord {
                kind: IdentityKind::Oidc,
                name: login.name.to_owned(),
                access: Access::Groups(Groups::default()),
                certificate_pem: String::new(),
            };
            ops.push(Op::Put { key: key.clone(), value: encode(&identity) });
            let txn = Txn { guards: vec![Guard { key, modify_revision: Revision(0) }], ops };
            let writes = Writes::of(&txn);
            let revision = moved(self.store.commit(txn).await)?;
            self.identities.seen(revision).await;
            let record = Record::new(&by, Action::IdentityCreated, now)
                .on(format!("{}/{id}", identity.collection()))
                .committed(writes, revision)
                .with("name", login.name);
            self.audit.record(record);
            tracing::info!(identity = %id, "somebody whom the identity provider vouches for is known now");
            revision
        };
        self.identities.sessions_seen(revision).await;
        let told = Record::new(&by, Action::OidcSessionCreated, now).at(revision);
        self.audit.record(told.on(format!("/1.0/auth/oidc-sessions/{session}")));
        Ok((session, Some(cookie)))
    }

    /// Ends a session. Its connections are closed by whoever watches `Identities::changed`.
    pub async fn end_session(
        &self,
        by: &impl Permission,
        session: &Uuid,
        now: Timestamp,
    ) -> Result<(), ClientError> {
        let key = keys::oidc_session(session);
        let entry = self.store.get(&key).await?.ok_or(ClientError::NotFound)?;
        let guards = vec![Guard { key: key.clone(), modify_revision: entry.modify_revision }];
        let revision = moved(self.store.commit(Txn { guards, ops: vec![Op::Delete { key }] }).await)?;
        self.identities.sessions_seen(revision).await;
        let told = Record::new(by.caller(), Action::OidcSessionDeleted, now).at(revision);
        self.audit.record(told.on(format!("/1.0/auth/oidc-sessions/{session}")));
        tracing::info!(%session, by = %by.caller(), "a session was ended");
        Ok(())
    }

    /// Ends a session that should not have been begun.
    pub async fn end_begun_session(&self, session: Uuid, now: Timestamp) -> Result<(), ClientError> {
        self.end(Actor::agent(), vec![session], now).await
    }

    /// Has no session go on longer than `lasts` from when it began.
    pub async fn shorten_sessions(
        &self,
        by: &impl Permission,
        lasts: SignedDuration,
        now: Timestamp,
    ) -> Result<(), ClientError> {
        for _ in 0..TRIES {
            let (mut txn, mut over) = (Txn::default(), Vec::new());
            for entry in self.store.range(keys::OIDC_SESSION).await?.entries {
                let Some(session) = session_id(&entry.key) else { continue };
                // One that cannot be read is nobody's.
                let Ok(record) = decode::<SessionRecord>(&entry) else { continue };
                let until = record.created_at.saturating_add(lasts).unwrap_or(Timestamp::MAX);
                if until <= now {
                    over.push(session);
                } else if until < record.expires_at {
                    let record = SessionRecord { expires_at: until, ..record };
                    txn.guards.push(Guard { key: entry.key.clone(), modify_revision: entry.modify_revision });
                    txn.ops.push(Op::Put { key: entry.key, value: encode(&record) });
                }
            }
            if !txn.ops.is_empty() {
                match moved(self.store.commit(txn).await) {
                    Err(ClientError::Moved) => continue,
                    committed => self.identities.sessions_seen(committed?).await,
                }
            }
            return self.end(Actor::from(by.caller()), over, now).await;
        }
        Err(ClientError::Contended)
    }

    /// Ends every session: who vouched for them has no say any more.
    pub async fn end_every_session(&self, by: &impl Permission, now: Timestamp) -> Result<(), ClientError> {
        let all: Vec<Uuid> = self.identities.sessions(|sessions| sessions.all().map(|(id, _)| *id).collect());
        self.end(Actor::from(by.caller()), all, now).await
    }

    /// Forgets sessions whose time is over, which also ends their connections.
    pub(super) async fn prune_sessions(&self, now: Timestamp) -> Result<(), ClientError> {
        let over: Vec<Uuid> = self.identities.sessions(|sessions| {
            let over = sessions.all().filter(|(_, session)| session.expires_at <= now);
            over.map(|(id, _)| *id).collect()
        });
        self.end(Actor::agent(), over, now).await
    }

    async fn end(&self, by: Actor, sessions: Vec<Uuid>, now: Timestamp) -> Result<(), ClientError> {
        if sessions.is_empty() {
            return Ok(());
        }
        let ops = sessions.iter().map(|session| Op::Delete { key: keys::oidc_session(session) }).collect();
        let revision = self.store.commit(Txn { guards: Vec::new(), ops }).await?;
        self.identities.sessions_seen(revision).await;
        for session in sessions {
            let told = Record::new(by.clone(), Action::OidcSessionDeleted, now).at(revision);
            self.audit.record(told.on(format!("/1.0/auth/oidc-sessions/{session}")));
        }
        Ok(())
    }
}

fn moved(committed: Result<Revision, CommitError>) -> Result<Revision, ClientError> {
    match committed {
        Err(CommitError::Conflict(_)) => Err(ClientError::Moved),
        other => Ok(other?),
    }
}

fn printable_agent(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_USER_AGENT).collect()
}
