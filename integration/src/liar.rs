//! A source that cannot be trusted: it has a certificate of its own, passes what it is asked on to a real agent, and lies
//! about what comes back: a bit that is another, an end that is too early, a part that comes twice, a silence.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use agent::trust::certificate::KeyPair;
use agent::tunnel::tls::{self, ClientCertificate};
use rustls::sign::SingleCertAndKey;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::Agent;
use crate::http::fingerprint_of;

/// The one protocol of these connections.
const ALPN: [&[u8]; 1] = [b"http/1.1"];

/// What becomes of the bytes that the real source sends, of all connections together; places are counted from when it
/// was told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Nothing: it only listens.
    None,
    /// The lowest bit of the byte there is another.
    Flip(u64),
    /// Its connection ends there.
    Cut(u64),
    /// What was read there is sent twice.
    Repeat(u64),
    /// Nothing comes from there on, and the connections stay.
    Stall(u64),
}

/// The source that lies.
pub struct Liar {
    pub key: Arc<KeyPair>,
    port: u16,
    state: Arc<Mutex<State>>,
    _runtime: Runtime,
}

struct State {
    lie: Lie,
    carried: u64,
    told: bool,
}

impl Liar {
    /// Stands before an agent.
    pub fn before(agent: &Agent) -> Self {
        let key = Arc::new(KeyPair::generate("liar", &["liar".to_owned()]).expect("a key pair can be made"));
        let shown = SingleCertAndKey::from(key.certified().expect("a certificate to show"));
        let accepts = tls::server_config(Arc::new(shown), &ALPN, ClientCertificate::Requested)
            .expect("a TLS configuration");
        let dials =
            tls::client_config_pinned(fingerprint_of(agent), None, &ALPN).expect("a TLS configuration");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let state = Arc::new(Mutex::new(State { lie: Lie::None, carried: 0, told: false }));
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        let (acceptor, connector) = (TlsAcceptor::from(accepts), TlsConnector::from(dials));
        let (address, shared) = (agent.address(), state.clone());
        runtime.spawn(async move {
            while let Ok((caller, _)) = listener.accept().await {
                let (acceptor, connector) = (acceptor.clone(), connector.clone());
                let (address, shared) = (address.clone(), shared.clone());
                tokio::spawn(async move { pass(caller, &acceptor, &connector, &address, &shared).await });
            }
        });
        Self { key, port, state, _runtime: runtime }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Has it lie so from now on.
    pub fn lies(&self, lie: Lie) {
        *locked(&self.state) = State { lie, carried: 0, told: false };
    }

    /// Bytes from the source since it was told how to lie.
    pub fn carried(&self) -> u64 {
        locked(&self.state).carried
    }

    /// Whether it came to its lie.
    pub fn has_lied(&self) -> bool {
        locked(&self.state).told
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("nobody panics with it")
}

async fn pass(
    caller: TcpStream,
    acceptor: &TlsAcceptor,
    connector: &TlsConnector,
    address: &str,
    state: &Mutex<State>,
) -> io::Result<()> {
    let caller = acceptor.accept(caller).await?;
    let source = connector.connect(tls::server_name(), TcpStream::connect(address).await?).await?;
    let (mut from_caller, mut to_caller) = tokio::io::split(caller);
    let (mut from_source, mut to_source) = tokio::io::split(source);
    tokio::select! {
        there = tokio::io::copy(&mut from_caller, &mut to_source) => there.map(|_| ()),
        back = lie(&mut from_source, &mut to_caller, state) => back,
    }
}

/// Copies what the source says, and lies.
async fn lie(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    state: &Mutex<State>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        let (lie, here) = {
            let mut state = locked(state);
            let begins = state.carried;
            state.carried += length as u64;
            let place = match state.lie {
                Lie::None => None,
                Lie::Flip(at) | Lie::Cut(at) | Lie::Repeat(at) => {
                    (begins..state.carried).contains(&at).then(|| at - begins)
                }
                Lie::Stall(at) => (state.carried > at).then_some(0),
            };
            state.told |= place.is_some();
            (state.lie, place)
        };
        match (lie, here.and_then(|place| usize::try_from(place).ok())) {
            (Lie::Flip(_), Some(place)) => buffer[place] ^= 1,
            (Lie::Cut(_), Some(place)) => {
                to.write_all(&buffer[..place]).await?;
                to.flush().await?;
                return Ok(());
            }
            (Lie::Repeat(_), Some(_)) => to.write_all(&buffer[..length]).await?,
            (Lie::Stall(_), Some(_)) => std::future::pending::<()>().await,
            _ => {}
        }
        to.write_all(&buffer[..length]).await?;
        to.flush().await?;
    }
}
