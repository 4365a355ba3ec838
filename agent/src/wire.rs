//! Request and response types: everything that crosses a process boundary, and nothing that acts.

pub mod control;
pub mod link;
pub mod lxd;
pub mod token;
