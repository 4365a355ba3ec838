//! A network between two agents, for a test to cut.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

/// Passes connections on to an address, as long as it is let.
pub struct Proxy {
    port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Both ends of every connection.
    open: Vec<[TcpStream; 2]>,
    is_cut: bool,
    /// How many bytes each of the next connections may carry back, the last of them first.
    limits: Vec<usize>,
    carried: usize,
}

impl Proxy {
    /// Listens on a port of its own and passes what comes on to `target`.
    pub fn to(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = state.clone();
        std::thread::spawn(move || {
            for caller in listener.incoming().flatten() {
                pass(&caller, &target, &shared);
            }
        });
        Self { port, state }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Breaks every connection, and every one that is made from now on.
    pub fn cut(&self) {
        let mut state = locked(&self.state);
        state.is_cut = true;
        for ends in state.open.drain(..) {
            break_off(&ends);
        }
    }

    /// Passes connections on again: the first few only until they have carried so many bytes from the target.
    pub fn mend(&self, limits: &[usize]) {
        let mut state = locked(&self.state);
        state.is_cut = false;
        state.carried = 0;
        state.limits = limits.iter().rev().copied().collect();
    }

    /// Limited connections that are still to come.
    pub fn limits_left(&self) -> usize {
        locked(&self.state).limits.len()
    }

    /// Bytes from the target since it was mended.
    pub fn carried(&self) -> usize {
        locked(&self.state).carried
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("nobody panics with it")
}

fn pass(caller: &TcpStream, target: &str, shared: &Arc<Mutex<State>>) {
    let mut state = locked(shared);
    // Nobody listening there is nobody answering here.
    let Some(called) = (!state.is_cut).then(|| TcpStream::connect(target).ok()).flatten() else { return };
    let limit = state.limits.pop();
    let ends =
        || [caller.try_clone().expect("a second handle"), called.try_clone().expect("a second handle")];
    state.open.push(ends());
    drop(state);
    let (there, back) = (ends(), ends());
    std::thread::spawn(move || copy(&there[0], &there[1], |_| true));
    let shared = shared.clone();
    let mut carried = 0;
    std::thread::spawn(move || {
        copy(&back[1], &back[0], |bytes| {
            carried += bytes;
            locked(&shared).carried += bytes;
            limit.is_none_or(|limit| carried < limit)
        });
    });
}

/// Copies until either end is closed, or `goes_on` says no.
fn copy(mut from: &TcpStream, mut to: &TcpStream, mut goes_on: impl FnMut(usize) -> bool) {
    let mut buffer = [0; 4096];
    loop {
        match from.read(&mut buffer) {
            Ok(bytes @ 1..) if goes_on(bytes) && to.write_all(&buffer[..bytes]).is_ok() => {}
            _ => break,
        }
    }
    for end in [from, to] {
        let _ = end.shutdown(Shutdown::Both);
    }
}

fn break_off(ends: &[TcpStream; 2]) {
    for end in ends {
        let _ = end.shutdown(Shutdown::Both);
    }
}
