//! Frames: a length of four bytes, big end first, and that much JSON.

use std::io;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::wire::link::MAX_FRAME;

/// How long a header, an answer or a greeting may take.
pub const FRAME_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads one frame. A peer that sends nothing, too much or nonsense gives an error.
pub async fn read<T: DeserializeOwned>(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<T> {
    let frame = async {
        let length = stream.read_u32().await? as usize;
        if length > MAX_FRAME {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the frame is too large"));
        }
        let mut frame = vec![0; length];
        stream.read_exact(&mut frame).await?;
        serde_json::from_slice(&frame)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the frame makes no sense"))
    };
    tokio::time::timeout(FRAME_TIMEOUT, frame).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

/// Writes one frame and flushes it.
pub async fn write(stream: &mut (impl AsyncWrite + Unpin), content: &impl Serialize) -> io::Result<()> {
    let json = serde_json::to_vec(content)?;
    let length = u32::try_from(json.len()).ok().filter(|_| json.len() <= MAX_FRAME);
    let length =
        length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the frame is too large"))?;
    let mut frame = Vec::with_capacity(4 + json.len());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&json);
    let write = async {
        stream.write_all(&frame).await?;
        stream.flush().await
    };
    tokio::time::timeout(FRAME_TIMEOUT, write).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}
