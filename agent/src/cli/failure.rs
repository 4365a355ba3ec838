//! How a command ends: exit codes, and errors with what to do about them.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::Write as _;

use clap::error::{ContextKind, ContextValue};
use schema::diagnostic::secret::without_tokens;
use schema::render::visible;
use serde_json::json;

use super::output::{Format, Output};
use super::remotes::FolderError;
use crate::client::ClientError;

/// The exit codes; there are no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCode {
    Done,
    Failed,
    /// The plan has changes; only with `--detailed-exitcode`.
    Changes,
    /// What was asked for cannot be told, or there is none; only where Consul's command ends so.
    Unanswered,
    Usage,
    Interrupted,
}

impl ExitCode {
    pub fn number(self) -> u8 {
        match self {
            ExitCode::Done => 0,
            ExitCode::Failed => 1,
            ExitCode::Changes | ExitCode::Unanswered => 2,
            ExitCode::Usage => 64,
            ExitCode::Interrupted => 130,
        }
    }
}

/// Why a command failed, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CliError {
    /// One line or more, no secret in it.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
    /// A stable word for programs, e.g. `not-reachable`.
    pub code: String,
    pub exit: ExitCode,
}

impl CliError {
    /// A failure: exit 1.
    pub fn failed(message: impl Display) -> Self {
        Self { message: message.to_string(), hint: None, code: "failed".to_owned(), exit: ExitCode::Failed }
    }

    /// Wrong usage: exit 64.
    pub fn usage(message: impl Display) -> Self {
        Self { message: message.to_string(), hint: None, code: "usage".to_owned(), exit: ExitCode::Usage }
    }

    /// The same with another message.
    #[must_use]
    pub fn said(mut self, message: impl Display) -> Self {
        self.message = message.to_string();
        self
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    #[must_use]
    pub fn code(mut self, code: impl Display) -> Self {
        self.code = code.to_string();
        self
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        let message = error.to_string();
        let (code, hint) = match error {
            // A socket is of this machine's agent; anything else is a remote.
            ClientError::Unreachable { agent, .. } if agent.starts_with("the agent at") => {
                ("not-reachable".to_owned(), Some("Is the agent running? `comity agent` starts it; `comity status --wait 10s` waits for it.".to_owned()))
            }
            ClientError::Unreachable { agent, .. } => {
                let remote = agent.split(' ').next().unwrap_or_default();
                ("not-reachable".to_owned(), Some(format!(
                    "Is the agent running there, and is it reached there? `comity --remote {remote} status --wait 10s` waits for it; `comity remote set-url {remote} https://HOST:PORT` says where it is."
                )))
            }
            ClientError::Mismatch { .. } => (
                "wrong-certificate".to_owned(),
                Some("Nothing was sent. Compare the second fingerprint with the one that `comity status` shows on that machine, or ask who runs it. If they are the same, its certificate was replaced: `comity remote remove NAME`, then `comity remote add NAME TOKEN` with a new token. If not, somebody else answers in its place.".to_owned()),
            ),
            ClientError::OldTls { .. } => (
                "tls-version".to_owned(),
                Some("Nothing older is spoken here. Is there an old proxy between, or something else than an agent on that port?".to_owned()),
            ),
            ClientError::Timeout { .. } => ("timeout".to_owned(), None),
            ClientError::Broken { .. } => ("broken-connection".to_owned(), None),
            ClientError::Refused { code, hint, .. } => (code, hint),
            ClientError::Unexpected { .. } => ("unexpected-answer".to_owned(), None),
            ClientError::Login { remote, error } => (error.code().to_owned(), error.hint(Some(&remote))),
        };
        Self { message, hint, code, exit: ExitCode::Failed }
    }
}

impl From<FolderError> for CliError {
    fn from(error: FolderError) -> Self {
        let failed = CliError::failed(&error);
        match error {
            FolderError::NoHome => failed.code("no-home").hint("Name a folder in COMITY_CONFIG_DIR."),
            FolderError::Remotes(_) => failed.code("remotes"),
            _ => failed.code("config"),
        }
    }
}

/// What clap made of wrong arguments, or of a wish for help.
pub fn usage(error: &clap::Error, json: bool) -> ExitCode {
    if !error.use_stderr() {
        // Help or version; a reader that has gone away is no fault.
        let _ = error.print();
        return ExitCode::Done;
    }
    let plain = error.render().to_string();
    let shown = without_secrets(&plain);
    let shown = visible(&shown);
    let hint = consuls_noun(error);
    if json {
        let message = shown.trim().trim_start_matches("error: ");
        let body = json!({"error": {"message": message, "hint": hint, "code": "usage"}});
        let _ = writeln!(std::io::stderr(), "{body}");
    } else if shown == plain {
        let _ = error.print();
    } else {
        let _ = write!(std::io::stderr(), "{shown}");
    }
    if let (Some(hint), false) = (hint, json) {
        let _ = writeln!(std::io::stderr(), "Hint: {hint}");
    }
    ExitCode::Usage
}

/// What does the same here as a command of Consul's that there is not.
fn consuls_noun(error: &clap::Error) -> Option<&'static str> {
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand) else { return None };
    Some(match word.as_str() {
        "acl" => {
            "Rights are given by groups: `comity auth group permission add`, and `comity auth identity` for tokens."
        }
        "catalog" => {
            "`comity service list` and `comity link list`; `/v1/catalog/…` by curl or Consul's own command."
        }
        "connect" => {
            "`comity intention`, `comity explain`; `/v1/connect/ca/roots` by curl or Consul's own command."
        }
        "kv" => "There is no key/value store here.",
        "members" => "`comity status` for this cluster, `comity link list` for others.",
        _ => return None,
    })
}

