//! Between requests, which wait without a thread, and archives, which are read and written by one.

use std::fs::File;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::{Buf, Bytes};
use futures::{Stream, StreamExt as _};
use tokio::sync::mpsc;
use tokio_util::io::ReaderStream;
use tokio_util::sync::CancellationToken;

/// Parts of a body that wait to be read.
const WAITING: usize = 16;
/// So much of a body is still taken after it was refused, so that its sender gets to read why.
const DRAINED: usize = 256 * 1024 * 1024;
/// How often progress is told.
const TELLING: Duration = Duration::from_millis(500);

/// A file, as the body of an answer.
pub fn of_file(file: File) -> impl Stream<Item = io::Result<Bytes>> {
    ReaderStream::with_capacity(tokio::fs::File::from_std(file), 256 * 1024)
}

/// A body, to be read by a thread.
pub struct BodyReader {
    parts: mpsc::Receiver<io::Result<Bytes>>,
    part: Bytes,
}

/// Passes a body on to a thread, until it has ended or nobody reads it any more.
pub fn reader_of(body: Body) -> (BodyReader, impl Future<Output = ()>) {
    let (sender, parts) = mpsc::channel(WAITING);
    let passing = async move {
        let mut stream = body.into_data_stream();
        let mut after = 0;
        while let Some(part) = stream.next().await {
            let part = part.map_err(io::Error::other);
            let (length, last) = (part.as_ref().map_or(0, Bytes::len), part.is_err());
            if sender.send(part).await.is_err() {
                after += length;
            }
            if last || after > DRAINED {
                return;
            }
        }
    };
    (BodyReader { parts, part: Bytes::new() }, passing)
}

impl Read for BodyReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.part.is_empty() {
            match self.parts.blocking_recv() {
                Some(part) => self.part = part?,
                None => return Ok(0),
            }
        }
        let n = into.len().min(self.part.len());
        self.part.copy_to_slice(&mut into[..n]);
        Ok(n)
    }
}

/// Writes to a file, tells how much, and stops when it is asked to.
pub struct Watched<F> {
    file: File,
    stop: CancellationToken,
    written: u64,
    told: Instant,
    tell: F,
}

impl<F: FnMut(u64)> Watched<F> {
    pub fn new(file: File, stop: CancellationToken, tell: F) -> Self {
        Self { file, stop, written: 0, told: Instant::now(), tell }
    }

    pub fn into_file(self) -> File {
        self.file
    }
}

impl<F: FnMut(u64)> Write for Watched<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.stop.is_cancelled() {
            return Err(io::Error::other("stopped"));
        }
        let n = self.file.write(bytes)?;
        self.written += n as u64;
        if self.told.elapsed() > TELLING {
            self.told = Instant::now();
            (self.tell)(self.written);
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
