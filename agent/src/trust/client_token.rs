//! Clients that are trusted, and the one-time tokens by which others become so.
//!
//! Of a token the store holds the digest of its secret, never the secret, and under a key made of that digest which
//! token it is, so that finding one does not take reading all. Redeeming is one commit that marks the token as used
//! and writes the identity, guarded on both, so of any number of redeemers one wins. A used token stays until it
//! expires, so that its user may ask again; time is the issuer's clock alone. A pending identity is a token of an
//! identity's purpose that nobody has redeemed.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use jiff::SignedDuration;

use super::certificate::admission::Inadmissible;
use super::forget::ForgetError;
use super::identity::Identities;
use super::server_identity::ServerIdentity;
use crate::audit::Audit;
use crate::store::value::ValueError;
use crate::store::{CommitError, Store, StoreError};
use crate::wire::token::TokenError;

mod arrive;
mod bearer;
mod guest;
mod login;
mod mint;
mod pending;
mod record;
mod redeem;
mod roster;
#[cfg(test)]
mod tests;

pub use guest::is_guests;
pub use login::Login;
pub use mint::{Minted, Order};
pub use record::{Purpose, TokenReport};
pub use redeem::Counter;
pub use roster::{Held, Newcomer};

/// How long an expired token is kept, so that its bearer hears that it has expired.
const KEPT_AFTER: SignedDuration = SignedDuration::from_hours(24);
/// Most tokens kept at a time.
const MAX_TOKENS: usize = 1000;
/// Longest name of a client.
const MAX_NAME: usize = 128;
/// Tries of a commit that others get in the way of.
const TRIES: usize = 10;

/// The clients that are trusted, and the tokens by which others may become so.
pub struct Clients {
    store: Arc<dyn Store>,
    identities: Arc<Identities>,
    /// What tokens name: the certificate that their redeemer will be shown.
    server: Arc<ServerIdentity>,
    audit: Arc<Audit>,
    /// Held while a name is given.
    naming: tokio::sync::Mutex<()>,
    /// Whether every token has the key that it is found by.
    indexed: AtomicBool,
}

/// Why a token or a client was refused.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(transparent)]
    Malformed(#[from] TokenError),
    #[error("TLS Identity token detected (you must update your client)")]
    ForIdentities,
    #[error("this is the token of a cluster link; redeem it with the other cluster's `comity link create`")]
    ForLinks,
    /// Never issued, revoked, for something else, or used: LXD does not tell which.
    #[error("no such token")]
    Unknown,
    #[error("the token has been used already")]
    Used,
    #[error("Token has expired")]
    Expired,
    #[error(transparent)]
    Certificate(#[from] Inadmissible),
    /// In LXD's words.
    #[error("The certificate is not trusted by the CA or has been revoked")]
    NotSigned,
    #[error(
        "The certificate is that of node {0} of this cluster, which is no client: a user's is made by `comity ca create-api-certificate`"
    )]
    Node(uuid::Uuid),
    #[error(
        "{0} identities came by themselves and were given no group yet: give some of them one, or delete them"
    )]
    TooManyArrived(usize),
    #[error("Certificate already in trust store")]
    AlreadyTrusted,
    #[error("An identity with name {0:?} already exists")]
    NameTaken(String),
    #[error("a client's name has 1 to {MAX_NAME} characters, does not begin with '-' and holds no '/'")]
    Name,
    #[error("Cannot issue token when server is not listening on network")]
    NotListening,
    #[error("{MAX_TOKENS} tokens are out already; revoke some first")]
    TooMany,
    #[error("no identity matches")]
    NotFound,
    #[error("more than one trusted client matches; give more of the fingerprint")]
    Ambiguous,
    #[error("somebody else has changed it meanwhile")]
    Moved,
    #[error("others keep changing the same; try again")]
    Contended,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Value(#[from] ValueError),
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Forget(#[from] ForgetError),
}

impl Clients {
    pub fn new(
        store: Arc<dyn Store>,
        identities: Arc<Identities>,
        server: Arc<ServerIdentity>,
        audit: Arc<Audit>,
    ) -> Self {
        let (naming, indexed) = (tokio::sync::Mutex::default(), AtomicBool::new(false));
        Self { store, identities, server, audit, naming, indexed }
    }
}

fn check_name(name: &str) -> Result<(), ClientError> {
    let good = !name.is_empty()
        && name.chars().count() <= MAX_NAME
        && !name.starts_with('-')
        && !name.contains('/')
        && !name.chars().any(char::is_control);
    if good { Ok(()) } else { Err(ClientError::Name) }
}
