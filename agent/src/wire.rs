//! Request and response types: everything that crosses a process boundary, and nothing that acts.

/// Another side's words, which reach terminals and logs: nothing in them steers a terminal.
pub fn printable(words: &str) -> String {
    words.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
}

pub mod acme;
pub mod bundle;
pub mod cluster_link;
pub mod consul;
pub mod control;
pub mod link;
pub mod lxd;
pub mod mesh_root;
pub mod rotation;
pub mod service;
pub mod status;
pub mod storage;
pub mod sync;
pub mod token;
pub mod traffic;
pub mod transfer;
pub mod trust;
pub mod volume;
