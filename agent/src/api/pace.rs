//! How slowly a request's body may come: a sender that trickles, or stops, holds a connection and a handler.
//!
//! Pure but for the one timer: `Allowance` says until when the next bytes may take, `Paced` waits no longer than that.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

/// What a sender is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Allowance {
    /// Longest time without a byte.
    pub gap: Duration,
    /// The whole may take so long, however little it is.
    pub grace: Duration,
    /// And so many bytes earn one more second.
    pub bytes_a_second: u64,
}

/// For those whom nobody knows: what they may send is small.
pub(super) const STRANGER: Allowance =
    Allowance { gap: Duration::from_secs(10), grace: Duration::from_secs(10), bytes_a_second: 16 * 1024 };
/// For those who are trusted: what makes their bytes (an archive being packed, a slow disk) may pause.
pub(super) const TRUSTED: Allowance =
    Allowance { gap: Duration::from_secs(60), grace: Duration::from_secs(60), bytes_a_second: 1024 };

impl Allowance {
    /// Until when the next bytes of a body may take that was begun at `begun`, had its last bytes at `last`, and has
    /// brought `received` bytes so far.
    fn until(&self, begun: Instant, last: Instant, received: u64) -> Instant {
        let earned = Duration::from_secs(received / self.bytes_a_second.max(1));
        (last + self.gap).min(begun + self.grace + earned)
    }
}

/// A body whose sender must keep pace. One that does not ends with an error, and the flag tells why.
pub(super) struct Paced {
    body: Body,
    allowance: Allowance,
    begun: Instant,
    received: u64,
    timer: Pin<Box<Sleep>>,
    too_slow: Arc<AtomicBool>,
}

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
#[error("the request's body came too slowly")]
pub(super) struct TooSlow;

impl Paced {
    /// The body, and a flag that is set once its sender was too slow. A body that is empty needs neither.
    pub(super) fn keeping(body: Body, allowance: Allowance) -> (Body, Option<Arc<AtomicBool>>) {
        if body.is_end_stream() {
            return (body, None);
        }
        let begun = Instant::now();
        let too_slow = Arc::<AtomicBool>::default();
        let timer = Box::pin(tokio::time::sleep_until(allowance.until(begun, begun, 0)));
        let paced = Self { body, allowance, begun, received: 0, timer, too_slow: Arc::clone(&too_slow) };
        (Body::new(paced), Some(too_slow))
    }
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            if let Some(Ok(frame)) = &frame {
                let now = Instant::now();
                self.received += frame.data_ref().map_or(0, |data| data.len() as u64);
                let until = self.allowance.until(self.begun, now, self.received);
                self.timer.as_mut().reset(until);
            }
            return Poll::Ready(frame);
        }
        ready!(self.timer.as_mut().poll(cx));
        self.too_slow.store(true, Ordering::Release);
        Poll::Ready(Some(Err(axum::Error::new(TooSlow))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_gap_and_the_whole_are_limited_and_bytes_earn_time() {
        let allowance = Allowance { gap: 5 * SECOND, grace: 20 * SECOND, bytes_a_second: 10 };
        let begun = Instant::now();
        assert_eq!(allowance.until(begun, begun, 0), begun + 5 * SECOND);
        assert_eq!(allowance.until(begun, begun + 18 * SECOND, 0), begun + 20 * SECOND);
        assert_eq!(allowance.until(begun, begun + 18 * SECOND, 100), begun + 23 * SECOND);
        assert_eq!(allowance.until(begun, begun + 28 * SECOND, 100), begun + 30 * SECOND);
    }

    #[tokio::test]
    async fn a_sender_that_stops_is_cut_off_and_one_that_does_not_is_heard() {
        let allowance = Allowance { gap: Duration::from_millis(50), grace: 20 * SECOND, bytes_a_second: 1 };
        let (body, too_slow) = Paced::keeping(Body::from("whole"), allowance);
        assert_eq!(body.collect().await.unwrap().to_bytes(), "whole");
        assert!(!too_slow.unwrap().load(Ordering::Acquire));

        let stuck = futures::stream::pending::<Result<Bytes, std::io::Error>>();
        let (body, too_slow) = Paced::keeping(Body::from_stream(stuck), allowance);
        assert!(body.collect().await.is_err());
        assert!(too_slow.unwrap().load(Ordering::Acquire));
        assert!(Paced::keeping(Body::empty(), allowance).1.is_none());
    }
}
