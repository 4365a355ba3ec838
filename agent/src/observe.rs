//! Live state as schema types.
