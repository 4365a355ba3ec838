//! Tests of this crate over files: `testdata` at the top of the repository holds them.

mod declarations;
mod support;
