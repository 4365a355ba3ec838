//! Listening sockets that outlive the process that listens.
//!
//! Who manages the agent (systemd, or whoever speaks as it does) may bind sockets itself and hand them in, and keeps for
//! us those that we bind: they come back at the next start. Clients that connect between two runs wait in the socket's
//! queue meanwhile, so a restart refuses nobody. Whichever listener wants an address asks here first; what nobody has
//! asked for is closed once the agent runs, and what is not listened on any more is given back.

mod manager;

use std::env;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use listenfd::ListenFd;
use rustix::net::sockopt::socket_acceptconn;
use socket2::{Domain, Protocol, Socket, Type};

pub use manager::Manager;

/// Connections that wait to be accepted: many, since all that come during a restart do. (The system may allow fewer.)
const BACKLOG: i32 = 4096;

/// The sockets that came from an earlier run or from the manager, and where ours are kept.
#[derive(Debug)]
pub struct Sockets {
    inherited: Mutex<Vec<Inherited>>,
    manager: Manager,
    /// Once the agent ends, what is closed here is not given back: the next run has it.
    leaving: AtomicBool,
}

#[derive(Debug)]
struct Inherited {
    /// What the manager calls it.
    name: String,
    listener: Listener,
}

#[derive(Debug)]
enum Listener {
    Tcp(SocketAddr, TcpListener),
    /// The path that it was bound to; it may have been moved since.
    Unix(PathBuf, UnixListener),
}

/// A listener's claim on the manager's copy of its socket. Dropping it gives the copy back, so that the address is free,
/// unless the agent is ending. It must be dropped before the listener is, or at the same time.
#[derive(Debug)]
#[must_use = "the manager's copy is given back when this is dropped"]
pub struct Lease {
    sockets: Arc<Sockets>,
    /// `None` where there is no copy that is ours to give back.
    name: Option<String>,
}

impl Sockets {
    /// Takes what was handed in. To be called once, before there are other threads: it changes the environment.
    pub fn from_environment() -> Arc<Self> {
        Self::new(handed_in(), Manager::from_environment())
    }

    /// Nothing handed in, and nobody who keeps anything.
    pub fn alone() -> Arc<Self> {
        Self::new(Vec::new(), Manager::Absent)
    }

    fn new(inherited: Vec<Inherited>, manager: Manager) -> Arc<Self> {
        Arc::new(Self { inherited: Mutex::new(inherited), manager, leaving: AtomicBool::new(false) })
    }

    pub fn manager(&self) -> &Manager {
        &self.manager
    }

