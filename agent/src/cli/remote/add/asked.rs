//! What was asked of `comity remote add`: its operands and flags, and which of them make sense together.

use schema::name::RemoteName;

use super::super::super::CliError;
use super::super::super::context::name;
use super::super::super::remotes::DEFAULT_PORT;
use crate::wire::token::{TokenError, TrustToken};

#[derive(Debug, clap::Args)]
#[command(override_usage = "comity remote add [OPTIONS] [NAME] <ADDRESS|URL|TOKEN>")]
pub struct Args {
    /// What to call it here [default: the host], and where it is reached (HOST, HOST:PORT or https://HOST:PORT) or a
    /// trust token, which says so.
    #[arg(required = true, num_args = 1..=2, value_name = "[NAME] ADDRESS")]
    operands: Vec<String>,
    /// The trust token, where an address is given.
    #[arg(long, visible_alias = "password")]
    token: Option<String>,
    /// Take the certificate that the address shows, without being asked.
    #[arg(long)]
    accept_certificate: bool,
    /// How to be known there: tls (by a certificate) or oidc (by a login) [default: as the server offers].
    #[arg(long, value_name = "TYPE")]
    auth_type: Option<String>,
    /// What is spoken there: comity or lxd [default: found out].
    #[arg(long)]
    protocol: Option<String>,
    /// Ask of it only what anybody may, and be known there by nothing.
    #[arg(long)]
    public: bool,
}

/// What was asked, understood.
pub struct Asked {
    pub called: RemoteName,
    pub at: Where,
    pub accept_certificate: bool,
    pub wanted: Wanted,
}

/// What says where the server is and which it is.
pub enum Where {
    /// HOST:PORT; the certificate is yet to be settled.
    Address(String),
    /// `address`, HOST:PORT, goes before those in the token.
    Token { text: String, token: TrustToken, address: Option<String> },
}

/// How to be known there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    Either,
    Tls,
    Login,
    Public,
}

impl Args {
    /// What was asked. What makes no sense is refused in LXD's words.
    pub fn understood(self) -> Result<Asked, CliError> {
        let mut operands = self.operands.into_iter();
        let (first, second) = (operands.next().unwrap_or_default(), operands.next());
        let (called, target) = match second {
            Some(target) => (Some(first), target),
            None => (None, first),
        };
        // Before anything is made of the target: a name that cannot be is worth saying first.
        let called = called.map(|called| remote_name(&called)).transpose()?;
        if let Some(protocol) =
            self.protocol.filter(|protocol| !matches!(protocol.as_str(), "comity" | "lxd"))
        {
            let protocol = schema::render::visible(&protocol).into_owned();
            return Err(CliError::usage(format!("Invalid protocol: {protocol}")).hint(
                "There are comity and lxd. Servers of images alone (simplestreams) are not remotes here.",
            ));
        }
        let wanted = match (self.auth_type.as_deref(), self.public) {
            (None, false) => Wanted::Either,
            (Some("tls"), false) => Wanted::Tls,
            (Some("oidc"), false) => Wanted::Login,
            (None, true) => Wanted::Public,
            (Some("tls" | "oidc"), true) => {
                return Err(CliError::usage(
                    "A public remote knows nobody: --auth-type makes no sense with --public",
                ));
            }
            (Some(other), _) => {
                let other = schema::render::visible(other).into_owned();
                return Err(CliError::usage(format!("Invalid authentication type: {other}"))
                    .hint("There are tls and oidc."));
            }
        };
        let at = place(target, self.token)?;
        if let Where::Token { .. } = at {
            let refused = match wanted {
                _ if self.accept_certificate => {
                    "The --accept-certificate flag is not supported when adding a remote using a trust token"
                }
                Wanted::Login => "Trust token cannot be used with OIDC authentication",
                Wanted::Public => "Trust token cannot be used for public remotes",
                Wanted::Either | Wanted::Tls => "",
            };
            if !refused.is_empty() {
                return Err(CliError::usage(refused));
            }
        }
        let called = match called {
            Some(called) => called,
            None => default_name(&at)?,
        };
        Ok(Asked { called, at, accept_certificate: self.accept_certificate, wanted })
    }
}

