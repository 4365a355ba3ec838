//! Plain requests to an agent, over TLS with whatever certificate or over its unix socket, and raw connections for
//! those who do not behave.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;

use agent::trust::Fingerprint;
use agent::trust::certificate::{self, KeyPair};
use agent::tunnel::tls;
use base64::Engine as _;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::{Value, json};

use crate::Agent;
use crate::wait::LIMIT;

/// The one protocol of these requests.
const ALPN: [&[u8]; 1] = [b"http/1.1"];

/// Somebody who sends requests to one agent.
#[derive(Clone)]
pub struct Http {
    target: Target,
    /// What is shown, if anything is.
    pub identity: Option<Arc<KeyPair>>,
}

#[derive(Clone)]
enum Target {
    Socket(PathBuf),
    /// Without TLS, as the listener for Consul's tools has it.
    Plain(String),
    Tls {
        address: String,
        config: Arc<ClientConfig>,
    },
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The request, for messages.
    pub asked: String,
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// A TLS connection whose handshake may still be to come.
pub type Tls = StreamOwned<ClientConnection, TcpStream>;

impl Http {
    /// The machine's own administrator.
    pub fn socket(agent: &Agent) -> Self {
        Self { target: Target::Socket(agent.socket()), identity: None }
    }

    /// Somebody who speaks plain HTTP to a loopback port.
    pub fn plain(port: u16) -> Self {
        Self { target: Target::Plain(format!("127.0.0.1:{port}")), identity: None }
    }

    /// Somebody without a certificate.
    pub fn anonymous(agent: &Agent) -> Self {
        Self::showing(agent, None)
    }

    /// Somebody with a new certificate that nobody knows.
    pub fn stranger(agent: &Agent) -> Self {
        let pair = KeyPair::generate("someone", &[]).expect("a key pair can be made");
        Self::showing(agent, Some(Arc::new(pair)))
    }

    /// Somebody with this certificate.
    pub fn showing(agent: &Agent, identity: Option<Arc<KeyPair>>) -> Self {
        let pin = fingerprint_of(agent);
        let config = tls::client_config_pinned(pin, identity.as_deref(), &ALPN).expect("a TLS configuration");
        Self { target: Target::Tls { address: agent.address(), config }, identity }
    }

    /// Somebody whose new certificate was added as unrestricted.
    pub fn trusted(agent: &Agent) -> Self {
        let http = Self::stranger(agent);
        let pair = http.identity.as_ref().expect("a stranger shows a certificate");
        let body = json!({ "type": "client", "name": "trusted", "certificate": der_base64(pair) });
        Self::socket(agent).post("/1.0/certificates", &body).expect(201);
        http
    }

    /// The fingerprint of what is shown.
    pub fn fingerprint(&self) -> String {
        self.identity.as_ref().expect("a certificate is shown").fingerprint.to_string()
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], None)
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &[], Some(&body.to_string()))
    }

    pub fn put(&self, path: &str, body: &Value) -> Answer {
        self.send("PUT", path, &[], Some(&body.to_string()))
    }

    pub fn patch(&self, path: &str, body: &Value) -> Answer {
        self.send("PATCH", path, &[], Some(&body.to_string()))
    }

    pub fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], None)
    }

    /// Sends one request over a connection of its own. A body is JSON where no header says otherwise.
    #[track_caller]
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> Answer {
        let answer = self.try_send(method, path, headers, body);
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// The same, by somebody whose connection may be cut meanwhile.
    pub fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&str>,
    ) -> io::Result<Answer> {
        let given = |header: &str| headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(header));
        let mut text = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
        if !given("host") {
            let host = if let Target::Plain(address) = &self.target { address } else { "agent" };
            text.extend(["host: ", host, "\r\n"]);
        }
        for (name, value) in headers {
            text.extend([name, ": ", value, "\r\n"]);
        }
        if let Some(body) = body {
            if !given("content-type") {
                text.push_str("content-type: application/json\r\n");
            }
            let length = body.len().to_string();
            text.extend(["content-length: ", &length, "\r\n"]);
        }
        text = text + "\r\n" + body.unwrap_or_default();
        let (status, headers, body) = match &self.target {
            Target::Socket(path) => exchange(unix(path), text.as_bytes()),
            Target::Plain(address) => exchange(plain(address)?, text.as_bytes()),
            Target::Tls { .. } => {
                exchange_over_tls(self.connect().expect("the agent can be reached"), text.as_bytes())
            }
        }?;
        Ok(Answer { asked: format!("{method} {path}"), status, headers, body })
    }

    /// A raw connection, with the limit of all waits on what it reads and writes.
    pub fn connect(&self) -> io::Result<Tls> {
        let Target::Tls { address, config } = &self.target else {
            return Err(io::Error::other("only the network has TLS"));
        };
        let tcp = plain(address)?;
        let connection =
            ClientConnection::new(config.clone(), tls::server_name()).map_err(io::Error::other)?;
        Ok(StreamOwned::new(connection, tcp))
    }
}

