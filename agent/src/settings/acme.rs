//! The keys of certificates from an ACME server: LXD's, and two of Incus' for how the name is proven.

use super::Config;
use super::config::{ConfigError, truth, wrong};
use super::listen::Listen;
use super::login::web_address;

pub(super) const DOMAIN: &str = "acme.domain";
pub(super) const EMAIL: &str = "acme.email";
pub(super) const CA_URL: &str = "acme.ca_url";
pub(super) const AGREE_TOS: &str = "acme.agree_tos";
pub(super) const CHALLENGE: &str = "acme.challenge";
pub(super) const HTTP_PORT: &str = "acme.http.port";

/// The directory that is asked where no other is set (LXD's default).
const DEFAULT_CA_URL: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// How the agent proves that it is reached by a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChallengeKind {
    /// RFC 8555 section 8.3, on a port of its own.
    Http01,
    /// RFC 8737, on the agent's own port.
    TlsAlpn01,
}

/// An ACME server, and what it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeConfig {
    pub domain: String,
    pub email: String,
    pub directory: String,
    pub challenge: ChallengeKind,
    /// Where challenges by HTTP are answered.
    pub http: Listen,
}

/// What the settings make of ACME.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acme {
    /// No name is set.
    Off,
    /// A name is set, and this key is missing.
    Lacks(&'static str),
    On(AcmeConfig),
}

impl Config {
    /// What is to be had from an ACME server.
    pub fn acme(&self) -> Acme {
        let value = |key: &str| self.entries().get(key).cloned();
        let Some(domain) = value(DOMAIN) else { return Acme::Off };
        let Some(email) = value(EMAIL) else { return Acme::Lacks(EMAIL) };
        if !value(AGREE_TOS).and_then(|text| truth(&text)).unwrap_or(false) {
            return Acme::Lacks(AGREE_TOS);
        }
        let challenge = match value(CHALLENGE) {
            Some(kind) => challenge(&kind).unwrap_or(ChallengeKind::TlsAlpn01),
            None => ChallengeKind::TlsAlpn01,
        };
        let http = value(HTTP_PORT).and_then(|at| at.parse().ok()).unwrap_or(Listen::Everywhere(80));
        let directory = value(CA_URL).unwrap_or_else(|| DEFAULT_CA_URL.to_owned());
        Acme::On(AcmeConfig { domain, email, directory, challenge, http })
    }
}

fn challenge(text: &str) -> Option<ChallengeKind> {
    match text.to_ascii_uppercase().as_str() {
        "HTTP-01" => Some(ChallengeKind::Http01),
        "TLS-ALPN-01" => Some(ChallengeKind::TlsAlpn01),
        _ => None,
    }
}

/// Whether `value`, which is not empty, makes sense for a key of this group.
pub(super) fn check(key: &'static str, value: &str) -> Result<(), ConfigError> {
    let sound = match key {
        DOMAIN => {
            let named = rustls_pki_types::DnsName::try_from(value).is_ok() && value.contains('.');
            if named && !value.ends_with('.') {
                Ok(())
            } else {
                Err("it is a DNS name, such as agent.example.org".to_owned())
            }
        }
        EMAIL => {
            let (user, host) = value.split_once('@').unwrap_or_default();
            let odd = |c: char| c.is_whitespace() || c.is_control() || c == '@' || c == ',';
            let sound = !user.is_empty() && !host.is_empty() && !user.contains(odd) && !host.contains(odd);
            if sound { Ok(()) } else { Err("it is one mail address".to_owned()) }
        }
        CA_URL => web_address(value),
        AGREE_TOS => truth(value).map(drop).ok_or_else(|| "it is true or false".to_owned()),
        CHALLENGE => challenge(value).map(drop).ok_or_else(|| "it is HTTP-01 or TLS-ALPN-01".to_owned()),
        HTTP_PORT => match value.parse::<Listen>() {
            Ok(Listen::Nowhere) => Err("challenges cannot be answered nowhere".to_owned()),
            other => other.map(drop),
        },
        _ => Ok(()),
    };
    sound.map_err(|reason| wrong(key, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_on_once_all_that_it_needs_is_set() {
        let mut config = Config::default();
        assert_eq!(config.acme(), Acme::Off);
        config.set(DOMAIN, "agent.example.org").unwrap();
        assert_eq!(config.acme(), Acme::Lacks(EMAIL));
        config.set(EMAIL, "ops@example.org").unwrap();
        config.set(AGREE_TOS, "false").unwrap();
        assert_eq!(config.acme(), Acme::Lacks(AGREE_TOS));
        config.set(AGREE_TOS, "true").unwrap();
        let Acme::On(usual) = config.acme() else { panic!("it is complete") };
        assert_eq!((usual.challenge, usual.http), (ChallengeKind::TlsAlpn01, Listen::Everywhere(80)));
        config.set(CHALLENGE, "http-01").unwrap();
        config.set(HTTP_PORT, "127.0.0.1:8080").unwrap();
        config.set(CA_URL, "https://localhost:14000/dir").unwrap();
        let Acme::On(own) = config.acme() else { panic!("it is complete") };
        assert_eq!(own.challenge, ChallengeKind::Http01);
        assert_eq!(own.http, Listen::At(([127, 0, 0, 1], 8080).into()));
        assert_eq!(own.directory, "https://localhost:14000/dir");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (key, value) in [
            (DOMAIN, "no spaces"),
            (DOMAIN, "localhost"),
            (DOMAIN, "10.0.0.1"),
            (DOMAIN, "*.example.org"),
            (EMAIL, "nobody"),
            (EMAIL, "a@b, c@d"),
            (CA_URL, "http://acme.example/directory"),
            (AGREE_TOS, "perhaps"),
            (CHALLENGE, "DNS-01"),
            (HTTP_PORT, "none"),
            (HTTP_PORT, "eighty"),
        ] {
            let message = Config::default().set(key, value).unwrap_err().to_string();
            assert!(message.contains(key), "{message}");
        }
    }
}
