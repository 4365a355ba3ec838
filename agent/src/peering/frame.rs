//! Frames on a Sync stream: four bytes of length, big-endian, then JSON.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::wire::sync::{MAX_FRAME, SyncFrame};

/// How long the peer may take to make room for a frame. A peer that reads nothing for so long is not there.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// Why a frame could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("the peer ended the stream")]
    Ended,
    #[error("the peer sent a frame of {0} bytes; at most {MAX_FRAME} are taken")]
    TooLarge(usize),
    #[error("the peer sent what is not a sync frame")]
    Malformed,
    #[error("the stream broke: {0}")]
    Io(#[from] io::Error),
}

pub async fn write(stream: &mut (impl AsyncWrite + Unpin), frame: &SyncFrame) -> io::Result<()> {
    let json = serde_json::to_vec(frame)?;
    let length = u32::try_from(json.len())
        .ok()
        .filter(|_| json.len() <= MAX_FRAME)
        .ok_or_else(|| io::Error::other("a sync frame grew too large"))?;
    let mut bytes = Vec::with_capacity(4 + json.len());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&json);
    let written = async {
        stream.write_all(&bytes).await?;
        stream.flush().await
    };
    tokio::time::timeout(WRITE_LIMIT, written).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// The next frame. Not to be dropped half way unless the stream is given up.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<SyncFrame, FrameError> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(FrameError::Ended),
        Err(error) => return Err(error.into()),
    }
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > MAX_FRAME {
        return Err(FrameError::TooLarge(length));
    }
    let mut json = vec![0; length];
    stream.read_exact(&mut json).await?;
    serde_json::from_slice(&json).map_err(|_| FrameError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_survive_and_nonsense_is_named() {
        let (mut ours, mut theirs) = tokio::io::duplex(1024);
        write(&mut ours, &SyncFrame::End { cursor: 7 }).await.unwrap();
        assert_eq!(read(&mut theirs).await.unwrap(), SyncFrame::End { cursor: 7 });

        ours.write_all(&3_u32.to_be_bytes()).await.unwrap();
        ours.write_all(b"{}!").await.unwrap();
        assert!(matches!(read(&mut theirs).await, Err(FrameError::Malformed)));

        ours.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
        assert!(matches!(read(&mut theirs).await, Err(FrameError::TooLarge(_))));
        drop(ours);
        assert!(matches!(read(&mut theirs).await, Err(FrameError::Ended)));
    }
}
