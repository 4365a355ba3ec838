//! The two websockets: `control`, which carries messages, and `fs`, which carries bytes between barriers.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use futures::{Sink as _, SinkExt as _, Stream as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};

use super::LxdError;
use super::message::{Control, Header, MAX_MESSAGE, MAX_VERDICT, decode, decode_header};
use super::rsync::Patience;
use crate::transfer::bridge::{MAX_SILENCE, Stream};

/// Largest message of `fs` that is taken; LXD's are 32 KiB, and a relaying client passes on what it got.
const MAX_FRAME: usize = 4 << 20;
/// How long a message may take to be taken by the other side (LXD's limit).
const SLOW: Duration = Duration::from_secs(30);
/// How long a target may take over a tree that it has all of: it puts it in its place and writes its records.
const MAX_FINISHING: Duration = Duration::from_secs(600);
/// rsync is quiet where it compares or deletes much.
const PATIENCE: Patience = Patience { standstill: Duration::from_secs(120), span: Duration::from_secs(600) };
/// How long an index header may take, however it drips.
const MAX_TAKING: Duration = Duration::from_secs(300);

/// One side of a websocket, over a connection whose handshake is done.
type Socket = WebSocketStream<Box<dyn Stream>>;

async fn socket(stream: Box<dyn Stream>, role: Role, largest: usize) -> Socket {
    let config = WebSocketConfig::default().max_message_size(Some(largest)).max_frame_size(Some(largest));
    WebSocketStream::from_raw_socket(stream, role, Some(config)).await
}

fn broken(error: impl std::fmt::Display) -> LxdError {
    LxdError::Broken(error.to_string())
}

/// What a transfer is agreed on over.
pub struct ControlSocket {
    socket: Socket,
    /// What the other side is called in errors: `source` or `target`.
    other: &'static str,
    /// How long the target may take over a tree that it has all of.
    finishing: Duration,
}

impl ControlSocket {
    pub async fn new(stream: Box<dyn Stream>, role: Role, other: &'static str) -> Self {
        Self { socket: socket(stream, role, MAX_MESSAGE).await, other, finishing: MAX_FINISHING }
    }

    pub async fn send(&mut self, message: &impl prost::Message) -> Result<(), LxdError> {
        let sent = self.socket.send(Message::binary(message.encode_to_vec()));
        tokio::time::timeout(SLOW, sent).await.map_err(|_| LxdError::Silent(SLOW))?.map_err(broken)
    }

    async fn bytes(&mut self) -> Result<Bytes, LxdError> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Binary(bytes))) => return Ok(bytes),
                Some(Ok(Message::Text(_))) => {
                    return Err(LxdError::Malformed("Only binary messages allowed"));
                }
                Some(Ok(Message::Close(_))) | None => {
                    let gone = format!("Error reading migration control {}: it hung up", self.other);
                    return Err(LxdError::Broken(gone));
                }
                // Pings are answered below; the rest is not ours.
                Some(Ok(_)) => {}
                Some(Err(e)) => return Err(broken(e)),
            }
        }
    }

    /// The other side's header, or why there is none.
    pub async fn header(&mut self) -> Result<Header, LxdError> {
        let bytes = tokio::time::timeout(MAX_SILENCE, self.bytes()).await;
        let bytes = bytes.map_err(|_| LxdError::Silent(MAX_SILENCE))??;
        decode_header(&bytes).map_err(|unreadable| match decode::<Control>(&bytes) {
            Ok(Control { success: false, message }) => self.refusal(message),
            _ => unreadable,
        })
    }

    /// What the other side says of the whole, with no limit on how long it takes: for the time that something else limits.
    /// Safe to drop.
    pub async fn verdict(&mut self) -> Result<(), LxdError> {
        let bytes = self.bytes().await?;
        if bytes.len() > MAX_VERDICT {
            return Err(LxdError::Malformed("a control message that is too large"));
        }
        let Control { success, message } = decode(&bytes)?;
        if success { Ok(()) } else { Err(self.refusal(message)) }
    }

    /// The same once everything has gone over, when the other side has little left to do.
    pub async fn last_verdict(&mut self) -> Result<(), LxdError> {
        let said = tokio::time::timeout(self.finishing, self.verdict()).await;
        said.map_err(|_| LxdError::Silent(self.finishing))?
    }

    fn refusal(&self, message: Option<String>) -> LxdError {
        let message = message.unwrap_or_else(|| "it gives no reason".to_owned());
        // It reaches terminals and logs.
        let message = message.chars().take(4096).map(|c| if c.is_control() { ' ' } else { c }).collect();
        LxdError::Theirs { side: self.other, message }
    }

    /// Tells how it went.
    pub async fn tell(&mut self, outcome: Result<(), &str>) -> Result<(), LxdError> {
        let message = outcome.err().map(str::to_owned);
        self.send(&Control { success: message.is_none(), message }).await
    }

    /// Hangs up as one does who has nothing more to say.
    pub async fn close(mut self) {
        let _ = tokio::time::timeout(Duration::from_secs(2), self.socket.close(None)).await;
    }
}

