//! Taking the local port or unix socket of an upstream.

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::Mode;
use socket2::{Domain, SockAddr, SockRef, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::socket::{Socket, probes};
use crate::sockets::{Lease, Sockets};

/// Time that whoever has the socket has to answer.
const ANSWER: Duration = Duration::from_secs(1);
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// Where an upstream listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Local {
    Port(SocketAddr),
    Socket(PathBuf),
}

impl fmt::Display for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(address) => address.fmt(f),
            Self::Socket(path) => path.display().fmt(f),
        }
    }
}

/// Why an upstream cannot listen now.
#[derive(Debug, thiserror::Error)]
pub(super) enum BindError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the folder {} cannot be used: {source}", folder.display())]
    Folder { folder: PathBuf, source: io::Error },
    #[error("{} is no folder", .0.display())]
    NoFolder(PathBuf),
    #[error(
        "the folder {} may be written by {by}, who could put a socket in place of this one; make it sticky (chmod +t) or take another",
        folder.display()
    )]
    OpenFolder { folder: PathBuf, by: &'static str },
    #[error(
        "the folder {} belongs to user {owner}, who could put a socket in place of this one; give it to root or to the agent's user (chown), or take another",
        folder.display()
    )]
    OthersFolder { folder: PathBuf, owner: u32 },
    #[error("something else is there, which is no socket")]
    NotASocket,
    #[error("somebody listens on it already")]
    InUse,
}

/// A port or socket that is listened on.
#[derive(Debug)]
pub(super) struct Bound {
    // The lease is the first to go, before the listener does.
    _lease: Lease,
    listener: Listener,
}

#[derive(Debug)]
enum Listener {
    Port(TcpListener),
    // The name is the first to go: whoever takes it next does not meet a listener that is about to end.
    Socket { _file: SocketFile, listener: UnixListener },
}

impl Bound {
    pub(super) async fn accept(&self) -> io::Result<(Socket, Option<SocketAddr>)> {
        match &self.listener {
            Listener::Port(listener) => {
                listener.accept().await.map(|(socket, from)| (Socket::from(socket), Some(from)))
            }
            Listener::Socket { listener, .. } => {
                listener.accept().await.map(|(socket, _)| (Socket::from(socket), None))
            }
        }
    }

    /// One that is in the queue by now, asked of the kernel itself.
    pub(super) fn accept_now(&self) -> io::Result<(Socket, Option<SocketAddr>)> {
        match &self.listener {
            Listener::Port(listener) => {
                let (socket, from) = SockRef::from(listener).accept()?;
                socket.set_nonblocking(true)?;
                Ok((TcpStream::from_std(socket.into())?.into(), from.as_socket()))
            }
            Listener::Socket { listener, .. } => {
                let (socket, _) = SockRef::from(listener).accept()?;
                socket.set_nonblocking(true)?;
                Ok((UnixStream::from_std(socket.into())?.into(), None))
            }
        }
    }
}

/// The name of a unix socket, taken away when it is dropped: unless it has become another's.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    is: (u64, u64),
    sockets: Arc<Sockets>,
}

