//! Times until something expires, in LXD's writing: `1d 2H`.

use jiff::SignedDuration;

/// How long a token is good for where nothing is set.
pub const DEFAULT_TOKEN_EXPIRY: SignedDuration = SignedDuration::from_hours(15 * 24);

/// A text that is no such time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a time until expiry is a list of numbers with units, such as \"1d 2H\" \
     (S seconds, M minutes, H hours, d days, w weeks, m months of 30 days, y years of 365)"
)]
pub struct ExpiryError;

/// Reads such a time (LXD: `(\d)+(S|M|H|d|w|m|y)`, each unit once). It is longer than nothing.
pub fn expiry(text: &str) -> Result<SignedDuration, ExpiryError> {
    let (mut seconds, mut seen) = (0_i64, Vec::new());
    for part in text.split_whitespace() {
        let (at, unit) = part.char_indices().next_back().ok_or(ExpiryError)?;
        let number = part.get(..at).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
        let number: i64 = number.and_then(|digits| digits.parse().ok()).ok_or(ExpiryError)?;
        let day = 24 * 60 * 60;
        let one = match unit {
            'S' => 1,
            'M' => 60,
            'H' => 60 * 60,
            'd' => day,
            'w' => 7 * day,
            'm' => 30 * day,
            'y' => 365 * day,
            _ => return Err(ExpiryError),
        };
        if seen.contains(&unit) {
            return Err(ExpiryError);
        }
        seen.push(unit);
        let part = number.checked_mul(one).ok_or(ExpiryError)?;
        seconds = seconds.checked_add(part).ok_or(ExpiryError)?;
    }
    if seconds == 0 { Err(ExpiryError) } else { Ok(SignedDuration::from_secs(seconds)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_lxd_reads() {
        for (text, seconds) in
            [("5S", 5), ("1M", 60), ("1d 2H", 93_600), ("2w", 1_209_600), (" 1m  1y ", 34_128_000)]
        {
            assert_eq!(expiry(text), Ok(SignedDuration::from_secs(seconds)), "{text}");
        }
        for wrong in ["", "0d", "d", "1", "1 d", "-1d", "1D", "1d 1d", "9999999999999999y", "1.5d", "1ü", "ü"]
        {
            assert_eq!(expiry(wrong), Err(ExpiryError), "{wrong}");
        }
    }
}
