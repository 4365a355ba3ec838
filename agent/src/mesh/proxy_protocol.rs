//! HAProxy's PROXY protocol, version 2: the header that tells an instance who calls, before the first byte of the
//! connection (`proxy-protocol.txt`, section 2.2). Written by hand: it is a dozen fields, and the one crate that writes
//! values of types brings a second version of what we have.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use schema::access::Source;
use schema::name::ServiceName;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, and the command PROXY: somebody else's connection.
const VERSION_PROXY: u8 = 0x21;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;
/// The name that the caller asked for: the destination service.
const AUTHORITY: u8 = 0x02;
/// Of the range that is left to applications: the calling service, `NAME` or `NAME@LINK`.
pub(super) const SOURCE: u8 = 0xE0;

/// The header for a connection of `source` to `destination`, made by an app at `from` (as its agent says; `None` where it
/// came over a unix socket) and handed on to `to`.
pub(super) fn header(
    source: &Source,
    destination: &ServiceName,
    from: Option<SocketAddr>,
    to: Option<SocketAddr>,
) -> Vec<u8> {
    let mut body = Vec::with_capacity(128);
    // Not the family UNSPEC, which says the same: HAProxy 2.6 breaks off if values follow it.
    let from = from.unwrap_or(SocketAddr::from(([0; 4], 0)));
    let family = addresses(&mut body, canonical(from), to.map(canonical));
    value(&mut body, AUTHORITY, destination.as_str());
    value(&mut body, SOURCE, &source.to_string());
    let mut header = Vec::with_capacity(SIGNATURE.len() + 4 + body.len());
    header.extend(SIGNATURE);
    header.extend([VERSION_PROXY, family]);
    // Two addresses and two names, none of which is longer than 255 bytes.
    header.extend(u16::try_from(body.len()).unwrap_or_default().to_be_bytes());
    header.extend(body);
    header
}

/// Whether a peer's word for where its app is can be handed on: an address of the whole internet. Any other means
/// something else here than it does there, and an instance may trust it more than a stranger's (`127.0.0.1`).
pub(super) fn is_global(from: &SocketAddr) -> bool {
    match from.ip().to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            !(ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_documentation()
                // This network; carriers' own; the protocols'; for benchmarks; multicast, reserved and broadcast.
                || a == 0
                || (a == 100 && (64..128).contains(&b))
                || (a, b, c) == (192, 0, 0)
                || (a == 198 && (18..20).contains(&b))
                || a >= 224)
        }
        // Global unicast is `2000::/3`, of which `2001:db8::/32` is for examples and `2002::/16` may wrap any of the above.
        IpAddr::V6(ip) => {
            let [first, second, ..] = ip.segments();
            first & 0xe000 == 0x2000 && (first, second) != (0x2001, 0x0db8) && first != 0x2002
        }
    }
}

/// Both are of one family in the header: where they are not, IPv4 is written as IPv6 maps it. A unix socket is no
/// address: it is written as the unspecified one.
fn addresses(body: &mut Vec<u8>, from: SocketAddr, to: Option<SocketAddr>) -> u8 {
    let to = to.unwrap_or_else(|| match from {
        SocketAddr::V4(_) => SocketAddr::from(([0; 4], 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    });
    let family = if let (IpAddr::V4(source), IpAddr::V4(target)) = (from.ip(), to.ip()) {
        body.extend(source.octets());
        body.extend(target.octets());
        TCP_OVER_IPV4
    } else {
        for ip in [from.ip(), to.ip()] {
            let mapped = match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            };
            body.extend(mapped.octets());
        }
        TCP_OVER_IPV6
    };
    body.extend(from.port().to_be_bytes());
    body.extend(to.port().to_be_bytes());
    family
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn value(body: &mut Vec<u8>, kind: u8, text: &str) {
    // Names are far shorter; what is not goes without rather than with a wrong length.
    let Ok(length) = u16::try_from(text.len()) else { return };
    body.push(kind);
    body.extend(length.to_be_bytes());
    body.extend(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(peer: Option<&str>) -> Source {
        Source { peer: peer.map(|peer| peer.parse().unwrap()), service: "web".parse().unwrap() }
    }

    #[test]
    fn the_header_is_as_the_specification_lays_it_out() {
        let (from, to) = ("10.1.2.3:4660".parse().ok(), "127.0.0.1:80".parse().ok());
        let written = header(&source(Some("west")), &"db".parse().unwrap(), from, to);
        let mut expected = b"\x0D\x0A\x0D\x0A\x00\x0D\x0A\x51\x55\x49\x54\x0A\x21\x11\x00\x1C".to_vec();
        expected.extend(b"\x0A\x01\x02\x03\x7F\x00\x00\x01\x12\x34\x00\x50");
        expected.extend(b"\x02\x00\x02db\xE0\x00\x08web@west");
        assert_eq!(written, expected);
    }

    #[test]
    fn of_a_peer_s_addresses_only_those_of_the_internet_mean_anything_here() {
        let global = |ip: &str| is_global(&SocketAddr::new(ip.parse().unwrap(), 1));
        for ip in ["8.8.8.8", "100.128.0.1", "198.20.0.1", "::ffff:8.8.8.8", "2a00:1450::1"] {
            assert!(global(ip), "{ip}");
        }
        for ip in [
            "127.0.0.1",
            "127.9.9.9",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.1.1",
            "0.0.0.0",
            "100.64.0.1",
            "192.0.0.8",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "64:ff9b::7f00:1",
        ] {
            assert!(!global(ip), "{ip}");
        }
    }

    #[test]
    fn addresses_of_two_families_are_written_as_one_and_a_socket_has_none() {
        let db = "db".parse().unwrap();
        let mixed = header(&source(None), &db, "10.0.0.1:1".parse().ok(), "[::1]:2".parse().ok());
        assert_eq!((mixed[13], &mixed[16..32]), (0x21, &b"\0\0\0\0\0\0\0\0\0\0\xff\xff\x0a\0\0\x01"[..]));
        let mapped =
            header(&source(None), &db, "[::ffff:10.0.0.1]:1".parse().ok(), "127.0.0.1:2".parse().ok());
        assert_eq!((mapped[13], &mapped[16..20]), (0x11, &[10, 0, 0, 1][..]));
        let unix = header(&source(None), &db, "[::2]:1".parse().ok(), None);
        assert_eq!((unix[13], &unix[32..48]), (0x21, &[0; 16][..]));
        let nowhere = header(&source(None), &db, None, "127.0.0.1:2".parse().ok());
        assert_eq!((nowhere[13], &nowhere[16..20], &nowhere[24..26]), (0x11, &[0; 4][..], &[0; 2][..]));
    }
}