fn remote_name(text: &str) -> Result<RemoteName, CliError> {
    if text.contains(':') && TrustToken::decode(text).is_err() {
        return Err(CliError::usage("Remote names may not contain colons"));
    }
    name("NAME", text)
}

/// The host is the name, as with lxc, where it can be one.
fn default_name(at: &Where) -> Result<RemoteName, CliError> {
    let address = match at {
        Where::Address(address) => Some(address),
        Where::Token { address, token, .. } => address.as_ref().or_else(|| token.addresses.first()),
    };
    let host = address.and_then(|address| address.rsplit_once(':')).map_or("", |(host, _)| host);
    host.parse().map_err(|_| {
        CliError::usage(format!("the remote cannot be called by its host, {host:?}"))
            .hint("Say what to call it: `comity remote add NAME ADDRESS`.")
    })
}

fn place(target: String, token: Option<String>) -> Result<Where, CliError> {
    if target.trim().is_empty() {
        return Err(CliError::usage("Remote address must not be empty"));
    }
    match (TrustToken::decode(&target), token) {
        (Ok(_), Some(_)) => Err(CliError::usage("two trust tokens were given")),
        (Ok(token), None) => Ok(Where::Token { text: target, token, address: None }),
        (Err(error), _) if !is_address(&target) => Err(undecodable(error)),
        (Err(_), None) => address(&target).map(Where::Address),
        (Err(_), Some(text)) => {
            let address = Some(address(&target)?);
            let token = TrustToken::decode(&text).map_err(undecodable)?;
            Ok(Where::Token { text, token, address })
        }
    }
}

pub fn undecodable(error: TokenError) -> CliError {
    CliError::failed(format!("Failed decoding trust token: {error}"))
        .code("bad-token")
        .hint("Copy the whole line that `comity trust add` printed, or make a new token.")
}

/// Whether a text that is no token may be an address: a token has no dot and no colon, and is longer than a name.
fn is_address(text: &str) -> bool {
    text.contains(['.', ':']) || text.len() <= schema::name::MAX_NAME
}

