//! `exported_services "default" {}`: which services a peer is offered (Consul: exported-services config entry).
//!
//! Each service of the list is a record of its own, so that two manifests can own different ones.

use serde::{Deserialize, Serialize};

use crate::name::LinkName;

/// One service's row of the export list; the service is in the record's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Export {
    /// The links that are offered the service. Sorted, without duplicates, never empty.
    pub consumers: Vec<LinkName>,
}
