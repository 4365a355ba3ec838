//! The task that follows the store and publishes views.

use std::sync::Arc;
use std::time::Duration;

use schema::record::{Record, RecordKey};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{CatalogView, Instance};
use crate::store::value::{self, Declared};
use crate::store::{Batch, Entry, Event, Store, StoreError, Watch, keys};
use crate::task::Tasks;

/// Wait before the store is read again after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// Why the catalog could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    #[error("the catalog could not be read from the store")]
    Store(#[from] StoreError),
}

/// The catalog of this cluster.
#[derive(Debug)]
pub struct Catalog {
    view: watch::Sender<Arc<CatalogView>>,
}

impl Catalog {
    /// Reads the catalog and follows it until `tasks` end.
    pub async fn start(store: Arc<dyn Store>, tasks: &Tasks) -> Result<Arc<Self>, CatalogError> {
        let (view, watch) = read(&*store).await?;
        let catalog = Arc::new(Self { view: watch::Sender::new(Arc::new(view)) });
        tasks.spawn("catalog", catalog.clone().run(store, watch, tasks.ending()));
        Ok(catalog)
    }

    pub fn view(&self) -> Arc<CatalogView> {
        self.view.borrow().clone()
    }

    /// Each commit that touches the catalog, as one view; a slow reader sees only the newest.
    pub fn subscribe(&self) -> watch::Receiver<Arc<CatalogView>> {
        self.view.subscribe()
    }

    async fn run(self: Arc<Self>, store: Arc<dyn Store>, mut watch: Watch, ending: CancellationToken) {
        loop {
            let lost = tokio::select! {
                () = ending.cancelled() => return,
                lost = self.follow(&mut watch) => lost,
            };
            if !matches!(lost, StoreError::Compacted(_)) {
                tracing::warn!(error = %lost, "the catalog lost sight of the store and reads it again");
            }
            watch = loop {
                match read(&*store).await {
                    Ok((view, watch)) => {
                        self.view.send_replace(Arc::new(view));
                        break watch;
                    }
                    Err(CatalogError::Store(error)) => tracing::error!(%error, "the catalog cannot be read"),
                }
                tokio::select! {
                    () = ending.cancelled() => return,
                    () = tokio::time::sleep(RETRY) => {}
                }
            };
        }
    }

    /// Publishes views until the watch ends, and tells why it did.
    async fn follow(&self, watch: &mut Watch) -> StoreError {
        loop {
            let mut next = watch.recv().await;
            let mut view = (*self.view()).clone();
            let mut touched = Touched::No;
            // Whatever has come in meanwhile goes into the same view: a reader is woken once for a burst.
            let lost = loop {
                match next {
                    Some(Ok(batch)) => {
                        if take_in(&mut view, batch) == Touched::Yes {
                            touched = Touched::Yes;
                        }
                    }
                    Some(Err(error)) => break Some(error),
                    None => break Some(StoreError::Closed),
                }
                match watch.try_recv() {
                    Ok(more) => next = Some(more),
                    Err(tokio::sync::mpsc::error::TryRecvError::Empty) => break None,
                    Err(tokio::sync::mpsc::error::TryRecvError::Disconnected) => next = None,
                }
            };
            if touched == Touched::Yes {
                self.view.send_replace(Arc::new(view));
            }
            if let Some(error) = lost {
                return error;
            }
        }
    }
}

async fn read(store: &dyn Store) -> Result<(CatalogView, Watch), CatalogError> {
    let snapshot = store.range(keys::DECLARED).await?;
    let watch = store.watch(keys::DECLARED, snapshot.revision).await?;
    let mut view = CatalogView { revision: snapshot.revision, ..CatalogView::default() };
    for entry in &snapshot.entries {
        put(&mut view, entry);
    }
    Ok((view, watch))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Touched {
    Yes,
    No,
}

fn is_ours(key: &RecordKey) -> bool {
    matches!(
        key,
        RecordKey::SamenessGroup(_)
            | RecordKey::ServiceDefaults(_)
            | RecordKey::Service(_)
            | RecordKey::Instance { .. }
            | RecordKey::ExportEntry
            | RecordKey::Export(_)
            | RecordKey::IntentionEntry(_)
            | RecordKey::Intention { .. }
    )
}

fn take_in(view: &mut CatalogView, batch: Batch) -> Touched {
    view.revision = batch.revision;
    let mut touched = Touched::No;
    for event in batch.events {
        let this = match event {
            Event::Put(entry) => put(view, &entry),
            Event::Delete { key } => match keys::declared_record(&key) {
                Some(key) if is_ours(&key) => {
                    view.remove(&key);
                    Touched::Yes
                }
                _ => Touched::No,
            },
        };
        if this == Touched::Yes {
            touched = Touched::Yes;
        }
    }
    touched
}

/// An entry that cannot be read is left out, loudly: the rest of the cluster's services must not go down with it,
/// and what is left out is neither offered nor allowed.
fn put(view: &mut CatalogView, entry: &Entry) -> Touched {
    let Some(key) = keys::declared_record(&entry.key) else {
        tracing::error!(key = entry.key, "not the key of a declaration");
        return Touched::No;
    };
    if !is_ours(&key) {
        return Touched::No;
    }
    match (value::decode::<Declared>(entry).map(|declared| declared.record), &key) {
        (Ok(Record::Service(service)), RecordKey::Service(_) | RecordKey::Instance { .. }) => {
            if let Some((name, id)) = key.as_instance() {
                let (created, modified) = (entry.create_revision, entry.modify_revision);
                view.insert_instance(name, Instance { id, service: Arc::new(service), created, modified });
            }
        }
        (Ok(Record::ExportedServices(export)), RecordKey::Export(service)) => {
            view.exports.insert(service.clone(), Arc::new(export));
        }
        // Nothing in it decides, but who waits for the commit that wrote it waits for a view.
        (Ok(Record::ExportEntry(_)), RecordKey::ExportEntry) => {}
        (Ok(Record::ServiceDefaults(defaults)), RecordKey::ServiceDefaults(name)) => {
            view.defaults.insert(name.clone(), Arc::new(defaults));
        }
        (
            Ok(
                record
                @ (Record::ServiceIntentions(_) | Record::IntentionEntry(_) | Record::SamenessGroup(_)),
            ),
            key,
        ) if record.fits(key) => view.intentions.put(key, Some(&record)),
        (Ok(record), _) => {
            tracing::error!(%key, kind = %record.kind(), "the store holds another kind of record under this key");
            view.remove(&key);
        }
        (Err(error), _) => {
            tracing::error!(%error, "a declaration cannot be read");
            view.remove(&key);
        }
    }
    Touched::Yes
}

#[cfg(test)]
mod tests;
