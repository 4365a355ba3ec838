//! The suite that every store is put through.
