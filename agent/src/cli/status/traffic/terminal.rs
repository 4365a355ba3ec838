//! A terminal that is drawn on again and again, and given back as it was.

use std::io::{self, IsTerminal as _, Read as _, Write as _};

use rustix::termios::{self, LocalModes, OptionalActions, Termios};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::cli::CliError;

/// Another screen without a cursor, so that what was there is there again afterwards.
const OPEN: &str = "\x1b[?1049h\x1b[?25l\x1b[H\x1b[2J";
const CLOSE: &str = "\x1b[?25h\x1b[?1049l";

/// What is taken for the size of a terminal that does not tell its own.
const USUAL: (usize, usize) = (80, 24);

/// What makes a new picture, or ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Quit,
    /// Another size, or a key that means nothing.
    Redraw,
}

/// Whether results go to a person.
pub(super) fn is_one() -> bool {
    io::stdout().is_terminal()
}

pub(super) struct Screen {
    keys: mpsc::Receiver<u8>,
    interrupted: Signal,
    terminated: Signal,
    resized: Signal,
    /// How standard input was, where that is a terminal.
    before: Option<Termios>,
}

impl Screen {
    pub(super) fn open() -> Result<Self, CliError> {
        let failed = |error: io::Error| CliError::failed(format!("the terminal cannot be used: {error}"));
        let (interrupted, terminated, resized) = (
            signal(SignalKind::interrupt()).map_err(failed)?,
            signal(SignalKind::terminate()).map_err(failed)?,
            signal(SignalKind::window_change()).map_err(failed)?,
        );
        let (send, keys) = mpsc::channel(16);
        let before = if io::stdin().is_terminal() { by_keys().ok() } else { None };
        let screen = Self { keys, interrupted, terminated, resized, before };
        if screen.before.is_some() {
            // Reading blocks, and ends with the process.
            std::thread::spawn(move || {
                let mut stdin = io::stdin().lock();
                let mut key = [0];
                while stdin.read_exact(&mut key).is_ok() && send.blocking_send(key[0]).is_ok() {}
            });
        }
        print(OPEN).map_err(failed)?;
        Ok(screen)
    }

    /// Shows what `picture` makes of this many columns and lines.
    pub(super) fn draw(picture: impl FnOnce(usize, usize) -> String) -> Result<(), CliError> {
        let (width, height) = size();
        // Each line to its end, then everything below: drawing over what was there does not flicker.
        let lines = picture(width, height).replace('\n', "\x1b[K\n");
        print(&format!("\x1b[H{lines}\x1b[K\x1b[J"))
            .map_err(|error| CliError::failed(format!("the terminal cannot be drawn on: {error}")))
    }

    /// Waits for a key, a signal or another size.
    pub(super) async fn key(&mut self) -> Key {
        tokio::select! {
            key = self.keys.recv(), if self.before.is_some() => match key {
                Some(b'q' | b'Q' | 3 | 4) => Key::Quit,
                Some(_) => Key::Redraw,
                // Standard input has ended: there is nothing more to wait for there.
                None => {
                    self.give_back();
                    Key::Redraw
                }
            },
            _ = self.interrupted.recv() => Key::Quit,
            _ = self.terminated.recv() => Key::Quit,
            _ = self.resized.recv() => Key::Redraw,
        }
    }

    fn give_back(&mut self) {
        if let Some(before) = self.before.take() {
            // Nothing can be done about a terminal that has gone.
            let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, &before);
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = print(CLOSE);
        self.give_back();
    }
}

/// Has keys come at once and unseen. Ctrl-C stays a signal.
fn by_keys() -> rustix::io::Result<Termios> {
    let before = termios::tcgetattr(io::stdin())?;
    let mut keys = before.clone();
    keys.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
    termios::tcsetattr(io::stdin(), OptionalActions::Now, &keys)?;
    Ok(before)
}

fn size() -> (usize, usize) {
    match termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
            (usize::from(size.ws_col), usize::from(size.ws_row))
        }
        _ => USUAL,
    }
}

fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}
