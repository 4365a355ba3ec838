//! What is being made by a transfer: if nothing comes of it, nothing of it stays.

use std::time::Duration;

use futures::future::BoxFuture;

use crate::api::ApiState;
use crate::dataset::{Dataset, PoolError};

/// How long the tree may still be held by the transfer that has failed.
const RELEASED_WITHIN: Duration = Duration::from_secs(60);
const LOOKED_AT_EVERY: Duration = Duration::from_millis(20);

/// Whether the tree belongs to a record by now.
pub type IsRecorded = Box<dyn FnOnce() -> BoxFuture<'static, bool> + Send>;
/// What is done once the tree has gone.
pub type Then = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

/// Removes a tree that was put in place for a record that was not written, when it is dropped. What is in staging stays:
/// the same transfer, begun again, goes on from there.
pub struct Making {
    state: ApiState,
    dataset: Dataset,
    after: Option<(IsRecorded, Then)>,
}

impl Making {
    pub fn new(state: &ApiState, dataset: &Dataset, is_recorded: IsRecorded, then: Then) -> Self {
        Self { state: state.clone(), dataset: dataset.clone(), after: Some((is_recorded, then)) }
    }

    /// The record is written.
    pub fn made(mut self) {
        self.after = None;
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        let Some((is_recorded, then)) = self.after.take() else { return };
        let (state, dataset) = (self.state.clone(), self.dataset.clone());
        self.state.tasks.spawn("unmaking", async move {
            let unmade = tokio::time::timeout(RELEASED_WITHIN, unmake(&state, &dataset, is_recorded)).await;
            match unmade {
                Ok(Ok(())) => then().await,
                Ok(Err(error)) => tracing::error!(%dataset, %error, "what a failed copy has left stays"),
                Err(_) => tracing::error!(%dataset, "what a failed copy has left is in use, and stays"),
            }
        });
    }
}

async fn unmake(state: &ApiState, dataset: &Dataset, is_recorded: IsRecorded) -> Result<(), PoolError> {
    // The transfer lets go of its tree after it has let go of this.
    loop {
        match state.pools.hold(dataset, crate::dataset::pool::Use::Replacing) {
            Err(PoolError::Busy(_)) => tokio::time::sleep(LOOKED_AT_EVERY).await,
            held => break drop(held?),
        }
    }
    if state.pools.has(dataset) && !is_recorded().await {
        state.pools.destroy(dataset).await?;
    }
    Ok(())
}
