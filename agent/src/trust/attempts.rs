//! How often somebody may be wrong about a token: a token bucket for each address, in bounded memory.
//!
//! Pure: time is an argument. Only failures are counted, after the token was looked up, so nobody's right token is ever
//! refused or slowed because others guess, not even others at the same address. What a network of its own can count
//! out by itself (an IPv6 /64) is one address. When too many addresses are being counted at a time, the newcomers
//! share one count: that costs them nothing but the patience that is had with wrong tokens.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Failures that an address may have in a row.
const BURST: u32 = 10;
/// It may have one more after each of these.
const INTERVAL: Duration = Duration::from_secs(6);
/// How much longer each failure of a row is kept waiting for its answer.
const DELAY: Duration = Duration::from_millis(200);
/// Most addresses counted at a time.
const MOST: usize = 4096;
/// How often those that have nothing to count any more are swept out, when there is no room.
const SWEEP: Duration = Duration::from_secs(1);

/// Failures, by where they came from.
#[derive(Debug, Default)]
pub struct Attempts {
    counts: HashMap<Source, Count>,
    swept: Option<Instant>,
}

/// Whose failures are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    Address(IpAddr),
    /// Streams of links, and whoever there is no room for.
    Others,
}

#[derive(Debug, Clone, Copy)]
struct Count {
    /// When all will be forgotten: one interval from now for each failure that still counts.
    until: Instant,
    /// Failures in a row that were not borne with.
    refused: u64,
}

/// What becomes of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is answered, after this long.
    Answer { after: Duration },
    /// There were too many: this long must pass before another is answered. `refused` were turned away since.
    TooMany { retry_after: Duration, refused: u64 },
}

impl Attempts {
    /// Counts a failure from `address` at `now`.
    pub fn failed(&mut self, address: Option<IpAddr>, now: Instant) -> Verdict {
        let source = self.room(address.map_or(Source::Others, Source::of), now);
        let count = self.counts.entry(source).or_insert(Count { until: now, refused: 0 });
        let outstanding = count.until.saturating_duration_since(now);
        let most = INTERVAL * (BURST - 1);
        if outstanding > most {
            count.refused += 1;
            return Verdict::TooMany {
                retry_after: outstanding.saturating_sub(most),
                refused: count.refused,
            };
        }
        count.refused = 0;
        count.until = count.until.max(now) + INTERVAL;
        let in_a_row = outstanding.as_millis().div_ceil(INTERVAL.as_millis());
        let in_a_row = u32::try_from(in_a_row).unwrap_or(BURST);
        Verdict::Answer { after: DELAY * (in_a_row + 1) }
    }

    /// How long `address` must wait before another failure of its is answered, if it must; nothing is counted.
    pub fn must_wait(&self, address: Option<IpAddr>, now: Instant) -> Option<Duration> {
        let count = self.counts.get(&address.map_or(Source::Others, Source::of))?;
        let outstanding = count.until.saturating_duration_since(now);
        let most = INTERVAL * (BURST - 1);
        (outstanding > most).then(|| outstanding.saturating_sub(most))
    }

    fn room(&mut self, source: Source, now: Instant) -> Source {
        if self.counts.len() < MOST || self.counts.contains_key(&source) {
            return source;
        }
        if self.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP) {
            self.swept = Some(now);
            self.counts.retain(|_, count| count.until > now);
        }
        if self.counts.len() < MOST { source } else { Source::Others }
    }
}

impl Source {
    fn of(address: IpAddr) -> Self {
        Source::Address(match address.to_canonical() {
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(verdict: Verdict) -> bool {
        matches!(verdict, Verdict::Answer { .. })
    }

    #[test]
    fn a_burst_is_borne_with_then_one_at_a_time() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        let from = Some("192.0.2.1".parse().unwrap());
        let first = attempts.failed(from, now);
        assert_eq!(first, Verdict::Answer { after: DELAY });
        assert_eq!(attempts.failed(from, now), Verdict::Answer { after: DELAY * 2 });
        assert_eq!((2..BURST).filter(|_| answered(attempts.failed(from, now))).count(), 8);
        assert_eq!(attempts.failed(from, now), Verdict::TooMany { retry_after: INTERVAL, refused: 1 });
        assert_eq!(attempts.failed(from, now), Verdict::TooMany { retry_after: INTERVAL, refused: 2 });
        // Being turned away does not count: the wait that was told is enough.
        assert!(answered(attempts.failed(from, now + INTERVAL)));
        assert!(!answered(attempts.failed(from, now + INTERVAL)));
        assert_eq!(attempts.must_wait(from, now + INTERVAL), Some(INTERVAL));
        assert_eq!(attempts.must_wait(from, now + INTERVAL * 2), None);
        assert!(answered(attempts.failed(Some("192.0.2.2".parse().unwrap()), now)));
        assert_eq!(attempts.failed(from, now + INTERVAL * 20), Verdict::Answer { after: DELAY });
    }

    #[test]
    fn a_network_of_its_own_is_one_address() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        for host in 0..BURST {
            let from = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, u16::try_from(host).unwrap());
            assert!(answered(attempts.failed(Some(from.into()), now)));
        }
        let one_more = |network| Some(Ipv6Addr::new(0x2001, 0xdb8, 0, network, 0, 0, 0, 99).into());
        assert!(!answered(attempts.failed(one_more(1), now)));
        assert!(answered(attempts.failed(one_more(2), now)));
        // An IPv4 address is the same in IPv6's clothes.
        assert_eq!(Source::of("::ffff:192.0.2.1".parse().unwrap()), Source::of("192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn memory_is_bounded_and_given_back() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        for number in 0..100_000_u32 {
            attempts.failed(Some(std::net::Ipv4Addr::from(number).into()), now);
        }
        assert!(attempts.counts.len() <= MOST + 1);
        attempts.failed(Some("192.0.2.1".parse().unwrap()), now + INTERVAL * 2);
        assert!(attempts.counts.len() <= 2, "{}", attempts.counts.len());
    }
}
