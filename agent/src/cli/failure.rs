//! How a command ends: exit codes, and errors with what to do about them.

use std::fmt::Display;
use std::io::Write as _;

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
    Usage,
    Interrupted,
}

impl ExitCode {
    pub fn number(self) -> u8 {
        match self {
            ExitCode::Done => 0,
            ExitCode::Failed => 1,
            ExitCode::Changes => 2,
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
            ClientError::Unreachable { .. } => {
                ("not-reachable".to_owned(), Some("Is the agent running? `comity agent` starts it; `comity status --wait 10s` waits for it.".to_owned()))
            }
            ClientError::Mismatch { .. } => (
                "wrong-certificate".to_owned(),
                Some("Somebody else may be answering in its place. If the agent was set up anew, remove the remote and add it with a new token.".to_owned()),
            ),
            ClientError::Timeout { .. } => ("timeout".to_owned(), None),
            ClientError::Broken { .. } => ("broken-connection".to_owned(), None),
            ClientError::Refused { code, hint, .. } => (code, hint),
            ClientError::Unexpected { .. } => ("unexpected-answer".to_owned(), None),
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
pub fn usage(error: &clap::Error) -> Result<ExitCode, CliError> {
    let _ = error.print();
    Ok(if error.use_stderr() { ExitCode::Usage } else { ExitCode::Done })
}

/// Reports a failure in the format asked for, and gives the code to end with.
pub fn conclude(ended: Result<ExitCode, CliError>, output: &Output) -> Result<ExitCode, CliError> {
    let ended = ended.and_then(|code| output.finish().map(|()| code));
    match ended {
        Err(error) if output.format() == Format::Json => {
            let body = json!({"error": {"message": error.message, "hint": error.hint, "code": error.code}});
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
            let _ = writeln!(stderr, "Error: {}", error.message);
            if let Some(hint) = &error.hint {
                let _ = writeln!(stderr, "Hint: {hint}");
            }
            error.exit
        }
    };
    std::process::ExitCode::from(code.number())
}
