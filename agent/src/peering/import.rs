//! The receiving side of a Sync stream: what the peer exports to us, and that it is alive.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use schema::name::{ClusterName, LinkName};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::time::Instant;

use super::inbox::{Inbox, Taken, Violation};
use super::status::Connection;
use super::{Peering, PeeringError, ledger};
use crate::catalog::{Freshness, ImportedLink};
use crate::trust::mesh::BundleError;
use crate::tunnel::frame::{self, ReadError};
use crate::tunnel::{OpenError, Session};
use crate::wire::link::{Refusal, StreamHeader};
use crate::wire::printable;
use crate::wire::sync::{MAX_ANSWER, MAX_FRAME, News, SyncAnswer, SyncFrame, VERSION};

/// Most characters of a peer's own words that are kept.
const MAX_REASON: usize = 500;
/// How often a peer's addresses may be written down.
const NOTE_PAUSE: Duration = Duration::from_secs(10);

/// Why nothing more is received.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReceiveError {
    #[error("the peer does not answer a sync stream: {0}")]
    Open(#[from] OpenError),
    /// The heartbeat window is the time that any frame may take.
    #[error("{0}")]
    Silent(ReadError),
    #[error("the sync stream from the peer ended: {0}")]
    Stream(ReadError),
    #[error("an acknowledgement could not be sent: {0}")]
    Write(std::io::Error),
    #[error("what the peer sent on the sync stream was refused: {0}")]
    Frame(ReadError),
    #[error("what the peer sent on the sync stream was refused: {0}")]
    Violation(#[from] Violation),
    #[error("what the peer says of its services' certificates was refused: {0}")]
    Bundle(#[from] BundleError),
}

impl ReceiveError {
    /// Whether the peer says that it knows no link with us.
    pub fn is_unknown_link(&self) -> bool {
        matches!(self, Self::Open(OpenError::Refused { code: Refusal::NotFound, .. }))
    }

    /// Whether the peer does not keep to what was agreed. To call it again at once would end the same.
    fn is_fault(&self) -> bool {
        matches!(self, Self::Frame(_) | Self::Violation(_) | Self::Bundle(_))
    }
}

impl From<ReadError> for ReceiveError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Silent => Self::Silent(error),
            ReadError::TooLarge(_) | ReadError::Senseless(_) => Self::Frame(error),
            ReadError::Ended | ReadError::Io(_) => Self::Stream(error),
        }
    }
}

/// What has been received over a link. It outlives the link's connections.
#[derive(Debug, Default)]
pub(super) struct Received {
    inbox: Inbox,
    /// What the peer said of itself on the stream that is open.
    peer: Option<(ClusterName, Arc<News>)>,
    /// When the peer's addresses were last written down, and what was then.
    noted: Option<(Instant, Vec<String>)>,
}

impl Peering {
    /// Receives until the stream ends; `heard` tells whether anything came that was worth another call at once.
    pub(super) async fn receive(
        &self,
        link: &LinkName,
        session: &Session,
        received: &mut Received,
        heard: &mut bool,
    ) -> ReceiveError {
        match self.receive_frames(link, session, received, heard).await {
            Ok(never) => match never {},
            Err(error) => {
                if error.is_fault() {
                    tracing::warn!(%link, %error, "the peer's sync stream was ended");
                    received.inbox.distrust();
                    *heard = false;
                }
                error
            }
        }
    }

    async fn receive_frames(
        &self,
        link: &LinkName,
        session: &Session,
        received: &mut Received,
        heard: &mut bool,
    ) -> Result<Infallible, ReceiveError> {
        let resume = received.inbox.opened();
        received.peer = None;
        let stream = session.open(&StreamHeader::Sync { version: VERSION, resume }).await?;
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut frames = 0;
        loop {
            let taken = match frame::read_within(&mut reader, MAX_FRAME).await {
                Ok((frame, _)) => {
                    let first = !*heard;
                    *heard = true;
                    if first {
                        // Before it shows as ACTIVE: a session that ends at once must not leave a link that was, and
                        // never was.
                        self.confirm_active(link).await;
                    }
                    self.take(link, received, frame)
                }
                Err(error) => Err(error.into()),
            };
            if let Err(error) = &taken
                && error.is_fault()
            {
                refuse(&mut writer, error).await;
            }
            taken?;
            frames += 1;
            frame::write_within(&mut writer, &SyncAnswer::Ack { frame: frames }, MAX_ANSWER)
                .await
                .map_err(ReceiveError::Write)?;
            self.note_addresses(link, received).await;
        }
    }

