//! Where to listen in the clear: on this machine only.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

/// Consul's port for plain HTTP.
const CONSUL_PORT: u16 = 8500;

/// An address that nobody can reach from another machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loopback(SocketAddr);

impl Loopback {
    pub fn address(self) -> SocketAddr {
        self.0
    }
}

/// `127.0.0.1:8500`, `[::1]:8500`, or without the port, or without the address.
impl FromStr for Loopback {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let host = |text: &str| match text {
            "localhost" | "" => Some(IpAddr::from(Ipv4Addr::LOCALHOST)),
            text => text.trim_matches(['[', ']']).parse().ok(),
        };
        let with_port = || {
            let (before, port) = text.rsplit_once(':')?;
            Some(SocketAddr::new(host(before)?, port.parse().ok()?))
        };
        let address = text.parse().ok().or_else(|| Some(SocketAddr::new(host(text)?, CONSUL_PORT)));
        let address = address.or_else(with_port);
        address.filter(|address| address.ip().is_loopback()).map(Self).ok_or_else(|| {
            "plain HTTP is for this machine only: give a loopback address, such as 127.0.0.1:8500 or [::1]:8500"
                .to_owned()
        })
    }
}

impl<'de> Deserialize<'de> for Loopback {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machines_own_addresses_are_taken() {
        for (text, address) in [
            ("127.0.0.1:8500", "127.0.0.1:8500"),
            ("127.0.0.1", "127.0.0.1:8500"),
            ("localhost", "127.0.0.1:8500"),
            ("localhost:9", "127.0.0.1:9"),
            (":8501", "127.0.0.1:8501"),
            ("[::1]:8500", "[::1]:8500"),
            ("::1", "[::1]:8500"),
            ("127.9.9.9:0", "127.9.9.9:0"),
        ] {
            assert_eq!(text.parse::<Loopback>().unwrap().address(), address.parse().unwrap(), "{text}");
        }
        for text in ["0.0.0.0:8500", "[::]:8500", "10.0.0.1:8500", "example:8500", "127.0.0.1:x", "::"] {
            assert!(text.parse::<Loopback>().unwrap_err().contains("loopback"), "{text}");
        }
    }
}
