//! Certificates from an ACME server (RFC 8555).

pub mod challenge;
