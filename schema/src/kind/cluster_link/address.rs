//! Where a peer is reached: `HOST:PORT`, as links keep it (LXD: `volatile.addresses`).

use std::net::IpAddr;

/// The port of an address that names none (LXD's).
pub const DEFAULT_PORT: u16 = 8443;
/// Longest host name (RFC 1035).
const MAX_HOST: usize = 253;
/// Longest part of one.
const MAX_LABEL: usize = 63;

/// Why a text is not an address. Never repeats the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("it has no port: an address is HOST:PORT, such as 10.0.0.1:8443")]
    NoPort,
    #[error("its port is not a number from 1 to 65535")]
    BadPort,
    #[error("its host is neither an IP address nor a domain name")]
    BadHost,
}

/// Checks `HOST:PORT`; an IPv6 host stands in brackets.
pub fn check(text: &str) -> Result<(), AddressError> {
    let (host, port) = text.rsplit_once(':').ok_or(AddressError::NoPort)?;
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match bracketed {
        Some(inner) => inner.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6()),
        // An IPv6 address without brackets: what looks like its port is its last group.
        None if host.contains(':') => return Err(AddressError::NoPort),
        None => is_host(host),
    };
    if !is_host {
        return Err(AddressError::BadHost);
    }
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    if digits && port.parse::<u16>().is_ok_and(|port| port != 0) {
        Ok(())
    } else {
        Err(AddressError::BadPort)
    }
}

/// `HOST` or `HOST:PORT` as `HOST:PORT`. A scheme or a path before or behind it is none of it.
pub fn complete(text: &str) -> Result<String, AddressError> {
    match check(text) {
        Ok(()) => Ok(text.to_owned()),
        Err(AddressError::NoPort) => {
            let bare = text.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6());
            let whole =
                if bare { format!("[{text}]:{DEFAULT_PORT}") } else { format!("{text}:{DEFAULT_PORT}") };
            check(&whole).map(|()| whole).map_err(|_| AddressError::BadHost)
        }
        // `[::1]` has colons but none behind the bracket.
        Err(AddressError::BadHost) if text.ends_with(']') => {
            let whole = format!("{text}:{DEFAULT_PORT}");
            check(&whole).map(|()| whole)
        }
        Err(error) => Err(error),
    }
}

fn is_host(host: &str) -> bool {
    if host.parse::<IpAddr>().is_ok() {
        return true;
    }
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= MAX_LABEL
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last_is_number =
        host.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    host.len() <= MAX_HOST && !last_is_number && host.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_lxd_takes() {
        for good in ["1.2.3.4:8443", "[::1]:8443", "server.example.com:8443", "localhost:1", "a_b:65535"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("", AddressError::NoPort),
            ("1.2.3.4", AddressError::NoPort),
            ("server.example.com", AddressError::NoPort),
            ("::1", AddressError::NoPort),
            (":8443", AddressError::BadHost),
            ("1.2.3.400:8443", AddressError::BadHost),
            ("[1.2.3.4]:8443", AddressError::BadHost),
            ("-bad-.example:8443", AddressError::BadHost),
            ("https://a:8443", AddressError::NoPort),
            ("a/b:8443", AddressError::BadHost),
            ("a:0", AddressError::BadPort),
            ("a:99999", AddressError::BadPort),
            ("a:+1", AddressError::BadPort),
            ("a:", AddressError::BadPort),
        ] {
            assert_eq!(check(bad), Err(why), "{bad}");
        }
    }

    #[test]
    fn adds_the_port_that_is_missing() {
        for (given, whole) in [
            ("1.2.3.4", "1.2.3.4:8443"),
            ("::1", "[::1]:8443"),
            ("[::1]", "[::1]:8443"),
            ("server.example.com", "server.example.com:8443"),
            ("a:1", "a:1"),
        ] {
            assert_eq!(complete(given), Ok(whole.to_owned()), "{given}");
        }
        for bad in ["", "a:0", "https://a", "a b"] {
            assert!(complete(bad).is_err(), "{bad}");
        }
    }
}
