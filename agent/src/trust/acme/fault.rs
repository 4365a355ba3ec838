//! What can go wrong on the way to a certificate, in words for whoever reads the status.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};

use super::schedule::Setback;
use super::transport::TransportFault;
use super::unfit::Unfit;
use crate::trust::certificate::CertificateError;

/// Longest text of an authority's that is passed on.
const MAX_TEXT: usize = 400;

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("{doing}: {source}{}", hint(source))]
    Transport { doing: &'static str, source: TransportFault },
    #[error(
        "{doing}: {url} does not answer as an ACME server does ({reason}); is acme.ca_url the address of a directory?"
    )]
    NotAcme { doing: &'static str, url: String, reason: String },
    #[error("{doing}: the ACME server refuses it: {problem}")]
    Refused { doing: &'static str, problem: Said },
    #[error(
        "{doing}: the ACME server wants something done by hand first, such as new terms of service agreed to: {0}",
        problem
    )]
    ByHand { doing: &'static str, problem: Said },
    #[error("{doing}: the ACME server is not to be asked again before {until:.0}: {problem}")]
    PutOff { doing: &'static str, until: Timestamp, problem: String },
    #[error("{doing}: the ACME server has a fault of its own: {problem}")]
    Broken { doing: &'static str, problem: Said },
    #[error("the ACME server could not see that {domain} is this agent by {challenge}: {problem}. {advice}")]
    Unproven { domain: String, challenge: &'static str, problem: String, advice: String },
    #[error(
        "the ACME server does not offer {challenge} for {domain}; it offers {offered}: set acme.challenge"
    )]
    NotOffered { domain: String, challenge: &'static str, offered: String },
    #[error("{doing}: the ACME server has not come to an end within {seconds} s")]
    Slow { doing: &'static str, seconds: u64 },
    #[error("what the ACME server issued is not used: {0}")]
    Unfit(#[from] Unfit),
    #[error("{} could not be {doing}: {source}", path.display())]
    File { path: PathBuf, doing: &'static str, source: io::Error },
    #[error("{} cannot be read: {reason}; move it away to have a new account made", path.display())]
    Account { path: PathBuf, reason: String },
    #[error("the new certificate is kept in memory and could not be written: {0}")]
    Install(CertificateError),
    #[error("a key could not be made: {0}")]
    Key(#[from] CertificateError),
    #[error("this agent was started with --server-cert, which goes before any other certificate")]
    Given,
    #[error("acme.http.port: cannot listen on {}: {source}", shown(addresses))]
    Door { addresses: Vec<SocketAddr>, source: io::Error },
}

impl Fault {
    /// There is no way to any server from here.
    pub fn setup(error: crate::web::WebError) -> Self {
        Fault::Transport { doing: "asking for a certificate", source: error.into() }
    }

    /// What it means for the next attempt.
    pub fn setback(&self) -> Setback {
        match self {
            Fault::PutOff { until, .. } => Setback::PutOff(*until),
            Fault::Transport { .. }
            | Fault::NotAcme { .. }
            | Fault::Broken { .. }
            | Fault::Slow { .. }
            | Fault::File { .. }
            | Fault::Account { .. }
            | Fault::Install(_)
            | Fault::Given
            | Fault::Key(_)
            | Fault::Door { .. } => Setback::Passing,
            Fault::Refused { .. }
            | Fault::ByHand { .. }
            | Fault::Unproven { .. }
            | Fault::NotOffered { .. }
            | Fault::Unfit(_) => Setback::Refused,
        }
    }

    /// What an error of the protocol's means. `put_off` is how long the last answer that refused asked to wait.
    pub fn of(
        doing: &'static str,
        url: &str,
        error: instant_acme::Error,
        put_off: Option<SignedDuration>,
        now: Timestamp,
    ) -> Self {
        use instant_acme::Error;
        let until = put_off.map(|pause| now.checked_add(pause).unwrap_or(Timestamp::MAX));
        match error {
            Error::Api(problem) => {
                let said = Said::of(&problem);
                match (until, said.kind()) {
                    (Some(until), _) => Fault::PutOff { doing, until, problem: said.to_string() },
                    (None, "badNonce" | "serverInternal") => Fault::Broken { doing, problem: said },
                    (None, "userActionRequired") => Fault::ByHand { doing, problem: said },
                    _ if said.status.is_some_and(|status| status >= 500) => {
                        Fault::Broken { doing, problem: said }
                    }
                    _ => Fault::Refused { doing, problem: said },
                }
            }
            Error::Timeout(Some(at)) => {
                let wait = at.saturating_duration_since(std::time::Instant::now());
                let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
                let until = now.checked_add(wait).unwrap_or(Timestamp::MAX);
                Fault::PutOff { doing, until, problem: "it works on the order until then".to_owned() }
            }
            Error::Timeout(None) => Fault::Slow { doing, seconds: super::attempt::POLLING.as_secs() },
            Error::Other(cause) => match cause.downcast::<TransportFault>() {
                Ok(source) => Fault::Transport { doing, source: *source },
                Err(cause) => {
                    Fault::NotAcme { doing, url: url.to_owned(), reason: plain(&cause.to_string()) }
                }
            },
            other => Fault::NotAcme { doing, url: url.to_owned(), reason: plain(&other.to_string()) },
        }
    }
}

/// An authority's own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The problem's type, without what all of them begin with.
    kind: Option<String>,
    detail: Option<String>,
    status: Option<u16>,
}

impl Said {
    pub fn of(problem: &instant_acme::Problem) -> Self {
        let kind = problem.r#type.as_deref().map(|kind| plain(kind.rsplit(':').next().unwrap_or(kind)));
        let mut detail = problem.detail.as_deref().map(plain);
        for part in problem.subproblems.iter().take(4).filter_map(|part| part.detail.as_deref()) {
            let whole = detail.get_or_insert_default();
            *whole = plain(&format!("{whole}; {part}"));
        }
        Self { kind, detail, status: problem.status }
    }

    /// `rateLimited`, `badNonce` and so on; empty where it did not say.
    pub fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or_default()
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.detail, &self.kind, self.status) {
            (Some(detail), Some(kind), _) => write!(f, "{detail} ({kind})"),
            (Some(only), None, _) | (None, Some(only), _) => f.write_str(only),
            (None, None, Some(status)) => write!(f, "status {status} without a word"),
            (None, None, None) => f.write_str("it does not say why"),
        }
    }
}

/// `text` in one line of what can be seen, and no longer than somebody would read.
pub fn plain(text: &str) -> String {
    let one_line = text.chars().map(|c| if c.is_control() || c.is_whitespace() { ' ' } else { c });
    let mut short: String = one_line.take(MAX_TEXT).collect();
    if text.chars().nth(MAX_TEXT).is_some() {
        short.push('…');
    }
    short.trim().to_owned()
}

fn hint(fault: &TransportFault) -> &'static str {
    // Of an authority that is an administrator's own.
    let unknown = fault.to_string().contains("UnknownIssuer");
    if unknown {
        "; its own certificate is checked by the CAs of this system, or of the file that SSL_CERT_FILE names for the agent"
    } else {
        ""
    }
}

fn shown(addresses: &[SocketAddr]) -> String {
    addresses.first().map(SocketAddr::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(json: &str) -> instant_acme::Error {
        instant_acme::Error::Api(serde_json::from_str(json).unwrap())
    }

    fn fault(json: &str, put_off: Option<i64>) -> Fault {
        let put_off = put_off.map(SignedDuration::from_secs);
        Fault::of("ordering", "https://ca.example/dir", problem(json), put_off, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn what_the_authority_says_decides_when_it_is_asked_again() {
        let limited = fault(
            r#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many\ncertificates","status":429}"#,
            Some(3600),
        );
        assert_eq!(limited.setback(), Setback::PutOff(Timestamp::from_second(3600).unwrap()));
        assert_eq!(
            limited.to_string(),
            "ordering: the ACME server is not to be asked again before 1970-01-01T01:00:00Z: too many certificates \
             (rateLimited)"
        );
        let silent = fault(r#"{"type":"urn:ietf:params:acme:error:rateLimited","status":429}"#, None);
        assert_eq!(silent.setback(), Setback::Refused);
        let nonce = fault(r#"{"type":"urn:ietf:params:acme:error:badNonce","status":400}"#, None);
        assert_eq!(nonce.setback(), Setback::Passing);
        let terms =
            fault(r#"{"type":"urn:ietf:params:acme:error:userActionRequired","detail":"read"}"#, None);
        assert!(terms.to_string().contains("terms of service") && terms.setback() == Setback::Refused);
        assert_eq!(fault(r#"{"status":503}"#, None).setback(), Setback::Passing);
        assert_eq!(
            fault(r#"{"status":503}"#, None).to_string(),
            "ordering: the ACME server has a fault of its own: status 503 without a word"
        );
    }

    #[test]
    fn nobody_elses_text_is_long_or_leaves_its_line() {
        let long = plain(&"x\u{1b}[31m\r\n".repeat(1000));
        assert!(long.chars().count() <= MAX_TEXT + 1 && long.ends_with('…') && !long.contains('\u{1b}'));
    }
}
