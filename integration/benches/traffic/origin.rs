//! The server behind all of them: one thread that answers every request with the same few bytes, as fast as it can be
//! done with plain system calls. A process of its own, since ten thousand connections to it and as many of the apps' are
//! more than one process may have open.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Stdio};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

/// The argument by which this program is that server.
pub const COMMAND: &str = "be-the-origin";

/// What it answers with. Its length is what `steady` and `idle` wait for.
pub const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\nHello, world!\n";

/// The same, to a request that is its connection's last.
const LAST_ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\nConnection: close\r\n\r\nHello, world!\n";

const LISTENER: Token = Token(usize::MAX);
/// No request is longer.
const LONGEST: usize = 4096;

/// The running server. Killed when dropped.
pub struct Origin {
    child: Child,
    port: u16,
}

impl Origin {
    pub fn start() -> Self {
        let this = std::env::current_exe().expect("a program knows its own path");
        let mut child = Command::new(this)
            .arg(COMMAND)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("the server tells its port");
        Self { port: line.trim().parse().expect("a port"), child }
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection, and what of a request has come.
struct Connection {
    socket: TcpStream,
    head: Vec<u8>,
}

/// Whether a connection goes on.
enum Then {
    Wait,
    Close,
}

/// Serves until killed.
pub fn run() {
    serve().expect("the server serves");
}

fn serve() -> io::Result<()> {
    let mut poll = Poll::new()?;
    // Its queue is as long as the kernel lets it be.
    let mut listener = TcpListener::bind(([127, 0, 0, 1], 0).into())?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    println!("{}", listener.local_addr()?.port());
    let mut events = Events::with_capacity(1024);
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut free = Vec::new();
    let mut buffer = vec![0; LONGEST];
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                accept(&poll, &listener, &mut connections, &mut free)?;
                continue;
            }
            let place = event.token().0;
            let Some(connection) = connections[place].as_mut() else { continue };
            if matches!(connection.answer(&mut buffer).unwrap_or(Then::Close), Then::Close) {
                connections[place] = None;
                free.push(place);
            }
        }
    }
}

fn accept(
    poll: &Poll,
    listener: &TcpListener,
    connections: &mut Vec<Option<Connection>>,
    free: &mut Vec<usize>,
) -> io::Result<()> {
    loop {
        let mut socket = match listener.accept() {
            Ok((socket, _)) => socket,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(_) => continue,
        };
        let place = free.pop().unwrap_or_else(|| {
            connections.push(None);
            connections.len() - 1
        });
        socket.set_nodelay(true)?;
        poll.registry().register(&mut socket, Token(place), Interest::READABLE)?;
        connections[place] = Some(Connection { socket, head: Vec::new() });
    }
}

impl Connection {
    /// Reads what there is, and answers the requests in it.
    fn answer(&mut self, buffer: &mut [u8]) -> io::Result<Then> {
        loop {
            let length = match self.socket.read(buffer) {
                Ok(0) => return Ok(Then::Close),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Then::Wait),
                Err(error) => return Err(error),
            };
            self.head.extend_from_slice(&buffer[..length]);
            while let Some(end) = self.head.windows(4).position(|four| four == b"\r\n\r\n") {
                let is_last =
                    self.head[..end].to_ascii_lowercase().windows(17).any(|w| w == b"connection: close");
                self.head.drain(..end + 4);
                // A few bytes always fit in a socket whose reader has read all that went before.
                self.socket.write_all(if is_last { LAST_ANSWER } else { ANSWER })?;
                if is_last {
                    return Ok(Then::Close);
                }
            }
            if self.head.len() > LONGEST {
                return Ok(Then::Close);
            }
            // What filled the buffer in part was all there was.
            if length < buffer.len() {
                return Ok(Then::Wait);
            }
        }
    }
}