impl Answer {
    /// This answer, if it has this status.
    #[track_caller]
    #[allow(clippy::return_self_not_must_use)] // many callers want no more than that it was so
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}: {}", self.asked, String::from_utf8_lossy(&self.body));
        self
    }

    /// This answer, if it is an error in LXD's envelope, with this status and these words somewhere in its text.
    #[track_caller]
    #[allow(clippy::return_self_not_must_use)] // as above
    pub fn refused(self, status: u16, words: &str) -> Self {
        let answer = self.expect(status);
        let body = answer.json();
        assert_eq!(body["type"], "error", "{}: {body}", answer.asked);
        assert_eq!(body["error_code"], status, "{}: {body}", answer.asked);
        let error = body["error"].as_str().unwrap_or_default();
        assert!(error.contains(words), "{}: {words:?} is not in {error:?}", answer.asked);
        answer
    }

    /// This answer, if it has this status and this plain text is in its body: an error as Consul gives it.
    #[track_caller]
    #[allow(clippy::return_self_not_must_use)] // as above
    pub fn says(self, status: u16, words: &str) -> Self {
        let answer = self.expect(status);
        let text = answer.text();
        assert!(text.contains(words), "{}: {words:?} is not in {text:?}", answer.asked);
        answer
    }

    /// The body as it is.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// `X-Consul-Index`: what a blocking query waits on.
    #[track_caller]
    pub fn index(&self) -> u64 {
        let index = self.header("x-consul-index").and_then(|index| index.parse().ok());
        index.unwrap_or_else(|| panic!("{}: no index in {:?}", self.asked, self.headers))
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!("{}: {error}: {}", self.asked, String::from_utf8_lossy(&self.body))
        })
    }

    #[track_caller]
    pub fn metadata(&self) -> Value {
        self.json()["metadata"].take()
    }

    /// LXD's one line of error.
    #[track_caller]
    pub fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_default().to_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// What the agent shows on its listener.
pub fn fingerprint_of(agent: &Agent) -> Fingerprint {
    let pem = std::fs::read_to_string(agent.data_dir().join("cluster.crt")).expect("the agent's certificate");
    certificate::fingerprint(&certificate::from_pem(&pem).expect("the agent's certificate is PEM"))
}

/// A certificate as `POST /1.0/certificates` takes it.
pub fn der_base64(pair: &KeyPair) -> String {
    base64::engine::general_purpose::STANDARD.encode(&pair.certificate)
}

fn unix(path: &PathBuf) -> UnixStream {
    let stream = UnixStream::connect(path).expect("the agent's socket");
    stream.set_read_timeout(Some(LIMIT)).expect("a time limit");
    stream
}

fn plain(address: &str) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect(address)?;
    tcp.set_read_timeout(Some(LIMIT))?;
    tcp.set_write_timeout(Some(LIMIT))?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

type Parts = (u16, Vec<(String, String)>, Vec<u8>);

fn exchange(mut stream: impl Read + Write, request: &[u8]) -> io::Result<Parts> {
    // A server may answer and hang up before it has read all: what it says counts, not that it stopped listening.
    let written = stream.write_all(request).and_then(|()| stream.flush());
    match read_answer(&mut BufReader::new(stream)) {
        Ok(answer) => Ok(answer),
        Err(error) => Err(written.err().unwrap_or(error)),
    }
}

/// As `exchange`. rustls writes what is left before it reads, and fails by that where the server has hung up: so what
/// arrived is read past it.
fn exchange_over_tls(mut stream: Tls, request: &[u8]) -> io::Result<Parts> {
    let written = stream.write_all(request).and_then(|()| stream.flush());
    if written.is_ok() {
        return read_answer(&mut BufReader::new(stream));
    }
    struct Arrived(Tls);
    impl Read for Arrived {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            loop {
                match self.0.conn.reader().read(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    read => return read,
                }
                if self.0.conn.read_tls(&mut self.0.sock)? == 0 {
                    return Ok(0);
                }
                self.0.conn.process_new_packets().map_err(io::Error::other)?;
            }
        }
    }
    read_answer(&mut BufReader::new(Arrived(stream))).map_err(|error| written.err().unwrap_or(error))
}

/// Reads one answer, its body by its stated length or until the end.
pub fn read_answer(reader: &mut BufReader<impl Read>) -> io::Result<Parts> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| bad(&format!("no status line: {line:?}")))?;
    let mut headers = Vec::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(bad("the head has no end"));
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let value = |name: &str| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let mut body = Vec::new();
    match value("content-length").and_then(|length| length.parse::<u64>().ok()) {
        Some(length) => {
            reader.take(length).read_to_end(&mut body)?;
        }
        None if value("transfer-encoding") == Some("chunked") => loop {
            line.clear();
            reader.read_line(&mut line)?;
            let length = u64::from_str_radix(line.trim(), 16).map_err(|_| bad("no chunk"))?;
            reader.take(length + 2).read_to_end(&mut body)?;
            body.truncate(body.len() - 2);
            if length == 0 {
                break;
            }
        },
        None => {
            // An upgrade has no body; everything else without a length ends with the connection.
            if status != 101 {
                reader.read_to_end(&mut body)?;
            }
        }
    }
    Ok((status, headers, body))
}
