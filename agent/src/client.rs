//! Typed calls to an agent, over its unix socket or over TLS with a pinned certificate.
