//! HTTP over one connection, of whatever kind, until it ends, the agent does, or its caller is trusted no more. One
//! that is upgraded is its handler's from then on.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::callers::Callers;
use crate::api::request::{Connection, observe};
use crate::strangers::{Stranger, evicted};
use crate::task::Tasks;
use crate::trust::Who;

/// How long the head of a request may take, and the pause before it.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);
/// How long somebody who has connected and not asked anything yet is waited for once the agent ends.
pub(super) const LAST_REQUEST: Duration = Duration::from_secs(1);
/// How long an answer under way may take once its caller is trusted no more: it may be the one that says so.
const LAST_ANSWER: Duration = Duration::from_secs(1);

/// How long a stranger is borne with.
#[derive(Clone, Copy)]
struct Patience {
    /// It may stay connected. What it may do takes a request or two.
    stays: Duration,
    /// An answer under way may take so long then: one that is not read would never end.
    leaves: Duration,
}

const PATIENCE: Patience = Patience { stays: Duration::from_secs(120), leaves: Duration::from_secs(10) };

pub(super) async fn serve<S>(
    app: Router,
    callers: &Arc<Callers>,
    tasks: &Tasks,
    stream: S,
    connection: Connection,
    stranger: Option<Stranger>,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    serve_with(PATIENCE, app, callers, tasks, stream, connection, stranger).await;
}

async fn serve_with<S>(
    patience: Patience,
    app: Router,
    callers: &Arc<Callers>,
    tasks: &Tasks,
    stream: S,
    connection: Connection,
    mut stranger: Option<Stranger>,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let connection = Arc::new(connection);
    let identities = &callers.identities;
    let mut changed = identities.changed();
    let mut known = connection.known(identities);
    stranger.take_if(|_| known.is_trusted());
    let asked = CancellationToken::new();
    let service = {
        let (connection, callers) = (Arc::clone(&connection), Arc::clone(callers));
        let asked = asked.clone();
        service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            asked.cancel();
            let (app, connection, callers) = (app.clone(), Arc::clone(&connection), Arc::clone(&callers));
            async move {
                let answer = observe(&callers, app, connection, request.map(Body::new)).await;
                Ok::<_, Infallible>(answer)
            }
        })
    };
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(64)
        .max_buf_size(64 * 1024);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(64)
        .max_header_list_size(32 * 1024)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    let mut served = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let ending = tasks.ending();
    let mut last_request = None;
    let mut leaving = false;
    let mut cut = None;
    let stranger_stays = tokio::time::sleep(patience.stays);
    let mut stranger_stays = pin!(stranger_stays);
    loop {
        tokio::select! {
            ended = served.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection broke");
                }
                return;
            }
            () = tokio::time::sleep_until(cut.unwrap_or_else(Instant::now)), if cut.is_some() => return,
            () = ending.cancelled(), if !leaving && last_request.is_none() => {
                // Who connected a moment ago would otherwise hear nothing at all.
                last_request = Some(Instant::now() + LAST_REQUEST);
            }
            () = asked_or(&asked, last_request), if !leaving && last_request.is_some() => {
                leaving = true;
                served.as_mut().graceful_shutdown();
            }
            () = evicted(stranger.as_ref()) => {
                known = connection.known(identities);
                if !known.is_trusted() {
                    return;
                }
                stranger = None;
            }
            () = stranger_stays.as_mut(), if !leaving && !known.is_trusted() => {
                // A bearer is known by its first request only.
                known = connection.known(identities);
                if known.is_trusted() {
                    stranger = None;
                    continue;
                }
                leaving = true;
                cut = Some(Instant::now() + patience.leaves);
                served.as_mut().graceful_shutdown();
            }
            // The sender lives as long as the identities do, and those outlive their connections.
            Ok(()) = changed.changed() => {
                let now = connection.known(identities);
                let bearer_gone = connection.lost_any(identities);
                if cut.is_none() && (bearer_gone || lost(&known, &now)) {
                    tracing::info!(caller = %known, "the caller is trusted no more; its connection is cut");
                    cut = Some(Instant::now() + LAST_ANSWER);
                    leaving = true;
                    served.as_mut().graceful_shutdown();
                }
                known = now;
                stranger.take_if(|_| known.is_trusted());
            }
        }
    }
}

/// Resolves once something was asked, or at `latest`.
async fn asked_or(asked: &CancellationToken, latest: Option<Instant>) {
    let latest = tokio::time::sleep_until(latest.unwrap_or_else(Instant::now));
    tokio::select! {
        () = asked.cancelled() => {}
        () = latest => {}
    }
}

/// Whether the caller has lost what it was trusted as.
fn lost(before: &Who, now: &Who) -> bool {
    match (before, now) {
        (Who::Anonymous { .. }, _)
        | (Who::Local { .. }, Who::Local { .. })
        | (Who::Client { .. }, Who::Client { .. })
        | (Who::Signed { .. }, Who::Signed { .. })
        | (Who::Node { .. }, Who::Node { .. })
        | (Who::Metrics { .. }, Who::Metrics { .. }) => false,
        (Who::Peer { link: before, .. }, Who::Peer { link: now, .. }) => before != now,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;
    use crate::api::credential::Credentials;
    use crate::api::lxd::attempt::Failures;
    use crate::audit::Audit;
    use crate::store::sqlite::SqliteStore;
    use crate::trust::certificate::KeyPair;
    use crate::trust::client_token::Clients;
    use crate::trust::cluster_identity::ClusterIdentity;
    use crate::trust::identity::Identities;
    use crate::trust::oidc::Logins;
    use crate::trust::server_identity::ServerIdentity;
    use crate::web::Web;

    #[tokio::test]
    async fn a_stranger_that_does_not_read_its_answer_is_cut_all_the_same() {
        let tasks = Tasks::new();
        let identities = Identities::start(SqliteStore::scratch(), &tasks).await.unwrap();
        let (audit, store) = (Audit::none(), SqliteStore::scratch());
        let cluster = KeyPair::generate("east", &[]).unwrap();
        let server = ServerIdentity::of_cluster(ClusterIdentity::new(Arc::new(cluster)).unwrap());
        let clients = Arc::new(Clients::new(store, identities.clone(), server, audit.clone()));
        let logins = Logins::new(Web::new().unwrap(), identities.clone(), clients, tasks.clone());
        let callers = Arc::new(Callers { identities, logins, failures: Failures::new(audit) });
        let app = Router::new().fallback(|| async { "x".repeat(1 << 20) });
        let (here, mut there) = tokio::io::duplex(1024);
        let connection = Connection::Network {
            from: ([127, 0, 0, 1], 1).into(),
            certificate: None,
            credentials: Credentials::default(),
        };
        there.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let patience = Patience { stays: Duration::from_millis(50), leaves: Duration::from_millis(50) };
        let serving = serve_with(patience, app, &callers, &tasks, here, connection, None);
        let ended = tokio::time::timeout(Duration::from_secs(10), serving).await;
        assert!(ended.is_ok(), "it may stay for ever");
    }
}
