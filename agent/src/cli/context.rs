//! What every noun is given: where the agent is, and where results go.

use std::path::{Path, PathBuf};

use schema::name::RemoteName;

use super::failure::CliError;
use super::output::{Format, Output};
use super::remotes::Remotes;

/// The agent that was asked for, and the output.
#[derive(Debug)]
pub struct Context {
    pub output: Output,
    pub remotes: Remotes,
    chosen: Chosen,
}

/// What the global flags said about the agent to talk to.
#[derive(Debug)]
enum Chosen {
    Socket(PathBuf),
    Remote(RemoteName),
    Default,
}

impl Context {
    pub fn new(
        socket: Option<PathBuf>,
        remote: Option<String>,
        format: Format,
        quiet: bool,
    ) -> Result<Self, CliError> {
        let chosen = match (socket, remote) {
            (Some(socket), _) => Chosen::Socket(socket),
            (None, Some(remote)) => Chosen::Remote(name("--remote", &remote)?),
            (None, None) => Chosen::Default,
        };
        Ok(Self { output: Output::new(format, quiet), remotes: Remotes::locate()?, chosen })
    }

    /// `--socket`, if it was given.
    pub fn socket(&self) -> Option<&Path> {
        match &self.chosen {
            Chosen::Socket(path) => Some(path),
            Chosen::Remote(_) | Chosen::Default => None,
        }
    }
}

/// Parses a name given on the command line. A token pasted in its place is not repeated by the message.
pub fn name<T>(place: &str, text: &str) -> Result<T, CliError>
where
    T: std::str::FromStr<Err = schema::name::NameError>,
{
    text.parse().map_err(|error| CliError::usage(format!("{place}: {error}")).code("bad-name"))
}
