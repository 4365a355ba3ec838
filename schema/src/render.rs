//! How diagnostics, plans and records look to people and to programs.
