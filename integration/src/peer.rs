//! A linked cluster that is no agent: it has a certificate, redeems a token and speaks the link's own protocol, so that
//! a test can say what no agent would, and a benchmark can have fifty of them in one process.

use std::convert::Infallible;
use std::io::{self, Read as _};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent::client::Client;
use agent::task::Tasks;
use agent::trust::Fingerprint;
use agent::trust::certificate::KeyPair;
use agent::tunnel::{self, ALPN_LINK, Incoming, Router, Session, TunnelStream, frame, tls};
use agent::wire::cluster_link::LinkPost;
use agent::wire::link::{Refusal, StreamHeader};
use agent::wire::sync::{MAX_ANSWER, MAX_FRAME, News, PeerView, Position, SyncAnswer, SyncFrame, VERSION};
use agent::wire::token::TrustToken;
use futures::future::BoxFuture;
use rustls::{ClientConnection, StreamOwned};
use schema::plan::LinkState;
use tokio::io::{AsyncWriteExt as _, ReadHalf, WriteHalf};

use crate::{Agent, LIMIT};

/// How often it says that it is there.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// A cluster that an agent is linked with.
pub struct Peer {
    name: String,
    key: Arc<KeyPair>,
    address: String,
    pin: Fingerprint,
    tasks: Tasks,
}

/// What a peer says on the stream that an agent opens to it, instead of nothing but that it is there.
pub type Script = Vec<Vec<u8>>;

/// The sync stream from an agent to a peer.
pub struct Received {
    stream: TunnelStream,
    frames: u64,
}

impl Peer {
    /// Has the agent make link `name`, and redeems its token.
    pub async fn linked(agent: &Agent, name: &str) -> Self {
        let administrator = Client::unix(agent.socket());
        let post =
            LinkPost { name: name.to_owned(), kind: "bidirectional".to_owned(), ..LinkPost::default() };
        let token = administrator.create_link(&post).await.expect("the agent gives a token");
        let token: TrustToken = serde_json::from_value(token).expect("a token");
        let key = Arc::new(KeyPair::generate(name, &[]).expect("a key"));
        let pin: Fingerprint = token.fingerprint.parse().expect("the token names a certificate");
        let redeemer = Client::pinned(name, vec![agent.address()], pin, Some(key.clone()));
        let post = LinkPost {
            kind: "bidirectional".to_owned(),
            trust_token: token.encode().expose().to_owned(),
            cluster_certificate: key.pem.clone(),
            // It cannot be reached, so an attempt's name says what is asked for.
            attempt_id: format!("attempt-of-{name}"),
            ..LinkPost::default()
        };
        redeemer.activate_link(&post).await.expect("the agent takes its own token");
        Self { name: name.to_owned(), key, address: agent.address(), pin, tasks: Tasks::new() }
    }

    /// Connects to the agent. Whatever stream the agent opens for what this peer exports is told `script`, and after it
    /// heartbeats.
    pub async fn dial(&self, script: Script) -> (Session, Arc<Told>) {
        let told = Arc::new(Told { name: self.name.clone(), script, answers: Arc::default() });
        let router: Arc<dyn Router> = told.clone();
        let session =
            tunnel::dial(std::slice::from_ref(&self.address), self.pin, &self.key, router, &self.tasks)
                .await
                .expect("the agent takes its peer's connection");
        (session, told)
    }

    /// A bare connection to the agent, greeted by it, over which this peer may say whatever it likes.
    pub fn bare(&self) -> StreamOwned<ClientConnection, TcpStream> {
        let config =
            tls::client_config_pinned(self.pin, Some(&self.key), &[ALPN_LINK]).expect("a configuration");
        let tcp = TcpStream::connect(&self.address).expect("the agent listens");
        tcp.set_read_timeout(Some(LIMIT)).expect("a limit can be set");
        tcp.set_write_timeout(Some(LIMIT)).expect("a limit can be set");
        let connection = ClientConnection::new(config, tls::server_name()).expect("a connection");
        let mut stream = StreamOwned::new(connection, tcp);
        let mut length = [0; 4];
        stream.read_exact(&mut length).expect("a greeting");
        let mut greeting = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut greeting).expect("the rest of it");
        assert!(String::from_utf8_lossy(&greeting).contains("accepted"), "{greeting:?}");
        stream
    }

    /// Asks the agent what it exports to this peer.
    pub async fn receive(session: &Session, resume: Option<Position>) -> Received {
        let header = StreamHeader::Sync { version: VERSION, resume };
        // The agent may know of the link a moment after it has answered for it.
        for _ in 0..200 {
            match session.open(&header).await {
                Ok(stream) => return Received { stream, frames: 0 },
                Err(tunnel::OpenError::Refused { code: Refusal::NotFound, .. }) => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err(error) => panic!("no sync stream: {error}"),
            }
        }
        panic!("the agent knows no link with this peer")
    }
}

