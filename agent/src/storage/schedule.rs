//! When a schedule is due next, what a snapshot is called that is taken now, and when it goes: by what its volume or
//! instance says, by the calendar, without a clock.

use std::collections::BTreeMap;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan, Zoned};
use schema::name::SnapshotName;
use schema::snapshot::{Cron, Lifetime, LifetimeError, Moment, Pattern, PatternError, Schedule};

/// How far ahead a schedule is followed: the 29th of February comes every eight years at the latest.
const DAYS: usize = 366 * 9;

/// The first moment after `after` that the schedule means, in that moment's time zone; `None` if it means none.
pub fn next(schedule: &Schedule, after: &Zoned) -> Option<Zoned> {
    schedule.times.iter().filter_map(|cron| next_of(cron, after)).min()
}

fn next_of(cron: &Cron, after: &Zoned) -> Option<Zoned> {
    let mut date: Date = after.date();
    for _ in 0..DAYS {
        if cron.has_day(number(date.month()), number(date.day()), weekday(date)) {
            let times = cron.times().filter_map(|(hour, minute)| {
                let at = date.at(i8::try_from(hour).ok()?, i8::try_from(minute).ok()?, 0, 0);
                // What the clocks skip in spring comes an hour later, what they repeat in autumn comes once.
                at.to_zoned(after.time_zone().clone()).ok()
            });
            if let Some(found) = times.filter(|at| at > after).min() {
                return Some(found);
            }
        }
        date = date.tomorrow().ok()?;
    }
    None
}

/// Whether the schedule meant a moment after `since` and no later than `now`.
pub fn is_due(schedule: &Schedule, since: Timestamp, now: Timestamp, zone: &TimeZone) -> bool {
    next(schedule, &since.to_zoned(zone.clone())).is_some_and(|at| at.timestamp() <= now)
}

/// When what is made at `from` and kept for `lifetime` goes. Months are the calendar's, counted in UTC.
pub fn end_of(lifetime: Lifetime, from: Timestamp) -> Option<Timestamp> {
    let Lifetime { seconds, minutes, hours, days, weeks, months, years } = lifetime;
    // The limits of a lifetime are far within those of a span.
    let [years, months, weeks, days] = [years, months, weeks, days].map(i64::from);
    let [hours, minutes, seconds] = [hours, minutes, seconds].map(i64::from);
    let dates: Span = years.years().months(months).weeks(weeks).days(days);
    let times: Span = hours.hours().minutes(minutes).seconds(seconds);
    let end = from.to_zoned(TimeZone::UTC).checked_add(dates).ok()?.checked_add(times).ok()?;
    Some(end.timestamp())
}

/// The moment as names are made of it.
pub fn moment(at: Timestamp, zone: &TimeZone) -> Moment {
    let at = at.to_zoned(zone.clone());
    Moment {
        year: at.year(),
        month: number(at.month()),
        day: number(at.day()),
        hour: number(at.hour()),
        minute: number(at.minute()),
        second: number(at.second()),
    }
}

/// Parts of dates and times are never negative.
fn number(part: i8) -> u8 {
    part.try_into().unwrap_or_default()
}

fn weekday(date: Date) -> u8 {
    number(date.weekday().to_sunday_zero_offset())
}

/// The next name of a volume's or an instance's pattern (`snapshots.pattern`).
pub fn next_name<'a>(
    config: &BTreeMap<String, String>,
    taken: impl Iterator<Item = &'a SnapshotName> + Clone,
    now: Timestamp,
) -> Result<SnapshotName, PatternError> {
    let pattern = match config.get("snapshots.pattern").filter(|text| !text.is_empty()) {
        Some(text) => text.parse()?,
        None => Pattern::default(),
    };
    pattern.next(moment(now, &TimeZone::UTC), taken)
}