impl SocketFile {
    fn of(path: &Path, sockets: &Arc<Sockets>) -> io::Result<Self> {
        let made = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), is: (made.dev(), made.ino()), sockets: sockets.clone() })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // The next run listens on it, and meanwhile it takes connections.
        if self.sockets.outlive() {
            return;
        }
        if fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.is) {
            // It stays where the folder does not let go of it, and is replaced by the next that listens there.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens, on what an earlier run has left where there is such. `mode` is the socket file's.
pub(super) async fn bind(sockets: &Arc<Sockets>, local: &Local, mode: u32) -> Result<Bound, BindError> {
    match local {
        Local::Port(address) => {
            let (listener, lease) = sockets.listen_tcp(*address)?;
            let socket = SockRef::from(&listener);
            // Small writes must not wait for an app's acknowledgement. What is accepted has it from here.
            socket.set_tcp_nodelay(true)?;
            // So that an app sees a reset also where this process is killed.
            socket.set_linger(Some(Duration::ZERO))?;
            // So that an app that vanished (a frozen machine's in its own network namespace) is found.
            socket.set_tcp_keepalive(&probes())?;
            Ok(Bound { _lease: lease, listener: Listener::Port(TcpListener::from_std(listener)?) })
        }
        Local::Socket(path) => socket(sockets, path, mode).await,
    }
}

async fn socket(sockets: &Arc<Sockets>, path: &Path, mode: u32) -> Result<Bound, BindError> {
    check_folder(path)?;
    let (listener, lease) = if let Some((listener, lease)) = sockets.take_unix(path) {
        listener.set_nonblocking(true)?;
        (listener, lease)
    } else {
        clear(path).await?;
        let listener = make(path, mode)?;
        let lease = sockets.keep_unix(path, &listener);
        (listener, lease)
    };
    let file = SocketFile::of(path, sockets)?;
    if fs::symlink_metadata(path)?.mode() & 0o777 != mode {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    let listener = Listener::Socket { listener: UnixListener::from_std(listener)?, _file: file };
    Ok(Bound { _lease: lease, listener })
}

fn make(path: &Path, mode: u32) -> io::Result<StdListener> {
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM.cloexec().nonblocking(), None)?;
    // The file takes its bits from the socket, less those of the umask: so it is never open to more than it shall be.
    rustix::fs::fchmod(&socket, Mode::from_raw_mode(mode))?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn check_folder(path: &Path) -> Result<(), BindError> {
    // The declaration is checked for an absolute path, which has one.
    let folder = path.parent().unwrap_or(Path::new("/"));
    let found =
        fs::metadata(folder).map_err(|source| BindError::Folder { folder: folder.to_owned(), source })?;
    if !found.is_dir() {
        return Err(BindError::NoFolder(folder.to_owned()));
    }
    may_hold(found.mode(), found.uid(), rustix::process::geteuid().as_raw(), folder)
}

/// Whether nobody but root and this agent can put something else in place of a socket in a folder of this mode.
fn may_hold(mode: u32, owner: u32, me: u32, folder: &Path) -> Result<(), BindError> {
    let folder = || folder.to_owned();
    // Not even in a sticky one is a file safe from the folder's owner.
    if owner != 0 && owner != me {
        return Err(BindError::OthersFolder { folder: folder(), owner });
    }
    if mode & 0o1000 == 0 && mode & 0o022 != 0 {
        let by = if mode & 0o002 == 0 { "its group" } else { "everybody" };
        return Err(BindError::OpenFolder { folder: folder(), by });
    }
    Ok(())
}

/// Takes away a socket that nobody listens on any more, and nothing else.
async fn clear(path: &Path) -> Result<(), BindError> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if !found.file_type().is_socket() {
        return Err(BindError::NotASocket);
    }
    match tokio::time::timeout(ANSWER, UnixStream::connect(path)).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(fs::remove_file(path)?),
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // It answers, or it is too busy to.
        _ => Err(BindError::InUse),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_fit_if_only_root_and_the_agent_can_replace_what_is_in_it() {
        let says = |mode: u32, owner: u32| {
            may_hold(0o040_000 | mode, owner, 7, Path::new("/f")).map_err(|error| error.to_string()).err()
        };
        for (mode, owner) in [(0o755, 0), (0o755, 7), (0o700, 7), (0o1777, 0), (0o1775, 7)] {
            assert_eq!(says(mode, owner), None, "{mode:o} of {owner}");
        }
        for (mode, owner, word) in [
            (0o777, 0, "written by everybody"),
            (0o775, 7, "written by its group"),
            (0o755, 8, "belongs to user 8"),
            (0o1777, 8, "belongs to user 8"),
        ] {
            let said = says(mode, owner).unwrap_or_default();
            assert!(said.contains(word), "{mode:o} of {owner}: {said}");
        }
    }
}
