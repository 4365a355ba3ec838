//! Public links: a certificate that is pinned, and nothing else. Nobody is known to anybody by them.
//!
//! By hand it takes two calls (LXD): the first brings back the certificate that the address shows, the second confirms
//! it. A declaration names both, so it takes one. Afterwards the address is asked now and then whether it still is who
//! it was: that is what the link's state tells.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use schema::kind::cluster_link::{ClusterLink, LinkType};
use schema::name::LinkName;

use super::exchange::TRIES;
use super::half::{Half, Peer, Unconfirmed};
use super::keeper::Kept;
use super::ledger;
use super::status::Connection;
use super::{Peering, PeeringError};
use crate::audit::Action;
use crate::authorize::Permit;
use crate::client::first_contact;
use crate::client::verify::{Standing, verify, verify_each};
use crate::store::Guard;
use crate::trust::{Fingerprint, certificate};
use crate::tunnel::AttemptError;
use crate::tunnel::connect::ADDRESS_TIMEOUT;
use crate::tunnel::tls::Door;

/// How often a public link's peer is asked for `GET /1.0`.
const LOOK: Duration = Duration::from_secs(30);
/// How long one address of a peer may take to answer when somebody asks for a link's state.
const MEMBER_LIMIT: Duration = Duration::from_secs(2);

/// One address of a peer, asked just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub address: String,
    pub name: Option<String>,
    pub status: MemberStatus,
}

/// What came of asking (LXD's three words).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberStatus {
    /// It trusts this cluster.
    Active,
    /// It is who it should be, and does not trust this cluster.
    Unauthenticated,
    /// It does not answer, or is somebody else.
    Unreachable,
}

impl Peering {
    /// Asks a public link's peer at `address` for its certificate, for somebody to confirm. Asked again before that,
    /// the newer answer counts.
    pub async fn offer(&self, permit: &Permit, link: &LinkName, address: &str) -> Result<Peer, PeeringError> {
        // Why is for the log: whoever may make links is not to look round our network by it.
        let unverified = |why: &dyn std::fmt::Display| {
            tracing::info!(%link, address, by = %permit.caller(), %why, "no cluster certificate from an address");
            PeeringError::Unverified(
                "Failed retrieving cluster certificate from the remote address".to_owned(),
            )
        };
        let shown = first_contact(address, Door::Cluster).await.map_err(|error| unverified(&error))?;
        if shown.fingerprint == self.parts.identity.fingerprint() {
            return Err(PeeringError::Itself);
        }
        let asked = verify(address, shown.fingerprint, None, ADDRESS_TIMEOUT).await;
        asked.map_err(|error| unverified(&error))?;
        let peer = Peer {
            fingerprint: shown.fingerprint,
            certificate_pem: certificate::to_pem(&shown.certificate),
            addresses: vec![address.to_owned()],
            told: Vec::new(),
            lineage: Box::default(),
        };
        for _ in 0..TRIES {
            let (_, declared) = self.public(link).await?;
            let before = ledger::read(&*self.parts.store, link).await?;
            let after = before
                .half
                .clone()
                .offered(peer.clone())
                .map_err(|_| PeeringError::AlreadyConfirmed(link.clone()))?;
            let mut txn = ledger::replace(link, &before, &after);
            txn.guards.push(declared);
            if self.commit(txn).await?.is_some() {
                tracing::info!(%link, by = %permit.caller(), certificate = %peer.fingerprint, "a certificate awaits confirmation");
                return Ok(peer);
            }
        }
        Err(PeeringError::Superseded(link.clone()))
    }

    /// The peer that awaits confirmation, if `pem` is the certificate that it showed.
    pub async fn offered(&self, link: &LinkName, pem: &str) -> Result<Peer, PeeringError> {
        self.public(link).await?;
        let given = certificate::from_pem(pem).ok_or(PeeringError::BadCertificate)?;
        match ledger::read(&*self.parts.store, link).await?.half {
            Half::Unconfirmed(Unconfirmed { peer })
                if peer.fingerprint == certificate::fingerprint(&given) =>
            {
                Ok(peer)
            }
            Half::Unconfirmed(_) => Err(PeeringError::OtherCertificate),
            Half::Established(_) => Err(PeeringError::AlreadyConfirmed(link.clone())),
            Half::Pending(_) | Half::Redeeming(_) | Half::Terminated(_) => {
                Err(PeeringError::NotFound(link.clone()))
            }
        }
    }

    /// The certificate that awaited confirmation has got it.
    pub async fn confirm(&self, permit: &Permit, link: &LinkName, pem: &str) -> Result<(), PeeringError> {
        for _ in 0..TRIES {
            let before = ledger::read(&*self.parts.store, link).await?;
            let peer = self.offered(link, pem).await?;
            if self.pin_to(permit, link, &before, peer).await? {
                return Ok(());
            }
        }
        Err(PeeringError::Superseded(link.clone()))
    }

