//! The Comity agent and its command line, as floors: a module imports only from floors below its own.

pub mod authorize;
pub mod store;
pub mod trust;
pub mod tunnel;
pub mod wire;
