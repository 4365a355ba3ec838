//! The network listener, and where others are told to reach it.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;

use crate::settings::Listen;
use crate::sockets::{Lease, Sockets};

/// Why the agent cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("{address} is in use by {}", .holder.as_deref().unwrap_or("another program"))]
    InUse { address: SocketAddr, holder: Option<String> },
    #[error("no permission to listen on {0}")]
    Forbidden(SocketAddr),
    #[error("{0} is no address of this machine")]
    NotHere(SocketAddr),
    #[error("cannot listen on {address}: {source}")]
    Io { address: SocketAddr, source: io::Error },
}

/// A listener that is bound. (Its lease goes first when it is dropped, as leases ask for.)
#[derive(Debug)]
pub struct Bound {
    pub lease: Lease,
    pub listener: TcpListener,
}

/// Binds the first of the addresses that this machine can have. Every other fault than a family that is not there is
/// final: listening elsewhere than asked would surprise.
pub fn bind(sockets: &Arc<Sockets>, listen: Listen) -> Result<Option<Bound>, ListenError> {
    let mut last = None;
    for address in listen.addresses() {
        match sockets.listen_tcp(address) {
            Ok((listener, lease)) => return Ok(Some(Bound { lease, listener })),
            Err(source) => {
                let no_family = source.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
                    || source.kind() == io::ErrorKind::AddrNotAvailable;
                let error = match source.kind() {
                    io::ErrorKind::AddrInUse => {
                        ListenError::InUse { address, holder: holder(address.port()) }
                    }
                    io::ErrorKind::PermissionDenied => ListenError::Forbidden(address),
                    io::ErrorKind::AddrNotAvailable => ListenError::NotHere(address),
                    _ => ListenError::Io { address, source },
                };
                if !no_family {
                    return Err(error);
                }
                last = Some(error);
            }
        }
    }
    last.map_or(Ok(None), Err)
}

/// The program that listens on `port`, as far as this user may see: its socket's inode, sought in every process.
fn holder(port: u16) -> Option<String> {
    const LISTENING: &str = "0A";
    let tables =
        ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    let sockets: Vec<String> = tables
        .iter()
        .flat_map(|table| table.lines().skip(1))
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, local, _, state, .., _, inode] = *fields.get(..10)? else { return None };
            let on_port =
                local.rsplit_once(':').is_some_and(|(_, hex)| u16::from_str_radix(hex, 16) == Ok(port));
            (on_port && state == LISTENING).then(|| format!("socket:[{inode}]"))
        })
        .collect();
    let processes = fs::read_dir("/proc").ok()?.filter_map(Result::ok).map(|entry| entry.path());
    let holding = |process: &PathBuf| {
        let files = fs::read_dir(process.join("fd")).into_iter().flatten().filter_map(Result::ok);
        let mut opened = files.filter_map(|file| fs::read_link(file.path()).ok());
        opened.any(|target| sockets.iter().any(|socket| target.as_os_str() == socket.as_str()))
    };
    // Not by its other names, such as `self`.
    let numbered = |process: &PathBuf| {
        process.file_name().is_some_and(|pid| pid.as_encoded_bytes().iter().all(u8::is_ascii_digit))
    };
    let process = processes.filter(numbered).find(holding)?;
    let name = fs::read_to_string(process.join("comm")).ok()?;
    Some(format!("{} (process {})", name.trim(), process.file_name()?.to_string_lossy()))
}

/// Where others reach a listener that is bound to `bound`: there, or, where that is every address, at those by which
/// this machine reaches the rest of the world. No packet is sent to find out.
pub fn reachable(bound: SocketAddr) -> Vec<String> {
    if !bound.ip().is_unspecified() {
        return vec![bound.to_string()];
    }
    let mut found = Vec::new();
    // Addresses set aside for documentation: nobody's, but routed like any other.
    for (from, to) in [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")] {
        let probe = UdpSocket::bind(from).and_then(|socket| {
            socket.connect(to)?;
            socket.local_addr()
        });
        match probe.map(|address| address.ip()) {
            Ok(ip) if !ip.is_unspecified() && !ip.is_loopback() => {
                found.push(SocketAddr::from((ip, bound.port())).to_string());
            }
            _ => {}
        }
    }
    if found.is_empty() {
        found.push(SocketAddr::from((IpAddr::from([127, 0, 0, 1]), bound.port())).to_string());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_named_and_a_bound_address_is_told_as_it_is() {
        let sockets = Sockets::alone();
        let first = bind(&sockets, Listen::At("127.0.0.1:0".parse().unwrap())).unwrap().unwrap();
        let address = first.listener.local_addr().unwrap();
        let refused = bind(&sockets, Listen::At(address)).unwrap_err().to_string();
        let process = format!("(process {})", std::process::id());
        assert!(
            refused.starts_with(&format!("{address} is in use by ")) && refused.ends_with(&process),
            "{refused}"
        );
        assert_eq!(reachable(address), [address.to_string()]);
        assert!(bind(&sockets, Listen::Nowhere).unwrap().is_none());
    }

    #[test]
    fn a_wildcard_is_told_as_an_address_that_can_be_dialled() {
        for address in reachable("[::]:8443".parse().unwrap()) {
            let address: SocketAddr = address.parse().unwrap();
            assert!(!address.ip().is_unspecified() && address.port() == 8443);
        }
    }
}
