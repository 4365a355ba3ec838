//! Logins that an identity provider vouches for.

use super::Case;

pub const CASES: &[Case] = &[];
