//! Tests of this crate over files: `testdata` at the top of the repository holds them.

mod consul;
mod declarations;
mod golden;
mod properties;
mod support;
