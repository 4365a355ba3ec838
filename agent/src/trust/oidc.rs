//! Logins that an identity provider vouches for (OpenID Connect).

mod config;
pub mod discovery;
pub mod keys;
mod logins;
pub mod person;
pub mod provider;
pub mod session;
pub mod token;
mod verdicts;

pub use config::OidcConfig;
pub use logins::{Arrival, Entered, Logins, Presented, Refusal};
