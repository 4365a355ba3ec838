//! Moving a volume to another pool: its data is copied, with its snapshots, then its record says where it is.

use axum::response::Response;
use serde_json::Value;
use tokio::sync::oneshot;

use crate::api::ApiState;
use crate::api::lxd::answer::{self, LxdError};
use crate::api::lxd::operation::body as operation_body;
use crate::apply::volumes::Place;
use crate::authorize::Permit;
use crate::dataset::pool::{Arrived, Switch, Use};
use crate::dataset::{Dataset, PoolError, Pools};
use crate::operation::{Class, Start};
use crate::storage::backups::Of;
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
    copy(&state.pools, &source, &target).await.map_err(|error| said(&error))?;
    let backups = (Of::Volume(from.0.clone(), from.1.clone()), Of::Volume(to.0.clone(), to.1.clone()));
    let recorded = state.apply.relocate_volume(permit, from, to).await;
    if let Err(error) = recorded {
        if let Err(left) = state.pools.destroy(&target).await {
            tracing::warn!(%left, "the copy of a volume that was not moved stays");
        }
        return Err(error.to_string());
    }
    state.backups.follow(&backups.0, &backups.1);
    Ok(())
}

/// Copies a dataset, which nobody may change meanwhile, to another where nothing is.
async fn copy(pools: &Pools, from: &Dataset, to: &Dataset) -> Result<(), PoolError> {
    let source = pools.hold(from, Use::Reading)?;
    let target = pools.hold(to, Use::Replacing)?;
    if pools.has(to) {
        return Err(PoolError::Exists(to.clone()));
    }
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