/// Whether arguments that cannot be parsed ask for JSON all the same.
pub fn asks_for_json(arguments: &[OsString]) -> bool {
    arguments.iter().any(|argument| argument == "--format=json")
        || arguments.windows(2).any(|pair| pair[0] == "--format" && pair[1] == "json")
}

/// `text` with everything blotted out that could be a token pasted in the wrong place: clap repeats what it was given.
fn without_secrets(text: &str) -> String {
    /// Longer than any word or flag, shorter than any secret.
    const SUSPICIOUS: usize = 40;
    let of_a_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=' | '-' | '_');
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(of_a_token) {
        let (before, from) = rest.split_at(start);
        let (run, after) = from.split_at(from.find(|c| !of_a_token(c)).unwrap_or(from.len()));
        shown.push_str(before);
        shown.push_str(if run.len() < SUSPICIOUS { run } else { "(not shown: it may be a secret)" });
        rest = after;
    }
    shown + rest
}

/// Reports a failure in the format asked for, and gives the code to end with.
pub fn conclude(ended: Result<ExitCode, CliError>, output: &Output) -> Result<ExitCode, CliError> {
    let ended = ended.and_then(|code| output.finish().map(|()| code));
    match ended {
        Err(error) if output.format() == Format::Json => {
            let body = json!({"error": {"message": without_tokens(&error.message), "hint": error.hint, "code": error.code}});
            let _ = writeln!(std::io::stderr(), "{body}");
            Ok(error.exit)
        }
        ended => ended,
    }
}

/// Ends the process.
pub fn end(ended: Result<ExitCode, CliError>) -> std::process::ExitCode {
    let code = match ended {
        Ok(code) => code,
        Err(error) => {
            let mut stderr = anstream::stderr().lock();
            let message = without_tokens(&error.message);
            // Consul's own lines begin so, and are looked for as they are.
            let word = if message.starts_with("Error") { "" } else { "Error: " };
            let _ = writeln!(stderr, "{word}{}", visible(&message));
            if let Some(hint) = &error.hint {
                let _ = writeln!(stderr, "Hint: {}", visible(&without_tokens(hint)));
            }
            error.exit
        }
    };
    std::process::ExitCode::from(code.number())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(arguments: &[&str]) -> clap::Error {
        super::super::parse(arguments.iter().map(Into::into).collect()).unwrap_err()
    }

    #[test]
    fn wrong_usage_ends_with_64_and_help_with_0() {
        assert_eq!(usage(&refused(&["comity", "--help"]), false), ExitCode::Done);
        assert_eq!(usage(&refused(&["comity", "--version"]), true), ExitCode::Done);
        for wrong in [&["comity"][..], &["comity", "nonsense"], &["comity", "status", "--wait", "soon"]] {
            assert_eq!(usage(&refused(wrong), false), ExitCode::Usage, "{wrong:?}");
        }
        let numbers =
            [ExitCode::Done, ExitCode::Failed, ExitCode::Changes, ExitCode::Usage, ExitCode::Interrupted];
        assert_eq!(numbers.map(ExitCode::number), [0, 1, 2, 64, 130]);
    }

    #[test]
    fn who_comes_from_consul_is_told_what_does_the_same() {
        for (arguments, word) in [
            (&["comity", "catalog", "services"][..], "comity service list"),
            (&["comity", "connect", "ca"], "comity intention"),
            (&["comity", "members"], "comity status"),
            (&["comity", "acl", "token", "list"], "comity auth"),
            (&["comity", "kv", "get", "x"], "no key/value store"),
        ] {
            let hint = consuls_noun(&refused(arguments)).unwrap();
            assert!(hint.contains(word), "{arguments:?}: {hint}");
        }
        assert_eq!(consuls_noun(&refused(&["comity", "nonsense"])), None);
    }

    #[test]
    fn a_token_in_the_wrong_place_is_never_repeated() {
        let token = "eyJjbGllbnRfbmFtZSI6ImxhcHRvcCIsImZpbmdlcnByaW50IjoiYWJjIn0=";
        for place in [
            &["comity", token][..],
            &["comity", "status", token],
            &["comity", "remote", "add", "east", token, token],
            &["comity", "status", "--wait", token],
            &["comity", "status", &format!("--wait={token}")],
            &["comity", &format!("--{token}")],
        ] {
            let shown = without_secrets(&refused(place).render().to_string());
            assert!(!shown.contains("eyJ") && shown.contains("not shown"), "{shown}");
        }
        let named = super::super::context::name::<schema::name::RemoteName>("NAME", token).unwrap_err();
        assert!(!named.message.contains("eyJ"), "{}", named.message);
        assert_eq!(named.exit, ExitCode::Failed);
    }
}
