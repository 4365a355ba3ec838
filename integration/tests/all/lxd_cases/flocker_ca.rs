//! Flocker's `flocker-ca`: the cluster's own certificate authority.

use super::Case;

pub const CASES: &[Case] = &[];
