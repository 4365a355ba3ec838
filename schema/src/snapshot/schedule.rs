//! When snapshots are taken by themselves: cron's five fields, or words such as `@daily`.

use std::str::FromStr;

/// Several times, of which each counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Schedule {
    pub times: Vec<Cron>,
    /// Also whenever the instance starts.
    pub startup: bool,
}

/// One line of cron: the minutes that it means, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cron {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Either of the days is `*`, so that both must fit; where both are said, one is enough.
    both_days: bool,
}

/// Why a text is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    #[error("Schedule must be of the form: <minute> <hour> <day-of-month> <month> <day-of-week>")]
    Fields,
    #[error("the {0} of a schedule is a number, a range, a list or *, within {1} to {2}")]
    Field(&'static str, u8, u8),
    #[error(
        "the words for a schedule are @hourly, @daily, @midnight, @weekly, @monthly, @annually, @yearly, @startup and @never"
    )]
    Word,
    #[error("a schedule has at most {MOST} times")]
    TooMany,
}

const MOST: usize = 32;
const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

impl FromStr for Schedule {
    type Err = ScheduleError;

    /// Times are divided by a comma and a space: a comma alone is part of cron's own lists.
    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let text = text.to_ascii_lowercase();
        let mut schedule = Self::default();
        for time in text.split(", ").map(str::trim) {
            match time {
                "@startup" => schedule.startup = true,
                "@never" => {}
                _ => schedule.times.push(time.parse()?),
            }
        }
        if schedule.times.len() > MOST { Err(ScheduleError::TooMany) } else { Ok(schedule) }
    }
}

impl FromStr for Cron {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let text = match text {
            "@hourly" => "0 * * * *",
            "@daily" | "@midnight" => "0 0 * * *",
            "@weekly" => "0 0 * * 0",
            "@monthly" => "0 0 1 * *",
            "@annually" | "@yearly" => "0 0 1 1 *",
            word if word.starts_with('@') => return Err(ScheduleError::Word),
            cron => cron,
        };
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else { return Err(ScheduleError::Fields) };
        let star = |field: &str| field.starts_with(['*', '?']);
        let weekdays = Field { name: "day of the week", from: 0, to: 7, words: &WEEKDAYS }.read(weekday)?;
        Ok(Self {
            minutes: Field { name: "minute", from: 0, to: 59, words: &[] }.read(minute)?,
            hours: Field { name: "hour", from: 0, to: 23, words: &[] }.read(hour)?,
            days: Field { name: "day of the month", from: 1, to: 31, words: &[] }.read(day)?,
            months: Field { name: "month", from: 1, to: 12, words: &MONTHS }.read(month)?,
            // Sunday is 0 and 7.
            weekdays: (weekdays | weekdays >> 7) & 0x7f,
            both_days: star(day) || star(fields[4]),
        })
    }
}

impl Cron {
    /// Whether it means some minute of this day. `weekday` counts from Sunday, 0.
    pub fn has_day(&self, month: u8, day: u8, weekday: u8) -> bool {
        let (by_day, by_weekday) = (has(self.days, day), has(self.weekdays, weekday));
        let fits = if self.both_days { by_day && by_weekday } else { by_day || by_weekday };
        has(self.months, month) && fits
    }

    /// The hours and minutes of each of its days, in order.
    pub fn times(&self) -> impl Iterator<Item = (u8, u8)> + '_ {
        let hours = (0..24).filter(|hour| has(self.hours, *hour));
        hours.flat_map(|hour| {
            (0..60).filter(|minute| has(self.minutes, *minute)).map(move |minute| (hour, minute))
        })
    }
}

fn has(bits: u64, at: u8) -> bool {
    bits >> at & 1 == 1
}

/// One of the five.
struct Field {
    name: &'static str,
    from: u8,
    to: u8,
    /// Names of the values, from the first on.
    words: &'static [&'static str],
}

