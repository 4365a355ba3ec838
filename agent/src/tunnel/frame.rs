//! Frames: a length of four bytes, big end first, and that much JSON.

use std::io;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::wire::link::MAX_FRAME;

/// How long a header, an answer or a greeting may take.
pub const FRAME_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a frame could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("nothing has arrived for {} s", FRAME_TIMEOUT.as_secs())]
    Silent,
    #[error("the stream ended")]
    Ended,
    #[error("a frame of {0} bytes is too large")]
    TooLarge(usize),
    #[error("a frame makes no sense: {0}")]
    Senseless(serde_json::Error),
    #[error("{0}")]
    Io(io::Error),
}

impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Silent => io::ErrorKind::TimedOut.into(),
            ReadError::Ended => io::ErrorKind::UnexpectedEof.into(),
            ReadError::TooLarge(_) => io::Error::new(io::ErrorKind::InvalidData, "the frame is too large"),
            ReadError::Senseless(_) => io::Error::new(io::ErrorKind::InvalidData, "the frame makes no sense"),
            ReadError::Io(error) => error,
        }
    }
}

/// Reads one frame. A peer that sends nothing, too much or nonsense gives an error.
pub async fn read<T: DeserializeOwned>(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<T> {
    Ok(read_within(stream, MAX_FRAME).await?.0)
}

/// Reads one frame of at most `limit` bytes; gives its size, too.
pub async fn read_within<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
    limit: usize,
) -> Result<(T, usize), ReadError> {
    let ended = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => ReadError::Ended,
        _ => ReadError::Io(error),
    };
    let frame = async {
        let length = stream.read_u32().await.map_err(ended)? as usize;
        if length > limit {
            return Err(ReadError::TooLarge(length));
        }
        let mut frame = vec![0; length];
        stream.read_exact(&mut frame).await.map_err(ended)?;
        Ok((serde_json::from_slice(&frame).map_err(ReadError::Senseless)?, length))
    };
    tokio::time::timeout(FRAME_TIMEOUT, frame).await.unwrap_or(Err(ReadError::Silent))
}

/// Writes one frame and flushes it.
pub async fn write(stream: &mut (impl AsyncWrite + Unpin), content: &impl Serialize) -> io::Result<()> {
    write_within(stream, content, MAX_FRAME).await.map(drop)
}

/// Writes one frame of at most `limit` bytes and flushes it; gives its size.
pub async fn write_within(
    stream: &mut (impl AsyncWrite + Unpin),
    content: &impl Serialize,
    limit: usize,
) -> io::Result<usize> {
    // The length goes before what it is the length of.
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, content)?;
    let size = frame.len() - 4;
    let length = u32::try_from(size).ok().filter(|_| size <= limit);
    let length =
        length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the frame is too large"))?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    let write = async {
        stream.write_all(&frame).await?;
        stream.flush().await
    };
    tokio::time::timeout(FRAME_TIMEOUT, write).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))?;
    Ok(size)
}
