//! Why a link could not be made or read. Texts that LXD's users know are LXD's.

use http::StatusCode;
use schema::name::LinkName;

use super::half::ActivateError;
use crate::store::value::ValueError;
use crate::store::{CommitError, StoreError};
use crate::trust::Fingerprint;
use crate::wire::token::TokenError;

/// What is told of a token that no link here takes, whatever the reason: a stranger learns no more than from LXD.
const NO_SUCH_TOKEN: &str = "Failed during search for pending identity: Failed finding a matching pending identity: \
                             No pending identities found with given secret";

/// Why a link could not be made, or read.
#[derive(Debug, thiserror::Error)]
pub enum PeeringError {
    #[error("there is no cluster link {0}")]
    NotFound(LinkName),
    #[error("cluster link {0} is public: its trust is made by a certificate, not by a token")]
    Public(LinkName),
    #[error("cluster link {0} is not public: its trust is made by a token, not by a certificate alone")]
    NotPublic(LinkName),
    #[error(
        "cluster link {0} is the calling side of a unidirectional link: it redeems a token and makes none"
    )]
    Calls(LinkName),
    #[error(
        "cluster link {0} is the side of a unidirectional link that is called: it makes a token and redeems none"
    )]
    Called(LinkName),
    /// In Consul's words.
    #[error("cannot create peering with name: {:?}; there is already an established peering", .0.as_str())]
    Dials(LinkName),
    /// In Consul's words.
    #[error("cannot create peering with name: {:?}; there is an existing peering expecting to be dialed", .0.as_str())]
    IsDialled(LinkName),
    #[error("cluster link {0} is one-way or public, and a peering goes both ways")]
    NotAPeering(LinkName),
    #[error("Cannot issue token when server is not listening on network")]
    NotListening,
    #[error("cluster link {link} is already made, with certificate {peer}")]
    AlreadyLinked { link: LinkName, peer: Fingerprint },
    #[error("Cluster link {:?} has already been confirmed", .0.as_str())]
    AlreadyConfirmed(LinkName),
    #[error("the cluster that the token is from is already linked here, as {0}")]
    LinkedElsewhere(LinkName),
    #[error("A cluster link already exists between these clusters")]
    PeerKnown,
    #[error("this identity is that of cluster link {0}, and goes with it")]
    IsLinked(LinkName),
    #[error("no linked cluster has this certificate")]
    UnknownPeer,
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("Invalid trust token type {0:?}: this token is not for a cluster link")]
    OtherKind(String),
    #[error("the token's certificate fingerprint is not one: part of the token may be missing")]
    BadFingerprint,
    #[error("this token is this cluster's own: a link to itself cannot be made")]
    Itself,
    #[error("{NO_SUCH_TOKEN}")]
    UnknownToken,
    #[error("{0}")]
    Activate(#[from] ActivateError),
    #[error("Cluster certificate required")]
    CertificateRequired,
    #[error("the cluster certificate in the request is not a certificate")]
    BadCertificate,
    #[error("the certificate in the request is not the one that the connection was made with")]
    WrongCertificate,
    #[error("No client certificate provided")]
    NoCertificate,
    #[error("Certificate does not match the certificate returned when the pending cluster link was created")]
    OtherCertificate,
    #[error("Failed validating cluster certificate: {0}")]
    Unverified(String),
    #[error(
        "Failed validating cluster certificate: Failed retrieving cluster certificate from any address: {}",
        tried.iter().map(|(_, why)| why.as_str()).collect::<Vec<_>>().join("; ")
    )]
    NoIssuer {
        /// Each address and what came of it.
        tried: Vec<(String, String)>,
    },
    #[error(
        "Failed activating cluster link {:?} after trying {tried} address(es): Remote cluster address {address:?}: {message}",
        .link.as_str()
    )]
    RefusedByPeer { link: LinkName, tried: usize, address: String, status: StatusCode, message: String },
    #[error("Failed activating cluster link {:?}: {reason}", .link.as_str())]
    Unreachable { link: LinkName, reason: String },
    #[error("the agent is ending")]
    Ending,
    #[error("another exchange has been begun for link {0}; try again")]
    Superseded(LinkName),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Value(#[from] ValueError),
}

impl PeeringError {
    /// What a stranger is told who came with a token: the same for every token that is not taken.
    #[must_use]
    pub fn for_strangers(self) -> Self {
        match self {
            Self::Activate(_) | Self::Calls(_) | Self::Called(_) | Self::Public(_) | Self::NotFound(_) => {
                Self::UnknownToken
            }
            other => other,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Public(_) => {
                "Pin its certificate: apply its address and fingerprint, or create it with --public."
            }
            Self::NotPublic(_) => "Mint a token on one side and redeem it on the other.",
            Self::Calls(_) => {
                "Mint the token on the other side, which says in auth_groups what this one may do there."
            }
            Self::Called(_) => {
                "Redeem this side's token on the other, or leave its auth_groups out if it is to call."
            }
            Self::Dials(_) => {
                "The peer issued the token of this link: generate the next one there, or delete this peering first."
            }
            Self::IsDialled(_) => {
                "A token of this one is out, or was redeemed: establish on the peer with it, or delete this peering first."
            }
            Self::NotAPeering(_) => "Give the peering another name.",
            Self::NotListening => {
                "Start the agent with --listen, or mint the token on the peer and redeem it here."
            }
            Self::AlreadyLinked { .. } | Self::AlreadyConfirmed(_) => {
                "To make it anew, delete the link first."
            }
            Self::LinkedElsewhere(_) | Self::PeerKnown => {
                "Two clusters share one link: use it, or delete it first."
            }
            Self::Token(_) | Self::BadFingerprint => "Copy the whole token again, or mint another.",
            Self::OtherKind(_) => "Redeem it with `comity remote add`, or mint one for a link on the peer.",
            Self::Itself => "Mint the token on the other cluster.",
            Self::UnknownToken | Self::Activate(_) | Self::RefusedByPeer { .. } => {
                "A token works once and until it expires; a newer one replaces it. Mint another one on the peer: apply \
                 both sides together, or `comity link create` there."
            }
            Self::Unverified(_) | Self::NoIssuer { .. } => {
                "Nothing was sent. See that the peer's agent runs, that the addresses lead to it from here, and that \
                 the certificate is its own: `comity status` there shows it."
            }
            Self::Unreachable { .. } => {
                "See that the peer's agent runs and listens where the token says, then try again."
            }
            Self::Superseded(_) => "Try again.",
            Self::IsLinked(_) => "Delete the link: its peer is told, and cut off at once.",
            Self::NotFound(_)
            | Self::UnknownPeer
            | Self::CertificateRequired
            | Self::BadCertificate
            | Self::WrongCertificate
            | Self::OtherCertificate
            | Self::NoCertificate
            | Self::Ending
            | Self::Store(_)
            | Self::Commit(_)
            | Self::Value(_) => return None,
        })
    }
}
