//! One upstream's local port or unix socket, and who may connect to it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::Mesh;
use super::bind::{Bound, Local, bind};
use super::carry::carry;
use super::pace::Pace;
use super::socket::Socket;
use super::targets::Route;
use super::users::user_of;
use crate::wire::service::PortState;
use crate::wire::traffic::Denial;

/// Connections that one upstream may have open; more wait in the socket's queue.
const MAX_OPEN: usize = 16_384;

/// Connections that are taken at one go before others get a turn.
const BATCH: usize = 64;

/// First and longest wait before a port that is in use is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Wait after an accept that failed for want of something (file descriptors), which only time brings back.
const STARVED: Duration = Duration::from_millis(100);

/// Connections that are taken out of the queue of a listener that ends: as many as there may be places for in it.
const LAST: usize = 4096;

/// Listens until `route`'s sender is gone or the agent drains.
pub(super) async fn listen(mesh: Arc<Mesh>, local: Local, mode: u32, route: watch::Receiver<Arc<Route>>) {
    let ending = mesh.parts.tasks.ending();
    let bound = tokio::select! {
        () = ending.cancelled() => return,
        () = gone(route.clone()) => return,
        bound = take(&mesh, &local, mode, &route) => bound,
    };
    let places = Arc::new(Semaphore::new(MAX_OPEN));
    tokio::select! {
        () = ending.cancelled() => {}
        () = gone(route.clone()) => {}
        () = serve(&mesh, &local, &bound, &places, &route) => {}
    }
    // Whoever connected before the agent began to end is carried; where the next run has the queue, by that.
    if ending.is_cancelled() && !mesh.parts.sockets.outlive() {
        take_last(&mesh, &bound, &places, &route).await;
    }
}

/// Takes what waits in the queue, which closing the listener would reset.
async fn take_last(
    mesh: &Arc<Mesh>,
    bound: &Bound,
    places: &Arc<Semaphore>,
    route: &watch::Receiver<Arc<Route>>,
) {
    for taken in 1..=LAST {
        let Ok(place) = places.clone().try_acquire_owned() else { return };
        match bound.accept_now() {
            Ok((app, from)) => spawn(mesh, app, from, route.borrow().clone(), place),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(_) => return,
        }
        if taken % BATCH == 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// Resolves when the listener is to stop.
async fn gone(mut route: watch::Receiver<Arc<Route>>) {
    while route.changed().await.is_ok() {}
}

async fn serve(
    mesh: &Arc<Mesh>,
    local: &Local,
    bound: &Bound,
    places: &Arc<Semaphore>,
    route: &watch::Receiver<Arc<Route>>,
) {
    let told = Pace::default();
    loop {
        let Some(place) = free(places, local, &told).await else { return };
        let mut accepted = Some((bound.accept().await, place));
        let mut taken = 0;
        while let Some((result, place)) = accepted.take() {
            match result {
                Ok((app, from)) => spawn(mesh, app, from, route.borrow().clone(), place),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(%local, %error, "an upstream takes no connections for now");
                    tokio::time::sleep(STARVED).await;
                    break;
                }
            }
            // Asked before the next is taken: one that is taken must be carried.
            taken += 1;
            if taken == BATCH {
                break;
            }
            // What else is waiting, without another turn of the runtime.
            let Ok(place) = places.clone().try_acquire_owned() else { break };
            accepted = bound.accept().now_or_never().map(|result| (result, place));
        }
    }
}

/// A place for one more connection. The semaphore is never closed, so there is one in the end.
async fn free(places: &Arc<Semaphore>, local: &Local, told: &Pace) -> Option<OwnedSemaphorePermit> {
    if let Ok(place) = places.clone().try_acquire_owned() {
        return Some(place);
    }
    if told.may(Instant::now()) {
        tracing::warn!(
            %local,
            limit = MAX_OPEN,
            "an upstream has as many connections open as one may; more wait until some end"
        );
    }
    places.clone().acquire_owned().await.ok()
}

fn spawn(
    mesh: &Arc<Mesh>,
    app: Socket,
    from: Option<SocketAddr>,
    route: Arc<Route>,
    place: OwnedSemaphorePermit,
) {
    let shared = mesh.clone();
    mesh.parts.tasks.spawn("connection", async move {
        if may(&shared, &app, &route).await {
            carry(&shared, app, &route, from).await;
        }
        drop(place);
    });
}

/// Whether the app's user may use the upstream; if not, the app is told by a reset, and the log why.
async fn may(mesh: &Mesh, app: &Socket, route: &Route) -> bool {
    let allowed = &route.course.allowed_uids;
    if allowed.is_empty() {
        return true;
    }
    // Beside the rest of a connection it is rare.
    let user = Box::pin(user_of(app)).await;
    if user.as_ref().is_ok_and(|uid| allowed.contains(uid)) {
        return true;
    }
    app.reset();
    // All its targets are refused alike; the first stands for them.
    let Some(target) = route.targets.first() else { return false };
    let counters = target.counters(mesh);
    match user {
        Ok(uid) => {
            let reason = format!("the upstream is for other users than {uid} (allowed_uids)");
            counters.denied(Denial::User, &reason);
        }
        Err(unknown) => {
            let reason = format!(
                "the upstream names its users (allowed_uids), and whose this is cannot be told: {unknown}"
            );
            counters.denied(Denial::User, &reason);
        }
    }
    false
}

async fn take(mesh: &Mesh, local: &Local, mode: u32, route: &watch::Receiver<Arc<Route>>) -> Bound {
    let mut wait = RETRY.0;
    let mut told = None;
    loop {
        let reason = match bind(&mesh.parts.sockets, local, mode).await {
            Ok(bound) => {
                let course = &route.borrow().course;
                let destination = course.destinations.first().map(|to| tracing::field::display(&to.service));
                tracing::info!(%local, service = %course.owner, destination, "upstream listens");
                mesh.upstreams.set(local, PortState::Listening);
                return bound;
            }
            Err(error) => error.to_string(),
        };
        if told.as_ref() != Some(&reason) {
            tracing::warn!(%local, service = %route.borrow().course.owner, reason, "an upstream cannot listen; trying on");
            mesh.upstreams.set(local, PortState::Waiting { reason: reason.clone() });
            told = Some(reason);
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY.1);
    }
}
