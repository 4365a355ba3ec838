//! Logging in with an identity provider (OpenID Connect): who somebody is, proven to an agent by tokens instead of a
//! certificate.
//!
//! The agent names its provider. Somebody approves a code in a browser (RFC 8628, `device`), the provider gives tokens,
//! and each request carries the access token; the agent may give a session's cookie for it. What is kept between
//! commands is a `Shelf`'s business. A refresh token goes to the provider that gave it and to nobody else, and is
//! used by one command at a time: providers that rotate them take a second use for a theft.

mod cookie;
mod device;
mod provider;
mod session;
mod token;

pub use cookie::Cookie;
pub use device::Invitation;
pub use provider::Provider;
pub(super) use session::expect_login;
pub use session::{Kept, Session, Shelf, Unkept, Used, log_in};
pub use token::Tokens;

/// Longest token or code that is taken: what is longer fits no header.
const MAX_SECRET: usize = 16 * 1024;

/// Shows somebody the code that they are to approve. Called before the waiting begins.
pub type Show = dyn Fn(&Invitation) + Send + Sync;

/// Why somebody could not be logged in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    #[error("{agent} names no identity provider to log in with")]
    NoProvider { agent: String },
    #[error("{url}, which belongs to the identity provider, is not a URL that a login may use: {reason}")]
    Url { url: String, reason: &'static str },
    #[error("the identity provider {issuer} could not be reached: {reason}")]
    Unreachable { issuer: String, reason: String },
    #[error("the identity provider {issuer} sends elsewhere, to {to}; a login does not follow")]
    Redirected { issuer: String, to: String },
    #[error("the identity provider {issuer} calls itself {got}")]
    OtherIssuer { issuer: String, got: String },
    #[error("the identity provider {issuer} does not offer device codes")]
    NoDeviceCodes { issuer: String },
    #[error("the login was refused in the browser")]
    Denied,
    #[error("the code was not approved in time")]
    Expired,
    #[error("the identity provider does not know the code (any more): it was used already, or taken back")]
    Used,
    #[error("the identity provider refused {what}: {error}")]
    Refused { what: &'static str, error: String },
    #[error("the identity provider answered with something else than {what}: {reason}")]
    Unexpected { what: &'static str, reason: String },
    #[error("the login at {agent} has ended")]
    Ended { agent: String },
    #[error("the login at {agent} was renewed while a command was being sent")]
    Renewed { agent: String },
    #[error("{agent} has logins judged by {now} now; this one was made at {before}")]
    OtherProvider { agent: String, before: String, now: String },
    #[error("{agent} does not accept the login: {reason}")]
    NotAccepted { agent: String, reason: String },
    #[error("{0}")]
    Kept(String),
}

impl LoginError {
    /// A stable word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            LoginError::NoProvider { .. } => "no-login",
            LoginError::Unreachable { .. } => "provider-not-reachable",
            LoginError::Denied => "login-denied",
            LoginError::Expired => "login-expired",
            LoginError::Ended { .. } => "login-ended",
            LoginError::Renewed { .. } => "login-renewed",
            LoginError::OtherProvider { .. } => "other-provider",
            _ => "login-failed",
        }
    }

    /// What to do next. `remote` is what the agent is called here; nothing, while it is being added.
    pub fn hint(&self, remote: Option<&str>) -> Option<String> {
        let again = match remote {
            Some(remote) => format!("`comity remote login {remote}` logs in again."),
            None => "Run this again to log in anew.".to_owned(),
        };
        Some(match self {
            LoginError::NoProvider { .. } => "Its administrator sets oidc.issuer and oidc.device.client.id there. A trust token works without: `comity remote add NAME TOKEN`.".to_owned(),
            LoginError::Unreachable { .. } => "Other ways to be trusted go on without the provider. Is its address right (oidc.issuer there), and can it be reached from here?".to_owned(),
            LoginError::Redirected { .. } | LoginError::OtherIssuer { .. } => {
                "Nothing was sent. oidc.issuer there must be exactly what the provider calls itself.".to_owned()
            }
            LoginError::Url { .. } => "A provider is reached over https; http is for loopback alone.".to_owned(),
            LoginError::NoDeviceCodes { .. } => "The provider must offer the device authorization grant to the client oidc.device.client.id.".to_owned(),
            LoginError::Expired | LoginError::Used => format!("A code works once and for some minutes. {again}"),
            LoginError::NotAccepted { reason, .. } if reason.contains("mail address") => format!("The provider's administrator has to mend it there. Then: {again}"),
            LoginError::OtherProvider { .. } => format!("Nothing was sent. Ask who runs the agent whether that is so. If it is: {again}"),
            LoginError::Ended { .. } | LoginError::NotAccepted { .. } => again,
            LoginError::Renewed { .. } => "It works now: run the command again.".to_owned(),
            LoginError::Denied | LoginError::Refused { .. } | LoginError::Unexpected { .. } | LoginError::Kept(_) => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_names_no_remote_that_is_not_there_yet_and_who_can_mend_a_mail_address() {
        let refused =
            |reason: &str| LoginError::NotAccepted { agent: "east".to_owned(), reason: reason.to_owned() };
        let hint = |error: &LoginError, remote| error.hint(remote).unwrap();
        assert_eq!(hint(&refused("no"), Some("east")), "`comity remote login east` logs in again.");
        for error in [refused("no"), LoginError::Expired, LoginError::Used] {
            let adding = hint(&error, None);
            assert!(adding.contains("Run this again") && !adding.contains("remote login"), "{adding}");
        }
        let unverified =
            refused("the identity provider says that this user's mail address has not been verified");
        assert!(hint(&unverified, None).starts_with("The provider's administrator has to mend it there."));
    }
}