    /// The agent ends: what is closed from now on stays with the manager.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
    }

    /// Whether a socket that is closed now goes on living: what stands for it in the file system must stay, too.
    pub fn outlive(&self) -> bool {
        self.manager.is_there() && self.leaving.load(Ordering::Acquire)
    }

    /// The socket that listens on `address` and was handed in.
    pub fn take_tcp(self: &Arc<Self>, address: SocketAddr) -> Option<(TcpListener, Lease)> {
        let taken = self.take(|listener| matches!(listener, Listener::Tcp(bound, _) if *bound == address))?;
        match taken.listener {
            Listener::Tcp(_, listener) => Some((listener, self.claim(taken.name, &tcp_name(address)))),
            Listener::Unix(..) => None,
        }
    }

    /// The socket that listens on `path` and was handed in.
    pub fn take_unix(self: &Arc<Self>, path: &Path) -> Option<(UnixListener, Lease)> {
        let name = unix_name(path);
        let mut inherited = self.lock();
        let found = inherited.iter().position(|socket| match &socket.listener {
            // By its name, too: one of ours may have been moved into place after it was bound.
            Listener::Unix(bound, _) => bound == path || socket.name == name,
            Listener::Tcp(..) => false,
        })?;
        let taken = inherited.swap_remove(found);
        drop(inherited);
        let lease = self.claim(taken.name, &name);
        match taken.listener {
            // Without its file nobody finds it.
            Listener::Unix(_, listener) if is_socket(path) => Some((listener, lease)),
            _ => None,
        }
    }

    /// Has the manager keep a copy of a socket that was bound here.
    pub fn keep_tcp(self: &Arc<Self>, address: SocketAddr, listener: &TcpListener) -> Lease {
        self.keep(tcp_name(address), listener)
    }

    /// The same for a unix socket, by the path at which it is found.
    pub fn keep_unix(self: &Arc<Self>, path: &Path, listener: &UnixListener) -> Lease {
        self.keep(unix_name(path), listener)
    }

    /// Listens on `address` with what was handed in, or else with a new socket. Inherited ones that nobody has asked for
    /// make room. The listener does not block.
    pub fn listen_tcp(self: &Arc<Self>, address: SocketAddr) -> io::Result<(TcpListener, Lease)> {
        if let Some((listener, lease)) = self.take_tcp(address) {
            listener.set_nonblocking(true)?;
            return Ok((listener, lease));
        }
        let opened = match open(address, BACKLOG) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && self.make_room(address) => {
                open(address, BACKLOG)
            }
            opened => opened,
        }?;
        // The port is known only now where the system was to choose it.
        let bound = opened.local_addr().unwrap_or(address);
        let lease = self.keep_tcp(bound, &opened);
        Ok((opened, lease))
    }

    /// Closes what was handed in and nobody has asked for.
    pub fn close_unclaimed(&self) {
        let unclaimed = std::mem::take(&mut *self.lock());
        for socket in unclaimed {
            tracing::warn!(socket = %socket, "nothing listens on a socket that was handed in; it is closed");
            self.manager.give_back(&socket.name);
        }
    }

    /// Closes unclaimed sockets in the way of `address`: the same port on every address, or the other way around.
    fn make_room(&self, address: SocketAddr) -> bool {
        let in_the_way = |listener: &Listener| match listener {
            Listener::Tcp(bound, _) => {
                bound.port() == address.port()
                    && (bound.ip().is_unspecified() || address.ip().is_unspecified())
            }
            Listener::Unix(..) => false,
        };
        let mut made = false;
        while let Some(socket) = self.take(in_the_way) {
            tracing::info!(socket = %socket, %address, "a socket that was handed in makes room for another");
            self.manager.give_back(&socket.name);
            made = true;
        }
        made
    }

    fn take(&self, wanted: impl Fn(&Listener) -> bool) -> Option<Inherited> {
        let mut inherited = self.lock();
        let found = inherited.iter().position(|socket| wanted(&socket.listener))?;
        Some(inherited.swap_remove(found))
    }

    /// What a socket unit passes stays that unit's, whatever becomes of us; what we had kept is ours to give back.
    fn claim(self: &Arc<Self>, called: String, ours: &str) -> Lease {
        Lease { sockets: self.clone(), name: (called == ours).then_some(called) }
    }

    fn keep(self: &Arc<Self>, name: String, socket: impl AsFd) -> Lease {
        let kept = self.manager.keep(&name, socket.as_fd());
        Lease { sockets: self.clone(), name: kept.then_some(name) }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Inherited>> {
        // Whole between statements, so a panic elsewhere leaves nothing half done.
        self.inherited.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(name) = &self.name
            && !self.sockets.leaving.load(Ordering::Acquire)
        {
            self.sockets.manager.give_back(name);
        }
    }
}

impl fmt::Display for Inherited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.listener {
            Listener::Tcp(address, _) => write!(f, "{address}")?,
            Listener::Unix(path, _) => write!(f, "{}", path.display())?,
        }
        write!(f, " ({})", self.name)
    }
}

/// The listeners that the environment names, if it was meant for this process.
fn handed_in() -> Vec<Inherited> {
    // A variable that some other process's environment has left over names descriptors that are something else here.
    let ours = env::var("LISTEN_PID").is_ok_and(|pid| pid.parse() == Ok(std::process::id()));
    if !ours {
        return Vec::new();
    }
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut sockets = ListenFd::from_env();
    let mut taken = Vec::new();
    for index in 0..sockets.len() {
        let name = names.next().unwrap_or_default().to_owned();
        match listener(&mut sockets, index) {
            Ok(listener) => taken.push(Inherited { name, listener }),
            Err(reason) => tracing::warn!(name, %reason, "what was handed in is of no use here"),
        }
    }
    taken
}

