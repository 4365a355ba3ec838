//! Names of clusters that call here over one-way links of their own, with no declared link behind them.

use jiff::Timestamp;
use schema::name::LinkName;

use super::super::identity::{Backing, IdentityKind, IdentityRecord};
use super::record::{Purpose, TokenRecord};
use crate::store::value::decode;
use crate::store::{Store, StoreError, keys};

/// Whether such a cluster is called `name`, or will be when it redeems a token that is good at `now`. No link may be
/// called the same: what is granted to the one by name would be the other's as well.
pub async fn is_guests(store: &dyn Store, name: &LinkName, now: Timestamp) -> Result<bool, StoreError> {
    // What cannot be read is nobody's.
    let is_pending = |token: TokenRecord| {
        token.is_pending(now) && matches!(&token.purpose, Purpose::ClusterLink { name: its } if its == name)
    };
    if store.range(keys::TOKEN).await?.entries.iter().filter_map(|entry| decode(entry).ok()).any(is_pending) {
        return Ok(true);
    }
    let is_active = |identity: IdentityRecord| matches!(&identity.kind, IdentityKind::ClusterLink { link, backing: Backing::Itself } if link == name);
    Ok(store
        .range(keys::IDENTITY)
        .await?
        .entries
        .iter()
        .filter_map(|entry| decode(entry).ok())
        .any(is_active))
}
