//! The sending side of a Sync stream: what this cluster exports to the peer, whenever it changes.
//!
//! One task follows the catalog and the health of instances and notes in [`Offers`] what changed. Each peer's stream
//! has an [`Outbox`], which says what is to be sent next, and a [`Window`] of what it has not acknowledged: a peer
//! that reads slowly hears of the newest only, and nothing queues up for it.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use schema::name::{LinkName, ServiceName};
use schema::record::ServiceMatch;
use sha2::{Digest as _, Sha256};
use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::offers::Offers;
use super::outbox::{BadAck, Outbox, Step, Window};
use super::rows::{self, Gathered, LeftOut};
use super::{Peering, ledger, status};
use crate::catalog::CatalogView;
use crate::trust::mesh::Roots;
use crate::tunnel::frame::{self, FRAME_TIMEOUT, ReadError};
use crate::tunnel::{Incoming, Session, TunnelStream};
use crate::wire::link::{Refusal, StreamHeader};
use crate::wire::printable;
use crate::wire::sync::{
    MAX_ANSWER, MAX_FRAME, News, Offered, PeerView, Position, SyncAnswer, SyncFrame, VERSION,
};

/// How often the peer hears from us when there is nothing to say. The window that it grants is five of these.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// A change of this half's own state is told at most this often: while many links come up, each of them stirs all.
const VIEW_PAUSE: Duration = Duration::from_millis(100);

/// What is exported, for the streams to all peers.
pub(super) struct Exports {
    offers: Mutex<Offers>,
    changed: watch::Sender<u64>,
    /// Of this process: positions of an earlier one mean nothing here.
    epoch: Uuid,
}

impl Default for Exports {
    fn default() -> Self {
        Self { offers: Mutex::default(), changed: watch::Sender::default(), epoch: Uuid::new_v4() }
    }
}

impl Exports {
    pub(super) fn offers(&self) -> MutexGuard<'_, Offers> {
        // Each change of it is whole before the next begins, so a panic elsewhere leaves nothing half done.
        self.offers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A link's positions are its own: under another name it was told other things.
    fn epoch_of(&self, link: &LinkName) -> Uuid {
        let mut hash = Sha256::new();
        hash.update(self.epoch.as_bytes());
        hash.update(link.as_str().as_bytes());
        let digest: [u8; 32] = hash.finalize().into();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Uuid::from_bytes(bytes)
    }
}

/// Why nothing more is sent.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("sending to the peer failed: {0}")]
    Write(io::Error),
    #[error("no acknowledgement can be read: {0}")]
    Read(ReadError),
    #[error("the peer has acknowledged nothing for {} s", FRAME_TIMEOUT.as_secs())]
    Unacknowledged,
    #[error(transparent)]
    BadAck(#[from] BadAck),
    #[error("the peer does not take what it is sent: {0}")]
    Refused(String),
    #[error("the agent is ending")]
    Ending,
}

impl Peering {
    /// Notes what is exported, once; then [`Peering::follow_exports`] keeps it up to date.
    pub(super) fn note_exports(&self) {
        let view = self.parts.catalog.view();
        self.note_services(&view, candidates(&view));
    }

    /// Notes every change of what is exported until the tasks end.
    pub(super) async fn follow_exports(self: Arc<Self>) {
        let ending = self.parts.tasks.ending();
        let mut catalog = self.parts.catalog.subscribe();
        let mut health = self.parts.health.subscribe();
        let (mut known, mut well) = (Arc::default(), Arc::default());
        loop {
            let (view, now) = (catalog.borrow_and_update().clone(), health.borrow_and_update().clone());
            let mut names = changed(&view, &known);
            {
                let offers = self.exports.offers();
                let ailing = now.changed_since(&well).into_iter().filter(|name| offers.offers(name));
                names.extend(ailing.cloned());
            }
            self.note_services(&view, names);
            (known, well) = (view, now);
            let ended = tokio::select! {
                () = ending.cancelled() => return,
                changed = catalog.changed() => changed.is_err(),
                changed = health.changed() => changed.is_err(),
            };
            if ended {
                return;
            }
        }
    }

