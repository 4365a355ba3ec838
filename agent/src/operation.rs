//! Long-running work, and what became of it.