/// `HOST:PORT` from what people type: with or without a port, with or without `https://`.
pub fn address(text: &str) -> Result<String, CliError> {
    let wrong = || {
        CliError::usage("that is neither a trust token nor an address")
            .hint("An address is HOST or HOST:PORT; a token is what `comity trust add` prints.")
    };
    let given = text;
    let text = match text.split_once("://") {
        Some(("https", rest)) => rest,
        Some((scheme, _)) => {
            let (scheme, given) = (schema::render::visible(scheme), schema::render::visible(given));
            return Err(CliError::usage(format!("Invalid URL scheme \"{scheme}\" in \"{given}\""))
                .hint("An agent is reached over https; over a unix socket with --socket."));
        }
        None => text,
    };
    let text = text.trim_end_matches('/');
    if let Ok(ip) = text.parse::<std::net::IpAddr>() {
        return Ok(std::net::SocketAddr::from((ip, DEFAULT_PORT)).to_string());
    }
    let (host, port) = match text.rsplit_once(':') {
        // The colon of a bare `[::1]` is the address's own.
        Some((host, port)) if !port.ends_with(']') => (host, port.parse::<u16>().map_err(|_| wrong())?),
        _ => (text, DEFAULT_PORT),
    };
    let of_a_host = |c: char| c.is_ascii_alphanumeric() || "-._[]:".contains(c);
    if host.is_empty() || port == 0 || !host.chars().all(of_a_host) {
        return Err(wrong());
    }
    Ok(format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::super::super::ExitCode;
    use super::*;
    use crate::wire::token::Secret;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn asked(words: &[&str]) -> Result<Asked, CliError> {
        Command::try_parse_from([&["add"], words].concat()).expect("words that clap takes").args.understood()
    }

    fn token() -> String {
        let token = TrustToken {
            client_name: "laptop".to_owned(),
            fingerprint: "ab".repeat(32),
            addresses: vec!["east.example:8443".to_owned()],
            secret: Secret::new("hush".to_owned()),
            expires_at: jiff::Timestamp::MAX,
            kind: String::new(),
        };
        token.encode().expose().to_owned()
    }

    #[test]
    fn addresses_are_taken_as_people_type_them() {
        for (typed, meant) in [
            ("10.0.0.1", "10.0.0.1:8443"),
            ("10.0.0.1:9443", "10.0.0.1:9443"),
            ("https://east.example:8443/", "east.example:8443"),
            ("east", "east:8443"),
            ("::1", "[::1]:8443"),
            ("[::1]", "[::1]:8443"),
            ("[::1]:9443", "[::1]:9443"),
        ] {
            assert_eq!(address(typed).unwrap(), meant);
        }
        for wrong in ["", "http://east", "east:0", "east:port", "a b", "east@b"] {
            assert_eq!(address(wrong).unwrap_err().exit, ExitCode::Usage, "{wrong}");
        }
    }

    #[test]
    fn half_a_token_is_not_taken_for_an_address() {
        let half = "eyJjbGllbnRfbmFtZSI6ImxhcHRvcCIsImZpbmdlcnByaW50IjoiMDAxMTIyMzM0NDU1NjY3Nzg4OTkiLCJhZ";
        assert!(!is_address(half) && is_address("east.example") && is_address("east"));
    }

    #[test]
    fn a_remote_is_called_by_its_host_unless_it_has_a_name() {
        let called = |words: &[&str]| asked(words).map(|asked| asked.called.to_string());
        let token = token();
        assert_eq!(called(&["east", "10.0.0.1"]).unwrap(), "east");
        assert_eq!(called(&["east.example:9443"]).unwrap(), "east.example");
        assert_eq!(called(&["https://east.example"]).unwrap(), "east.example");
        assert_eq!(called(&[&token]).unwrap(), "east.example");
        assert_eq!(called(&["10.0.0.1", "--token", &token]).unwrap(), "10.0.0.1");
        assert_eq!(called(&["::1"]).unwrap_err().exit, ExitCode::Usage);
    }

    #[test]
    fn what_makes_no_sense_together_is_refused_in_lxds_words() {
        let token = token();
        for (words, message) in [
            (
                &["x", &token, "--accept-certificate"][..],
                "The --accept-certificate flag is not supported when adding a remote using a trust token",
            ),
            (
                &["x", "y", "--token", &token, "--accept-certificate"],
                "The --accept-certificate flag is not supported when adding a remote using a trust token",
            ),
            (&["x", &token, "--auth-type", "oidc"], "Trust token cannot be used with OIDC authentication"),
            (&["x", "y", "--token", &token, "--public"], "Trust token cannot be used for public remotes"),
            (&["x", "y", "--protocol", "simplestreams"], "Invalid protocol: simplestreams"),
            (&["x", "y", "--auth-type", "candid"], "Invalid authentication type: candid"),
            (
                &["x", "y", "--auth-type", "oidc", "--public"],
                "A public remote knows nobody: --auth-type makes no sense with --public",
            ),
            (&["x", "http://y"], "Invalid URL scheme \"http\" in \"http://y\""),
            (&["x", ""], "Remote address must not be empty"),
            (&["x:y", "z"], "Remote names may not contain colons"),
            (&["x", &token, "--token", &token], "two trust tokens were given"),
        ] {
            let Err(error) = asked(words) else { panic!("{words:?} was taken") };
            assert_eq!((error.message.as_str(), error.exit), (message, ExitCode::Usage));
        }
        let Err(error) = asked(&["x", "y", "--token", "nonsense"]) else { panic!("it was taken") };
        assert!(error.message.starts_with("Failed decoding trust token: "), "{}", error.message);
        assert_eq!(
            asked(&["x", "y", "--auth-type", "oidc"]).map(|asked| asked.wanted).ok(),
            Some(Wanted::Login)
        );
        assert_eq!(
            asked(&["x", "y", "--protocol", "lxd"]).map(|asked| asked.wanted).ok(),
            Some(Wanted::Either)
        );
    }
}