/// When a snapshot goes that is taken at `now` of what is set like this (`snapshots.expiry`).
pub fn expiry(config: &BTreeMap<String, String>, now: Timestamp) -> Result<Option<Timestamp>, LifetimeError> {
    match config.get("snapshots.expiry").filter(|text| !text.is_empty()) {
        Some(text) => Ok(end_of(text.parse::<Lifetime>()?, now)),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next_at(schedule: &str, after: &str) -> Option<String> {
        let after: Zoned = after.parse().unwrap();
        next(&schedule.parse().unwrap(), &after).map(|at| at.to_string())
    }

    #[test]
    fn the_next_run_is_the_first_minute_after_now() {
        let at = |schedule, after: &str| next_at(schedule, &format!("{after}[UTC]")).unwrap();
        assert_eq!(at("@hourly", "2026-03-09T17:00:00+00:00"), "2026-03-09T18:00:00+00:00[UTC]");
        assert_eq!(at("@daily", "2026-12-31T00:00:01+00:00"), "2027-01-01T00:00:00+00:00[UTC]");
        assert_eq!(at("*/15 * * * *", "2026-03-09T17:14:59+00:00"), "2026-03-09T17:15:00+00:00[UTC]");
        assert_eq!(at("0 0 29 2 *", "2096-03-01T00:00:00+00:00"), "2104-02-29T00:00:00+00:00[UTC]");
        assert_eq!(at("0 6 * * 1", "2026-03-09T06:00:00+00:00"), "2026-03-16T06:00:00+00:00[UTC]");
        assert_eq!(at("@yearly, 5 5 * * *", "2026-03-09T06:00:00+00:00"), "2026-03-10T05:05:00+00:00[UTC]");
        assert_eq!(next_at("0 0 31 2 *", "2026-03-09T06:00:00+00:00[UTC]"), None);
        assert_eq!(next_at("@never", "2026-03-09T06:00:00+00:00[UTC]"), None);
    }

    #[test]
    fn what_the_clocks_skip_is_not_left_out_and_what_they_repeat_comes_once() {
        let spring = next_at("30 2 * * *", "2026-03-28T12:00:00+01:00[Europe/Berlin]");
        assert_eq!(spring.as_deref(), Some("2026-03-29T03:30:00+02:00[Europe/Berlin]"));
        let autumn = next_at("30 2 * * *", "2026-10-25T02:30:00+02:00[Europe/Berlin]");
        assert_eq!(autumn.as_deref(), Some("2026-10-26T02:30:00+01:00[Europe/Berlin]"));
    }

    #[test]
    fn a_run_is_due_once_however_long_nobody_looked() {
        let schedule = "@hourly".parse().unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let due = |since, now| is_due(&schedule, at(since), at(now), &TimeZone::UTC);
        assert!(due("2026-03-09T16:59:00Z", "2026-03-09T17:00:00Z"));
        assert!(!due("2026-03-09T17:00:00Z", "2026-03-09T17:59:59Z"));
        assert!(due("2026-03-01T00:00:00Z", "2026-03-09T17:59:59Z"));
        // The clock was set back: nothing is due until it is later than what was seen.
        assert!(!due("2026-03-09T17:00:00Z", "2026-03-09T12:00:00Z"));
    }

    #[test]
    fn lifetimes_follow_the_calendar() {
        let end = |lifetime: &str, from: &str| {
            end_of(lifetime.parse().unwrap(), from.parse().unwrap()).unwrap().to_string()
        };
        assert_eq!(end("1d", "2026-03-09T17:00:00Z"), "2026-03-10T17:00:00Z");
        assert_eq!(end("1m", "2026-01-31T00:00:00Z"), "2026-02-28T00:00:00Z");
        assert_eq!(end("1M 2H 3d 4w 5m 6y", "2026-01-01T00:00:00Z"), "2032-07-02T02:01:00Z");
        assert!(end_of("1000y".parse().unwrap(), Timestamp::MAX).is_none());
    }

    #[test]
    fn a_moment_is_told_in_its_zone() {
        let at = "2026-03-09T23:04:05Z".parse().unwrap();
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let moment = moment(at, &zone);
        assert_eq!((moment.day, moment.hour, moment.second), (10, 1, 5));
    }
}
