//! Moving a volume to another pool: its data is copied, with its snapshots, then its record says where it is.

use axum::response::Response;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::oneshot;

use crate::api::ApiState;
use crate::api::lxd::answer::{self, LxdError};
use crate::api::lxd::operation::body as operation_body;
use crate::apply::volumes::Place;
use crate::authorize::Permit;
use crate::dataset::pool::{Arrived, Held, Switch, Use};
use crate::dataset::{Dataset, PoolError, Pools};
use crate::operation::{Class, Start};
use crate::storage::backups::Of;
use crate::storage::volume_snapshots::step::{Begun, Step};
use crate::storage::volume_snapshots::url;
use crate::trust::Caller;

/// Begins the move, in an operation.
pub async fn start(
    state: &ApiState,
    caller: &Caller,
    permit: Permit,
    from: Place,
    to: Place,
) -> Result<Response, LxdError> {
    state.apply.check_relocation(&from, &to).await?;
    let start = Start {
        class: Class::Task,
        description: "Moving storage volume",
        by: caller.clone(),
        resources: vec![url(&from.0, &from.1, None)],
    };
    let work = {
        let state = state.clone();
        // To its end, once it is begun: half a move is of no use to anybody.
        let (reply, answer) = oneshot::channel();
        state.tasks.clone().spawn("moving a volume", async move {
            let _ = reply.send(relocate(&state, &permit, from, to).await);
        });
        async move { answer.await.unwrap_or_else(|_| Err("the agent is ending".to_owned())) }
    };
    let operation =
        state.operations.start(&state.tasks, start, |_| async { work.await.map(|()| Value::Null) });
    Ok(answer::operation(&format!("/1.0/operations/{}", operation.id), operation_body(&operation)))
}

async fn relocate(state: &ApiState, permit: &Permit, from: Place, to: Place) -> Result<(), String> {
    let (source, target) = (Dataset::volume(&from.0, &from.1), Dataset::volume(&to.0, &to.1));
    let begun = copy(state, &source, &target, &to).await?;
    let backups = (Of::Volume(from.0.clone(), from.1.clone()), Of::Volume(to.0.clone(), to.1.clone()));
    let recorded = state.apply.relocate_volume(permit, from, to).await;
    if let Err(error) = recorded {
        settle(state, &begun).await;
        return Err(error.to_string());
    }
    state.backups.follow(&backups.0, &backups.1);
    Ok(())
}

/// Copies a dataset, which nobody may change meanwhile, to another where nothing is, and of which it is written down first
/// that it is being made.
async fn copy(state: &ApiState, from: &Dataset, to: &Dataset, place: &Place) -> Result<Begun, String> {
    let pools = &state.pools;
    let source = pools.hold(from, Use::Reading).map_err(|error| said(&error))?;
    let target = pools.hold(to, Use::Replacing).map_err(|error| said(&error))?;
    if pools.has(to) {
        return Err(PoolError::Exists(to.clone()).to_string());
    }
    let begun = state.volume_snapshots.begin(&place.0, &place.1, &Step::Make).await;
    let begun = begun.map_err(|error| error.to_string())?;
    match filled(pools, from, to, (source, target)).await {
        Ok(()) => Ok(begun),
        Err(error) => {
            settle(state, &begun).await;
            Err(said(&error))
        }
    }
}

async fn settle(state: &ApiState, begun: &Begun) {
    if let Err(error) = state.volume_snapshots.settle(begun, Timestamp::now()).await {
        tracing::warn!(%error, "the copy of a volume that was not moved goes at the next start");
    }
}

async fn filled(
    pools: &Pools,
    from: &Dataset,
    to: &Dataset,
    (source, target): (Held, Held),
) -> Result<(), PoolError> {
    let staging = target.staging()?;
    let main = staging.join("moved");
    pools.clone_tree(&pools.tree(from)?, &main).await?;
    let mut switch = Switch::main(main);
    let mut before = None;
    for name in pools.snapshots(from)? {
        let kept = pools.keep_in(to, &pools.snapshot(from, &name)?, before.as_ref()).await?;
        before = Some(kept.clone());
        switch.snapshots.push((name, Arrived::Kept(kept)));
    }
    let switched = tokio::task::spawn_blocking(move || {
        let switched = target.switch_in(switch);
        drop((target, source));
        switched
    });
    switched.await.unwrap_or_else(|_| Err(PoolError::Busy(to.clone())))
}

/// The error with what lies beneath it.
fn said(error: &PoolError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
