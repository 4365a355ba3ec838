//! Logins that an identity provider vouches for (OpenID Connect).

pub mod keys;
pub mod person;
pub mod session;
pub mod token;
