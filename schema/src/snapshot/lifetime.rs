//! How long a snapshot stays: `1M 2H 3d 4w 5m 6y`.

use std::str::FromStr;

/// A time by the calendar: months and years are as long as they are from the day they are counted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lifetime {
    pub seconds: u32,
    pub minutes: u32,
    pub hours: u32,
    pub days: u32,
    pub weeks: u32,
    pub months: u32,
    pub years: u32,
}

/// A text that is no such time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "it is a list of numbers with units, each unit once, such as \"2w 3d\" \
     (M minutes, H hours, d days, w weeks, m months, y years)"
)]
pub struct LifetimeError;

/// Longer than anybody means, and within what a calendar can count.
const MOST: u32 = 100_000;

impl FromStr for Lifetime {
    type Err = LifetimeError;

    fn from_str(text: &str) -> Result<Self, LifetimeError> {
        let mut lifetime = Self::default();
        let mut seen = Vec::new();
        for part in text.split_whitespace() {
            let (at, unit) = part.char_indices().next_back().ok_or(LifetimeError)?;
            let digits = part.get(..at).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
            let number: u32 = digits.and_then(|digits| digits.parse().ok()).ok_or(LifetimeError)?;
            let place = match unit {
                'S' => &mut lifetime.seconds,
                'M' => &mut lifetime.minutes,
                'H' => &mut lifetime.hours,
                'd' => &mut lifetime.days,
                'w' => &mut lifetime.weeks,
                'm' => &mut lifetime.months,
                'y' => &mut lifetime.years,
                _ => return Err(LifetimeError),
            };
            let most = if matches!(unit, 'm' | 'y') { MOST / 100 } else { MOST };
            if number > most || seen.contains(&unit) {
                return Err(LifetimeError);
            }
            *place = number;
            seen.push(unit);
        }
        if seen.is_empty() { Err(LifetimeError) } else { Ok(lifetime) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_lxd_reads() {
        let all: Lifetime = "1M 2H 3d 4w 5m 6y".parse().unwrap();
        assert_eq!(
            all,
            Lifetime { seconds: 0, minutes: 1, hours: 2, days: 3, weeks: 4, months: 5, years: 6 }
        );
        for wrong in ["", "d", "1", "1 d", "-1d", "1D", "1d 1d", "99999999d", "2000y", "1.5d", "1ü"] {
            assert_eq!(wrong.parse::<Lifetime>(), Err(LifetimeError), "{wrong}");
        }
    }
}
