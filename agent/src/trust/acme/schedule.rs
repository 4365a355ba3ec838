//! When a certificate is asked for: pure, with time and chance as arguments.
//!
//! A certificate is renewed at two thirds of its life, or a little before, so that agents that were set up together do
//! not ask together. What failed is tried again after a pause that doubles, longer where the authority itself has said
//! no, for such answers are counted there; never before the authority has said, and never more often in an hour than
//! any public authority bears with. An authority whose certificates live for less than a day is asked as often as
//! those need it, but never without a pause. A start of the agent changes none of this; another wish ends the pauses of
//! what failed.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// What a renewal may come early by, of the certificate's life: one part in this many.
const EARLY: i32 = 20;
/// From the beginning of an attempt to that of the next, however short the life of what it brought.
const BETWEEN: SignedDuration = SignedDuration::from_secs(10);
/// The window in which attempts are counted, and how many there may be in it.
const WINDOW: SignedDuration = SignedDuration::from_hours(1);
const MOST: usize = 20;
/// Certificates that live for less are renewed too often to be counted so.
const SHORT_LIFE: SignedDuration = SignedDuration::from_hours(24);
/// The furthest that an authority can put us off.
const LONGEST: SignedDuration = SignedDuration::from_hours(7 * 24);
/// The longest pause after what failed.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_hours(12);

/// A certificate's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    pub from: Timestamp,
    pub until: Timestamp,
}

impl Life {
    fn length(self) -> SignedDuration {
        self.until.duration_since(self.from).max(SignedDuration::ZERO)
    }

    /// Two thirds of it, less what `chance` of 256 takes off.
    pub fn renewal(self, chance: u8) -> Timestamp {
        let early = self.length() / EARLY / 256 * i32::from(chance);
        later(self.from, self.length() / 3 * 2 - early)
    }
}

/// Why there is no new certificate, as far as the next attempt depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setback {
    /// Nobody has looked at the order: no connection, a server that is down, a disk that is full here.
    Passing,
    /// The authority has looked, and said no.
    Refused,
    /// The authority has said from when on it may be asked.
    PutOff(Timestamp),
}

impl Setback {
    /// The first pause and the longest.
    fn pauses(self) -> (SignedDuration, SignedDuration) {
        match self {
            Setback::Passing => (SignedDuration::from_secs(10), SignedDuration::from_hours(1)),
            Setback::Refused | Setback::PutOff(_) => (SignedDuration::from_mins(5), LONGEST_PAUSE),
        }
    }
}

/// When to ask next, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// Of the certificate that is there.
    life: Option<Life>,
    due: Timestamp,
    past: Past,
}

/// What counts beyond the end of the agent: otherwise one that is started again and again would be a loop.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    /// When attempts began that are counted.
    recent: VecDeque<Timestamp>,
    /// The authority's word.
    put_off: Option<Timestamp>,
    /// Attempts that came to nothing since the last that did not.
    #[serde(default)]
    failures: u32,
    /// The end of the pause after the last of them.
    #[serde(default)]
    pause: Option<Timestamp>,
}

impl Past {
    /// The same, for another authority.
    #[must_use]
    pub fn elsewhere(self) -> Self {
        Self { put_off: None, ..self.forgiven() }
    }

    /// The same, when what failed is not wanted any more.
    #[must_use]
    pub fn forgiven(self) -> Self {
        Self { failures: 0, pause: None, ..self }
    }
}

impl Schedule {
    /// With the certificate that there is, if there is one: none is asked for at once, as far as the past lets.
    pub fn new(life: Option<Life>, past: Past, now: Timestamp, chance: u8) -> Self {
        Self::wished(life, past, now, chance).spaced(now)
    }

