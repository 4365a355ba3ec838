//! The one door in the clear: answers of open HTTP-01 challenges, and nothing else. It is open only while one is.
//!
//! Whoever comes is unknown, so everything is bounded: connections, their time, the size of a request. When there are
//! too many, the oldest gives way: nobody who says nothing keeps the authority out. What is asked for is never repeated.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::challenge::Challenges;
use crate::sockets;
use crate::strangers::Strangers;
use crate::task::Tasks;

/// Where the authority looks.
const PATH: &str = "/.well-known/acme-challenge/";
/// Most connections at a time; authorities look from a handful of places at once.
const MAX_CONNECTIONS: usize = 32;
/// How long one may take, from its first byte to its last.
const PATIENCE: Duration = Duration::from_secs(5);
/// Largest head of a request.
const MAX_HEAD: usize = 8 * 1024;
const BACKLOG: i32 = 64;
/// How long to wait when the machine has no more descriptors.
const PAUSE: Duration = Duration::from_millis(200);

/// Closed when dropped.
#[derive(Debug)]
pub struct Door {
    at: SocketAddr,
    _closing: DropGuard,
}

impl Door {
    /// Opens at the first of `addresses` that this machine can have.
    pub fn open(addresses: &[SocketAddr], challenges: Arc<Challenges>, tasks: &Tasks) -> io::Result<Self> {
        let listener = bind(addresses)?;
        let at = listener.local_addr()?;
        // It closes with the agent, too.
        let closing = tasks.ending().child_token();
        tasks.spawn("acme-http", accept(listener, challenges, tasks.clone(), closing.clone()));
        Ok(Self { at, _closing: closing.drop_guard() })
    }

    pub fn at(&self) -> SocketAddr {
        self.at
    }
}

fn bind(addresses: &[SocketAddr]) -> io::Result<TcpListener> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match listen(*address) {
            Ok(listener) => return Ok(listener),
            // A machine without IPv6 has the second.
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::from_std(sockets::open(address, BACKLOG)?)
}

async fn accept(
    listener: TcpListener,
    challenges: Arc<Challenges>,
    tasks: Tasks,
    closing: CancellationToken,
) {
    let strangers = Strangers::new(MAX_CONNECTIONS);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = closing.cancelled() => return,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let stranger = strangers.enter();
        // Whoever has to go for this one goes at once, so this waits for no more than its turn.
        let waiting = closing.run_until_cancelled(Arc::clone(&places).acquire_owned());
        let Some(Ok(place)) = waiting.await else { return };
        let (challenges, closing) = (Arc::clone(&challenges), closing.clone());
        tasks.spawn("acme-http-connection", async move {
            let served = tokio::time::timeout(PATIENCE, serve(stream, challenges));
            // A caller that takes too long is as gone as one that has left.
            tokio::select! {
                _ = served => {}
                () = stranger.evicted() => {
                    tracing::debug!("too many connections look for a challenge; the oldest was dropped");
                }
                () = closing.cancelled() => {}
            }
            drop(stranger);
            drop(place);
        });
    }
}

async fn serve(stream: TcpStream, challenges: Arc<Challenges>) {
    let service = service_fn(move |request| {
        let answer = answer(&request, &challenges);
        async move { Ok::<_, Infallible>(answer) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .keep_alive(false)
        .max_headers(64)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection that looked for a challenge broke");
    }
}

fn answer(request: &Request<Incoming>, challenges: &Challenges) -> Response<Full<Bytes>> {
    let token = request.uri().path().strip_prefix(PATH);
    let found = token.and_then(|token| challenges.answer(token));
    let (status, text) = match found {
        _ if request.method() != Method::GET => (StatusCode::METHOD_NOT_ALLOWED, Bytes::new()),
        Some(answer) => (StatusCode::OK, Bytes::copy_from_slice(answer.as_bytes())),
        None => (StatusCode::NOT_FOUND, Bytes::new()),
    };
    let mut response = Response::new(Full::new(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn ask(at: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(at).await.unwrap();
        // A server that has heard enough hangs up.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test]
    async fn open_challenges_are_answered_and_nothing_else() {
        let (challenges, tasks) = (Challenges::new(), Tasks::new());
        let anywhere = ["127.0.0.1:0".parse().unwrap()];
        let door = Door::open(&anywhere, challenges.clone(), &tasks).unwrap();
        let at = door.at();
        let open = challenges.open_in_clear("token", "token.thumb");
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: east.example\r\n\r\n");
        let answered = ask(at, &get("/.well-known/acme-challenge/token")).await;
        assert!(
            answered.starts_with("HTTP/1.1 200 ") && answered.ends_with("\r\n\r\ntoken.thumb"),
            "{answered}"
        );
        for path in ["/.well-known/acme-challenge/", "/.well-known/acme-challenge/other", "/1.0", "/token"] {
            assert!(ask(at, &get(path)).await.starts_with("HTTP/1.1 404 "), "{path}");
        }
        let posted =
            "POST /.well-known/acme-challenge/token HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
        assert!(ask(at, posted).await.starts_with("HTTP/1.1 405 "));
        let long = get(&"x".repeat(2 * MAX_HEAD));
        assert!(!ask(at, &long).await.starts_with("HTTP/1.1 200 "));
        drop(open);
        assert!(ask(at, &get("/.well-known/acme-challenge/token")).await.starts_with("HTTP/1.1 404 "));
        // One that says nothing does not keep it from closing.
        let _silent = TcpStream::connect(at).await.unwrap();
        drop(door);
        assert_eq!(tasks.drain(Duration::from_secs(4)).await, crate::task::Drained::Clean);
        assert!(TcpStream::connect(at).await.is_err());
    }

    #[tokio::test]
    async fn those_who_say_nothing_keep_nobody_out() {
        let (challenges, tasks) = (Challenges::new(), Tasks::new());
        let anywhere = ["127.0.0.1:0".parse().unwrap()];
        let door = Door::open(&anywhere, challenges.clone(), &tasks).unwrap();
        let _open = challenges.open_in_clear("token", "token.thumb");
        let began = std::time::Instant::now();
        let mut silent = Vec::new();
        for _ in 0..2 * MAX_CONNECTIONS + 8 {
            silent.push(TcpStream::connect(door.at()).await.unwrap());
        }
        let get = "GET /.well-known/acme-challenge/token HTTP/1.1\r\nhost: east.example\r\n\r\n";
        let answered = ask(door.at(), get).await;
        assert!(answered.starts_with("HTTP/1.1 200 ") && answered.ends_with("token.thumb"), "{answered}");
        // As many as there may be are still there, less the one that gave way to the question, and no more.
        let mut left = 0;
        for stream in &mut silent {
            let heard = tokio::time::timeout(Duration::from_millis(20), stream.read(&mut [0])).await;
            left += usize::from(heard.is_err());
        }
        assert!(began.elapsed() < PATIENCE, "nobody has gone for being slow: {:?}", began.elapsed());
        assert_eq!(left, MAX_CONNECTIONS - 1);
    }
}
