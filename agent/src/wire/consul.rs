//! Consul's JSON, as its API and the command line share it: Go's names, empty things left out where Consul leaves them out.

pub mod catalog;
pub mod config;
pub mod connect;
pub mod intention;
pub mod peering;
pub mod peering_token;
pub mod registration;
