//! What whoever asks for a transfer may have this agent dial, and what of it he is told.
//!
//! A transfer's other side is named by whoever asks for it. So that this agent is no eye of strangers on the networks
//! that it stands in, they learn of an address nothing but that no server with the right certificate answered there, and
//! have no services dialled that listen for this machine alone.

use std::net::IpAddr;
use std::time::Duration;

use super::TransferError;
use crate::client::ClientError;
use crate::trust::{Caller, Who};

/// How long an address may take to be looked up.
const LOOKED_UP_WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// Somebody on this machine, who sees its network himself.
    Here,
    Elsewhere,
}

impl Asker {
    pub fn of(caller: &Caller) -> Self {
        match (&caller.who, caller.origin.address) {
            // A stream of a link has no address either.
            (Who::Peer { .. }, _) => Self::Elsewhere,
            (_, Some(address)) if !address.ip().to_canonical().is_loopback() => Self::Elsewhere,
            _ => Self::Here,
        }
    }

    fn allows(self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let link_local = match ip {
            IpAddr::V4(ip) => ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        let this_machine = ip.is_loopback() || ip.is_unspecified();
        !link_local && !ip.is_multicast() && (self == Self::Here || !this_machine)
    }

    /// The addresses that are dialled for him.
    pub async fn dialled(self, addresses: &[String]) -> Result<Vec<String>, TransferError> {
        let mut dialled = Vec::new();
        for address in addresses {
            let found = tokio::time::timeout(LOOKED_UP_WITHIN, tokio::net::lookup_host(address)).await;
            match found {
                Ok(Ok(mut found)) => {
                    if found.all(|found| self.allows(found.ip())) {
                        dialled.push(address.clone());
                    } else {
                        tracing::warn!(
                            address,
                            "not dialled for a transfer: it leads to this machine or link alone"
                        );
                    }
                }
                // Whoever dials it says why that is no address.
                Ok(Err(_)) | Err(_) => dialled.push(address.clone()),
            }
        }
        if dialled.is_empty() { Err(self.refused("it may not be dialled")) } else { Ok(dialled) }
    }

    /// Why the other side was not reached.
    pub fn unreached(self, error: &ClientError) -> TransferError {
        match error {
            // It has shown the right certificate: these are the words of the one that he named.
            ClientError::Refused { .. } => TransferError::Unreachable(error.to_string()),
            error => self.refused(&error.to_string()),
        }
    }

    fn refused(self, reason: &str) -> TransferError {
        if self == Self::Here {
            return TransferError::Unreachable(reason.to_owned());
        }
        tracing::warn!(reason, "the other side of a transfer could not be reached");
        let all = "no server with its certificate answers at its address; the log of this agent says why";
        TransferError::Unreachable(all.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(address: Option<&str>) -> Caller {
        let mut caller = Caller::local(0);
        caller.origin.address = address.map(|address| address.parse().unwrap());
        caller
    }

    #[tokio::test]
    async fn strangers_have_nothing_dialled_on_this_machine_and_learn_nothing_of_what_is_there() {
        assert_eq!(Asker::of(&caller(None)), Asker::Here);
        assert_eq!(Asker::of(&caller(Some("127.0.0.1:9"))), Asker::Here);
        let stranger = Asker::of(&caller(Some("192.0.2.7:9")));
        assert_eq!(stranger, Asker::Elsewhere);
        let told = |error: TransferError| error.to_string();
        let mut all = Vec::new();
        for address in [
            "127.0.0.1:1",
            "[::1]:1",
            "0.0.0.0:1",
            "[::ffff:127.0.0.1]:1",
            "169.254.169.254:80",
            "[fe80::1]:1",
        ] {
            all.push(told(stranger.dialled(&[address.to_owned()]).await.unwrap_err()));
        }
        for reason in ["connection refused", "something else answered"] {
            let error = ClientError::Unreachable { agent: "it".to_owned(), reason: reason.to_owned() };
            all.push(told(stranger.unreached(&error)));
            assert!(told(Asker::Here.unreached(&error)).contains(reason));
        }
        all.dedup();
        assert_eq!(all.len(), 1, "{all:?}");
        let two = ["127.0.0.1:1".to_owned(), "192.0.2.1:1".to_owned()];
        assert_eq!(stranger.dialled(&two).await.unwrap(), two[1..]);
        assert_eq!(Asker::Here.dialled(&two).await.unwrap(), two);
        assert!(Asker::Here.dialled(&["169.254.169.254:80".to_owned()]).await.is_err());
    }
}
