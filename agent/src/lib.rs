//! The Comity agent and its command line, as floors: a module imports only from floors below its own.

pub mod api;
pub mod apply;
pub mod audit;
pub mod authorize;
pub mod catalog;
pub mod cli;
pub mod client;
pub mod daemon;
pub mod dataset;
pub mod files;
pub mod health;
pub mod mesh;
pub mod observe;
pub mod operation;
pub mod peering;
pub mod reconcile;
pub mod store;
pub mod task;
pub mod transfer;
pub mod trust;
pub mod tunnel;
pub mod wire;
