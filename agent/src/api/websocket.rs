//! The websocket handshake, and a socket whose sender waits for no slow reader.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};

/// Largest message that a client may send: nothing that it could say here is longer.
const MAX_MESSAGE: usize = 64 * 1024;
/// How long a reader may take for one message.
const SLOW: Duration = Duration::from_secs(10);
/// How often a silent client is asked whether it is there, and how long it may stay silent.
const PING: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_secs(35);

/// Why a request does not become a websocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("This is a websocket: connect over HTTP/1.1 with `Upgrade: websocket`, version 13")]
pub struct NoWebsocket;

/// The answer that agrees to a websocket, and what becomes it once that answer is sent.
pub fn take_over(request: &mut Request) -> Result<(Response, Pending), NoWebsocket> {
    let headers = request.headers();
    let says = |name, wanted: &str| {
        let value = headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        value.is_some_and(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(wanted)))
    };
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).map(derive_accept_key);
    let asked = says(header::UPGRADE, "websocket") && says(header::SEC_WEBSOCKET_VERSION, "13");
    let accept = key.and_then(|key| HeaderValue::from_str(&key).ok()).filter(|_| asked).ok_or(NoWebsocket)?;
    let upgrade = request.extensions_mut().remove::<OnUpgrade>().ok_or(NoWebsocket)?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    Ok((response, Pending(upgrade)))
}

/// A websocket whose handshake is being answered.
pub struct Pending(OnUpgrade);

impl Pending {
    /// The connection, for who speaks the frames itself; `None` if the client has gone already.
    pub async fn stream(self) -> Option<TokioIo<Upgraded>> {
        self.0.await.ok().map(TokioIo::new)
    }

    /// The socket; `None` if the client has gone already.
    pub async fn socket(self) -> Option<Socket> {
        let upgraded = self.0.await.ok()?;
        let config =
            WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
        let stream = TokioIo::new(upgraded);
        let stream = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
        let now = Instant::now();
        Some(Socket { stream, heard: now, pinged: now })
    }
}

/// A websocket that tells, and listens only to know whether anybody is there.
pub struct Socket {
    stream: WebSocketStream<TokioIo<Upgraded>>,
    heard: Instant,
    pinged: Instant,
}

/// The other end has gone, or is too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

impl Socket {
    /// Sends a text. A reader that does not take it in time is given up.
    pub async fn tell(&mut self, text: String) -> Result<(), Gone> {
        self.send(Message::text(text)).await
    }

    /// Resolves when the other end has gone; asks for a sign of life now and then. Safe to drop at any time.
    pub async fn gone(&mut self) {
        loop {
            let now = Instant::now();
            if now - self.heard > SILENCE {
                return;
            }
            tokio::select! {
                message = self.stream.next() => match message {
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                    Some(Ok(_)) => self.heard = Instant::now(),
                },
                () = tokio::time::sleep_until(self.pinged + PING) => {
                    self.pinged = Instant::now();
                    if self.send(Message::Ping(bytes::Bytes::new())).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Says why, and hangs up.
    pub async fn close(mut self, code: CloseCode, reason: &'static str) {
        let frame = CloseFrame { code, reason: reason.into() };
        let _ = tokio::time::timeout(Duration::from_secs(1), self.stream.close(Some(frame))).await;
    }

    async fn send(&mut self, message: Message) -> Result<(), Gone> {
        match tokio::time::timeout(SLOW, self.stream.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }
}
