//! How much of a stream may be under way, without I/O: what is sent has been granted before, what is granted is bounded.
//!
//! A window begins small and doubles when the sender says that it has used it up while all that came has been read:
//! then the window and not the reader is what holds the stream up. (Rejected: to grow by the round trip and the
//! rate, as yamux does. On a busy machine what takes long is a turn of the processor, which no early measurement of the
//! round trip knows: eight streams then had a tenth of what one had.) What windows grow by comes out of one purse
//! for each session, so that a peer can make us hold no more than the purse and the first windows.

/// What an app may send before the peer has answered: the window that each stream begins with.
pub const EARLY: u32 = 16 * 1024;
/// The window of a stream that has been accepted.
pub const FIRST: u32 = 64 * 1024;
/// Largest window, enough for a gigabit each second over a hundred milliseconds.
const LARGEST: u32 = 16 * 1024 * 1024;
/// What windows may grow by on one session, all together.
pub const PURSE: u32 = 64 * 1024 * 1024;

/// What the peer may send.
#[derive(Debug)]
pub struct Receiving {
    window: u32,
    /// What may still come.
    left: u32,
    /// What was read since credit was given last.
    read: u32,
    /// What came out of the purse.
    borrowed: u32,
}

impl Receiving {
    pub fn new(window: u32) -> Self {
        Self { window, left: window, read: 0, borrowed: 0 }
    }

    /// Enlarges the window to `window`; gives what the peer is to be told.
    pub fn widen(&mut self, window: u32) -> u32 {
        let more = window.saturating_sub(self.window);
        self.window += more;
        self.left += more;
        more
    }

    /// Notes `bytes` that have come; `false` if they were not granted.
    #[must_use]
    pub fn receive(&mut self, bytes: u32) -> bool {
        let left = self.left.checked_sub(bytes);
        self.left = left.unwrap_or(0);
        left.is_some()
    }

    /// Notes `bytes` that were read; gives what the peer is to be granted for them, when it is time to.
    pub fn read(&mut self, bytes: u32) -> Option<u32> {
        self.read += bytes;
        if self.read < self.window / 2 {
            return None;
        }
        let more = std::mem::take(&mut self.read);
        self.left += more;
        Some(more)
    }

    /// The sender has used up its window, and all that came has been read: gives what it is granted beyond.
    pub fn grow(&mut self, purse: &mut u32) -> Option<u32> {
        let grown = self.window.min(LARGEST.saturating_sub(self.window)).min(*purse);
        *purse -= grown;
        self.borrowed += grown;
        self.window += grown;
        let more = std::mem::take(&mut self.read) + grown;
        self.left += more;
        (more > 0).then_some(more)
    }

    /// Gives back to the purse what came out of it.
    pub fn close(&self, purse: &mut u32) {
        *purse += self.borrowed;
    }
}