impl Field {
    /// The values that it means, as bits.
    fn read(&self, text: &str) -> Result<u64, ScheduleError> {
        let mut bits = 0;
        for part in text.split(',') {
            bits |= self.part(part).ok_or(ScheduleError::Field(self.name, self.from, self.to))?;
        }
        Ok(bits)
    }

    /// `*`, `5`, `1-5`, and each with a step: `*/15`.
    fn part(&self, text: &str) -> Option<u64> {
        let (range, step) = match text.split_once('/') {
            Some((range, step)) => (range, Some(step.parse::<u8>().ok().filter(|step| *step > 0)?)),
            None => (text, None),
        };
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (self.value(first)?, self.value(last)?),
            None if matches!(range, "*" | "?") => (self.from, self.to),
            None => {
                let first = self.value(range)?;
                // `5/15` goes on from 5.
                (first, if step.is_some() { self.to } else { first })
            }
        };
        if first > last {
            return None;
        }
        let chosen = (first..=last).step_by(step.unwrap_or(1).into());
        Some(chosen.fold(0, |bits, value| bits | 1 << value))
    }

    fn value(&self, text: &str) -> Option<u8> {
        if let Some(at) = self.words.iter().position(|word| *word == text) {
            return u8::try_from(at).ok()?.checked_add(self.from);
        }
        let value = text.parse().ok()?;
        (self.from..=self.to).contains(&value).then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Cron {
        text.parse::<Schedule>().unwrap().times[0]
    }

    #[test]
    fn fields_are_numbers_ranges_lists_steps_and_names() {
        let times: Vec<_> = one("*/20 9-10 * * *").times().collect();
        assert_eq!(times, [(9, 0), (9, 20), (9, 40), (10, 0), (10, 20), (10, 40)]);
        assert_eq!(one("50/5 0 * * *").times().collect::<Vec<_>>(), [(0, 50), (0, 55)]);
        assert_eq!(one("1,3 0 * * *").times().collect::<Vec<_>>(), [(0, 1), (0, 3)]);
        assert_eq!(one("@hourly").times().count(), 24);
        assert!(one("0 0 * JAN Mon-fri").has_day(1, 9, 1));
        assert!(!one("0 0 * jan mon-fri").has_day(1, 9, 0) && !one("0 0 * jan mon-fri").has_day(2, 9, 1));
        assert!(one("0 0 * * 7").has_day(1, 1, 0) && !one("0 0 * * 7").has_day(1, 1, 6));
    }

    #[test]
    fn two_kinds_of_days_are_either_and_a_star_is_every() {
        let either = one("0 0 13 * 5");
        assert!(either.has_day(1, 13, 1) && either.has_day(1, 2, 5) && !either.has_day(1, 2, 1));
        let both = one("0 0 13 * *");
        assert!(both.has_day(1, 13, 1) && !both.has_day(1, 2, 5));
        assert!(!one("0 0 */2 * 5").has_day(1, 2, 5));
    }

    #[test]
    fn words_lists_of_times_and_faults() {
        let schedule: Schedule = "@daily, 30 12 * * *, @startup".parse().unwrap();
        assert!(schedule.startup && schedule.times.len() == 2);
        assert_eq!("@never".parse::<Schedule>().unwrap(), Schedule::default());
        assert_eq!("@often".parse::<Schedule>(), Err(ScheduleError::Word));
        assert_eq!("".parse::<Schedule>(), Err(ScheduleError::Fields));
        assert_eq!("* * * *".parse::<Schedule>(), Err(ScheduleError::Fields));
        for wrong in ["60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "5-1 * * * *"] {
            assert!(matches!(wrong.parse::<Schedule>(), Err(ScheduleError::Field(..))), "{wrong}");
        }
        for wrong in ["*/0 * * * *", "a * * * *", "1- * * * *", "* * * foo *", ",1 * * * *"] {
            assert!(matches!(wrong.parse::<Schedule>(), Err(ScheduleError::Field(..))), "{wrong}");
        }
    }
}