fn listener(sockets: &mut ListenFd, index: usize) -> io::Result<Listener> {
    let unfit = || io::Error::other("it is no listening TCP or unix socket");
    // Whether it listens is asked of the socket, since both kinds may be connections.
    if let Ok(Some(listener)) = sockets.take_tcp_listener(index) {
        return if socket_acceptconn(&listener)? {
            Ok(Listener::Tcp(listener.local_addr()?, listener))
        } else {
            Err(unfit())
        };
    }
    match sockets.take_unix_listener(index) {
        Ok(Some(listener)) if socket_acceptconn(&listener)? => {
            let path = listener.local_addr()?.as_pathname().map(Path::to_owned).unwrap_or_default();
            Ok(Listener::Unix(path, listener))
        }
        _ => Err(unfit()),
    }
}

/// Listens on `address`, where at most `backlog` connections wait to be accepted.
pub fn open(address: SocketAddr, backlog: i32) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // `[::]` takes IPv4 too, whatever this machine's default is.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    Ok(socket.into())
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

/// What the manager is to call a socket. Colons separate names in what it hands in.
fn tcp_name(address: SocketAddr) -> String {
    format!("tcp-{address}").replace(':', ".").replace(['[', ']'], "")
}

/// Paths may be longer than names, and have any character: a hash tells them apart, their end tells people.
fn unix_name(path: &Path) -> String {
    let end: String = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '.' || *c == '-')
        .take(64)
        .collect();
    let hash = blake3::hash(path.as_os_str().as_encoded_bytes()).to_hex();
    format!("unix-{end}-{}", hash.get(..16).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holding(listeners: Vec<(&str, Listener)>) -> Arc<Sockets> {
        let inherited =
            listeners.into_iter().map(|(name, listener)| Inherited { name: name.to_owned(), listener });
        Sockets::new(inherited.collect(), Manager::Absent)
    }

    #[test]
    fn an_address_gets_the_socket_that_was_handed_in_for_it_and_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let sockets = holding(vec![("api.socket", Listener::Tcp(address, listener))]);
        assert!(sockets.take_tcp("127.0.0.1:1".parse().unwrap()).is_none());
        let (taken, lease) = sockets.listen_tcp(address).unwrap();
        assert_eq!(taken.local_addr().unwrap(), address);
        assert!(lease.name.is_none(), "a socket unit's socket is not ours to give back");
        assert!(sockets.take_tcp(address).is_none());
        let refused = sockets.listen_tcp(address).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn what_nobody_wants_makes_room() {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let everywhere = listener.local_addr().unwrap();
        let here: SocketAddr = ([127, 0, 0, 1], everywhere.port()).into();
        let sockets = holding(vec![("old", Listener::Tcp(everywhere, listener))]);
        let (taken, _lease) = sockets.listen_tcp(here).unwrap();
        assert_eq!(taken.local_addr().unwrap(), here);

        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = other.local_addr().unwrap();
        let sockets = holding(vec![("old", Listener::Tcp(address, other))]);
        sockets.close_unclaimed();
        open(address, BACKLOG).unwrap();
    }

    #[test]
    fn a_unix_socket_is_known_by_its_name_after_a_move_and_only_while_its_file_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let (made, path) = (folder.path().join("new"), folder.path().join("app.socket"));
        let listener = UnixListener::bind(&made).unwrap();
        std::fs::rename(&made, &path).unwrap();
        let name = unix_name(&path);
        let handed = |listener| holding(vec![(&name, Listener::Unix(made.clone(), listener))]);
        let sockets = handed(listener);
        let (listener, lease) = sockets.take_unix(&path).unwrap();
        assert_eq!(lease.name.as_deref(), Some(name.as_str()));
        std::fs::remove_file(&path).unwrap();
        assert!(handed(listener).take_unix(&path).is_none());
    }

    #[test]
    fn names_are_such_as_the_manager_takes_and_tell_sockets_apart() {
        assert_eq!(tcp_name("127.0.0.1:9191".parse().unwrap()), "tcp-127.0.0.1.9191");
        let names = [
            tcp_name("[::1]:9191".parse().unwrap()),
            tcp_name("[::]:9191".parse().unwrap()),
            unix_name(Path::new("/run/a/app.socket")),
            unix_name(Path::new("/run/b/app.socket")),
            unix_name(Path::new(&format!("/run/{}", ":\n".repeat(300)))),
        ];
        for (at, name) in names.iter().enumerate() {
            assert!(name.len() < 255 && !name.contains(|c: char| c == ':' || c.is_control()), "{name}");
            assert!(!names[..at].contains(name), "{name}");
        }
    }
}