    fn wished(life: Option<Life>, past: Past, now: Timestamp, chance: u8) -> Self {
        let due = life.map_or(now, |life| life.renewal(chance));
        // What is read from a file may be anything.
        let put_off = past.put_off.map(|until| until.min(later(now, LONGEST)));
        let pause = past.pause.map(|until| until.min(later(now, LONGEST_PAUSE)));
        let due = due.max(put_off.unwrap_or(due)).max(pause.unwrap_or(due));
        Self { life, due, past: Past { put_off, pause, ..past } }.within_limits(now)
    }

    /// What is to be known at the next start.
    pub fn past(&self) -> &Past {
        &self.past
    }

    /// When the next attempt begins.
    pub fn due(&self) -> Timestamp {
        self.due
    }

    /// How many attempts have failed in a row.
    pub fn failures(&self) -> u32 {
        self.past.failures
    }

    /// An attempt begins.
    #[must_use]
    pub fn begun(mut self, now: Timestamp) -> Self {
        let recent = &mut self.past.recent;
        recent.push_back(now);
        while recent.len() > MOST {
            recent.pop_front();
        }
        self
    }

    /// It has brought a certificate.
    #[must_use]
    pub fn issued(self, life: Life, now: Timestamp, chance: u8) -> Self {
        let due = life.renewal(chance);
        Self { life: Some(life), due, past: self.past.elsewhere() }.within_limits(now).spaced(now)
    }

    /// It has come to nothing.
    #[must_use]
    pub fn failed(self, setback: Setback, now: Timestamp, chance: u8) -> Self {
        let failures = self.past.failures.saturating_add(1);
        let (mut first, mut longest) = setback.pauses();
        if let Some(life) = self.life {
            // What lives for minutes cannot wait for hours.
            first = first.min(life.length() / 20).max(BETWEEN);
            longest = longest.min(life.length() / 6).max(BETWEEN);
        }
        let doubled = first.checked_mul(1 << (failures - 1).min(16)).unwrap_or(longest).min(longest);
        // Between three quarters of it and the whole.
        let pause = doubled - doubled / 1024 * i32::from(chance);
        let put_off = match setback {
            Setback::PutOff(until) => Some(until.min(later(now, LONGEST))),
            Setback::Passing | Setback::Refused => None,
        };
        let pause = later(now, pause);
        let due = pause.max(put_off.unwrap_or(now));
        let past = Past { put_off, failures, pause: Some(pause), ..self.past };
        Self { due, past, ..self }.within_limits(now).spaced(now)
    }

    /// Something else is wanted, so there is no reason to wait but the limits, and the authority's word if it is still
    /// the same authority. Whoever wants it is not there to make a loop, so it does not wait for its turn either.
    #[must_use]
    pub fn changed(self, life: Option<Life>, same_authority: bool, now: Timestamp, chance: u8) -> Self {
        let past = if same_authority { self.past.forgiven() } else { self.past.elsewhere() };
        Self::wished(life, past, now, chance)
    }

    /// Not right after the last attempt began.
    fn spaced(mut self, now: Timestamp) -> Self {
        if let Some(last) = self.past.recent.back() {
            // As below, of a clock that was set back.
            self.due = self.due.max(later(*last, BETWEEN).min(later(now, BETWEEN)));
        }
        self
    }

    fn within_limits(mut self, now: Timestamp) -> Self {
        let short = self.life.is_some_and(|life| life.length() < SHORT_LIFE);
        let recent = &self.past.recent;
        let oldest = recent.front().copied().filter(|_| !short && recent.len() >= MOST);
        if let Some(oldest) = oldest {
            // A clock that was set back must not make it wait for longer than the window.
            let room = later(oldest, WINDOW).min(later(now, WINDOW));
            self.due = self.due.max(room);
        }
        self
    }
}

