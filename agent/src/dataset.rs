//! Pools and volumes: what is on disk, chunk by chunk.
//!
//! A volume is a directory tree. It is described by a [`manifest`]: every entry with its metadata, every file as
//! data extents cut into chunks by content. The side that has a tree [`scan`]s it; the side that wants it
//! [`build`]s it in a staging area out of chunks it finds locally and chunks that it is sent, verifies the whole
//! tree against the manifest, and switches it in with one rename. Nothing here speaks to the network.
//!
//! All file access goes through [`beneath`]: paths are resolved from a directory that is held open and never
//! through a symlink, because a tree belongs to whoever may write to the volume, and the agent may be root.

pub mod archive;
pub mod beneath;
pub mod build;
pub mod chunk;
pub mod complete;
mod consistency;
pub mod library;
pub mod manifest;
pub mod owner;
pub mod packed;
pub mod plan;
pub mod pool;
pub mod scan;
pub mod site;
pub mod stock;
pub mod survey;

#[cfg(test)]
pub(crate) mod tests;

pub use consistency::Consistency;
pub use owner::{Dataset, Owner};
pub use pool::{Frozen, PoolError, Pools};
