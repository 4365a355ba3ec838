//! Ports for those who must know theirs before they listen, and keep it through a restart.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the range from which the kernel takes ports for outgoing connections, so that none of those takes a port
/// between this and the listen.
const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

/// A loopback port that nobody listens on. No two calls of one process give the same.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Processes that run side by side begin far apart.
    let begin = (std::process::id() % 200) as u16 * 100;
    loop {
        let port = FIRST + (begin + NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