/// `at` plus `by`, and the end of time where there is no such time.
fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 3600;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn life(from: i64, until: i64) -> Life {
        Life { from: at(from), until: at(until) }
    }

    /// Seconds from one pause to the next while nothing but `setback` happens.
    fn pauses(mut schedule: Schedule, setback: Setback, count: usize) -> Vec<i64> {
        let mut now = schedule.due();
        let pause = |_| {
            schedule = schedule.clone().begun(now).failed(setback, now, 0);
            let pause = schedule.due().duration_since(now).as_secs();
            now = schedule.due();
            pause
        };
        (0..count).map(pause).collect()
    }

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_or_a_little_before() {
        let ninety = life(0, 90 * DAY);
        assert_eq!(ninety.renewal(0), at(60 * DAY));
        let early = ninety.renewal(255);
        assert!(early < at(56 * DAY) && early > at(55 * DAY), "{early}");
        assert_eq!(Schedule::new(Some(ninety), Past::default(), at(DAY), 0).due(), at(60 * DAY));
        assert_eq!(Schedule::new(None, Past::default(), at(DAY), 0).due(), at(DAY));
        // One that ran out while the agent was not running.
        assert!(Schedule::new(Some(ninety), Past::default(), at(100 * DAY), 0).due() < at(100 * DAY));
        let schedule = Schedule::new(None, Past::default(), at(0), 0).begun(at(0)).issued(ninety, at(5), 0);
        assert_eq!((schedule.due(), schedule.failures()), (at(60 * DAY), 0));
    }

    #[test]
    fn pauses_double_and_are_longer_where_the_authority_said_no() {
        let none = Schedule::new(None, Past::default(), at(0), 0);
        assert_eq!(pauses(none.clone(), Setback::Passing, 11)[..5], [10, 20, 40, 80, 160]);
        assert_eq!(pauses(none.clone(), Setback::Passing, 11)[9..], [3600, 3600]);
        let refused = pauses(none.clone(), Setback::Refused, 10);
        assert_eq!((refused[0], refused[1], refused[9]), (300, 600, 12 * 3600));
        let first_hour = refused.iter().scan(0, |sum, pause| {
            *sum += pause;
            Some(*sum)
        });
        assert!(first_hour.filter(|sum| *sum <= 3600).count() < 5, "five an hour are too many");
        // Chance shortens a pause, never by more than a quarter.
        let lucky = none.failed(Setback::Refused, at(0), 255).due();
        assert!(lucky < at(300) && lucky >= at(225), "{lucky}");
    }

    #[test]
    fn what_lives_for_seconds_is_tried_again_within_seconds() {
        let short = Schedule::new(Some(life(0, 12)), Past::default(), at(0), 0);
        assert_eq!(short.due(), at(8));
        assert_eq!(pauses(short, Setback::Refused, 4), [10, 10, 10, 10]);
    }

    #[test]
    fn however_short_lives_are_there_are_ten_seconds_between_two_orders() {
        // What lives for 24 s is renewed in time.
        let begun = Schedule::new(None, Past::default(), at(0), 0).begun(at(0));
        assert_eq!(begun.clone().issued(life(0, 24), at(2), 0).due(), at(16));
        assert_eq!(begun.clone().issued(life(0, 24), at(2), 255).due().as_second(), 14);
        assert_eq!(begun.clone().issued(life(0, 1), at(1), 255).due(), at(10));
        assert_eq!(begun.clone().issued(life(10, 0), at(1), 255).due(), at(10));
        // Chance does not shorten it, and neither does a start.
        let failed = Schedule::new(Some(life(0, 15)), Past::default(), at(9), 0).begun(at(9));
        assert!(failed.failed(Setback::Passing, at(9), 255).due() >= at(19));
        let again = Schedule::new(Some(life(0, 1)), begun.past().clone(), at(3), 255);
        assert_eq!(again.due(), at(10));
        // A clock that was set back holds it up for no longer.
        assert_eq!(Schedule::new(None, begun.past().clone(), at(-DAY), 0).due(), at(10 - DAY));

        let (mut schedule, mut orders) = (begun, 0);
        while schedule.due() < at(60) {
            let now = schedule.due();
            schedule = schedule.begun(now).issued(life(now.as_second(), now.as_second() + 2), now, 255);
            orders += 1;
        }
        assert_eq!(orders, 6, "in a minute");
    }

    #[test]
    fn a_start_ends_no_pause_and_another_wish_does() {
        let mut schedule = Schedule::new(None, Past::default(), at(0), 0);
        let mut now = at(0);
        for pause in [300, 600, 1200, 2400] {
            schedule = schedule.begun(now).failed(Setback::Refused, now, 0);
            let kept = serde_json::to_vec(schedule.past()).unwrap();
            let kept = || serde_json::from_slice::<Past>(&kept).unwrap();
            schedule = Schedule::new(None, kept(), later(now, SignedDuration::from_secs(20)), 0);
            assert_eq!(schedule.due().duration_since(now).as_secs(), pause);
            // A clock that was set back holds it up for the longest pause at most.
            assert_eq!(Schedule::new(None, kept(), at(-DAY), 0).due(), at(12 * 3600 - DAY));
            now = schedule.due();
        }
        assert_eq!(schedule.failures(), 4);
        let changed = schedule.clone().changed(None, true, at(5000), 0);
        assert_eq!((changed.due(), changed.failures()), (at(5000), 0));
        let elsewhere = Schedule::new(None, schedule.past().clone().elsewhere(), at(5000), 0);
        assert_eq!((elsewhere.due(), elsewhere.failures()), (at(5000), 0));
        let issued = schedule.issued(life(now.as_second(), 90 * DAY), now, 0);
        assert_eq!((issued.past().failures, issued.past().pause), (0, None));
        // What an agent has kept that did not know of pauses.
        let old: Past =
            serde_json::from_str(r#"{"recent":["1970-01-01T00:00:00Z"],"put_off":null}"#).unwrap();
        assert_eq!(Schedule::new(None, old, at(60), 0).due(), at(60));
    }

    #[test]
    fn an_authority_that_says_when_is_not_asked_before() {
        let schedule = Schedule::new(None, Past::default(), at(0), 0).begun(at(0));
        let put_off = schedule.failed(Setback::PutOff(at(7200)), at(0), 255);
        assert_eq!(put_off.due(), at(7200));
        // Not even when the settings change, unless they name another one.
        assert_eq!(put_off.clone().changed(None, true, at(60), 0).due(), at(7200));
        assert_eq!(put_off.clone().changed(None, false, at(60), 0).due(), at(60));
        let again = Schedule::new(None, put_off.past().clone(), at(90), 0);
        assert_eq!(again.due(), at(7200), "nor when the agent is started again");
        let absurd =
            Schedule::new(None, Past::default(), at(0), 0).failed(Setback::PutOff(Timestamp::MAX), at(0), 0);
        assert_eq!(absurd.due(), at(7 * DAY));
        let past = Schedule::new(None, Past::default(), at(0), 0).failed(Setback::PutOff(at(-9)), at(0), 0);
        assert_eq!(past.due(), at(300));
    }

    #[test]
    fn changes_act_at_once_until_there_were_too_many() {
        let mut schedule = Schedule::new(None, Past::default(), at(0), 0);
        for second in 0..20 {
            assert_eq!(schedule.due(), at(second));
            schedule = schedule.begun(at(second)).failed(Setback::Refused, at(second), 0);
            schedule = schedule.changed(None, true, at(second + 1), 0);
        }
        assert_eq!(schedule.due(), at(3600), "an hour after the first of them");
        let again = Schedule::new(None, schedule.past().clone(), at(30), 0);
        assert_eq!(again.due(), at(3600), "a start is no way round it");
        // A clock that was set back holds it up for an hour at most.
        assert_eq!(schedule.clone().changed(None, true, at(-DAY), 0).due(), at(3600 - DAY));
        let short = schedule.changed(Some(life(0, 60)), true, at(50), 0);
        assert_eq!(
            short.due(),
            at(40),
            "an authority whose certificates live for a minute knows what it does"
        );
    }
}
