//! The sending side of a Sync stream: what this cluster exports to the peer, whenever it changes.
//!
//! State is compared, not logged: the sender keeps the table that the peer has and sends the difference to what it
//! should have. Changes that come faster than the peer reads melt into one, so nothing queues up. A peer that comes
//! back gets a snapshot; for tables of this size that is cheaper than a history that makes cursors worth anything.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use schema::name::{LinkName, ServiceName};

use super::{Peering, ledger, status};
use crate::health;
use crate::tunnel::{Incoming, Session, TunnelStream, frame};
use crate::wire::link::Refusal;
use crate::wire::sync::{MAX_BATCH, Offered, PeerView, SyncFrame};

/// How often the peer hears from us when there is nothing to say. The window that it grants is five of these.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// What a peer is offered: instances, and how many of them are well.
type Table = BTreeMap<ServiceName, (u32, u32)>;

impl Peering {
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
        let Ok(stream) = incoming.accept().await else { return };
        let ending = self.parts.tasks.ending();
        let ended = tokio::select! {
            () = ending.cancelled() => Ok(()),
            _ = session.closed() => Ok(()),
            ended = self.send_exports(&link, stream) => ended,
        };
        if let Err(error) = ended {
            tracing::debug!(%link, %error, "the sync stream to the peer ended");
        }
    }

    async fn send_exports(&self, link: &LinkName, mut stream: TunnelStream) -> io::Result<()> {
        let mut catalog = self.parts.catalog.subscribe();
        let mut health = self.parts.health.subscribe();
        let mut statuses = self.statuses.subscribe();
        catalog.borrow_and_update();
        health.borrow_and_update();
        statuses.borrow_and_update();

        let (mut cursor, mut sent) = self.offers(link);
        let mut told = self.own_view(link, sent.len()).await;
        frame::write(
            &mut stream,
            &SyncFrame::Hello { cluster: self.parts.cluster.clone(), view: told.clone() },
        )
        .await?;
        frame::write(&mut stream, &SyncFrame::Begin).await?;
        for services in batches(sent.iter().map(offered)) {
            frame::write(&mut stream, &SyncFrame::Items { services }).await?;
        }
        frame::write(&mut stream, &SyncFrame::End { cursor }).await?;

        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        heartbeat.reset();
        loop {
            // What a wake-up means is read below from the things themselves; only silence is told by the timer.
            let silent = tokio::select! {
                changed = catalog.changed() => { changed.map_err(io::Error::other)?; false }
                changed = health.changed() => { changed.map_err(io::Error::other)?; false }
                changed = statuses.changed() => { changed.map_err(io::Error::other)?; false }
                _ = heartbeat.tick() => true,
            };
            catalog.borrow_and_update();
            health.borrow_and_update();
            statuses.borrow_and_update();
            let (now_at, now) = self.offers(link);
            cursor = cursor.max(now_at);
            for change in difference(&sent, &now, cursor) {
                frame::write(&mut stream, &change).await?;
            }
            sent = now;
            let view = self.own_view(link, sent.len()).await;
            if silent || view != told {
                frame::write(&mut stream, &SyncFrame::Heartbeat { view: view.clone() }).await?;
                heartbeat.reset();
                told = view;
            }
        }
    }

    fn offers(&self, link: &LinkName) -> (u64, Table) {
        let view = self.parts.catalog.view();
        let row = |name: ServiceName| {
            let (mut instances, mut healthy) = (0, 0);
            for instance in
                view.instances(&name).into_iter().flat_map(|all| all.iter()).filter(|one| one.listens())
            {
                instances += 1;
                let status = self.parts.health.instance(&name, &instance.id).status;
                healthy += u32::from(status == health::Status::Passing);
            }
            (name, (instances, healthy))
        };
        (view.revision.0, view.exported_to(link).into_iter().map(row).collect())
    }

    /// This side's word about its half.
    async fn own_view(&self, link: &LinkName, exported: usize) -> PeerView {
        let half = ledger::read(&*self.parts.store, link).await.map(|held| held.half).unwrap_or_default();
        let (state, reason) = status::state(&half, &self.statuses.get(link).connection, Timestamp::now());
        let imported = self.parts.imports.view().get(link).map_or(0, |imported| imported.services.len());
        PeerView {
            link: link.clone(),
            state,
            reason,
            exported: u64::try_from(exported).unwrap_or(u64::MAX),
            imported: u64::try_from(imported).unwrap_or(u64::MAX),
        }
    }
}

fn offered((name, &(instances, healthy)): (&ServiceName, &(u32, u32))) -> Offered {
    Offered { name: name.clone(), instances, healthy }
}

fn batches<T>(items: impl Iterator<Item = T>) -> Vec<Vec<T>> {
    let mut batches: Vec<Vec<T>> = Vec::new();
    for item in items {
        match batches.last_mut() {
            Some(batch) if batch.len() < MAX_BATCH => batch.push(item),
            _ => batches.push(vec![item]),
        }
    }
    batches
}

/// The frames that turn `before` into `after`.
fn difference(before: &Table, after: &Table, cursor: u64) -> Vec<SyncFrame> {
    let put = after.iter().filter(|(name, row)| before.get(*name) != Some(*row)).map(offered);
    let gone = before.keys().filter(|name| !after.contains_key(*name)).cloned();
    let put =
        batches(put).into_iter().map(|services| SyncFrame::Change { cursor, services, removed: vec![] });
    let gone =
        batches(gone).into_iter().map(|removed| SyncFrame::Change { cursor, services: vec![], removed });
    put.chain(gone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[(&str, u32)]) -> Table {
        rows.iter().map(|(name, healthy)| (name.parse().unwrap(), (1, *healthy))).collect()
    }

    #[test]
    fn the_difference_names_what_changed_and_what_went() {
        let before = table(&[("a", 1), ("b", 1), ("c", 1)]);
        let after = table(&[("a", 1), ("b", 0), ("d", 1)]);
        let frames = difference(&before, &after, 9);
        let [SyncFrame::Change { services, .. }, SyncFrame::Change { removed, .. }] = &frames[..] else {
            panic!("{frames:?}");
        };
        assert_eq!(
            services.iter().map(|s| (s.name.as_str(), s.healthy)).collect::<Vec<_>>(),
            [("b", 0), ("d", 1)]
        );
        assert_eq!(removed.iter().map(ServiceName::as_str).collect::<Vec<_>>(), ["c"]);
        assert!(difference(&after, &after, 9).is_empty());
    }

    #[test]
    fn a_batch_of_the_longest_names_fits_a_frame() {
        let longest = "x".repeat(schema::name::MAX_NAME);
        let row = Offered { name: longest.parse().unwrap(), instances: u32::MAX, healthy: u32::MAX };
        let change = SyncFrame::Change { cursor: u64::MAX, services: vec![row; MAX_BATCH], removed: vec![] };
        assert!(serde_json::to_vec(&change).unwrap().len() < crate::wire::sync::MAX_FRAME);
    }
}
