//! Where the source of an intention is: in this cluster, behind a link, or behind any link of a set.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::{LinkName, NameError, SamenessGroupName};

/// Whose services a source names. The order is that in which Consul lists sources of equal precedence, with any peer,
/// which Consul has not, last.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(try_from = "String", into = "String")]
pub enum Origin {
    /// This cluster.
    #[default]
    Local,
    /// The peer behind this link.
    Peer(LinkName),
    /// Every member of a sameness group.
    Group(SamenessGroupName),
    /// Every peer, whichever link it is behind: written `*`. Never this cluster itself.
    AnyPeer,
}

impl Origin {
    /// The one peer that it means.
    pub fn peer(&self) -> Option<&LinkName> {
        match self {
            Origin::Peer(peer) => Some(peer),
            _ => None,
        }
    }
}

impl From<Option<LinkName>> for Origin {
    /// As a connection has it, which comes over a link or does not.
    fn from(peer: Option<LinkName>) -> Self {
        peer.map_or(Origin::Local, Origin::Peer)
    }
}

/// `@` for this cluster, `@GROUP`, `*`, or a peer's name: no name begins with `@`.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Local => f.write_str("@"),
            Origin::Peer(peer) => peer.fmt(f),
            Origin::Group(group) => write!(f, "@{group}"),
            Origin::AnyPeer => f.write_str("*"),
        }
    }
}

impl FromStr for Origin {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Ok(match (text, text.strip_prefix('@')) {
            ("*", _) => Origin::AnyPeer,
            (_, Some("")) => Origin::Local,
            (_, Some(group)) => Origin::Group(group.parse()?),
            (peer, None) => Origin::Peer(peer.parse()?),
        })
    }
}

impl TryFrom<String> for Origin {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Origin> for String {
    fn from(origin: Origin) -> String {
        origin.to_string()
    }
}
