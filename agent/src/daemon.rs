//! The one composition root: build, spawn, wait, drain.
