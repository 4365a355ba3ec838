//! What every noun is given: where the agent is, and where results go.
//!
//! In this order: `--socket`, `--remote`, `COMITY_SOCKET`, the default remote. `local` is the socket that
//! `COMITY_SOCKET` names, or else the one of an agent installed on this machine.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::Method;
use schema::name::{ProjectName, RemoteName};

use super::failure::CliError;
use super::interrupt::Interrupts;
use super::login;
use super::output::{self, Output};
use super::remotes::{AuthType, Folder, LOCAL, Local, LoginFiles, Remotes};
use super::{Globals, again};
use crate::client::login::Session;
use crate::client::{Client, NO_BODY};
use crate::trust::certificate::fingerprint;
use crate::wire::status::Status;
use crate::wire::token::TrustToken;

/// Where an installed agent has its socket.
const SYSTEM_SOCKET: &str = "/var/lib/comity/unix.socket";

/// The agent that was asked for, and the output.
#[derive(Debug)]
pub struct Context {
    pub output: Output,
    pub folder: Folder,
    pub interrupts: Interrupts,
    /// The command line as it was given, to be told where it is to be given again.
    given: Vec<OsString>,
    local: PathBuf,
    chosen: Chosen,
    /// `--project`.
    project: Option<ProjectName>,
}

/// What was said about the agent to talk to.
#[derive(Debug)]
enum Chosen {
    Socket(PathBuf),
    Remote(RemoteName),
    Default,
}

impl Context {
    pub(super) fn new(globals: Globals, given: Vec<OsString>) -> Result<Self, CliError> {
        let Globals { socket, remote, project, format, quiet } = globals;
        let named = std::env::var_os("COMITY_SOCKET").filter(|path| !path.is_empty()).map(PathBuf::from);
        let chosen = match (socket, remote, &named) {
            (Some(socket), _, _) => Chosen::Socket(socket),
            (None, Some(remote), _) => Chosen::Remote(name("--remote", &remote)?),
            (None, None, Some(socket)) => Chosen::Socket(socket.clone()),
            (None, None, None) => Chosen::Default,
        };
        let local = named.unwrap_or_else(|| PathBuf::from(SYSTEM_SOCKET));
        let project = project.as_deref().map(|project| name("--project", project)).transpose()?;
        let (output, folder) = (Output::new(format, quiet), Folder::locate());
        Ok(Self { output, folder, interrupts: Interrupts::default(), given, local, chosen, project })
    }

    /// How a command begins that asks the same agent.
    pub fn command(&self) -> String {
        let mut command = "comity".to_owned();
        match &self.chosen {
            // The environment stays as it is.
            Chosen::Socket(path) if std::env::var_os("COMITY_SOCKET").is_none_or(|named| named != **path) => {
                // Writing to a String does not fail.
                let _ = write!(command, " --socket {}", again::quoted(&path.to_string_lossy()));
            }
            Chosen::Remote(name) => {
                let _ = write!(command, " --remote {name}");
            }
            Chosen::Socket(_) | Chosen::Default => {}
        }
        if let Some(project) = &self.project {
            let _ = write!(command, " --project {project}");
        }
        command
    }

    /// This command, for a message that says to give it again.
    pub fn again(&self) -> String {
        again::shown(&self.given, &[])
    }

    /// The same with one flag more.
    pub fn again_with(&self, flag: &str) -> String {
        again::shown(&self.given, &[flag])
    }

    /// Says so, if `word` is a remote's name whose colon was forgotten, which means something else then.
    pub fn meant_remote(&self, word: &str, verb: &str) {
        let known = word
            .parse::<RemoteName>()
            .is_ok_and(|name| self.folder.load().is_ok_and(|remotes| remotes.get(&name).is_ok()));
        if known {
            self.output.note(format!("{word} is a remote as well: `comity {verb} {word}:` asks that."));
        }
    }

    /// A failure with what is known of it here: a project that is not there is one that was named.
    pub fn explained(&self, error: CliError) -> CliError {
        match &self.project {
            Some(project) if error.message == "Project not found" => {
                let message = format!("project {project} does not exist, or is not yours to see");
                let hint = "`comity project list [REMOTE:]` shows those that you may see.";
                CliError { message, ..error.hint(hint) }
            }
            _ => error,
        }
    }

    /// `--project`, where it was given.
    pub fn project(&self) -> Option<&ProjectName> {
        self.project.as_ref()
    }

