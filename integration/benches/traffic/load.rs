//! wrk and iperf3, as Debian builds them, and one request by hand.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use integration::{LIMIT, free_port, wait_for};
use serde_json::Value;

use super::contender::Process;
use super::origin::ANSWER;

/// Connections that requests are sent over at once.
pub const CONNECTIONS: usize = 64;

pub const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: app\r\n\r\n";

/// Times that iperf3 is run anew when it says that its server still has another guest.
const TRIES: usize = 5;

/// One request and its answer.
pub fn once(socket: &mut TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.write_all(REQUEST)?;
    // What carries HTTP adds lines of its own.
    let mut answer = Vec::with_capacity(512);
    let mut part = [0; 512];
    while !answer.ends_with(&ANSWER[ANSWER.len() - 14..]) {
        match socket.read(&mut part)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => answer.extend_from_slice(&part[..length]),
        }
    }
    Ok(())
}

/// What a load came to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Done {
    /// A second: requests, connections, or Gbit.
    pub rate: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub errors: f64,
    /// All that was carried: requests, connections, or GB.
    pub amount: f64,
}

/// Whether connections are kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Connections {
    Kept,
    New,
}

/// Asks as often as answers come.
pub fn wrk(port: u16, connections: Connections, time: Duration) -> Done {
    let mut command = Command::new("wrk");
    command.args(["-t1", "--latency", "-c", &CONNECTIONS.to_string(), "-d", &format!("{}s", time.as_secs())]);
    if connections == Connections::New {
        command.args(["-H", "Connection: close"]);
    }
    let output = command.arg(format!("http://127.0.0.1:{port}/")).output();
    let output = output.expect("wrk is installed by integration/bench");
    let text = String::from_utf8_lossy(&output.stdout);
    let after = |prefix: &str| text.lines().find_map(|line| line.trim().strip_prefix(prefix));
    // "Socket errors: connect 0, read 0, write 0, timeout 0", which is not there if there were none.
    let numbers =
        |line: &str| line.split([' ', ',']).filter_map(|word| word.parse::<f64>().ok()).sum::<f64>();
    let errors = after("Socket errors:").map_or(0.0, numbers)
        + after("Non-2xx or 3xx responses:").map_or(0.0, numbers);
    if let Some(line) = after("Socket errors:").or_else(|| after("Non-2xx or 3xx responses:")) {
        eprintln!("traffic: wrk: {line}");
    }
    let amount = text
        .lines()
        .find_map(|line| line.trim().split_once(" requests in ")?.0.parse::<f64>().ok())
        .unwrap_or(0.0);
    Done {
        rate: after("Requests/sec:").and_then(|rest| rest.trim().parse().ok()).unwrap_or(0.0),
        p50_ms: after("50%").and_then(milliseconds).unwrap_or(f64::NAN),
        p99_ms: after("99%").and_then(milliseconds).unwrap_or(f64::NAN),
        errors,
        amount,
    }
}

/// As wrk writes times: `420.00us`, `1.23ms`, `2.00s`.
fn milliseconds(text: &str) -> Option<f64> {
    let text = text.trim();
    let units = [("us", 0.001), ("ms", 1.0), ("s", 1000.0), ("m", 60_000.0)];
    units.iter().find_map(|(unit, factor)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * factor))
}

/// iperf3's server.
pub struct Receiver {
    port: u16,
    _process: Process,
}

impl Receiver {
    pub fn start() -> Self {
        let port = free_port();
        let process = Process::start(
            Command::new("iperf3")
                .args(["-s", "-B", "127.0.0.1", "-p", &port.to_string()])
                .stderr(Stdio::null()),
        );
        // Asked of the kernel: it would take a connection for a guest.
        let hex = format!("0100007F:{port:04X} 00000000:0000 0A");
        wait_for("iperf3 listens", LIMIT, || {
            std::fs::read_to_string("/proc/net/tcp").ok()?.contains(&hex).then_some(())
        });
        Self { port, _process: process }
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

/// The direction in which bytes go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    ToApp,
}

/// Sends as much as goes through, over so many connections.
pub fn iperf(port: u16, streams: usize, direction: Direction, time: Duration) -> Done {
    let mut done = Done::default();
    for _ in 0..TRIES {
        let mut command = Command::new("iperf3");
        command.args(["-J", "-c", "127.0.0.1", "-p", &port.to_string(), "-P", &streams.to_string()]);
        command.args(["-t", &time.as_secs().to_string()]);
        if direction == Direction::ToApp {
            command.arg("-R");
        }
        let output = command.output().expect("iperf3 is installed by integration/bench");
        let said: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        let received = &said["end"]["sum_received"];
        if let (Some(rate), Some(bytes)) = (received["bits_per_second"].as_f64(), received["bytes"].as_f64())
        {
            done.rate = rate / 1e9;
            done.amount = bytes / 1e9;
            return done;
        }
        let error = said["error"].as_str().unwrap_or_default();
        eprintln!("traffic: iperf3: {error}");
        // Its server may not have heard yet that the guest before this one has left.
        if !error.contains("busy") {
            done.errors += 1.0;
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    done
}
