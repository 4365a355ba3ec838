//! The receiving side of a Sync stream: what the peer exports to us, and that it is alive.

use std::collections::BTreeMap;
use std::io;

use jiff::Timestamp;
use schema::name::{LinkName, ServiceName};

use super::status::Connection;
use super::{Peering, PeeringError, ledger};
use crate::catalog::ImportedService;
use crate::tunnel::frame::{self, FRAME_TIMEOUT};
use crate::tunnel::{OpenError, Session};
use crate::wire::link::{Refusal, StreamHeader};
use crate::wire::printable;
use crate::wire::sync::{MAX_SERVICES, Offered, SyncFrame};

/// Why nothing more is received.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReceiveError {
    #[error("the peer does not answer a sync stream: {0}")]
    Open(#[from] OpenError),
    /// The heartbeat window is the time that any frame may take.
    #[error("nothing has arrived for {} s", FRAME_TIMEOUT.as_secs())]
    Silent,
    #[error("the sync stream from the peer ended: {0}")]
    Stream(io::Error),
    #[error("the peer exports more than {MAX_SERVICES} services")]
    TooMany,
    #[error("the peer sent a snapshot's parts out of order")]
    OutOfOrder,
}

impl ReceiveError {
    /// Whether the peer says that it knows no link with us.
    pub fn is_unknown_link(&self) -> bool {
        matches!(self, Self::Open(OpenError::Refused { code: Refusal::NotFound, .. }))
    }
}

/// What has been received of the peer's exports.
#[derive(Debug, Default)]
struct Inbox {
    /// A snapshot that is not whole yet.
    building: Option<BTreeMap<ServiceName, ImportedService>>,
}

impl Peering {
    /// Receives until the stream ends; `heard` tells whether anything came.
    pub(super) async fn receive(&self, link: &LinkName, session: &Session, heard: &mut bool) -> ReceiveError {
        match self.receive_frames(link, session, heard).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn receive_frames(
        &self,
        link: &LinkName,
        session: &Session,
        heard: &mut bool,
    ) -> Result<std::convert::Infallible, ReceiveError> {
        let mut stream = session.open(&StreamHeader::Sync { cursor: None }).await?;
        let mut inbox = Inbox::default();
        loop {
            let frame = frame::read(&mut stream).await.map_err(|error| match error.kind() {
                io::ErrorKind::TimedOut => ReceiveError::Silent,
                _ => ReceiveError::Stream(error),
            })?;
            let first = !*heard;
            *heard = true;
            if first {
                // Before it shows as ACTIVE: a session that ends at once must not leave a link that was, and never was.
                self.confirm_active(link).await;
            }
            self.take(link, &mut inbox, frame)?;
        }
    }

    fn take(&self, link: &LinkName, inbox: &mut Inbox, frame: SyncFrame) -> Result<(), ReceiveError> {
        let imports = &self.parts.imports;
        let mut view = None;
        match frame {
            SyncFrame::Hello { view: mut theirs, .. } | SyncFrame::Heartbeat { view: mut theirs } => {
                theirs.reason = theirs.reason.as_deref().map(printable);
                view = Some(theirs);
            }
            SyncFrame::Begin => inbox.building = Some(BTreeMap::new()),
            SyncFrame::Items { services } => {
                let building = inbox.building.as_mut().ok_or(ReceiveError::OutOfOrder)?;
                building.extend(services.into_iter().map(imported));
                if building.len() > MAX_SERVICES {
                    return Err(ReceiveError::TooMany);
                }
            }
            SyncFrame::End { .. } => {
                let services = inbox.building.take().ok_or(ReceiveError::OutOfOrder)?;
                imports.replace(link, services);
                self.statuses.touch();
            }
            SyncFrame::Change { services, removed, .. } => {
                if inbox.building.is_some() {
                    return Err(ReceiveError::OutOfOrder);
                }
                for (name, service) in services.into_iter().map(imported) {
                    imports.update(link, &name, Some(service));
                }
                for name in removed {
                    imports.update(link, &name, None);
                }
                if imports.view().get(link).is_some_and(|known| known.services.len() > MAX_SERVICES) {
                    return Err(ReceiveError::TooMany);
                }
                self.statuses.touch();
            }
        }
        self.statuses.update(link, |status| {
            status.connection = Connection::Up;
            if view.is_some() {
                status.peer = view;
            }
        });
        Ok(())
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

fn imported(offered: Offered) -> (ServiceName, ImportedService) {
    let healthy = offered.healthy.min(offered.instances);
    (offered.name, ImportedService { instances: offered.instances, healthy })
}
