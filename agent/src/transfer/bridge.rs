//! A connection as the blocking halves of a transfer use it: plain reads and writes, with a limit on silence and a way
//! to stop.
//!
//! Reading disks, hashing and compressing block; done on threads of their own they read best as straight code.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// Longest silence of the other side. It speaks at least every few seconds, also when it only works.
pub const MAX_SILENCE: Duration = Duration::from_secs(60);

/// Anything that bytes go through both ways.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// What waits for a connection, and what ends the wait.
#[derive(Clone)]
struct Patience {
    runtime: Handle,
    stop: CancellationToken,
    /// When whatever is being said must have been said, however busily it drips.
    deadline: Option<Instant>,
}

impl Patience {
    fn wait<T>(&self, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let left = self.deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let limit = left.map_or(MAX_SILENCE, |left| left.min(MAX_SILENCE));
        self.runtime.block_on(async {
            tokio::select! {
                // First of all: the runtime, and its clock, may be on their way out.
                biased;
                () = self.stop.cancelled() => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "stopped")),
                done = tokio::time::timeout(limit, work) => done.unwrap_or_else(|_| {
                    let message = match left {
                        Some(left) if left < MAX_SILENCE => "the other side makes no progress".to_owned(),
                        _ => format!("the other side said nothing for {} s", MAX_SILENCE.as_secs()),
                    };
                    Err(io::Error::new(io::ErrorKind::TimedOut, message))
                }),
            }
        })
    }
}

/// What arrives.
pub struct Input {
    stream: ReadHalf<Box<dyn Stream>>,
    patience: Patience,
}

/// What is sent. Dropped, it says so to the other side.
pub struct Output {
    stream: WriteHalf<Box<dyn Stream>>,
    patience: Patience,
}

/// Both halves of a connection. To be called within the runtime that drives `stream`; to be used from blocking threads.
pub fn bridge(stream: Box<dyn Stream>, stop: &CancellationToken) -> (Input, Output) {
    let patience = Patience { runtime: Handle::current(), stop: stop.clone(), deadline: None };
    let (input, output) = tokio::io::split(stream);
    (Input { stream: input, patience: patience.clone() }, Output { stream: output, patience })
}

impl Input {
    /// Sets when what is being read must have come.
    pub fn until(&mut self, deadline: Option<Instant>) {
        self.patience.deadline = deadline;
    }
}

impl Read for Input {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.patience.wait(self.stream.read(into))
    }
}

impl Write for Output {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.patience.wait(self.stream.write(from))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.patience.wait(self.stream.flush())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.patience.stop.is_cancelled() {
            return;
        }
        // A polite end; the other side has all it needs by now, or never will.
        let stream = &mut self.stream;
        let _ = self
            .patience
            .runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(2), stream.shutdown()).await });
    }
}