    /// The agent to talk to. Without a name: the one that the flags, the environment or the default say. With one
    /// (from an operand such as `east:default/orders`, or a manifest's `cluster`): the remote of that name, or the
    /// agent behind the socket, if that is what its cluster is called.
    pub async fn client(&self, remote: Option<&RemoteName>) -> Result<Client, CliError> {
        let client = self.agent(remote).await?;
        Ok(match &self.project {
            Some(project) => client.wholly_in_project(project.clone()),
            None => client,
        })
    }

    async fn agent(&self, remote: Option<&RemoteName>) -> Result<Client, CliError> {
        let Some(wanted) = remote else {
            return match &self.chosen {
                Chosen::Socket(path) => Ok(Client::unix(path)),
                Chosen::Remote(name) => self.remote(&self.folder.load()?, name),
                Chosen::Default => self.default(),
            };
        };
        let remotes = self.folder.load()?;
        let socket = match &self.chosen {
            Chosen::Socket(path) => path,
            Chosen::Remote(_) | Chosen::Default => &self.local,
        };
        let known = wanted.as_str() == LOCAL || remotes.get(wanted).is_ok();
        // A socket given by hand goes before a remote: it was meant for this command.
        if (!known || matches!(self.chosen, Chosen::Socket(_))) && is_called(socket, wanted).await {
            return Ok(Client::unix(socket));
        }
        self.remote(&remotes, wanted)
    }

    /// The client of a remote that is known.
    pub fn remote(&self, remotes: &Remotes, name: &RemoteName) -> Result<Client, CliError> {
        if name.as_str() == LOCAL {
            return Ok(Client::unix(&self.local));
        }
        let remote = remotes.get(name).map_err(|error| {
            CliError::failed(&error).code("unknown-remote").hint(format!(
                "`comity remote list` shows those that there are; `comity remote add {name} TOKEN` adds one."
            ))
        })?;
        let pin = fingerprint(&self.folder.certificate(name)?);
        let (folder, called, quiet) = (self.folder.clone(), name.clone(), self.output.quiet());
        let identity = match remote.auth_type {
            AuthType::Tls => Some(self.folder.client()?),
            AuthType::Oidc | AuthType::None => None,
        };
        let mut client = Client::pinned(name.as_str(), remote.addresses.clone(), pin, identity)
            .in_project(remote.project.clone());
        if remote.auth_type == AuthType::Oidc {
            let files = Arc::new(LoginFiles::new(&self.folder, name));
            client = client.logged_in(Arc::new(Session::new(name.as_str(), files, login::onlooker())));
        }
        Ok(client.following(move |moved| {
            let pinned = match folder.repin(&called, moved) {
                Ok(()) => "the new one is pinned now".to_owned(),
                Err(error) => format!("it could not be pinned: {error}"),
            };
            output::remark(
                quiet,
                format!(
                    "The certificate of {called} was renewed, as the old key proves: {} follows {}; {pinned}.",
                    moved.to, moved.from
                ),
            );
        }))
    }

    /// `local`'s address as lists show it.
    pub fn local_url(&self) -> String {
        format!("unix://{}", self.local.display())
    }

    /// The agent of this machine, as far as it is seen without calling it.
    pub fn local_agent(&self) -> Local {
        Local { url: self.local_url(), answers: self.local.exists() }
    }

    fn default(&self) -> Result<Client, CliError> {
        let remotes = self.folder.load()?;
        match remotes.chosen() {
            Some(name) => self.remote(&remotes, name),
            None if remotes.is_empty() && !self.local.exists() => {
                Err(CliError::failed(format!("there is no agent at {} and no remote is known", self.local.display()))
                    .code("no-agent")
                    .hint("`comity remote add NAME TOKEN` adds a remote, with a token from `comity trust add` there. For an agent on this machine, give its DATA_DIR/unix.socket with --socket or COMITY_SOCKET."))
            }
            None => Ok(Client::unix(&self.local)),
        }
    }
}

/// Whether the agent behind `socket` answers and its cluster has this name.
async fn is_called(socket: &Path, name: &RemoteName) -> bool {
    let asked = Client::unix(socket).request::<Status>(Method::GET, "/control/v1/status", NO_BODY).await;
    asked.is_ok_and(|status| status.name.as_str() == name.as_str())
}

/// Parses a name given on the command line. A token pasted in its place is not repeated by the message.
pub fn name<T>(place: &str, text: &str) -> Result<T, CliError>
where
    T: std::str::FromStr<Err = schema::name::NameError>,
{
    text.parse().map_err(|error| {
        let failed = CliError::failed(format!("{place}: {error}")).code("bad-name");
        match TrustToken::decode(text) {
            Ok(_) => failed.hint("This is a trust token; a name belongs here."),
            Err(_) => failed,
        }
    })
}