    fn note_services(&self, view: &CatalogView, names: impl IntoIterator<Item = ServiceName>) {
        let mut sequence = None;
        for name in names {
            let consumers = view.consumers_of(&name);
            let now = (!consumers.is_empty()).then(|| {
                let told = rows::rows(view, &self.parts.health, &name);
                if let Some(left_out) = &told.left_out {
                    left_out.log(&name);
                }
                (consumers, rows::digest(&told.rows))
            });
            let mut offers = self.exports.offers();
            offers.set(&name, now);
            sequence = Some(offers.sequence());
        }
        if let Some(sequence) = sequence {
            self.exports.changed.send_if_modified(|known| std::mem::replace(known, sequence) != sequence);
        }
    }

    /// Serves one Sync stream to its end.
    pub(super) async fn export(self: Arc<Self>, session: Session, incoming: Incoming) {
        let link = match ledger::link_of(&*self.parts.store, &session.peer()).await {
            Ok(Some(link)) => link,
            Ok(None) => {
                return incoming.refuse(Refusal::NotFound, "there is no link with your cluster here").await;
            }
            Err(error) => {
                tracing::error!(%error, "a sync stream could not be served");
                return incoming.refuse(Refusal::Unavailable, "the store cannot be read").await;
            }
        };
        let StreamHeader::Sync { version, resume } = incoming.header else { return };
        if version != VERSION {
            let message = format!(
                "this agent speaks version {VERSION} of the sync stream, and the peer version {version}; \
                 bring both to one version of comity"
            );
            tracing::warn!(%link, version, "a peer of another version cannot be told what is exported");
            return incoming.refuse(Refusal::Malformed, &message).await;
        }
        let Ok(stream) = incoming.accept().await else { return };
        // Not before the peer is told that this side goes away: it would take this for the fault of the connection.
        let parting = self.parts.tasks.parting();
        let ended = tokio::select! {
            () = parting.cancelled() => SendError::Ending,
            _ = session.closed() => SendError::Ending,
            ended = self.send_exports(&link, stream, resume) => ended,
        };
        self.statuses.note_stream(&link, |times| times.unacknowledged = 0);
        match ended {
            SendError::Ending => {}
            SendError::BadAck(_) | SendError::Refused(_) | SendError::Unacknowledged => {
                tracing::warn!(%link, error = %ended, "the sync stream to the peer was ended");
            }
            SendError::Write(_) | SendError::Read(_) => {
                tracing::debug!(%link, error = %ended, "the sync stream to the peer ended");
            }
        }
    }

    async fn send_exports(
        &self,
        link: &LinkName,
        stream: TunnelStream,
        resume: Option<Position>,
    ) -> SendError {
        let (reader, writer) = tokio::io::split(stream);
        let (acknowledged, acknowledgements) = watch::channel(0);
        let sending = Sending {
            peering: self,
            link,
            writer,
            acknowledgements,
            window: Window::default(),
            statuses: self.statuses.subscribe(),
            roots: self.parts.mesh_ca.subscribe(),
            told_at: Instant::now(),
        };
        let ended = tokio::select! {
            ended = hear(reader, &acknowledged) => ended,
            ended = sending.run(resume) => ended,
        };
        ended.map_or_else(|error| error, |never| match never {})
    }

    /// What this cluster says about itself.
    fn news(&self) -> News {
        let bundle = Some(self.parts.mesh_ca.bundle());
        let addresses = self.parts.addresses.current();
        News { bundle, addresses: addresses.iter().take(crate::wire::sync::MAX_ADDRESSES).cloned().collect() }
    }

