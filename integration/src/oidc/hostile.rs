//! An identity provider that does what no good one does, or one that is good until a test says otherwise: what it
//! publishes and what it signs is the test's to choose.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _};
use serde_json::{Value, json};

use crate::wait::LIMIT;

/// What is answered at a path.
#[derive(Debug, Clone)]
pub enum Reply {
    Json(Value),
    /// Somewhere else.
    Redirect(String),
    Status(u16),
    /// More and more, without an end.
    Endless,
    /// Nothing, for as long as somebody waits.
    Silence,
}

/// A provider on a loopback port. Stops when dropped.
pub struct Hostile {
    port: u16,
    state: Arc<Mutex<State>>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

struct State {
    replies: BTreeMap<String, Reply>,
    asked: BTreeMap<String, usize>,
    key: Key,
}

struct Key {
    id: String,
    private: EncodingKey,
    public: Value,
}

impl Key {
    fn new(id: &str) -> Self {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key can be made");
        // An uncompressed point: 4, x, y.
        let (x, y) = pair.der_bytes()[1..].split_at(32);
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let public =
            json!({ "kty": "EC", "crv": "P-256", "kid": id, "x": part(x), "y": part(y), "use": "sig" });
        Self { id: id.to_owned(), private: EncodingKey::from_ec_der(&pair.serialize_der()), public }
    }
}

impl Hostile {
    /// One that is good: it publishes a key, and knows one user.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let issuer = format!("http://127.0.0.1:{port}");
        let key = Key::new("first");
        let replies = BTreeMap::from([
            (
                "/.well-known/openid-configuration".to_owned(),
                Reply::Json(json!({
                    "issuer": issuer, "jwks_uri": format!("{issuer}/jwks"),
                    "userinfo_endpoint": format!("{issuer}/me"), "token_endpoint": format!("{issuer}/token"),
                    "device_authorization_endpoint": format!("{issuer}/device/auth"),
                })),
            ),
            ("/jwks".to_owned(), Reply::Json(json!({ "keys": [key.public] }))),
            ("/me".to_owned(), Reply::Status(401)),
        ]);
        let state = Arc::new(Mutex::new(State { replies, asked: BTreeMap::new(), key }));
        let stopped = Arc::new(AtomicBool::new(false));
        let (shared, flag) = (state.clone(), stopped.clone());
        let thread = std::thread::spawn(move || {
            for socket in listener.incoming() {
                if flag.load(Ordering::Acquire) {
                    return;
                }
                let Ok(socket) = socket else { continue };
                let (shared, flag) = (shared.clone(), flag.clone());
                // A caller that goes away is no fault of the server's.
                std::thread::spawn(move || drop(serve(socket, &shared, &flag)));
            }
        });
        Self { port, state, stopped, thread: Some(thread) }
    }

    pub fn issuer(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on this is answered at `path`.
    pub fn answer(&self, path: &str, reply: Reply) {
        self.state().replies.insert(path.to_owned(), reply);
    }

    /// The same for what it says about itself, with these changes.
    pub fn claim(&self, changes: &Value) {
        let path = "/.well-known/openid-configuration";
        let mut state = self.state();
        let Some(Reply::Json(document)) = state.replies.get_mut(path) else { panic!("it has a document") };
        for (name, value) in changes.as_object().expect("an object") {
            document[name] = value.clone();
        }
    }

    /// How often it was asked for `path`.
    pub fn asked(&self, path: &str) -> usize {
        self.state().asked.get(path).copied().unwrap_or_default()
    }

    /// Signs by another key from now on, and publishes that one alone.
    pub fn rotate(&self, id: &str) {
        let mut state = self.state();
        state.key = Key::new(id);
        let keys = json!({ "keys": [state.key.public] });
        state.replies.insert("/jwks".to_owned(), Reply::Json(keys));
    }

    /// What a good token of it says, for this user and client.
    pub fn claims(&self, email: &str, client: &str) -> Value {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock").as_secs();
        json!({
            "iss": self.issuer(), "sub": email, "aud": client, "iat": now, "exp": now + 300,
            "email": email, "email_verified": true, "groups": ["engineering"],
        })
    }

    /// A token that says this, signed as it should be.
    pub fn sign(&self, claims: &Value) -> String {
        let header = json!({ "alg": "ES256", "typ": "at+jwt", "kid": self.state().key.id });
        self.sign_as(&header, claims)
    }

    /// The same with this header. Of `none` there is no signature, and of `HS256` the secret is the public key.
    pub fn sign_as(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let state = self.state();
        let signature = match header["alg"].as_str() {
            Some("HS256") => {
                let secret = EncodingKey::from_secret(state.key.public.to_string().as_bytes());
                crypto::sign(message.as_bytes(), &secret, Algorithm::HS256).expect("it can be signed")
            }
            Some("ES256") => crypto::sign(message.as_bytes(), &state.key.private, Algorithm::ES256)
                .expect("it can be signed"),
            _ => String::new(),
        };
        format!("{message}.{signature}")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds this")
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(socket: TcpStream, state: &Mutex<State>, stopped: &AtomicBool) -> io::Result<()> {
    socket.set_read_timeout(Some(LIMIT))?;
    let mut reader = BufReader::new(socket.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().split('?').next().unwrap_or_default().to_owned();
    let mut length = 0;
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    io::copy(&mut reader.take(length), &mut io::sink())?;
    let reply = {
        let mut state = state.lock().map_err(|_| io::Error::other("a test has failed"))?;
        *state.asked.entry(path.clone()).or_default() += 1;
        state.replies.get(&path).cloned().unwrap_or(Reply::Status(404))
    };
    let mut socket = socket;
    let mut head = |status: u16, more: &str| {
        write!(
            socket,
            "HTTP/1.1 {status} Status\r\nconnection: close\r\ncontent-type: application/json\r\n{more}\r\n"
        )
    };
    match reply {
        Reply::Json(value) => {
            let body = value.to_string();
            head(200, &format!("content-length: {}\r\n", body.len()))?;
            socket.write_all(body.as_bytes())
        }
        Reply::Redirect(to) => head(302, &format!("location: {to}\r\ncontent-length: 0\r\n")),
        Reply::Status(status) => head(status, "content-length: 2\r\n").and_then(|()| socket.write_all(b"{}")),
        Reply::Endless => {
            head(200, "")?;
            let blanks = vec![b' '; 64 * 1024];
            while !stopped.load(Ordering::Acquire) {
                socket.write_all(&blanks)?;
            }
            Ok(())
        }
        Reply::Silence => {
            // Until the other side gives up.
            let mut byte = [0];
            let _ = socket.read(&mut byte);
            Ok(())
        }
    }
}
