//! Where to listen on the network.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Deserializer};

pub const DEFAULT_PORT: u16 = 8443;

/// Where to listen on the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// Every address of the machine.
    Everywhere(u16),
    At(SocketAddr),
    /// Only the unix socket; such an agent can dial but not be dialled.
    Nowhere,
}

impl Listen {
    /// The address to bind; the second choice is for machines without IPv6.
    pub fn addresses(self) -> Vec<SocketAddr> {
        match self {
            Listen::Everywhere(port) => {
                vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), SocketAddr::from(([0, 0, 0, 0], port))]
            }
            Listen::At(address) => vec![address],
            Listen::Nowhere => Vec::new(),
        }
    }
}

impl std::str::FromStr for Listen {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Listen::Nowhere);
        }
        if let Some(Ok(port)) = text.strip_prefix(':').map(str::parse) {
            return Ok(Listen::Everywhere(port));
        }
        if text == "[::]" {
            return Ok(Listen::Everywhere(DEFAULT_PORT));
        }
        let address = text.parse::<SocketAddr>().ok();
        // LXD's users write an IPv6 address in brackets with or without a port.
        let plain = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        let bare = || plain.parse::<IpAddr>().ok().map(|ip| SocketAddr::from((ip, DEFAULT_PORT)));
        address.or_else(bare).map(Listen::At).ok_or_else(|| {
            "an address to listen on is IP:PORT, [IPv6]:PORT, :PORT for every address, or none".to_owned()
        })
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        assert_eq!("127.0.0.1".parse(), Ok(Listen::At("127.0.0.1:8443".parse().unwrap())));
        assert_eq!("[::]".parse(), Ok(Listen::Everywhere(8443)));
        assert_eq!("[::1]".parse(), Ok(Listen::At("[::1]:8443".parse().unwrap())));
        assert_eq!(":8444".parse(), Ok(Listen::Everywhere(8444)));
        assert_eq!("none".parse(), Ok(Listen::Nowhere));
        assert!("localhost:8443".parse::<Listen>().is_err());
    }
}