    /// This side's word about its half.
    async fn own_view(&self, link: &LinkName) -> PeerView {
        let half = ledger::read(&*self.parts.store, link).await.map(|held| held.half).unwrap_or_default();
        let (state, reason) = status::state(&half, &self.statuses.get(link).connection, Timestamp::now());
        let imported = self.parts.imports.view().get(link).map_or(0, |imported| imported.services.len());
        PeerView {
            link: link.clone(),
            state,
            reason,
            exported: self.exports.offers().count(link) as u64,
            imported: imported as u64,
        }
    }
}

/// Reads acknowledgements until there are none any more.
async fn hear(
    mut reader: ReadHalf<TunnelStream>,
    acknowledged: &watch::Sender<u64>,
) -> Result<std::convert::Infallible, SendError> {
    loop {
        match frame::read_within(&mut reader, MAX_ANSWER).await.map_err(SendError::Read)?.0 {
            SyncAnswer::Ack { frame } => acknowledged.send_replace(frame),
            SyncAnswer::Refused { reason } => return Err(SendError::Refused(printable(&reason))),
        };
    }
}

/// One stream's sending.
struct Sending<'a> {
    peering: &'a Peering,
    link: &'a LinkName,
    writer: WriteHalf<TunnelStream>,
    acknowledgements: watch::Receiver<u64>,
    window: Window,
    statuses: watch::Receiver<u64>,
    /// What vouches for this cluster's services: a root that is withdrawn is to be news at once.
    roots: watch::Receiver<Arc<Roots>>,
    /// When this half's state was last told.
    told_at: Instant,
}

impl Sending<'_> {
    async fn run(mut self, resume: Option<Position>) -> Result<std::convert::Infallible, SendError> {
        let peering = self.peering;
        let exports = &peering.exports;
        let mut changed = exports.changed.subscribe();
        let mut outbox =
            Outbox::begin(self.link.clone(), exports.epoch_of(self.link), resume, &exports.offers());
        self.statuses.borrow_and_update();
        let mut view = self.peering.own_view(self.link).await;
        let mut news = self.peering.news();
        self.send(SyncFrame::Hello {
            version: VERSION,
            cluster: self.peering.parts.cluster.clone(),
            view: view.clone(),
            news: news.clone(),
            resumed: outbox.resumed(),
        })
        .await?;
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        heartbeat.reset();
        let mut stirred = false;
        loop {
            changed.borrow_and_update();
            loop {
                let step = outbox.next(&exports.offers());
                if step == Step::Nothing {
                    break;
                }
                self.tell(step).await?;
            }
            let silent = tokio::select! {
                changed = changed.changed() => { changed.map_err(|_| SendError::Ending)?; continue }
                told = self.acknowledgements.changed() => {
                    told.map_err(|_| SendError::Ending)?;
                    self.take_acknowledgements()?;
                    continue;
                }
                changed = self.statuses.changed(), if !stirred => {
                    changed.map_err(|_| SendError::Ending)?;
                    stirred = true;
                    continue;
                }
                changed = self.roots.changed(), if !stirred => {
                    changed.map_err(|_| SendError::Ending)?;
                    stirred = true;
                    continue;
                }
                () = tokio::time::sleep_until(self.told_at + VIEW_PAUSE), if stirred => false,
                _ = heartbeat.tick() => true,
            };
            stirred = false;
            self.statuses.borrow_and_update();
            self.roots.mark_unchanged();
            let now = self.peering.news();
            if now != news {
                news = now;
                self.send(SyncFrame::News { news: news.clone() }).await?;
            }
            let now = self.peering.own_view(self.link).await;
            self.told_at = Instant::now();
            if silent || now != view {
                view = now;
                self.send(SyncFrame::Heartbeat { view: view.clone() }).await?;
                heartbeat.reset();
            }
        }
    }

    /// Sends one step, whole.
    async fn tell(&mut self, step: Step) -> Result<(), SendError> {
        match step {
            Step::Nothing => Ok(()),
            Step::Begin => self.send(SyncFrame::Begin).await,
            Step::Items(names) => {
                let rest = self.tell_rows(names, |services| SyncFrame::Items { services }).await?;
                self.send(SyncFrame::Items { services: rest }).await
            }
            Step::End { position, services } => self.send(SyncFrame::End { position, services }).await,
            Step::Change { changed, removed, position } => {
                let change = |services| SyncFrame::Change { services, removed: Vec::new(), position: None };
                let services = self.tell_rows(changed, change).await?;
                self.send(SyncFrame::Change { services, removed, position: Some(position) }).await
            }
        }
    }

    /// Sends the rows of these services but for the last, which do not fill a frame.
    async fn tell_rows(
        &mut self,
        names: Vec<ServiceName>,
        frame: impl Fn(Vec<Offered>) -> SyncFrame,
    ) -> Result<Vec<Offered>, SendError> {
        let mut gathered = Gathered::default();
        for name in names {
            // It may have been withdrawn while the window was full. The name alone is what the peer knew before, and
            // its removal is on its way.
            let offered = self.peering.exports.offers().is_offered(&name, self.link);
            let view = if offered { self.peering.parts.catalog.view() } else { Arc::default() };
            for row in rows::rows(&view, &self.peering.parts.health, &name).rows {
                if let Some(services) = gathered.push(row) {
                    self.send(frame(services)).await?;
                }
            }
        }
        Ok(gathered.take())
    }

    /// Sends one frame, once the window has room for it.
    async fn send(&mut self, frame: SyncFrame) -> Result<(), SendError> {
        while !self.window.has_room() {
            tokio::time::timeout(FRAME_TIMEOUT, self.acknowledgements.changed())
                .await
                .map_err(|_| SendError::Unacknowledged)?
                .map_err(|_| SendError::Ending)?;
            self.take_acknowledgements()?;
        }
        let bytes =
            frame::write_within(&mut self.writer, &frame, MAX_FRAME).await.map_err(SendError::Write)?;
        self.window.sent(bytes);
        let unacknowledged = self.window.bytes() as u64;
        self.peering.statuses.note_stream(self.link, |times| {
            times.last_send = Some(Timestamp::now());
            times.unacknowledged = unacknowledged;
        });
        Ok(())
    }

    fn take_acknowledgements(&mut self) -> Result<(), SendError> {
        let frame = *self.acknowledgements.borrow_and_update();
        self.window.acknowledged(frame)?;
        let unacknowledged = self.window.bytes() as u64;
        self.peering.statuses.note_stream(self.link, |times| times.unacknowledged = unacknowledged);
        Ok(())
    }
}

