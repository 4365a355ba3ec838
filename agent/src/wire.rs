//! Request and response types: everything that crosses a process boundary, and nothing that acts.

pub mod cluster_link;
pub mod control;
pub mod link;
pub mod lxd;
pub mod service;
pub mod status;
pub mod sync;
pub mod token;
pub mod trust;
pub mod volume;
