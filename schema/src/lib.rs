//! Pure words of Comity: declarations, their diagnostics, the plan, and who may reach what.
//!
//! Nothing here does I/O, waits, or asks the clock; everything is a function of its arguments, so a plan made
//! on one machine can be replayed on another.

pub mod access;
pub mod config;
pub mod diagnostic;
pub mod document;
pub mod kind;
pub mod name;
pub mod origin;
pub mod plan;
pub mod record;
pub mod render;
pub mod snapshot;