impl LeftOut {
    fn log(&self, service: &ServiceName) {
        tracing::error!(%service, reason = %self, "peers are not told all of an exported service");
    }
}

/// Every service that may be exported.
fn candidates(view: &CatalogView) -> BTreeSet<ServiceName> {
    let named = view.exports.iter().filter_map(|(service, _)| match service {
        ServiceMatch::Named(name) => Some(name),
        ServiceMatch::Any => None,
    });
    named.chain(view.services.iter().map(|(name, _)| name)).cloned().collect()
}

/// The services of which something has changed that may have to be told.
fn changed(now: &CatalogView, before: &CatalogView) -> BTreeSet<ServiceName> {
    if !Arc::ptr_eq(now.intentions.groups(), before.intentions.groups()) {
        // A group's members may have been offered anything by it.
        return candidates(now).into_iter().chain(candidates(before)).collect();
    }
    let services = now.services.changed_since(&before.services).into_iter();
    let defaults = now.defaults.changed_since(&before.defaults).into_iter();
    let mut names: BTreeSet<ServiceName> = services.chain(defaults).cloned().collect();
    for export in now.exports.changed_since(&before.exports) {
        match export {
            ServiceMatch::Named(name) => drop(names.insert(name.clone())),
            // All services have gained or lost consumers by it.
            ServiceMatch::Any => {
                names.extend(candidates(now));
                names.extend(candidates(before));
            }
        }
    }
    names
}
