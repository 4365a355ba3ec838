//! What a managed agent does besides: sockets that nobody has asked for, and signs of life.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::sockets::Sockets;

/// Time for every listener to have asked for what was handed in: the upstreams' are begun a moment after the start.
const CLAIMS: Duration = Duration::from_secs(5);

/// Closes what was handed in and is not wanted.
pub(super) async fn unclaimed(sockets: Arc<Sockets>, ending: CancellationToken) {
    if ending.run_until_cancelled(tokio::time::sleep(CLAIMS)).await.is_some() {
        sockets.close_unclaimed();
    }
}

/// Tells the manager that the agent lives, as often as it wants to know: by a task among all others, so that it is not
/// told when those stand still. Of one that ends it does not ask.
pub(super) async fn watchdog(sockets: Arc<Sockets>, ending: CancellationToken) {
    let Some(every) = sockets.manager().watchdog() else { return };
    let signs = async {
        loop {
            sockets.manager().alive();
            tokio::time::sleep(every).await;
        }
    };
    ending.run_until_cancelled(signs).await;
}
