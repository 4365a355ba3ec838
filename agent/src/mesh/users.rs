//! Which user of this machine is at the other end of a local connection.
//!
//! Of a unix socket the kernel says it with the connection. Of a loopback TCP connection it is asked who owns the other
//! end: `sock_diag` looks up exactly that one socket, in the tables that `/proc/net/tcp` lists whole, which is read
//! where `sock_diag` is not to be had. A socket that its owner has closed already is nobody's: the kernel would name
//! root for it, so it counts as unknown.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_sys::{Socket as Netlink, SocketAddr as NetlinkAddress, protocols::NETLINK_SOCK_DIAG};

use super::socket::Socket;

/// Room for the one answer there is.
const ANSWER: usize = 4096;

/// What the kernel says of every user of another user namespace that has no number in ours.
const UNMAPPED: u32 = 65_534;

/// Why it is not known who connects.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unknown {
    #[error("the app has closed its end already")]
    Closed,
    #[error(
        "it is user {UNMAPPED} here, as all are that another user namespace has and this one does not know"
    )]
    Unmapped,
    #[error("the kernel does not tell who owns the other end: {0}")]
    Untold(io::Error),
}

impl From<io::Error> for Unknown {
    fn from(error: io::Error) -> Self {
        Self::Untold(error)
    }
}

/// The user at the other end of `app`.
pub(super) async fn user_of(app: &Socket) -> Result<u32, Unknown> {
    known(owner_of(app).await?)
}

/// One number that stands for many users names none of them.
fn known(uid: u32) -> Result<u32, Unknown> {
    if uid == UNMAPPED { Err(Unknown::Unmapped) } else { Ok(uid) }
}

async fn owner_of(app: &Socket) -> Result<u32, Unknown> {
    let (theirs, ours) = match app {
        Socket::Unix(socket) => return Ok(socket.peer_cred()?.uid()),
        Socket::Tcp(socket) => (socket.peer_addr()?, socket.local_addr()?),
    };
    match ask(theirs, ours) {
        Ok(owner) => owner.uid(),
        // It knows the socket, or it is gone.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Unknown::Closed),
        Err(_) => {
            let listed = tokio::task::spawn_blocking(move || listed(theirs, ours)).await;
            listed.map_err(io::Error::other)??.uid()
        }
    }
}

/// What the kernel says of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Owner {
    uid: u32,
    /// 0 where no process has the socket open any more.
    inode: u64,
}

impl Owner {
    fn uid(self) -> Result<u32, Unknown> {
        if self.inode == 0 { Err(Unknown::Closed) } else { Ok(self.uid) }
    }
}

/// Looks the socket up that is bound to `local` and connected to `remote`.
fn ask(local: SocketAddr, remote: SocketAddr) -> io::Result<Owner> {
    let mut netlink = Netlink::new(NETLINK_SOCK_DIAG)?;
    netlink.bind_auto()?;
    netlink.connect(&NetlinkAddress::new(0, 0))?;
    // The kernel answers before the question has returned; whatever else it does is no answer.
    netlink.set_non_blocking(true)?;
    let mut head = NetlinkHeader::default();
    head.flags = NLM_F_REQUEST;
    let family = if local.is_ipv4() { AF_INET } else { AF_INET6 };
    let request = InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::all(),
        socket_id: SocketId {
            source_address: local.ip(),
            source_port: local.port(),
            destination_address: remote.ip(),
            destination_port: remote.port(),
            interface_id: 0,
            // No socket's: any that has the addresses.
            cookie: [0xff; 8],
        },
    };
    let mut question = NetlinkMessage::new(head, SockDiagMessage::InetRequest(request).into());
    question.finalize();
    let mut bytes = vec![0; question.buffer_len()];
    question.serialize(&mut bytes);
    netlink.send(&bytes, 0)?;
    let mut answer = Vec::with_capacity(ANSWER);
    netlink.recv(&mut answer, 0)?;
    let answer = NetlinkMessage::<SockDiagMessage>::deserialize(&answer)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    match answer.payload {
        NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(found)) => {
            // The question named both ends; an answer about any other socket is none.
            let id = &found.header.socket_id;
            if (id.source_port, id.destination_port) != (local.port(), remote.port()) {
                return Err(io::ErrorKind::InvalidData.into());
            }
            Ok(Owner { uid: found.header.uid, inode: found.header.inode.into() })
        }
        NetlinkPayload::Error(error) => Err(error.to_io()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The same from the kernel's lists.
fn listed(local: SocketAddr, remote: SocketAddr) -> Result<Owner, Unknown> {
    // A socket of IPv6 may have connected to an address of IPv4.
    for list in ["/proc/net/tcp", "/proc/net/tcp6"] {
        match std::fs::read_to_string(list) {
            Ok(text) => {
                if let Some(found) = find(&text, local, remote) {
                    return Ok(found);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Unknown::Closed)
}

fn find(text: &str, local: SocketAddr, remote: SocketAddr) -> Option<Owner> {
    let same = |listed: &str, wanted: SocketAddr| {
        address(listed).is_some_and(|(ip, port)| {
            port == wanted.port() && ip.to_canonical() == wanted.ip().to_canonical()
        })
    };
    text.lines().skip(1).find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (here, there) = (words.next()?, words.next()?);
        if !same(here, local) || !same(there, remote) {
            return None;
        }
        // State, queues, timer, retransmissions; then the user, a timeout, and the inode.
        let uid = words.nth(4)?.parse().ok()?;
        let inode = words.nth(1)?.parse().ok()?;
        Some(Owner { uid, inode })
    })
}

/// `0100007F:1F90`: words of the machine's byte order, then the port.
fn address(text: &str) -> Option<(IpAddr, u16)> {
    let (ip, port) = text.split_once(':')?;
    let mut octets = Vec::with_capacity(16);
    for at in (0..ip.len()).step_by(8) {
        octets.extend(u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    }
    let ip = match <[u8; 4]>::try_from(octets.as_slice()) {
        Ok(octets) => IpAddr::V4(Ipv4Addr::from(octets)),
        Err(_) => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(octets.as_slice()).ok()?)),
    };
    Some((ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn me() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    #[test]
    fn the_number_of_all_unknown_users_is_nobody_s() {
        assert!(matches!(known(1000), Ok(1000)));
        let refused = known(65_534).unwrap_err().to_string();
        assert!(refused.contains("user namespace"), "{refused}");
    }

    #[test]
    fn both_ways_to_ask_name_the_owner_of_the_other_end() {
        for (listen, connect) in
            [("127.0.0.1:0", "127.0.0.1"), ("127.0.0.1:0", "::ffff:127.0.0.1"), ("[::1]:0", "::1")]
        {
            let listener = TcpListener::bind(listen).unwrap();
            let port = listener.local_addr().unwrap().port();
            let app = TcpStream::connect((connect, port)).unwrap();
            let (taken, theirs) = listener.accept().unwrap();
            let ours = taken.local_addr().unwrap();
            let asked = ask(theirs, ours).unwrap();
            assert_eq!(asked.uid().unwrap(), me(), "{connect}");
            assert_eq!(listed(theirs, ours).unwrap(), asked, "{connect}");
            // Closed, it is nobody's: above all not root's.
            drop(app);
            let gone = ask(theirs, ours).map(Owner::uid);
            assert!(matches!(gone, Err(_) | Ok(Err(Unknown::Closed))), "{gone:?}");
            let gone = listed(theirs, ours).and_then(Owner::uid);
            assert!(matches!(gone, Err(Unknown::Closed)), "{gone:?}");
        }
    }
}
