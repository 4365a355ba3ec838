//! The connections of a transfer as its threads use them, and the lists that go over the first one.

use std::io::{self, Read};
use std::sync::mpsc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::TransferError;
use super::bridge::{Stream, bridge};
use super::frame::{FrameError, Kind, MAX_PIECE, Reader, Writer};

/// How often a side that only works breaks the silence.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// What a packed manifest becomes at most, so many times as long: hashes do not compress.
const MOST_RATIO: usize = 64;

/// One connection. Its two directions are used by different threads.
pub struct Lane {
    reader: Mutex<Reader>,
    writer: Mutex<Writer>,
}

impl Lane {
    /// To be called within the runtime that drives `stream`.
    pub fn new(stream: Box<dyn Stream>, stop: &CancellationToken) -> Self {
        let (input, output) = bridge(stream, stop);
        Self { reader: Mutex::new(Reader::new(input)), writer: Mutex::new(Writer::new(output)) }
    }

    pub fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reader(&self) -> MutexGuard<'_, Reader> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends one frame, so that it is on its way.
    pub fn say(&self, kind: Kind, payload: &[u8]) -> Result<(), FrameError> {
        let mut writer = self.writer();
        writer.send(kind, payload)?;
        writer.flush()
    }

    pub fn receive(&self, payload: &mut Vec<u8>) -> Result<Kind, FrameError> {
        self.reader().receive(payload)
    }

    /// What the other side said before it went.
    pub fn last_words(&self) -> Option<FrameError> {
        self.reader().last_words()
    }

    /// The next frame, which must be of `kind`.
    pub fn expect(&self, kind: Kind) -> Result<Vec<u8>, FrameError> {
        let mut payload = Vec::new();
        match self.receive(&mut payload)? {
            found if found == kind => Ok(payload),
            _ => Err(FrameError::Malformed("a frame out of turn")),
        }
    }

    /// Sends a list in parts, and that it has ended.
    pub fn send_list(&self, kind: Kind, end: Kind, list: &[u8]) -> Result<(), FrameError> {
        let mut writer = self.writer();
        for part in list.chunks(MAX_PIECE) {
            writer.send(kind, part)?;
        }
        writer.send(end, b"")?;
        writer.flush()
    }

    /// Receives a list of at most `most` bytes.
    pub fn receive_list(&self, kind: Kind, end: Kind, most: usize) -> Result<Vec<u8>, FrameError> {
        let (mut list, mut part) = (Vec::new(), Vec::new());
        loop {
            match self.receive(&mut part)? {
                found if found == kind => list.extend_from_slice(&part),
                found if found == end => return Ok(list),
                _ => return Err(FrameError::Malformed("a frame out of turn")),
            }
            if list.len() > most {
                return Err(FrameError::Malformed("a list longer than it can be"));
            }
        }
    }

    /// Sends bytes compressed.
    pub fn send_packed(&self, kind: Kind, end: Kind, bytes: &[u8], level: i32) -> Result<(), TransferError> {
        let packed = zstd::bulk::compress(bytes, level).map_err(TransferError::Packing)?;
        Ok(self.send_list(kind, end, &packed)?)
    }

    /// Receives what is then exactly, or at most, `most` bytes.
    pub fn receive_packed(&self, kind: Kind, end: Kind, most: usize) -> Result<Vec<u8>, FrameError> {
        // Compression of what does not compress adds a little.
        let packed = self.receive_list(kind, end, most + most / 128 + 1024)?;
        let most = most.min(packed.len().saturating_mul(MOST_RATIO) + MAX_PIECE);
        let mut bytes = Vec::new();
        zstd::stream::read::Decoder::new(io::Cursor::new(packed))
            .and_then(|zstd| zstd.take(most as u64 + 1).read_to_end(&mut bytes))
            .map_err(|_| FrameError::Malformed("something that does not unpack"))?;
        if bytes.len() > most {
            Err(FrameError::Malformed("a list longer than it can be"))
        } else {
            Ok(bytes)
        }
    }
}

/// Breaks the silence on lanes for as long as `work` takes.
pub fn alive<T>(lanes: &[Lane], work: impl FnOnce() -> T) -> T {
    let (done, ended) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            while ended.recv_timeout(SIGN_OF_LIFE) == Err(mpsc::RecvTimeoutError::Timeout) {
                for lane in lanes {
                    // Whoever holds the writer is speaking.
                    if let Ok(mut writer) = lane.writer.try_lock() {
                        let _ = writer.send(Kind::Working, b"").and_then(|()| writer.flush());
                    }
                }
            }
        });
        let result = work();
        drop(done);
        result
    })
}

/// One bit each, in the order of their numbers.
#[derive(Debug, Clone, Default)]
pub struct Bits(pub Vec<u8>);

impl Bits {
    pub fn zeros(count: usize) -> Self {
        Self(vec![0; count.div_ceil(8)])
    }

    pub fn set(&mut self, at: usize) {
        if let Some(byte) = self.0.get_mut(at / 8) {
            *byte |= 1 << (at % 8);
        }
    }

    pub fn get(&self, at: usize) -> bool {
        self.0.get(at / 8).is_some_and(|byte| byte & (1 << (at % 8)) != 0)
    }
}