/// What the files go over.
pub struct FsSocket {
    socket: Socket,
    /// How long little or nothing may move while rsync speaks.
    pub(super) patience: Patience,
}

impl FsSocket {
    pub async fn new(stream: Box<dyn Stream>, role: Role) -> Self {
        Self { socket: socket(stream, role, MAX_FRAME).await, patience: PATIENCE }
    }

    /// Sends one whole stream: `bytes` and a barrier.
    pub async fn send(&mut self, bytes: Vec<u8>) -> Result<(), LxdError> {
        let sent = async {
            self.socket.feed(Message::binary(bytes)).await?;
            self.socket.send(barrier()).await
        };
        tokio::time::timeout(SLOW, sent).await.map_err(|_| LxdError::Silent(SLOW))?.map_err(broken)
    }

    /// Takes one whole stream, of at most `largest` bytes.
    pub async fn take(&mut self, largest: usize) -> Result<Vec<u8>, LxdError> {
        let taking = async {
            let mut whole = Vec::new();
            loop {
                let part = tokio::time::timeout(MAX_SILENCE, part(&mut self.socket)).await;
                match part.map_err(|_| LxdError::Silent(MAX_SILENCE))?? {
                    None => return Ok(whole),
                    Some(bytes) if whole.len() + bytes.len() > largest => {
                        return Err(LxdError::Malformed("an index header that is too large"));
                    }
                    Some(bytes) => whole.extend_from_slice(&bytes),
                }
            }
        };
        tokio::time::timeout(MAX_TAKING, taking).await.map_err(|_| LxdError::Silent(MAX_TAKING))?
    }

    /// Both directions apart, for what speaks both ways at once.
    pub fn split(&mut self) -> (FsSender<'_>, FsReceiver<'_>) {
        let (sender, receiver) = futures::StreamExt::split(&mut self.socket);
        (FsSender(sender), FsReceiver(receiver))
    }

    /// The socket as a stream of bytes, in which barriers are ends: for the chunk stream.
    pub fn into_stream(self) -> ByteStream {
        ByteStream { socket: self.socket, rest: Bytes::new(), ended: false }
    }
}

/// The end of one stream of bytes (LXD: an empty text message).
fn barrier() -> Message {
    Message::text("")
}

pub struct FsSender<'a>(futures::stream::SplitSink<&'a mut Socket, Message>);
pub struct FsReceiver<'a>(futures::stream::SplitStream<&'a mut Socket>);

impl FsSender<'_> {
    pub async fn send(&mut self, bytes: Bytes) -> Result<(), LxdError> {
        let sent = self.0.send(Message::Binary(bytes));
        tokio::time::timeout(MAX_SILENCE, sent)
            .await
            .map_err(|_| LxdError::Silent(MAX_SILENCE))?
            .map_err(broken)
    }

    pub async fn barrier(&mut self) -> Result<(), LxdError> {
        let sent = self.0.send(barrier());
        tokio::time::timeout(MAX_SILENCE, sent)
            .await
            .map_err(|_| LxdError::Silent(MAX_SILENCE))?
            .map_err(broken)
    }
}

impl FsReceiver<'_> {
    /// The next bytes, or `None` at the barrier. How long they may take, whoever speaks over `fs` must limit.
    pub async fn next(&mut self) -> Result<Option<Bytes>, LxdError> {
        part(&mut self.0).await
    }
}

type Messages = Result<Message, tokio_tungstenite::tungstenite::Error>;

