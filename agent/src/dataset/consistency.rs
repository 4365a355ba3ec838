//! What becomes of a tree that changes while it is read.

/// Whether a copy must be of one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Consistency {
    /// The transfer is refused: a copy is of one moment.
    #[default]
    Strict,
    /// It is copied as it is found (LXD: `--allow-inconsistent`): a file that goes meanwhile is left out, one that changes
    /// is as it was read, each chunk once.
    AllowInconsistent,
}
