//! How diagnostics, plans and records look to people and to programs.

pub mod diagnostic;
pub mod plan;
pub mod record;
mod visible;

pub use visible::visible;

/// Whether text for people carries ANSI colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    Always,
    Never,
}
