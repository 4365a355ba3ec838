//! One-time tokens by which a client becomes trusted, and the clients that are.
