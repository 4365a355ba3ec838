//! The unix socket, for the administrator of this machine: mode 0600, and only for root and the agent's own user.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::{Api, PAUSE};
use crate::api::request::Connection;
use crate::sockets::{Lease, Sockets};

/// Most connections at a time: of Consul's clients each query that waits has its own.
const MAX_CONNECTIONS: usize = 2048;

/// Why the socket could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("another agent is listening on {}", .0.display())]
    InUse(PathBuf),
    #[error("{} is there and is no socket", .0.display())]
    NotASocket(PathBuf),
    #[error("the path {} is too long for a socket (at most 107 bytes)", .0.display())]
    TooLong(PathBuf),
    #[error("the socket {} cannot be made: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// The socket, listened on. (Its lease goes first when it is dropped, as leases ask for.)
#[derive(Debug)]
pub struct Bound {
    pub lease: Lease,
    pub listener: StdListener,
}

/// Listens on `path`, with what an earlier run left to us if there is such a thing. Otherwise a socket left behind by an agent that is gone is replaced, one that answers never. It is made
/// under another name and moved into place once its mode is right, so there is no moment at which others could connect.
pub fn bind(sockets: &Arc<Sockets>, path: &Path) -> Result<Bound, SocketError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::InvalidInput => SocketError::TooLong(path.to_owned()),
        _ => SocketError::Io { path: path.to_owned(), source },
    };
    if let Some((listener, lease)) = sockets.take_unix(path) {
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)?;
        return Ok(Bound { lease, listener });
    }
    match StdStream::connect(path) {
        Ok(_) => return Err(SocketError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            use std::os::unix::fs::FileTypeExt as _;
            let found = fs::symlink_metadata(path).map_err(failed)?;
            if !found.file_type().is_socket() {
                return Err(SocketError::NotASocket(path.to_owned()));
            }
        }
        Err(error) => return Err(failed(error)),
    }
    // No longer than `unix.socket`, so that it fits wherever that does.
    let making = path.with_file_name(".unix.new");
    match fs::remove_file(&making) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = StdListener::bind(&making).map_err(failed)?;
    fs::set_permissions(&making, Permissions::from_mode(0o600)).map_err(failed)?;
    fs::rename(&making, path).map_err(failed)?;
    let lease = sockets.keep_unix(path, &listener);
    Ok(Bound { lease, listener })
}

pub(super) async fn accept(api: Api, listener: &UnixListener) {
    let ending = api.tasks().ending();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ending.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                    tracing::warn!("too many connections on the socket; one was dropped");
                    continue;
                };
                let Some(uid) = administrator(&stream) else { continue };
                let serving = api.clone();
                api.tasks().spawn("connection", async move {
                    serving.serve(stream, Connection::Local { uid }, None).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::error!(%error, "connections on the socket cannot be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// The user at the other end, if it may be there at all.
fn administrator(stream: &UnixStream) -> Option<u32> {
    match stream.peer_cred() {
        Ok(credentials) => {
            let uid = credentials.uid();
            if uid == 0 || uid == rustix::process::geteuid().as_raw() {
                return Some(uid);
            }
            tracing::warn!(uid, "a connection on the socket was refused");
        }
        Err(error) => tracing::error!(%error, "nobody knows who is at the other end of the socket"),
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("unix.socket");
        let sockets = Sockets::alone();
        let first = bind(&sockets, &path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(bind(&sockets, &path), Err(SocketError::InUse(_))));
        drop(first);
        drop(bind(&sockets, &path).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);

        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&sockets, &path), Err(SocketError::NotASocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        let long = dir.path().join("x".repeat(120)).join("unix.socket");
        assert!(matches!(bind(&sockets, &long), Err(SocketError::TooLong(_))));
    }
}
