//! Requests that are sent when they are due, whether or not the ones before them were answered, as users do.
//!
//! Each of 64 connections has every 64th of them. What is due while an answer is awaited is sent right after it, and
//! its time counts from when it was due: whoever stalls is charged for all who waited.

use std::io::{self, Read as _, Write as _};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use integration::measure::percentile;

use super::load::{CONNECTIONS, Done, REQUEST};
use super::origin::ANSWER;

/// The longest that is slept between two looks at the clock and the sockets. Less than any time that is of interest;
/// more would add itself to what is measured.
const LOOK: Duration = Duration::from_micros(20);
/// How long answers are waited for after the last request was due.
const LATE: Duration = Duration::from_secs(2);

struct Connection {
    socket: TcpStream,
    /// When the request that is being answered was due.
    asked: Option<Instant>,
    /// When the next one is.
    due: Instant,
    /// Bytes of the answer that have come.
    come: usize,
    broken: bool,
}

/// Asks `rate` times a second for `time`.
pub fn run(port: u16, rate: f64, time: Duration) -> Done {
    ask(port, rate, time).expect("sockets of this process work")
}

fn ask(port: u16, rate: f64, time: Duration) -> io::Result<Done> {
    let mut poll = Poll::new()?;
    let each = Duration::from_secs_f64(f64::from(u32::try_from(CONNECTIONS).unwrap_or(u32::MAX)) / rate);
    let begin = Instant::now() + Duration::from_millis(200);
    let mut connections = Vec::with_capacity(CONNECTIONS);
    for place in 0..CONNECTIONS {
        let socket = std::net::TcpStream::connect(("127.0.0.1", port))?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let mut socket = TcpStream::from_std(socket);
        poll.registry().register(&mut socket, Token(place), Interest::READABLE)?;
        let offset = Duration::from_secs_f64(f64::from(u32::try_from(place).unwrap_or(0)) / rate);
        connections.push(Connection { socket, asked: None, due: begin + offset, come: 0, broken: false });
    }
    let (end, mut events) = (begin + time, Events::with_capacity(CONNECTIONS));
    let mut times: Vec<f64> = Vec::new();
    loop {
        let now = Instant::now();
        let mut is_waiting = false;
        for connection in &mut connections {
            connection.send(now, end, each);
            is_waiting |= !connection.broken && (connection.asked.is_some() || connection.due < end);
        }
        if !is_waiting || now > end + LATE {
            break;
        }
        poll.poll(&mut events, Some(Duration::ZERO))?;
        for event in &events {
            connections[event.token().0].receive(&mut times);
        }
        if events.is_empty() {
            std::thread::sleep(LOOK);
        }
    }
    // Those never answered, and those never sent since their connection broke.
    let errors = connections.iter().filter(|one| one.broken || one.asked.is_some()).count();
    let count = f64::from(u32::try_from(times.len()).unwrap_or(u32::MAX));
    Ok(Done {
        rate: count / time.as_secs_f64(),
        p50_ms: percentile(times.iter().copied(), 50),
        p99_ms: percentile(times.iter().copied(), 99),
        errors: f64::from(u32::try_from(errors).unwrap_or(u32::MAX)),
        amount: count,
    })
}

impl Connection {
    /// Sends the next request, if it is due and the one before it was answered.
    fn send(&mut self, now: Instant, end: Instant, each: Duration) {
        if self.broken || self.asked.is_some() || self.due > now || self.due >= end {
            return;
        }
        // A request always fits in a socket whose reader has answered all that went before.
        self.broken = self.socket.write_all(REQUEST).is_err();
        self.asked = Some(self.due);
        self.due += each;
    }

    fn receive(&mut self, times: &mut Vec<f64>) {
        let mut part = [0; 512];
        loop {
            match self.socket.read(&mut part) {
                Ok(0) => self.broken = true,
                Ok(length) => {
                    self.come += length;
                    if self.come >= ANSWER.len() {
                        self.come -= ANSWER.len();
                        if let Some(asked) = self.asked.take() {
                            times.push(asked.elapsed().as_secs_f64() * 1000.0);
                        }
                    }
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => self.broken = true,
            }
            return;
        }
    }
}
