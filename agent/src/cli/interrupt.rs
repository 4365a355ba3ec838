//! Ctrl-C: it ends a command at once, unless what the command does has an answer of its own.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Who answers to an interrupt.
#[derive(Debug, Default)]
pub struct Interrupts {
    taken: AtomicUsize,
}

/// While it lives, interrupts are its holder's to answer.
#[derive(Debug)]
pub struct Taken<'a> {
    interrupts: &'a Interrupts,
    signal: Option<Signal>,
}

impl Interrupts {
    pub fn take(&self) -> Taken<'_> {
        self.taken.fetch_add(1, Ordering::Relaxed);
        Taken { interrupts: self, signal: signal(SignalKind::interrupt()).ok() }
    }

    /// Comes back at the first interrupt that nobody else answers to.
    pub async fn unanswered(&self) {
        let Ok(mut signal) = signal(SignalKind::interrupt()) else { return std::future::pending().await };
        loop {
            if signal.recv().await.is_none() {
                return std::future::pending().await;
            }
            if self.taken.load(Ordering::Relaxed) == 0 {
                return;
            }
        }
    }
}

impl Taken<'_> {
    /// The next interrupt. None is lost between two calls.
    pub async fn next(&mut self) {
        let came = match &mut self.signal {
            Some(signal) => signal.recv().await,
            None => None,
        };
        if came.is_none() {
            std::future::pending::<()>().await;
        }
    }

    /// What comes of `work`; `None`, if an interrupt comes first, and then `work` is given up.
    pub fn unless<T>(&mut self, work: impl Future<Output = T>) -> impl Future<Output = Option<T>> {
        // Calls are large, and so would be everything that waits for one.
        let work = Box::pin(work);
        async move {
            tokio::select! {
                done = work => Some(done),
                () = self.next() => None,
            }
        }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.interrupts.taken.fetch_sub(1, Ordering::Relaxed);
    }
}
