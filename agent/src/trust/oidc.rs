//! Logins that an identity provider vouches for (OpenID Connect).

pub mod session;
