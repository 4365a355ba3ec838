//! The one cookie that is kept: the agent's `session`.

use http::{HeaderMap, HeaderValue, header};
use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::MAX_SECRET;
use crate::wire::token::Secret;

/// LXD's name for it.
const NAME: &str = "session";

/// A session at an agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cookie {
    pub session: Secret,
    /// When it ends, if the agent said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiry: Option<Timestamp>,
}

/// What an answer does to the cookie.
#[derive(Debug)]
pub enum Told {
    Nothing,
    Set(Cookie),
    Ended,
}

impl Cookie {
    /// As a request brings it; `None` once it has ended.
    pub fn header(&self, now: Timestamp) -> Option<HeaderValue> {
        if self.expiry.is_some_and(|expiry| now >= expiry) {
            return None;
        }
        let mut value = HeaderValue::from_str(&format!("{NAME}={}", self.session.expose())).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// Reads the `Set-Cookie` lines of an answer that arrived at `now`.
pub fn told(headers: &HeaderMap, now: Timestamp) -> Told {
    let lines = headers.get_all(header::SET_COOKIE).iter().filter_map(|line| line.to_str().ok());
    // The last one counts, as in browsers.
    lines.rev().find_map(|line| read(line, now)).unwrap_or(Told::Nothing)
}

fn read(line: &str, now: Timestamp) -> Option<Told> {
    let mut parts = line.split(';').map(str::trim);
    let (name, value) = parts.next()?.split_once('=')?;
    let value = value.trim().trim_matches('"');
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b';' | b'\\');
    if name.trim() != NAME || value.len() > MAX_SECRET || !value.bytes().all(is_plain) {
        return None;
    }
    let (mut until, mut age) = (None, None);
    for (key, value) in parts.filter_map(|part| part.split_once('=')) {
        if key.trim().eq_ignore_ascii_case("expires") {
            until = rfc2822::parse(value.trim()).ok().map(|time| time.timestamp());
        } else if key.trim().eq_ignore_ascii_case("max-age") {
            let seconds: Option<i64> = value.trim().parse().ok();
            age = seconds.map(|seconds| {
                now.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(if seconds < 0 {
                    now
                } else {
                    Timestamp::MAX
                })
            });
        }
    }
    let expiry = age.or(until);
    Some(if value.is_empty() || expiry.is_some_and(|expiry| expiry <= now) {
        Told::Ended
    } else {
        Told::Set(Cookie { session: Secret::new(value.to_owned()), expiry })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

    fn of(lines: &[&'static str]) -> Told {
        let headers = lines.iter().map(|line| (header::SET_COOKIE, HeaderValue::from_static(line)));
        told(&headers.collect(), NOW)
    }

    #[test]
    fn the_session_is_kept_until_it_ends() {
        let Told::Set(cookie) =
            of(&["other=1", "session=abc.def; Max-Age=60; HttpOnly; Secure; SameSite=Strict"])
        else {
            panic!("it was not taken")
        };
        assert_eq!(cookie.header(NOW).unwrap(), "session=abc.def");
        assert!(cookie.header(NOW).unwrap().is_sensitive());
        assert_eq!(cookie.header(NOW + SignedDuration::from_secs(60)), None);
        let Told::Set(dated) = of(&["session=x; Path=/; Expires=Sat, 16 Jan 2027 08:00:00 GMT"]) else {
            panic!("it was not taken")
        };
        assert!(dated.expiry.is_some());
    }

    #[test]
    fn what_ends_it_or_is_none_of_ours() {
        for line in [
            "session=; Path=/",
            "session=x; Max-Age=0",
            "session=x; Max-Age=-9223372036854775808",
            "session=x; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
        ] {
            assert!(matches!(of(&[line]), Told::Ended), "{line}");
        }
        assert!(matches!(of(&["session", "login_id=x", "session=a b"]), Told::Nothing));
        assert!(matches!(of(&[]), Told::Nothing));
    }
}
