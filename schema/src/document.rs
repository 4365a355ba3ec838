//! One document tree with spans for HCL, TOML and JSON.
