//! SQLite-specific tests; what every store must do is in `conformance`.