impl Received {
    /// The next frame, and its size.
    pub async fn next(&mut self) -> Result<(SyncFrame, usize), frame::ReadError> {
        let read = frame::read_within(&mut self.stream, MAX_FRAME).await?;
        self.frames += 1;
        Ok(read)
    }

    /// Acknowledges every frame so far.
    pub async fn acknowledge(&mut self) -> io::Result<()> {
        self.answer(&SyncAnswer::Ack { frame: self.frames }).await
    }

    pub async fn answer(&mut self, answer: &SyncAnswer) -> io::Result<()> {
        frame::write_within(&mut self.stream, answer, MAX_ANSWER).await.map(drop)
    }
}

/// What a peer says of its own exports, and how that was answered.
pub struct Told {
    name: String,
    script: Script,
    answers: Arc<Mutex<Vec<SyncAnswer>>>,
}

impl Told {
    pub fn answers(&self) -> Vec<SyncAnswer> {
        self.answers.lock().expect("nobody panics with it").clone()
    }
}

impl Router for Told {
    fn route(&self, _: &Session, incoming: Incoming) -> BoxFuture<'static, ()> {
        if !matches!(incoming.header, StreamHeader::Sync { .. }) {
            return Box::pin(incoming.refuse(Refusal::Denied, "not served here"));
        }
        let (name, script, answers) = (self.name.clone(), self.script.clone(), self.answers.clone());
        Box::pin(async move {
            // An agent that has heard enough ends the stream.
            let _ = tell(&name, script, &answers, incoming).await;
        })
    }
}

async fn tell(
    name: &str,
    script: Script,
    answers: &Mutex<Vec<SyncAnswer>>,
    incoming: Incoming,
) -> io::Result<Infallible> {
    let (reader, writer) = tokio::io::split(incoming.accept().await?);
    tokio::select! {
        ended = listen(reader, answers) => ended,
        ended = speak(name, script, writer) => ended,
    }
}

async fn speak(name: &str, script: Script, mut writer: WriteHalf<TunnelStream>) -> io::Result<Infallible> {
    for frame in if script.is_empty() { nothing(name) } else { script } {
        writer.write_all(&frame).await?;
    }
    loop {
        writer.flush().await?;
        tokio::time::sleep(HEARTBEAT).await;
        writer.write_all(&encoded(&SyncFrame::Heartbeat { view: view(name) })).await?;
    }
}

async fn listen(
    mut reader: ReadHalf<TunnelStream>,
    answers: &Mutex<Vec<SyncAnswer>>,
) -> io::Result<Infallible> {
    loop {
        let (answer, _) = frame::read_within(&mut reader, MAX_ANSWER).await?;
        answers.lock().expect("nobody panics with it").push(answer);
    }
}

/// What a peer says that exports nothing.
fn nothing(name: &str) -> Script {
    vec![
        encoded(&hello(name)),
        encoded(&SyncFrame::Begin),
        encoded(&SyncFrame::End { position: start(), services: 0 }),
    ]
}

/// Where a peer begins to count.
pub fn start() -> Position {
    serde_json::from_value(serde_json::json!({
        "epoch": "00000000-0000-4000-8000-000000000000", "sequence": 0,
    }))
    .expect("a position")
}

/// A greeting.
pub fn hello(name: &str) -> SyncFrame {
    SyncFrame::Hello {
        version: VERSION,
        cluster: name.parse().expect("a name"),
        view: view(name),
        news: News::default(),
        resumed: None,
    }
}

/// A frame with its length, as it goes over the wire.
pub fn encoded(frame: &SyncFrame) -> Vec<u8> {
    framed(&serde_json::to_vec(frame).expect("a frame is JSON"))
}

/// Bytes with their length before them.
pub fn framed(content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).expect("it has a length");
    [&length.to_be_bytes(), content].concat()
}

fn view(name: &str) -> PeerView {
    PeerView {
        link: name.parse().expect("a name"),
        state: LinkState::Active,
        reason: None,
        exported: 0,
        imported: 0,
    }
}
