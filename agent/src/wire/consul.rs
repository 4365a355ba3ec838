//! Consul's JSON: Go's names, empty things left out where Consul leaves them out.

pub mod config;
pub mod intention;
