//! PKI mode: `server.ca`, `ca.crl`, `client.ca`.

use super::Case;

pub const CASES: &[Case] = &[];