    fn take(&self, link: &LinkName, received: &mut Received, frame: SyncFrame) -> Result<(), ReceiveError> {
        let now = Timestamp::now();
        let is_heartbeat = matches!(frame, SyncFrame::Heartbeat { .. });
        self.statuses.note_stream(link, |times| {
            times.last_receive = Some(now);
            if is_heartbeat {
                times.last_heartbeat = Some(now);
            }
        });
        let mut view = None;
        let changed = match received.inbox.take(frame)? {
            Taken::Nothing => false,
            Taken::View(theirs) => {
                view = Some(theirs);
                false
            }
            Taken::Hello { cluster, view: theirs, news } => {
                self.learn(link, &news)?;
                view = Some(theirs);
                received.peer = Some((cluster, Arc::new(news)));
                true
            }
            Taken::News(news) => {
                self.learn(link, &news)?;
                if let Some((_, known)) = &mut received.peer {
                    *known = Arc::new(news);
                }
                true
            }
            Taken::Services => true,
        };
        if changed && received.inbox.is_current() {
            self.publish(link, received);
        }
        let current = received.inbox.is_current();
        self.statuses.update(link, |status| {
            // Before what it exports is known whole, the peer is there, and the link carries nothing yet.
            if current {
                status.connection = Connection::Up;
            }
            if let Some(mut view) = view {
                view.reason = view
                    .reason
                    .as_deref()
                    .map(|reason| printable(&reason.chars().take(MAX_REASON).collect::<String>()));
                status.peer = Some(view);
            }
        });
        Ok(())
    }

    fn publish(&self, link: &LinkName, received: &Received) {
        let Some((cluster, news)) = &received.peer else { return };
        let imported = ImportedLink {
            cluster: cluster.clone(),
            services: received.inbox.services().clone(),
            freshness: Freshness::Current,
            addresses: news.addresses.as_slice().into(),
        };
        let before = self.imported(link);
        self.parts.imports.publish(link, imported);
        if self.imported(link) != before {
            // The peer is told how many of its services have arrived.
            self.statuses.touch();
        }
    }

    /// Who calls with the trust domain of another peer, or with ours, could pass for its services.
    fn learn(&self, link: &LinkName, news: &News) -> Result<(), BundleError> {
        let Some(bundle) = &news.bundle else { return Ok(()) };
        let own = self.parts.mesh_ca.roots();
        self.parts.bundles.learn(link, bundle.clone(), &own.domain).map(drop)
    }

    fn imported(&self, link: &LinkName) -> usize {
        self.parts.imports.view().get(link).map_or(0, |imported| imported.services.len())
    }

    /// Writes down where the peer says that it is reached, so that it is found after a move. Whoever answers there
    /// must show the pinned certificate.
    async fn note_addresses(&self, link: &LinkName, received: &mut Received) {
        let Some((_, news)) = &received.peer else { return };
        let due = received
            .noted
            .as_ref()
            .is_none_or(|(at, noted)| *noted != news.addresses && at.elapsed() >= NOTE_PAUSE);
        if !due {
            return;
        }
        received.noted = Some((Instant::now(), news.addresses.clone()));
        if let Err(error) = self.try_note(link, &news.addresses).await {
            tracing::warn!(%link, %error, "the peer's addresses could not be written down");
        }
    }

    async fn try_note(&self, link: &LinkName, addresses: &[String]) -> Result<(), PeeringError> {
        loop {
            let before = ledger::read(&*self.parts.store, link).await?;
            let Some(peer) = before.half.peer() else { return Ok(()) };
            // A link that was made over the network does not lead to this machine's own services.
            let local = peer.addresses.iter().any(|address| is_loopback(address));
            let told = addresses.iter().filter(|address| local || !is_loopback(address));
            let told = told.filter(|address| !peer.addresses.contains(address)).cloned();
            let told = super::dial_back::plausible(&told.collect::<Vec<_>>());
            let Some(after) = before.half.clone().told(told) else { return Ok(()) };
            if self.commit(ledger::replace(link, &before, &after)).await?.is_some() {
                tracing::info!(%link, ?addresses, "the peer says that it is reached elsewhere now");
                return Ok(());
            }
        }
    }

    /// Notes the first time that data arrived: from then on the token's redemption cannot be repeated.
    pub(super) async fn confirm_active(&self, link: &LinkName) {
        if let Err(error) = self.try_confirm(link).await {
            tracing::warn!(%link, %error, "the link's first data could not be noted");
        }
    }

    async fn try_confirm(&self, link: &LinkName) -> Result<(), PeeringError> {
        loop {
            let before = ledger::read(&*self.parts.store, link).await?;
            let Some(after) = before.half.clone().confirmed(Timestamp::now()) else { return Ok(()) };
            if self.commit(ledger::replace(link, &before, &after)).await?.is_some() {
                tracing::info!(%link, "the link is active for the first time");
                return Ok(());
            }
        }
    }
}

/// Tells the peer what was wrong, for its own log.
async fn refuse(writer: &mut (impl AsyncWrite + Unpin), error: &ReceiveError) {
    let reason = error.to_string().chars().take(MAX_REASON).collect();
    // The stream ends anyhow; in order, so that what it says is read.
    if frame::write_within(writer, &SyncAnswer::Refused { reason }, MAX_ANSWER).await.is_ok() {
        let _ = writer.shutdown().await;
    }
}

fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified())
}
