//! Plain HTTP, for Consul's tools that speak nothing else: on this machine only, `/v1` only, and never without a
//! bearer's token. Who may connect here is anybody on the machine, a browser among them, whose pages may come from
//! anywhere: so the name that was asked for must be this machine's own, and no page of another site is answered.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::Request;
use http::uri::Authority;
use http::{StatusCode, header};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::{Api, PAUSE};
use crate::api::consul::answer::ConsulError;
use crate::api::credential::Credentials;
use crate::api::request::Connection;
use crate::strangers::Strangers;
use crate::tunnel::connect;

/// Most connections at a time.
const MAX_CONNECTIONS: usize = 2048;
/// Most of them that may be of somebody who has not shown a token yet.
const MAX_STRANGERS: usize = 256;

pub(super) async fn accept(api: Api, listener: &TcpListener) {
    let ending = api.tasks().ending();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let strangers = Strangers::new(MAX_STRANGERS);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ending.cancelled() => return,
        };
        match accepted {
            Ok((stream, from)) => {
                // First, since it may free a place.
                let stranger = strangers.enter();
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                    tracing::warn!("too many connections of plain HTTP; one was dropped");
                    continue;
                };
                if let Err(error) = connect::tune(&stream) {
                    tracing::debug!(%error, "a connection came to nothing");
                    continue;
                }
                let serving = api.clone();
                api.tasks().spawn("connection", async move {
                    let connection = Connection::Plain { from, credentials: Credentials::default() };
                    serving.serve(stream, connection, Some(stranger)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::error!(%error, "connections of plain HTTP cannot be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// What is refused before anybody asks who it is from.
pub(in crate::api) fn refused(request: &Request) -> Option<ConsulError> {
    let forbidden = |message: &str| Some(ConsulError::new(StatusCode::FORBIDDEN, message));
    let headers = request.headers();
    let host = headers.get(header::HOST).map(|host| host.to_str().unwrap_or_default());
    let host = host.or_else(|| request.uri().authority().map(Authority::as_str));
    if !host.is_some_and(is_own) {
        // The name may have been somebody else's when the page was fetched, and be ours by now.
        return forbidden("Permission denied: plain HTTP is answered under localhost and its addresses only");
    }
    if headers.contains_key(header::ORIGIN) {
        return forbidden("Permission denied: plain HTTP is not for pages in a browser");
    }
    None
}

/// Whether a `Host` names this machine and nothing else.
fn is_own(host: &str) -> bool {
    let Ok(host) = host.parse::<Authority>() else { return false };
    let name = host.host();
    let ip = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machines_own_names_are_answered() {
        for host in ["localhost", "LOCALHOST:8500", "127.0.0.1:8500", "127.0.0.1", "[::1]:8500", "[::1]"] {
            assert!(is_own(host), "{host}");
        }
        for host in ["", "evil.example", "localhost.evil.example:8500", "10.0.0.1:8500", "127.0.0.1.x", "::x"]
        {
            assert!(!is_own(host), "{host}");
        }
    }

    #[test]
    fn a_page_is_refused() {
        let request = |name: &'static str, value: &'static str| {
            let request = axum::http::Request::get("/v1/agent/self").header("host", "localhost:8500");
            request.header(name, value).body(axum::body::Body::empty()).unwrap()
        };
        assert!(refused(&request("accept", "*/*")).is_none());
        for origin in ["http://localhost:8500", "null", "https://evil.example"] {
            assert_eq!(refused(&request("origin", origin)).unwrap().status, StatusCode::FORBIDDEN);
        }
    }
}