    /// Pins what the declaration of a public link names, once it was seen at the address that it names.
    pub async fn pin(&self, permit: &Permit, link: &LinkName) -> Result<(), PeeringError> {
        for _ in 0..TRIES {
            let (declared, _) = self.public(link).await?;
            let (Some(address), Some(pin)) = (&declared.address, &declared.fingerprint) else {
                return Err(PeeringError::CertificateRequired);
            };
            let pin: Fingerprint = pin.parse().map_err(|_| PeeringError::BadFingerprint)?;
            if pin == self.parts.identity.fingerprint() {
                return Err(PeeringError::Itself);
            }
            let before = ledger::read(&*self.parts.store, link).await?;
            let seen = verify(address, pin, None, ADDRESS_TIMEOUT).await;
            let seen = seen.map_err(|error| PeeringError::Unverified(format!("{address}: {error}")))?;
            let peer = Peer {
                fingerprint: pin,
                certificate_pem: certificate::to_pem(&seen.certificate),
                addresses: vec![address.clone()],
                told: Vec::new(),
                lineage: Box::default(),
            };
            if self.pin_to(permit, link, &before, peer).await? {
                return Ok(());
            }
        }
        Err(PeeringError::Superseded(link.clone()))
    }

    async fn pin_to(
        &self,
        permit: &Permit,
        link: &LinkName,
        before: &ledger::Held,
        peer: Peer,
    ) -> Result<bool, PeeringError> {
        let (_, declared) = self.public(link).await?;
        let certificate = peer.fingerprint;
        let after = Half::pinned(peer);
        if before.half == after {
            return Ok(true);
        }
        let mut txn = ledger::replace(link, before, &after);
        txn.guards.push(declared);
        let told = self.commit_told(permit.caller(), Action::ClusterLinkActivated, link, txn);
        let pinned = told.await?.is_some();
        if pinned {
            tracing::info!(%link, by = %permit.caller(), %certificate, "a public link is pinned");
        }
        Ok(pinned)
    }

    async fn public(&self, link: &LinkName) -> Result<(ClusterLink, Guard), PeeringError> {
        let (declared, guard) = ledger::declared(&*self.parts.store, link).await?;
        if declared.kind == LinkType::Public {
            Ok((declared, guard))
        } else {
            Err(PeeringError::NotPublic(link.clone()))
        }
    }

    /// Asks every address of the link's peer who it is and whether it trusts this cluster, all at once.
    pub async fn members(&self, link: &LinkName) -> Result<Vec<Member>, PeeringError> {
        ledger::declared(&*self.parts.store, link).await?;
        let Half::Established(established) = ledger::read(&*self.parts.store, link).await?.half else {
            return Ok(Vec::new());
        };
        // A public link's peer is not told who asks.
        let own = (established.kind != LinkType::Public).then(|| self.parts.identity.current());
        let peer = &established.peer;
        let asked = verify_each(&peer.addresses, peer.fingerprint, own.as_deref(), MEMBER_LIMIT).await;
        let member = |(address, answer): (&String, Result<_, _>)| {
            let (name, status) = match answer {
                Ok(crate::client::verify::Verified { standing, name, .. }) => match standing {
                    Standing::Trusted => (name, MemberStatus::Active),
                    Standing::Unknown => (name, MemberStatus::Unauthenticated),
                },
                Err(error) => {
                    tracing::debug!(%link, address, %error, "a peer's address does not answer as it should");
                    (None, MemberStatus::Unreachable)
                }
            };
            Member { address: address.clone(), name, status }
        };
        Ok(peer.addresses.iter().zip(asked).map(member).collect())
    }

    /// Looks now and then whether a public link's peer is there and still is who it was.
    pub(super) async fn watch_public(self: Arc<Self>, mut kept: Kept) {
        if let Some(previous) = kept.previous.take() {
            previous.cancelled().await;
        }
        self.statuses.forget(&kept.link);
        let looking = async {
            loop {
                let peer = kept.peer.borrow().clone();
                let asked = peer.addresses.iter().map(|a| verify(a, peer.fingerprint, None, ADDRESS_TIMEOUT));
                let mut failures = Vec::new();
                for (address, answer) in peer.addresses.iter().zip(join_all(asked).await) {
                    match answer {
                        Ok(_) => failures.clear(),
                        Err(AttemptError::Mismatch { expected, got }) => {
                            match self.follow_succession(&kept.link, expected, address, got).await {
                                Ok(()) => failures.clear(),
                                Err(reason) => failures.push(format!(
                                    "{address}: certificate does not match: expected {expected}, got {got}; {reason}"
                                )),
                            }
                        }
                        Err(error) => failures.push(format!("{address}: {error}")),
                    }
                }
                let connection = if failures.is_empty() {
                    Connection::Up
                } else {
                    Connection::Down { reason: failures.join("; ") }
                };
                let up = connection == Connection::Up;
                self.statuses.update(&kept.link, |status| status.connection = connection);
                if up {
                    self.confirm_active(&kept.link).await;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        kept.stop.run_until_cancelled(looking).await;
        self.statuses.forget(&kept.link);
        kept.done.cancel();
    }
}
