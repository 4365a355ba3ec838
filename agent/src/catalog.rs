//! Who offers what: the services, exports and intentions declared here, and what linked clusters export to us.
//!
//! One task follows the store and publishes each commit as one immutable [`CatalogView`] on a watch channel, so a
//! reader always sees whole commits and never takes a lock. The maps inside are [`Sharded`]: a change copies the
//! one shard it falls into and shares the rest with the view before it, which keeps an edit among 100,000
//! declarations as cheap as one among ten. Rejected: one `Arc<BTreeMap>` copied for each change (10 ms at that
//! size), and a lock over one map (readers would see half a commit).

mod follow;
mod imports;
mod instances;
mod intentions;
mod sharded;
mod view;

pub use follow::{Catalog, CatalogError};
pub use imports::{
    Freshness, ImportedInstance, ImportedLink, ImportedService, ImportedServices, ImportedStatus, Imports,
    ImportsView,
};
pub use instances::{Instance, Instances};
pub use intentions::IntentionParts;
pub use sharded::Sharded;
pub use view::CatalogView;
