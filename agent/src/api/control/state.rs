//! `GET /control/v1/state`: the cluster's live state, as a plan is made against.
//!
//! Serialised record by record by a thread of its own and sent as it goes: a cluster of a hundred thousand records
//! costs a few buffers, not a second copy of itself. Asked for with the right to view the server's resources: who
//! may see everything (`viewer`, `admin`), not every peer that may see something.

use std::io::{self, Write};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::api::ApiState;
use crate::api::problem::Problem;
use crate::trust::Caller;

/// Bytes sent at once.
const PIECE: usize = 64 * 1024;
/// Pieces under way to a client that reads slowly.
const AHEAD: usize = 4;
/// How long a client may not read before it is given up.
const STALL: Duration = Duration::from_secs(30);

pub fn router() -> Router<ApiState> {
    Router::new().route("/state", get(state))
}

async fn state(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Problem> {
    state.permit_reading(&caller)?;
    let reading = state.observe.read().await.map_err(|error| Problem::internal(&error))?;
    let (pieces, mut sent) = mpsc::channel(AHEAD);
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || {
        let mut out = io::BufWriter::with_capacity(PIECE, Pieces { pieces: pieces.clone(), runtime });
        let written = serde_json::to_writer(&mut out, &reading).map_err(io::Error::from);
        if let Err(error) = written.and_then(|()| out.flush()) {
            // Cuts the answer off, so that half of it is not taken for the whole.
            tracing::warn!(%error, "live state could not be sent whole");
            let _ = pieces.try_send(Err(error));
        }
    });
    let body = Body::from_stream(futures::stream::poll_fn(move |context| sent.poll_recv(context)));
    Ok(([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], body).into_response())
}

struct Pieces {
    pieces: mpsc::Sender<Result<Bytes, io::Error>>,
    runtime: Handle,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sending = self.pieces.send_timeout(Ok(Bytes::copy_from_slice(bytes)), STALL);
        match self.runtime.block_on(sending) {
            Ok(()) => Ok(bytes.len()),
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => Err(io::ErrorKind::TimedOut.into()),
            Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
