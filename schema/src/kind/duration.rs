//! Times as text: `10s`, `1m30s`, `500ms`, as Go and Consul write them.

const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

/// Milliseconds, or `None` if `text` is not a time. Fractions of a millisecond are not.
pub fn parse_ms(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total: u64 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (number, after) = rest.split_at(number_end);
        let unit_end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let scale = UNITS.iter().find(|(name, _)| *name == unit)?.1;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        total = total.checked_add(whole.parse::<u64>().ok()?.checked_mul(scale)?)?;
        if !fraction.is_empty() {
            let digits = u32::try_from(fraction.len()).ok().filter(|digits| *digits <= 9)?;
            let part = fraction.parse::<u64>().ok()?.checked_mul(scale)?;
            let one = 10_u64.pow(digits);
            total = total.checked_add((part % one == 0).then_some(part / one)?)?;
        }
        rest = after;
    }
    Some(total)
}

/// The shortest text for `ms`.
pub fn text(ms: u64) -> String {
    UNITS
        .iter()
        .rev()
        .find(|(_, scale)| ms >= *scale && ms.is_multiple_of(*scale))
        .map_or_else(|| format!("{ms}ms"), |(unit, scale)| format!("{}{unit}", ms / scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_writes() {
        for (text, ms) in [
            ("10s", 10_000),
            ("1m30s", 90_000),
            ("500ms", 500),
            ("1.5s", 1_500),
            ("2h", 7_200_000),
            ("0s", 0),
        ] {
            assert_eq!(parse_ms(text), Some(ms), "{text}");
        }
        for text in ["", "10", "s", "10 s", "-1s", "1.5", "1.0005s", "99999999999999999999s", "1d"] {
            assert_eq!(parse_ms(text), None, "{text}");
        }
        assert_eq!(text(90_000), "90s");
        assert_eq!(text(60_000), "1m");
        assert_eq!(text(1_500), "1500ms");
    }
}
