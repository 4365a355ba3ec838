//! Servers that stand for services, and a client to go with each.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::wait::LIMIT;

/// A server on a loopback port. Stops taking connections when dropped.
#[derive(Debug)]
pub struct Server {
    port: u16,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Sends back what it gets, as it gets it.
    pub fn echo() -> Self {
        Self::start(|mut socket| {
            let mut other = socket.try_clone()?;
            io::copy(&mut socket, &mut other)?;
            socket.shutdown(Shutdown::Write)
        })
    }

    /// Sends back what it got, in capitals, once it has all of it: without the end of the request there is no answer.
    pub fn shouting() -> Self {
        Self::start(|mut socket| {
            let mut text = String::new();
            socket.read_to_string(&mut text)?;
            socket.write_all(text.to_uppercase().as_bytes())
        })
    }

    /// Sends without end, and reads nothing.
    pub fn endless() -> Self {
        Self::start(|mut socket| {
            let chunk = vec![7; 64 << 10];
            loop {
                socket.write_all(&chunk)?;
            }
        })
    }

    /// Takes connections and says nothing, until the other end has.
    pub fn silent() -> Self {
        Self::start(|mut socket| io::copy(&mut socket, &mut io::sink()).map(drop))
    }

    /// Answers every HTTP request with this text.
    pub fn http(body: &str) -> Self {
        let answer =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
        Self::start(move |mut socket| {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && socket.read(&mut byte)? == 1 {
                head.push(byte[0]);
            }
            socket.write_all(answer.as_bytes())
        })
    }

    /// Has `answer` answer each HTTP request, a connection each: it is given the head, in lower case, and the body.
    pub fn scripted(
        answer: impl Fn(&str, &[u8], &mut TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::start(move |mut socket| {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && socket.read(&mut byte)? == 1 {
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            let mut body = Vec::new();
            (&socket).take(length.unwrap_or(0)).read_to_end(&mut body)?;
            answer(&head, &body, &mut socket)
        })
    }

    fn start(serve: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let stopped = Arc::new(AtomicBool::new(false));
        let (flag, serve) = (stopped.clone(), Arc::new(serve));
        let thread = std::thread::spawn(move || {
            for socket in listener.incoming() {
                if flag.load(Ordering::Acquire) {
                    return;
                }
                let Ok(socket) = socket else { continue };
                let serve = serve.clone();
                // A client that goes away is no fault of the server's.
                std::thread::spawn(move || drop(serve(socket)));
            }
        });
        Self { port, stopped, thread: Some(thread) }
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Sends `text` and its end to a loopback port, and gives what comes back before the other end.
pub fn shout(port: u16, text: &str) -> io::Result<String> {
    let mut socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.write_all(text.as_bytes())?;
    socket.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(answer)
}
