//! Dialling a redeemer back at the addresses that it gave.
//!
//! It tells whether this side could open the connection if it had to, and no more: the link lives on the redeemer's
//! own. Only for a stock LXD, which redeems without showing a certificate, is it required: then the handshake at an
//! address of its is what proves that it holds its certificate's key.
//!
//! A redeemer says where to dial, so it is held short: somebody who holds a token already, a few addresses, nothing
//! sent before the certificate is the promised one, and this machine's own addresses only for who is on it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use schema::name::LinkName;

use super::half::DialBack;
use super::{Peering, PeeringError, ledger};
use crate::client::verify::verify;
use crate::trust::Fingerprint;

/// Most addresses that are dialled.
pub const MAX_ADDRESSES: usize = 8;
/// How long each may take, all included.
const LIMIT: Duration = Duration::from_secs(2);

/// How a redeemer came here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From this very machine.
    Loopback,
    Network,
}

impl Way {
    /// Of a connection from `address`; `None` is the unix socket.
    pub fn of(address: Option<SocketAddr>) -> Self {
        match address {
            Some(address) if !address.ip().to_canonical().is_loopback() => Way::Network,
            _ => Way::Loopback,
        }
    }

    /// Whether who came this way may have `address` dialled.
    fn allows(self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        if address.is_unspecified() || address.is_multicast() {
            return false;
        }
        self == Way::Loopback || !address.is_loopback()
    }
}

/// Addresses that could be dialled, at most as many as are taken from a peer. They are hints: what is there is
/// pinned before a byte is sent.
pub fn plausible(addresses: &[String]) -> Vec<String> {
    let dialable = |address: &&String| schema::kind::cluster_link::address::check(address).is_ok();
    addresses.iter().filter(dialable).take(MAX_ADDRESSES).cloned().collect()
}

impl Peering {
    /// Dials `peer` at `addresses`, all at once; what it is sent is `GET /1.0` from nobody.
    pub(super) async fn dial_back(&self, peer: Fingerprint, addresses: &[String], way: Way) -> DialBack {
        let mut asked: FuturesUnordered<_> =
            addresses.iter().take(MAX_ADDRESSES).map(|address| reach(address, peer, way)).collect();
        let mut dialled = false;
        while let Some(reached) = asked.next().await {
            match reached {
                Reached::Yes(address) => return DialBack::Reached { address, at: Timestamp::now() },
                Reached::No => dialled = true,
                Reached::NotDialled => {}
            }
        }
        let at = Timestamp::now();
        if dialled { DialBack::Unreached { at } } else { DialBack::Nowhere { at } }
    }

    /// Dials the peer that `link` was just made with back, and keeps what came of it.
    pub(super) async fn note_dial_back(
        &self,
        link: &LinkName,
        peer: Fingerprint,
        addresses: &[String],
        way: Way,
    ) {
        let result = self.dial_back(peer, addresses, way).await;
        tracing::info!(%link, ?result, "the redeemer was dialled back");
        if let Err(error) = self.keep_dial_back(link, &peer, result).await {
            tracing::warn!(%link, %error, "what came of dialling back could not be kept");
        }
        self.statuses.touch();
    }

    async fn keep_dial_back(
        &self,
        link: &LinkName,
        peer: &Fingerprint,
        result: DialBack,
    ) -> Result<(), PeeringError> {
        loop {
            let before = ledger::read(&*self.parts.store, link).await?;
            let Some(after) = before.half.clone().dialled_back(peer, result.clone()) else { return Ok(()) };
            if self.commit(ledger::replace(link, &before, &after)).await?.is_some() {
                return Ok(());
            }
        }
    }
}

enum Reached {
    Yes(String),
    No,
    /// It leads where the redeemer may not have dialled, or nowhere.
    NotDialled,
}

async fn reach(address: &str, peer: Fingerprint, way: Way) -> Reached {
    let found = tokio::time::timeout(LIMIT, tokio::net::lookup_host(address)).await;
    let Ok(Ok(found)) = found else { return Reached::NotDialled };
    let allowed: Vec<SocketAddr> = found.filter(|found| way.allows(found.ip())).take(MAX_ADDRESSES).collect();
    if allowed.is_empty() {
        return Reached::NotDialled;
    }
    // What was looked up is what is dialled: a name that leads elsewhere the second time gains nothing.
    let mut asked: FuturesUnordered<_> = allowed
        .into_iter()
        .map(|found| async move { verify(&found.to_string(), peer, None, LIMIT).await })
        .collect();
    while let Some(answer) = asked.next().await {
        match answer {
            Ok(_) => return Reached::Yes(address.to_owned()),
            Err(error) => tracing::debug!(address, %error, "an address could not be dialled back"),
        }
    }
    Reached::No
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_is_on_this_machine_has_it_dialled() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let from = |text: &str| Way::of(Some(SocketAddr::new(ip(text), 1)));
        assert_eq!(
            [from("127.0.0.1"), from("::1"), from("::ffff:127.0.0.1"), Way::of(None)],
            [Way::Loopback; 4]
        );
        assert_eq!(from("10.0.0.1"), Way::Network);
        for own in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(!Way::Network.allows(ip(own)) && Way::Loopback.allows(ip(own)), "{own}");
        }
        for never in ["0.0.0.0", "::", "224.0.0.1", "ff02::1"] {
            assert!(!Way::Network.allows(ip(never)) && !Way::Loopback.allows(ip(never)), "{never}");
        }
        assert!(Way::Network.allows(ip("10.0.0.1")));
    }

    #[test]
    fn what_is_no_address_is_passed_over_and_no_more_than_eight_are_taken() {
        let given: Vec<String> = ["", "a", ":1", "a:0", "a,b:1", "a:1"].map(str::to_owned).into();
        assert_eq!(plausible(&given), ["a:1"]);
        let many: Vec<String> = (1..20).map(|port| format!("a:{port}")).collect();
        assert_eq!(plausible(&many).len(), MAX_ADDRESSES);
    }
}
