//! A connection as the blocking halves of a transfer use it: plain reads and writes, with a limit on silence and a way
//! to stop.
//!
//! Reading disks, hashing and compressing block; done on a thread of their own they read best as straight code.

use std::io::{self, Read, Write};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// Longest silence of the other side. It speaks at least every few seconds, also when it only works.
pub const MAX_SILENCE: Duration = Duration::from_secs(60);

/// Anything that bytes go through both ways.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A stream, a runtime to wait on it, and what ends the wait.
pub struct Bridge {
    stream: Box<dyn Stream>,
    runtime: Handle,
    stop: CancellationToken,
    silence: Duration,
}

impl Bridge {
    /// To be called within the runtime that drives `stream`; to be used from a blocking thread.
    pub fn new(stream: Box<dyn Stream>, stop: CancellationToken) -> Self {
        Self { stream, runtime: Handle::current(), stop, silence: MAX_SILENCE }
    }

    pub fn stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    fn wait<T>(
        runtime: &Handle,
        stop: &CancellationToken,
        silence: Duration,
        work: impl Future<Output = io::Result<T>>,
    ) -> io::Result<T> {
        runtime.block_on(async {
            tokio::select! {
                done = tokio::time::timeout(silence, work) => done.unwrap_or_else(|_| {
                    let message = format!("the other side said nothing for {} s", silence.as_secs());
                    Err(io::Error::new(io::ErrorKind::TimedOut, message))
                }),
                () = stop.cancelled() => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "stopped")),
            }
        })
    }
}

impl Read for Bridge {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        Self::wait(&self.runtime, &self.stop, self.silence, self.stream.read(into))
    }
}

impl Write for Bridge {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        Self::wait(&self.runtime, &self.stop, self.silence, self.stream.write(from))
    }

    fn flush(&mut self) -> io::Result<()> {
        Self::wait(&self.runtime, &self.stop, self.silence, self.stream.flush())
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // A polite end; the other side has all it needs by now, or never will.
        let _ = Self::wait(&self.runtime, &self.stop, Duration::from_secs(2), self.stream.shutdown());
    }
}