async fn part(
    messages: &mut (impl futures::Stream<Item = Messages> + Unpin),
) -> Result<Option<Bytes>, LxdError> {
    loop {
        match messages.next().await {
            Some(Ok(Message::Binary(bytes))) if bytes.is_empty() => {}
            Some(Ok(Message::Binary(bytes))) => return Ok(Some(bytes)),
            Some(Ok(Message::Text(text))) if text.is_empty() => return Ok(None),
            Some(Ok(Message::Text(_))) => return Err(LxdError::Malformed("text where files should be")),
            Some(Ok(Message::Close(_))) | None => return Err(broken("the other side hung up")),
            Some(Ok(_)) => {}
            Some(Err(e)) => return Err(broken(e)),
        }
    }
}

/// A websocket's binary messages as bytes.
pub struct ByteStream {
    socket: Socket,
    rest: Bytes,
    ended: bool,
}

impl AsyncRead for ByteStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if self.rest.has_remaining() {
                let len = self.rest.len().min(into.remaining());
                into.put_slice(&self.rest.split_to(len));
                return Poll::Ready(Ok(()));
            }
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            match std::task::ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.rest = bytes,
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Text(_) | Message::Close(_))) | None => self.ended = true,
                Some(Err(e)) => return Poll::Ready(Err(io::Error::other(e))),
            }
        }
    }
}

impl AsyncWrite for ByteStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        std::task::ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(io::Error::other)?;
        let len = from.len().min(MAX_FRAME / 8);
        let message = Message::Binary(Bytes::copy_from_slice(&from[..len]));
        Pin::new(&mut self.socket).start_send(message).map_err(io::Error::other)?;
        Poll::Ready(Ok(len))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(io::Error::other)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn pair() -> (Box<dyn Stream>, Box<dyn Stream>) {
        let (a, b) = tokio::io::duplex(4096);
        (Box::new(a), Box::new(b))
    }

    #[tokio::test]
    async fn streams_end_at_barriers_and_the_socket_goes_on() {
        let (a, b) = pair();
        let (mut a, mut b) = tokio::join!(FsSocket::new(a, Role::Client), FsSocket::new(b, Role::Server));
        for text in ["first", "second"] {
            let sent = a.send(text.as_bytes().to_vec());
            let (sent, taken) = tokio::join!(sent, b.take(10));
            sent.unwrap();
            assert_eq!(taken.unwrap(), text.as_bytes());
        }
        let (_, taken) = tokio::join!(a.send(vec![0; 11]), b.take(10));
        assert!(matches!(taken, Err(LxdError::Malformed(_))));
    }

    #[tokio::test]
    async fn a_verdict_is_told_in_words() {
        let (a, b) = pair();
        let (mut a, mut b) = tokio::join!(
            ControlSocket::new(a, Role::Client, "target"),
            ControlSocket::new(b, Role::Server, "source")
        );
        a.tell(Ok(())).await.unwrap();
        b.verdict().await.unwrap();
        a.tell(Err("the disk\nis full")).await.unwrap();
        let told = b.verdict().await.unwrap_err().to_string();
        assert_eq!(told, "Error from migration control source: the disk is full");
        drop(a);
        assert!(b.verdict().await.is_err());
    }

    #[tokio::test]
    async fn a_target_that_never_says_how_it_went_is_not_waited_for() {
        let (a, b) = pair();
        let (_silent, mut waiting) = tokio::join!(
            ControlSocket::new(a, Role::Client, "target"),
            ControlSocket::new(b, Role::Server, "target")
        );
        waiting.finishing = Duration::from_millis(10);
        assert!(matches!(waiting.last_verdict().await, Err(LxdError::Silent(_))));
    }

    #[tokio::test]
    async fn bytes_go_through_in_both_directions() {
        let (a, b) = pair();
        let (a, b) = tokio::join!(FsSocket::new(a, Role::Client), FsSocket::new(b, Role::Server));
        let (mut a, mut b) = (a.into_stream(), b.into_stream());
        let data = vec![7; 3 * MAX_FRAME];
        let writing = async {
            a.write_all(&data).await.unwrap();
            a.shutdown().await.unwrap();
            a
        };
        let reading = async {
            let mut got = Vec::new();
            b.read_to_end(&mut got).await.unwrap();
            got.len()
        };
        let (_, len) = tokio::join!(writing, reading);
        assert_eq!(len, data.len());
    }
}
