//! A service manager as systemd is one: hands listening sockets to an agent that it starts, keeps those that the agent
//! gives it, and listens to what it says.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use command_fds::{CommandFdExt as _, FdMapping};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tempfile::TempDir;

/// What ends the thread that listens.
const END: &[u8] = b"END";
/// The first descriptor that is handed in.
const FIRST: i32 = 3;

/// Keeps sockets for one agent, through all its restarts.
#[derive(Debug)]
pub struct Manager {
    folder: TempDir,
    kept: Arc<Mutex<Kept>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Bound here, as by a socket unit.
    own: Vec<(String, OwnedFd)>,
    /// Given by the agent to keep.
    stored: Vec<(String, OwnedFd)>,
    said: Vec<String>,
}

impl Default for Manager {
    fn default() -> Self {
        Self::start()
    }
}

impl Manager {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let socket = UnixDatagram::bind(folder.path().join("notify")).expect("a socket");
        let kept: Arc<Mutex<Kept>> = Arc::default();
        let shared = kept.clone();
        let thread = std::thread::spawn(move || while hear(&socket, &shared) {});
        Self { folder, kept, thread: Some(thread) }
    }

    /// Listens on `address` itself, as a socket unit of that name.
    pub fn bind(&self, name: &str, address: &str) {
        let listener = TcpListener::bind(address).expect("the address is free");
        locked(&self.kept).own.push((name.to_owned(), listener.into()));
    }

    /// Has a socket of that name in the store, as if an agent had given it.
    pub fn store(&self, name: &str, listener: TcpListener) {
        locked(&self.kept).stored.push((name.to_owned(), listener.into()));
    }

    /// The names of what the agent has given to keep.
    pub fn stored(&self) -> Vec<String> {
        locked(&self.kept).stored.iter().map(|(name, _)| name.clone()).collect()
    }

    /// How often the agent has said this line.
    pub fn heard(&self, line: &str) -> usize {
        locked(&self.kept).said.iter().filter(|said| *said == line).count()
    }

    /// Has `command` start with all sockets. It must be one that ends in `exec`ing the agent, with `LISTEN_PID` set to
    /// its own process: that is not known before there is one.
    pub(crate) fn hand_to(&self, command: &mut Command) {
        let kept = locked(&self.kept);
        let all: Vec<_> = kept.own.iter().chain(&kept.stored).collect();
        let mappings = all.iter().zip(FIRST..).map(|((_, socket), child_fd)| FdMapping {
            parent_fd: socket.try_clone().expect("a second handle"),
            child_fd,
        });
        command.fd_mappings(mappings.collect()).expect("no descriptor twice");
        let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
        command
            .env("LISTEN_FDS", all.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"))
            .env("NOTIFY_SOCKET", self.folder.path().join("notify"))
            .env("WATCHDOG_USEC", "1000000")
            .env_remove("WATCHDOG_PID");
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let told = UnixDatagram::unbound().and_then(|socket| {
            socket.connect(self.folder.path().join("notify"))?;
            socket.send(END)
        });
        if told.is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

/// Takes one message; false once it is the last.
fn hear(socket: &UnixDatagram, kept: &Mutex<Kept>) -> bool {
    let mut text = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut text)], &mut control, flags);
    let bytes = received.expect("a message").bytes;
    let mut sockets: Vec<OwnedFd> = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            sockets.extend(passed);
        }
    }
    if &text[..bytes] == END {
        return false;
    }
    let text = String::from_utf8_lossy(&text[..bytes]).into_owned();
    let named = text.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or("stored").to_owned();
    let mut kept = locked(kept);
    for line in text.lines() {
        match line {
            "FDSTORE=1" => kept.stored.extend(sockets.drain(..).map(|socket| (named.clone(), socket))),
            "FDSTOREREMOVE=1" => kept.stored.retain(|(name, _)| *name != named),
            _ => {}
        }
        kept.said.push(line.to_owned());
    }
    true
}

fn locked(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().expect("nobody panics with it")
}
